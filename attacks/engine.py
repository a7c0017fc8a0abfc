"""The loop every iterative attack shares: loss x domain x step rule x what to keep and when to stop.

Rows never influence one another, except that `StopRule.at_first` ends the whole run once one row has succeeded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attacks.domains import Domain
from attacks.losses import Loss
from attacks.steps import StepRule, per_row
from verifier.deadline import Deadline

Model = Callable[[Tensor], Tensor]


@runtime_checkable
class RowLoss(Protocol):
    """A number per row to be made large. A row's number depends on that row's scores and point alone."""

    def __call__(
        self, scores: Float[Tensor, "rows labels"], points: Float[Tensor, "rows ..."]
    ) -> Float[Tensor, " rows"]:
        """The loss of each row."""


@dataclass(frozen=True, slots=True)
class OfScores:
    """A loss that does not look at the points."""

    loss: Loss

    def __call__(
        self,
        scores: Float[Tensor, "rows labels"],
        points: Float[Tensor, "rows ..."],  # noqa: ARG002
    ) -> Float[Tensor, " rows"]:
        """The loss of each row."""
        return self.loss(scores)


class Keep(Enum):
    """Which of the points that a row met is returned."""

    BEST = "the highest objective"
    LAST = "the last one"


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a row has succeeded, and what follows.

    Attributes:
        above: A row has succeeded once its objective exceeds this.
        at_first: Whether one row's success ends the run; otherwise each successful row freezes and the rest goes on.
    """

    above: float = float("inf")
    at_first: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The point kept of every row.

    Attributes:
        points: Each inside the domain.
        values: The objective at each; -inf where it was never finite.
        iterations: Steps taken.
        succeeded: The rows whose objective passed the stop rule's threshold.
        steps: Steps of each row before it froze.
        history: What `Ascent.record` says of each point visited, the start first; empty without it.
    """

    points: Float[Tensor, "rows ..."]
    values: Float[Tensor, " rows"]
    iterations: int
    succeeded: Bool[Tensor, " rows"]
    steps: Int[Tensor, " rows"]
    history: Float[Tensor, "visits rows"]


@dataclass(frozen=True, slots=True)
class Ascent:
    """One attack: what to climb, where, how, and what counts.

    Attributes:
        loss: Differentiated and climbed; None if the step rule finds its own way.
        objective: What the best point of a row is chosen by; it need not be smooth.
        domain: Never left.
        step: The rule of movement.
        stop: When to end.
        iterations: Steps at most.
        keep: Which point of a row is returned.
        record: A number of each point visited, for the history.
    """

    loss: RowLoss | None
    objective: RowLoss
    domain: Domain
    step: StepRule
    stop: StopRule = field(default_factory=StopRule)
    iterations: int = 50
    keep: Keep = Keep.BEST
    record: Loss | None = None


def run(ascent: Ascent, model: Model, starts: Float[Tensor, "rows ..."], deadline: Deadline) -> Found:
    """Moves from `starts` (projected first) and returns the point kept of each row, its start being one of those met.

    The model is evaluated once more than there are steps, so that the last points count. When the deadline expires the best so
    far is returned; an expired deadline still evaluates the starts. Gradients that are not finite are taken as 0.
    """
    points = ascent.domain.project(starts)
    stepper = ascent.step.begin(ascent.domain, points, ascent.iterations)
    kept, values = points, torch.full((len(points),), -torch.inf, dtype=points.dtype, device=points.device)
    succeeded = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    steps = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    history: list[Tensor] = []
    taken = 0
    while True:
        is_last = taken == ascent.iterations or deadline.has_expired
        losses, gradients, reached, recorded = _evaluate(ascent, model, points, needs_gradient=not is_last)
        if recorded is not None:
            history.append(recorded)
        values = values.to(reached.dtype)
        improved = reached > values if ascent.keep is Keep.BEST else ~succeeded
        kept = torch.where(per_row(improved, points), points, kept)
        values = torch.where(improved, reached, values)
        succeeded = succeeded | (values > ascent.stop.above)
        if is_last or bool(succeeded.all()) or (ascent.stop.at_first and bool(succeeded.any())):
            visits = torch.stack(history) if history else values.new_zeros((0, len(points)))
            return Found(kept, values, taken, succeeded, steps, visits)
        following = stepper.advance(points, losses, gradients)
        points = torch.where(per_row(succeeded, points), points, following)
        steps += ~succeeded
        taken += 1


def _evaluate(
    ascent: Ascent, model: Model, points: Float[Tensor, "rows ..."], *, needs_gradient: bool
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows ..."], Float[Tensor, " rows"], Float[Tensor, " rows"] | None]:
    """Loss, its gradient (zero when not needed), objective and what is recorded of every row."""
    climbs = needs_gradient and ascent.loss is not None
    with torch.set_grad_enabled(climbs):
        inputs = points.detach().requires_grad_(climbs)
        scores = model(inputs)
        losses = points.new_zeros(len(points)) if ascent.loss is None else ascent.loss(scores, inputs)
        # The sum keeps rows apart: each row's loss depends on its own point only.
        gradients = torch.autograd.grad(losses.sum(), inputs)[0] if climbs else torch.zeros_like(points)
    reached = ascent.objective(scores.detach(), points)
    return (
        torch.nan_to_num(losses.detach(), nan=-torch.inf),
        torch.nan_to_num(gradients, nan=0.0, posinf=0.0, neginf=0.0),
        torch.where(reached.isfinite(), reached, -torch.inf),
        None if ascent.record is None else ascent.record(scores.detach()),
    )
