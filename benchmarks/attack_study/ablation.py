"""MLA-LP as released, with one part after the other put right: which of them makes it fail when many labels must be on?

The released attack asks each label for a probability of at least a threshold, 1/2 at first. While the attack does not get on, the
threshold is lowered to 1/10, which is right for labels to be turned off and wrong for labels to be turned on. It also goes back to
the clean image when an iteration was worse, and returns the last image instead of the best.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.domains import Domain
from attacks.methods.released_lp import ReleasedProgramme
from attacks.problem import Outcome, Problem, ascend
from attacks.steps import Stepper

ITERATIONS = 10
_HALF, _STEP, _LEAST = 0.5, 0.05, 0.1


@dataclass(frozen=True, slots=True)
class Parts:
    """Of the released attack.

    Attributes:
        threshold: "lowered" as released; "kept" at 1/2; "raised": lowered for labels to be turned off and raised as much for
            labels to be turned on, where every label must be on.
        resets: Whether a worse image sends a row back to the clean one.
        keeps_best: Whether the best image is kept instead of the last.
    """

    threshold: str = "lowered"
    resets: bool = True
    keeps_best: bool = False


PARTS = {
    "released": Parts(),
    "kept": Parts("kept"),
    "raised": Parts("raised"),
    "raised-no-reset": Parts("raised", resets=False),
    "raised-no-reset-best": Parts("raised", resets=False, keeps_best=True),
}


def search(problem: Problem, parts: Parts) -> Outcome:
    """The released attack with these parts.

    "raised" is meant for goals that want labels on, such as showing many.
    """

    def margins(scores: Tensor) -> Tensor:
        return problem.goal.margins(scores).masked_fill(problem.goal.sign == 0, 0.0)

    programme = ReleasedProgramme(problem.model, problem.goal, problem.clean, margins)
    return ascend(problem, None, _Altered(programme, parts), ITERATIONS, keeps_last=not parts.keeps_best, stops=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Altered:
    programme: ReleasedProgramme
    parts: Parts

    def begin(self, domain: Domain, starts: Tensor, iterations: int) -> Stepper:
        return _AlteredStepper(self.programme.begin(domain, starts, iterations), self.parts, len(starts))


class _AlteredStepper:
    """Sets the released stepper's threshold, and what it compares with, before each of its steps."""

    def __init__(self, released: Any, parts: Parts, rows: int) -> None:
        self._released, self._parts = released, parts
        self._level = torch.full((rows,), _HALF, dtype=torch.float64)

    def advance(self, points: Tensor, losses: Tensor, gradients: Tensor) -> Tensor:
        if self._parts.threshold == "lowered" and self._parts.resets:
            return self._released.advance(points, losses, gradients)
        level = self._released._level
        if self._parts.threshold == "kept":
            level = torch.full_like(level, _HALF)
        elif self._parts.threshold == "raised":
            level = 1.0 - self._level
        if not self._parts.resets:
            self._released._best = torch.full_like(self._released._best, -torch.inf)
        self._released._level = level
        following = self._released.advance(points, losses, gradients)
        is_lowered = self._released._level < level
        self._level = torch.where(is_lowered, (self._level - _STEP).clamp(min=_LEAST), self._level)
        return following
