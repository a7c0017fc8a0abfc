"""What an attack hands back: images, and what the engine measured on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Float32, Float64, Int
from torch import Tensor

from attacks.goals import Goal


@dataclass(frozen=True, slots=True, eq=False)
class AttackResult:
    """One row for each image given, in their order, all on the CPU. Decided and measured by the engine, not by the attack.

    Rows that were not eligible, and rows that already meet the goal, come back as they were given.

    Attributes:
        method, variant: Which attack, and whether as released or as it should be.
        goal: The goal of every row; `goal.eligible` says which were attacked.
        images: Adversarial images, inside the range of pixels and inside the ball, if there is one.
        clean: The images given, in float32.
        success: Eligible rows whose goal is satisfied strictly by the float64 scores of the float32 image.
        already_met: Rows whose clean image satisfies the goal already; a success there shows nothing.
        met: How many constraints hold strictly at the image.
        margin: The goal's margin at the image: > 0 iff it is satisfied.
        scores, clean_scores: float64 logits at the image and at the clean one.
        l1, l2, linf: Norms of the difference to the clean image, in float64 and in units of [0, 1].
        iterations: Steps taken for each row; for a black-box attack, generations.
        history: The goal's margin at every point visited, one row an iteration; may be empty.
        reported: What the released code would report in place of a norm of the difference, by name; may be empty.
        shared: The one perturbation of a universal attack, before clipping; otherwise None.
        norm, eps: The ball, or None.
        seed: All randomness of a row comes from it, and from the row's own image and labels.
        options: The attack's own options, by name.
    """

    method: str
    variant: str
    goal: Goal
    images: Float32[Tensor, "rows ..."]
    clean: Float32[Tensor, "rows ..."]
    success: Bool[Tensor, " rows"]
    already_met: Bool[Tensor, " rows"]
    met: Int[Tensor, " rows"]
    margin: Float64[Tensor, " rows"]
    scores: Float64[Tensor, "rows labels"]
    clean_scores: Float64[Tensor, "rows labels"]
    l1: Float64[Tensor, " rows"]
    l2: Float64[Tensor, " rows"]
    linf: Float64[Tensor, " rows"]
    iterations: Int[Tensor, " rows"]
    history: Float[Tensor, "iterations rows"]
    reported: Mapping[str, Float64[Tensor, " rows"]] = field(default_factory=dict)
    shared: Float32[Tensor, "..."] | None = None
    norm: str | None = None
    eps: float | None = None
    seed: int = 0
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def deltas(self) -> Float64[Tensor, "rows ..."]:
        """The exact difference between image and clean image."""
        return self.images.double() - self.clean.double()

    @property
    def eligible(self) -> Bool[Tensor, " rows"]:
        """Rows that were attacked, or met the goal already."""
        return self.goal.eligible

    @property
    def success_rate(self) -> float:
        """Successes among eligible rows; NaN if there is none."""
        eligible = int(self.eligible.sum())
        return int(self.success.sum()) / eligible if eligible else float("nan")
