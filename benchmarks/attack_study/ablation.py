"""MLA-LP as released, with one part after the other put right: which of them makes it fail when many labels must be on?

Its parts, as released: each label is asked for a probability of at least a threshold, 1/2 at first. While the attack does not get
on, the threshold is lowered to 1/10, which is right for labels to be turned off and wrong for labels to be turned on. An image
that meets fewer constraints sends it back to the clean one, and the last image is returned instead of the best. The programme
does not know of the pixels' range; the image is clipped to it afterwards. Where a programme has no solution, no step is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from attacks.domains import Domain
from attacks.linearise import jacobian
from attacks.lp import solve_dual
from attacks.problem import Outcome, Problem, ascend
from attacks.steps import Stepper, per_row

ITERATIONS = 10
_HALF, _LOWERED, _LEAST, _CLEAR, _SATURATED = 0.5, 0.05, 0.1, 0.6, 13.8


@dataclass(frozen=True, slots=True)
class Parts:
    """Of the attack.

    Attributes:
        threshold: "lowered" as released; "kept" at 1/2; "raised": lowered for labels to be turned off, raised as much for labels
            to be turned on.
        resets: Whether an image that meets fewer constraints sends a row back to the clean one.
        keeps_best: Whether the best image is kept instead of the last.
        has_box: Whether the pixels' range is part of the programme.
        is_elastic: Whether a programme without a solution gives the step that violates it least instead of none.
    """

    threshold: str = "lowered"
    resets: bool = True
    keeps_best: bool = False
    has_box: bool = False
    is_elastic: bool = False


_RAISED = Parts("raised")
_NO_RESET = replace(_RAISED, resets=False)
_BEST = replace(_NO_RESET, keeps_best=True)
_BOX = replace(_BEST, has_box=True)
PARTS = {
    "released": Parts(),
    "kept": Parts("kept"),
    "raised": _RAISED,
    "no-reset": _NO_RESET,
    "best": _BEST,
    "box": _BOX,
    "elastic": replace(_BOX, is_elastic=True),
}
"""By name; from "raised" on, each has the parts of the one before it as well."""


def search(problem: Problem, parts: Parts) -> Outcome:
    """The attack with these parts; with none put right it is MLA-LP as released."""
    rule = _Programme(problem, parts)
    return ascend(problem, None, rule, ITERATIONS, keeps_last=not parts.keeps_best, stops=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Programme:
    problem: Problem
    parts: Parts

    def begin(self, domain: Domain, starts: Tensor, iterations: int) -> Stepper:  # noqa: ARG002
        return _ProgrammeStepper(self.problem, self.parts, domain.project, starts)


class _ProgrammeStepper:
    def __init__(self, problem: Problem, parts: Parts, project: Callable[[Tensor], Tensor], starts: Tensor) -> None:
        self._problem, self._parts, self._project = problem, parts, project
        self._level = torch.full((len(starts),), _HALF, dtype=torch.float64)
        self._first = problem.goal.flip.long().argmax(dim=1)
        self._best = self._clean = self._worth(problem.clean)
        self._before = self._flipped(starts)

    def keep(self, rows: Tensor) -> None:
        self._problem = self._problem.at(rows)
        self._project = self._problem.ball.project
        self._level, self._first, self._before = self._level[rows], self._first[rows], self._before[rows]
        self._best, self._clean = self._best[rows], self._clean[rows]

    def advance(self, points: Tensor, losses: Tensor, gradients: Tensor) -> Tensor:  # noqa: ARG002
        margins, matrix = jacobian(self._problem.model, self._margins, points)
        steps = torch.stack([self._step(row, points[row], margins[row], matrix[row]) for row in range(len(points))])
        proposed = self._project(points + steps.to(points))
        worth, now = self._worth(proposed), self._flipped(proposed)
        is_worse = (worth < self._best) & self._parts.resets
        self._best = torch.where(is_worse, self._clean, worth)
        is_lowered = (now >= self._before) | (now < _CLEAR)
        self._level = torch.where(is_lowered, (self._level - _LOWERED).clamp(min=_LEAST), self._level)
        self._before = now
        return torch.where(per_row(is_worse, points), self._problem.clean, proposed)

    def _step(self, row: int, point: Tensor, margins: Tensor, matrix: Tensor) -> Tensor:
        """Of one image: the smallest that brings every asked probability to its threshold, to first order in its logarithm."""
        sign, ball = self._problem.goal.sign[row], self._problem.ball
        used = (sign != 0) & (margins.abs() < _SATURATED)
        probability = margins.double().sigmoid()[used]
        level = float(self._level[row])
        on = {"lowered": level, "kept": _HALF, "raised": 1.0 - level}[self._parts.threshold]
        off = _HALF if self._parts.threshold == "kept" else 1.0 - level
        asked = probability.new_tensor([off, on])
        wanted = asked[(sign[used] > 0).long()]
        rows = -(1.0 - probability)[:, None] * matrix[used].double()
        bound = probability.log() - wanted.log()
        ones = torch.ones_like(point, dtype=torch.float64)
        lower, upper = ((ball.lower[row] - point).double(), (ball.upper[row] - point).double())
        limits = (lower, upper) if self._parts.has_box else (-ones, ones)
        found = solve_dual(rows.numpy(), bound.numpy(), *(limit.numpy() for limit in limits))
        return torch.from_numpy(found.step) if found.is_feasible or self._parts.is_elastic else torch.zeros_like(ones)

    def _margins(self, scores: Tensor) -> Tensor:
        goal = self._problem.goal
        return goal.margins(scores).masked_fill(goal.sign == 0, 0.0)

    def _worth(self, points: Tensor) -> Tensor:
        """How many constraints hold."""
        with torch.no_grad():
            return self._problem.goal.met(self._problem.model(points))

    def _flipped(self, points: Tensor) -> Tensor:
        """The probability of the first label to be flipped."""
        with torch.no_grad():
            scores = self._problem.model(points).double()
        return functional.sigmoid(scores.gather(1, self._first[:, None])[:, 0])
