"""The loop every gradient attack shares: loss x domain x step rule x what to keep and when to stop.

Rows never influence one another, except that `StopRule.at_first` ends the whole run once one row has succeeded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attacks.domains import Domain
from attacks.losses import Loss
from attacks.steps import StepRule
from verifier.deadline import Deadline

Model = Callable[[Tensor], Tensor]


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
    """The best point of every row.

    Attributes:
        points: Each inside the domain.
        values: The objective at each; -inf where it was never finite.
        iterations: Gradient steps taken.
        succeeded: The rows whose objective passed the stop rule's threshold.
    """

    points: Float[Tensor, "rows ..."]
    values: Float[Tensor, " rows"]
    iterations: int
    succeeded: Bool[Tensor, " rows"]


@dataclass(frozen=True, slots=True)
class Ascent:
    """One attack: what to climb, where, how, and what counts.

    Attributes:
        loss: Differentiated and climbed.
        objective: What the best point of a row is chosen by; it need not be smooth.
        domain: Never left.
        step: The rule of movement.
        stop: When to end.
        iterations: Gradient steps at most.
    """

    loss: Loss
    objective: Loss
    domain: Domain
    step: StepRule
    stop: StopRule = field(default_factory=StopRule)
    iterations: int = 50


def run(ascent: Ascent, model: Model, starts: Float[Tensor, "rows ..."], deadline: Deadline) -> Found:
    """Climbs from `starts` (projected first) and returns the best point each row met, its start included.

    The model is evaluated once more than there are steps, so that the last points count. When the deadline expires the best so
    far is returned; an expired deadline still evaluates the starts. Gradients that are not finite are taken as 0.
    """
    points = ascent.domain.project(starts)
    stepper = ascent.step.begin(ascent.domain, points, ascent.iterations)
    best, values = points, torch.full((len(points),), -torch.inf, dtype=points.dtype, device=points.device)
    taken = 0
    while True:
        is_last = taken == ascent.iterations or deadline.has_expired
        losses, gradients, reached = _evaluate(ascent, model, points, needs_gradient=not is_last)
        improved = reached > values
        best = torch.where(improved.reshape(-1, *([1] * (points.ndim - 1))), points, best)
        values = torch.where(improved, reached, values)
        succeeded = values > ascent.stop.above
        if is_last or bool(succeeded.all()) or (ascent.stop.at_first and bool(succeeded.any())):
            return Found(best, values, taken, succeeded)
        following = stepper.advance(points, losses, gradients)
        points = torch.where(succeeded.reshape(-1, *([1] * (points.ndim - 1))), points, following)
        taken += 1


def _evaluate(
    ascent: Ascent, model: Model, points: Float[Tensor, "rows ..."], *, needs_gradient: bool
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows ..."], Float[Tensor, " rows"]]:
    """Loss, its gradient (zero when not needed) and objective of every row."""
    with torch.enable_grad():
        inputs = points.detach().requires_grad_(needs_gradient)
        scores = model(inputs)
        losses = ascent.loss(scores)
        # The sum keeps rows apart: each row's loss depends on its own point only.
        gradients = torch.autograd.grad(losses.sum(), inputs)[0] if needs_gradient else torch.zeros_like(points)
    reached = ascent.objective(scores.detach())
    finite = torch.nan_to_num(gradients, nan=0.0, posinf=0.0, neginf=0.0)
    return (
        torch.nan_to_num(losses.detach(), nan=-torch.inf),
        finite,
        torch.where(reached.isfinite(), reached, -torch.inf),
    )
