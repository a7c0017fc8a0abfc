"""ML-CW, Rank I and Rank II: the l2 norm plus a weighted loss, with a search for the weight of each row.

The weight starts at `first_weight`. After each run it is raised tenfold for rows that were not solved, and bisected between the
largest weight that failed and the smallest that succeeded for the others (Carlini and Wagner 2017; Song et al. 2018). ML-CW
has solved a row that meets its goal, Rank I and II one whose labels are ranked as wished. The variable is the change itself,
projected; through the published tanh a black or white pixel takes hundreds of steps to move at all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.goals import Goal
from attacks.gradient_steps import AdamStep, DeltaSpace, TanhSpace
from attacks.methods.method import Method, Variant, at_least
from attacks.problem import GoalLoss, Outcome, Problem, Smallest, ascend
from attacks.score_losses import HingeLoss, Penalised, RankLoss, cosine_agreement, rank_agreement

_MOST = 1e10


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Of the search for the weight and of Adam.

    Attributes:
        searches: Runs, each with its own weight.
        iterations: Adam steps of a run.
        rate: Adam's learning rate, in pixels; as released, in the variable of the tanh.
        first_weight: The weight of the first run.
    """

    searches: int = 6
    iterations: int = 100
    rate: float = 0.01
    first_weight: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, searches=1, iterations=1, rate=0, first_weight=0)


@dataclass(frozen=True, slots=True)
class HingeOptions(SearchOptions):
    """ML-CW.

    Attributes:
        kappa: The logit margin aimed at.
    """

    kappa: float = 0.05

    def __post_init__(self) -> None:
        at_least(self, searches=1, iterations=1, rate=0, first_weight=0, kappa=0)


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Keeps the best agreement with the wished order of labels, then the smaller difference; successes first if asked."""

    smallest: Smallest
    agreement: Callable[[Goal, Tensor], Tensor]
    prefers_success: bool

    def at(self, rows: Tensor) -> "Agreement":
        """The order of some rows."""
        return Agreement(self.smallest.at(rows), self.agreement, self.prefers_success)

    def __call__(
        self, scores: Float[Tensor, "rows labels"], points: Float[Tensor, "rows pixels"]
    ) -> Float[Tensor, " rows"]:
        """Agreement, plus a little for closeness, plus 4 for a success."""
        order = self.smallest(scores, points)
        is_success = order > self.smallest.success
        # The fractional part of `smallest` is the closeness 1 / (1 + norm); it is 1 at the clean image itself.
        closeness = order - (order.ceil() - 1.0)
        bonus = torch.where(is_success, 4.0, 0.0) if self.prefers_success else 0.0
        value = self.agreement(self.smallest.goal, scores) + 1e-6 * closeness + bonus
        return torch.where(order.isfinite(), value, -torch.inf)


def _search(
    problem: Problem,
    options: SearchOptions,
    loss: HingeLoss | RankLoss,
    is_solved: Callable[[Tensor, Tensor], Tensor],
    objective: GoalLoss | None = None,
    *,
    in_tanh: bool,
) -> Outcome:
    """Runs with different weights for each row; the best point of all runs."""
    rows = len(problem.clean)
    weight = problem.clean.new_full((rows,), options.first_weight)
    failed, succeeded = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    space = TanhSpace(problem.ball.lower, problem.ball.upper) if in_tanh else DeltaSpace(problem.clean)
    step = AdamStep(space, options.rate)

    def attempt() -> Outcome:
        penalised = Penalised(loss, problem.clean, 1.0, weight)
        return ascend(problem, penalised, step, options.iterations, objective=objective, stops=False)

    found = best = attempt()
    for _ in range(options.searches - 1):
        if problem.deadline.has_expired:
            break
        with torch.no_grad():
            has_success = is_solved(problem.model(found.points), found.points)
        succeeded = torch.where(has_success, torch.minimum(succeeded, weight), succeeded)
        failed = torch.where(has_success, failed, torch.maximum(failed, weight))
        raised = (10.0 * weight).clamp(max=_MOST)
        weight = torch.where(succeeded.isfinite(), 0.5 * (failed + succeeded), raised)
        found = attempt()
        best = best.better(found)
    return best


def _ml_cw(problem: Problem, options: HingeOptions, variant: Variant) -> Outcome:
    """|delta|^2 + weight * sum of hinges."""
    released = variant is Variant.RELEASED
    hinge = HingeLoss(problem.goal, options.kappa, of_probabilities=released)
    order = problem.objective()
    return _search(
        problem, options, hinge, lambda scores, points: order(scores, points) > order.success, in_tanh=released
    )


def _ranking(problem: Problem, options: SearchOptions, variant: Variant, *, is_second: bool) -> Outcome:
    released = variant is Variant.RELEASED
    loss = RankLoss(problem.goal, is_second, released)
    agreement = cosine_agreement if released and is_second else rank_agreement
    objective = Agreement(problem.objective(), agreement, prefers_success=not released)
    return _search(
        problem, options, loss, lambda scores, points: loss(scores, points) >= 0.0, objective, in_tanh=released
    )


def _rank_one(problem: Problem, options: SearchOptions, variant: Variant) -> Outcome:
    return _ranking(problem, options, variant, is_second=False)


def _rank_two(problem: Problem, options: SearchOptions, variant: Variant) -> Outcome:
    return _ranking(problem, options, variant, is_second=True)


_PUBLISHED: dict[str, object] = {"searches": 10, "iterations": 1000, "rate": 0.01, "first_weight": 1e5}
_SHARED = (
    "optimises through tanh, starts at weight 1e5, 10 runs of 1000 iterations, no margin; "
    "not reproduced: an early end judged by the whole batch, and "
    "a last run at weight 1e10 for images without success"
)

METHODS = (
    Method(
        "ml-cw",
        "smallest l2 change with a hinge on every label",
        "Song et al. 2018",
        HingeOptions,
        _ml_cw,
        f"the hinge is on probabilities minus 1/2; {_SHARED}",
        released=_PUBLISHED | {"kappa": 0.0},
    ),
    Method(
        "rank-1",
        "labels to be off ranked below labels to be on",
        "Song et al. 2018",
        SearchOptions,
        _rank_one,
        f"compares probabilities, ignores labels that do not matter, and takes 0 and 1 for empty sets; {_SHARED}",
        released=_PUBLISHED,
    ),
    Method(
        "rank-2",
        "Rank I, and flipped labels ranked beyond held ones",
        "Song et al. 2018",
        SearchOptions,
        _rank_two,
        f"as Rank I; lacks its last term and keeps the image with the best cosine instead of Kendall's tau; {_SHARED}",
        released=_PUBLISHED,
    ),
)
