"""The loop every iterative attack shares: loss x domain x step rule x what to keep and when to stop.

Rows never influence one another, except that `StopRule.at_first` ends the whole run once one row has succeeded. Rows that
have ended are no longer computed where the ascent says how to go on without them.
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
        narrow: The same ascent for some of its rows, given by index; None if only all rows together make sense.
    """

    loss: RowLoss | None
    objective: RowLoss
    domain: Domain
    step: StepRule
    stop: StopRule = field(default_factory=StopRule)
    iterations: int = 50
    keep: Keep = Keep.BEST
    record: Loss | None = None
    narrow: "Callable[[Tensor], Ascent] | None" = None


class _Ledger:
    """What is known of every row of a run, those that have ended included."""

    def __init__(self, starts: Float[Tensor, "rows ..."]) -> None:
        rows, device = len(starts), starts.device
        self.points = starts.clone()
        self.values = torch.full((rows,), -torch.inf, dtype=torch.float64, device=device)
        self.succeeded = torch.zeros(rows, dtype=torch.bool, device=device)
        self.steps = torch.zeros(rows, dtype=torch.int64, device=device)
        self.history: list[Tensor] = []

    def take(self, moving: Tensor, points: Tensor, reached: Tensor, keep: Keep) -> None:
        """Notes what the moving rows reached, and keeps the points that are to be kept."""
        self.values = self.values.to(reached.dtype)
        improved = reached > self.values[moving] if keep is Keep.BEST else ~self.succeeded[moving]
        chosen = improved.nonzero()[:, 0]
        self.points[moving[chosen]] = points[chosen]
        self.values[moving[chosen]] = reached[chosen]

    def show(self, moving: Tensor, recorded: Tensor) -> None:
        """Adds a visit; rows that have ended repeat their last one."""
        visit = self.history[-1].clone() if self.history else recorded.new_zeros(len(self.values))
        visit[moving] = recorded
        self.history.append(visit)

    def found(self, taken: int) -> Found:
        """The answer after so many steps."""
        visits = torch.stack(self.history) if self.history else self.values.new_zeros((0, len(self.values)))
        return Found(self.points, self.values, taken, self.succeeded, self.steps, visits)


def run(ascent: Ascent, model: Model, starts: Float[Tensor, "rows ..."], deadline: Deadline) -> Found:
    """Moves from `starts` (projected first) and returns the point kept of each row, its start being one of those met.

    The model is evaluated once more than there are steps, so that the last points count. When the deadline expires the best so
    far is returned; an expired deadline still evaluates the starts. Gradients that are not finite are taken as 0.
    """
    points = ascent.domain.project(starts)
    stepper = ascent.step.begin(ascent.domain, points, ascent.iterations)
    moving = torch.arange(len(points), device=points.device)
    ledger = _Ledger(points)
    taken = 0
    while True:
        is_last = taken == ascent.iterations or deadline.has_expired
        losses, gradients, reached, recorded = _evaluate(ascent, model, points, needs_gradient=not is_last)
        if recorded is not None:
            ledger.show(moving, recorded)
        ledger.take(moving, points, reached, ascent.keep)
        ended = ledger.values[moving] > ascent.stop.above
        ledger.succeeded[moving] |= ended
        count = int(ended.sum())
        if is_last or count == len(moving) or (ascent.stop.at_first and count):
            return ledger.found(taken)
        if ascent.narrow is not None and count:
            going = (~ended).nonzero()[:, 0]
            ascent = ascent.narrow(going)
            stepper.keep(going)
            moving, points, losses, gradients, ended = (
                each[going] for each in (moving, points, losses, gradients, ended)
            )
            count = 0
        following = stepper.advance(points, losses, gradients)
        points = torch.where(per_row(ended, points), points, following) if count else following
        ledger.steps[moving] += ~ended
        taken += 1


def _finite(gradients: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """The gradients with 0 for every entry that is not finite; a finite sum says that there is none."""
    if bool(gradients.sum().isfinite()):
        return gradients
    return torch.nan_to_num(gradients, nan=0.0, posinf=0.0, neginf=0.0)


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
        _finite(gradients),
        torch.where(reached.isfinite(), reached, -torch.inf),
        None if ascent.record is None else ascent.record(scores.detach()),
    )
