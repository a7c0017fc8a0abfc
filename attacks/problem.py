"""What a method is handed, and the common way to run the engine on it."""

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attacks.ball import Ball, Norm, norms
from attacks.engine import Ascent, Found, Keep, Model, RowLoss, StopRule, run
from attacks.goals import Goal
from attacks.steps import StepRule, per_row, rows_of
from verifier.deadline import Deadline
from verifier.network import Network

Rows = Float[Tensor, "rows pixels"]
_SLACK = 1e-5


@runtime_checkable
class GoalLoss(RowLoss, Protocol):
    """A loss or an objective that knows its rows."""

    def at(self, rows: Tensor) -> "GoalLoss":
        """The same for some rows, given by index."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Images to attack together. Each row depends on nothing but itself.

    Attributes:
        model: Flat images to logits.
        goal: What each row must reach.
        ball: Where each row may go.
        eps: The radius as given: a number, one row with a number per pixel, or one per row as a column; None without a ball.
        generators: One source of randomness for each row, on the CPU.
        deadline: When to return the best so far.
        shape: Of one image.
        network: The typed graph behind the model, if there is one.
    """

    model: Model
    goal: Goal
    ball: Ball
    eps: float | Tensor | None
    generators: tuple[torch.Generator, ...]
    deadline: Deadline
    shape: tuple[int, ...]
    network: Network | None = None

    @property
    def clean(self) -> Rows:
        """The clean images."""
        return self.ball.clean

    @property
    def norm(self) -> Norm:
        """What "smaller" means: the ball's norm, or l2 where there is none."""
        return self.ball.norm or "l2"

    def objective(self) -> "Smallest":
        """The usual rule of what to keep."""
        return Smallest(self.goal, self.clean, self.norm)

    def at(self, rows: Tensor) -> "Problem":
        """The same for some rows, given by index."""
        eps = self.eps
        if isinstance(eps, Tensor) and eps.ndim == 2:
            eps = rows_of(eps, rows)
        drawn = tuple(self.generators[row] for row in rows.tolist())
        return replace(self, goal=self.goal.at(rows), ball=self.ball.at(rows), eps=eps, generators=drawn)


@dataclass(frozen=True, slots=True, eq=False)
class Smallest:
    """The engine's order of points: successful ones first, then those with more constraints met, then smaller ones.

    A success counts above labels + 1. Constraints must hold by more than the rounding of float32 scores, so that what counts
    here counts in float64 too.
    """

    goal: Goal
    clean: Rows
    norm: Norm

    def __call__(self, scores: Float[Tensor, "rows labels"], points: Rows) -> Float[Tensor, " rows"]:
        """Between labels + 1 and labels + 2 for a success, otherwise at most labels + 1."""
        scores = scores.double()
        slack = _SLACK * (1.0 + scores.abs().amax(dim=1))
        met = ((self.goal.margins(scores) > slack[:, None]) & (self.goal.sign != 0)).sum(dim=1)
        # In the points' own type: this only orders points, what is reported is measured in float64.
        closeness = 1.0 / (1.0 + norms(points - self.clean, self.norm).double())
        labels = float(scores.shape[1])
        value = torch.where(met >= self.goal.needed, labels + 1.0, met.double())
        return torch.where(scores.isfinite().all(dim=1), value + closeness, -torch.inf)

    def at(self, rows: Tensor) -> "Smallest":
        """The order of some rows."""
        return Smallest(self.goal.at(rows), self.clean[rows], self.norm)

    @property
    def success(self) -> float:
        """What a success exceeds."""
        return float(self.goal.sign.shape[1]) + 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a method found.

    Attributes:
        points: The point kept of each row.
        values: By which it was kept.
        steps: Steps taken for each row.
        history: The goal's margin at each point visited, one row an iteration.
        reported: Numbers that released code reports, by name.
        shared: A universal perturbation, if the method finds one.
    """

    points: Rows
    values: Float[Tensor, " rows"]
    steps: Int[Tensor, " rows"]
    history: Float[Tensor, "visits rows"]
    reported: dict[str, Float[Tensor, " rows"]] = field(default_factory=dict)
    shared: Float[Tensor, " pixels"] | None = None

    @classmethod
    def of(cls, found: Found) -> "Outcome":
        """What one run of the engine found."""
        return cls(found.points, found.values, found.steps, found.history)

    def better(self, other: "Outcome") -> "Outcome":
        """Row by row the point with the higher value, this one where they tie; steps and history add up."""
        wins = other.values > self.values
        return Outcome(
            torch.where(per_row(wins, self.points), other.points, self.points),
            torch.where(wins, other.values, self.values),
            self.steps + other.steps,
            torch.cat([self.history, other.history]),
            self.reported,
            self.shared,
        )


def ascend(
    problem: Problem,
    loss: GoalLoss | None,
    step: StepRule,
    iterations: int,
    *,
    starts: Rows | None = None,
    objective: GoalLoss | None = None,
    keeps_last: bool = False,
    stops: bool = True,
    above: float | None = None,
) -> Outcome:
    """One run of the engine from `starts`, by default the clean images.

    Args:
        problem: Where, and towards what.
        loss: Climbed.
        step: The rule of movement.
        iterations: Steps at most.
        starts: The first points.
        objective: What is kept; default successes first, then constraints met, then smaller differences.
        keeps_last: Whether the last point is kept instead of the best.
        stops: Whether a row ends at its first success, if `objective` is the default.
        above: What another objective must exceed for a row to end.
    """
    order = problem.objective()
    success = order.success if stops and objective is None else torch.inf
    stop = StopRule(above=success if above is None else above, at_first=False)
    keep = Keep.LAST if keeps_last else Keep.BEST

    def ascent(problem: Problem, loss: GoalLoss | None, objective: GoalLoss) -> Ascent:
        return Ascent(
            loss=loss,
            objective=objective,
            domain=problem.ball,
            step=step,
            stop=stop,
            iterations=iterations,
            keep=keep,
            record=problem.goal.margin,
            narrow=lambda rows: ascent(problem.at(rows), None if loss is None else loss.at(rows), objective.at(rows)),
        )

    whole = ascent(problem, loss, order if objective is None else objective)
    return Outcome.of(run(whole, problem.model, problem.clean if starts is None else starts, problem.deadline))
