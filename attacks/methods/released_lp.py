"""MLA-LP as released, mistakes included, for reproductions only: nothing here is a recommended attack."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from attacks.domains import Domain
from attacks.engine import Model
from attacks.goals import Goal
from attacks.linearise import jacobian
from attacks.lp import solve_dual
from attacks.steps import Stepper, per_row

Rows = Float[Tensor, "rows pixels"]
_SATURATED = 13.8
_FIRST, _LEAST, _LOWERED = 0.5, 0.1, 0.05
_CLEAR = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class ReleasedProgramme:
    """Steps of the released MLA-LP.

    Each constraint's loss L_i = -log p_i is linearised: grad L_i . r <= L_i(threshold) - L_i(now), |r_j| <= 1, for p_i the
    probability of what is asked. Labels whose probability is clamped are dropped. The threshold starts at 1/2 and is lowered
    by 0.05, at last to 0.1, whenever the first flipped label does not improve or is below 0.6; that tightens constraints on
    labels to be turned off and loosens those on labels to be turned on. Where the programme has no answer the row stays. An
    image that matches fewer constraints than the best one sets both back to the clean image. The released code shares the
    threshold among the images of a batch; here each row has its own, which is the same for one image at a time. It prefers,
    among images that match as many, the one with the smaller change; here the last one is returned.
    """

    model: Model
    goal: Goal
    clean: Rows

    def begin(self, domain: Domain, starts: Rows, iterations: int) -> Stepper:  # noqa: ARG002
        """Thresholds at 1/2, the starts being the best images."""
        return _ReleasedStepper(self, domain, starts)


class _ReleasedStepper:
    def __init__(self, rule: ReleasedProgramme, domain: Domain, starts: Rows) -> None:
        self._rule, self._domain = rule, domain
        self._level = starts.new_full((len(starts),), _FIRST, dtype=torch.float64)
        self._first = rule.goal.flip.long().argmax(dim=1)
        with torch.no_grad():
            self._best = self._worth(starts)
            self._before = self._flipped(starts)
            self._clean_worth = self._worth(rule.clean)

    def keep(self, rows: Tensor) -> None:
        rule = self._rule
        self._rule = replace(rule, goal=rule.goal.at(rows), clean=rule.clean[rows])
        self._domain = self._domain.at(rows)
        self._level, self._first, self._best = self._level[rows], self._first[rows], self._best[rows]
        self._before, self._clean_worth = self._before[rows], self._clean_worth[rows]

    def advance(self, points: Rows, losses: Tensor, gradients: Rows) -> Rows:  # noqa: ARG002
        rule = self._rule
        margins, matrix = jacobian(rule.model, self._margins, points)
        reached = margins.double().sigmoid()
        steps = torch.zeros_like(points)
        for row in range(len(points)):
            used = (rule.goal.sign[row] != 0) & (margins[row].abs() < _SATURATED)
            probability = reached[row][used]
            level = torch.where(rule.goal.sign[row][used] > 0, self._level[row], 1.0 - self._level[row])
            rows = -(1.0 - probability)[:, None] * matrix[row][used].double()
            bound = -level.log() + probability.log()
            ones = torch.ones_like(points[row], dtype=torch.float64).cpu().numpy()
            found = solve_dual(rows.cpu().numpy(), bound.cpu().numpy(), -ones, ones)
            if found.is_feasible:
                steps[row] = torch.from_numpy(found.step).to(steps)
        proposed = self._domain.project(points + steps)
        with torch.no_grad():
            worth, now = self._worth(proposed), self._flipped(proposed)
        is_worse = worth < self._best
        self._best = torch.where(is_worse, self._clean_worth, worth)
        is_lowered = (now >= self._before) | (now < _CLEAR)
        lowered = (self._level - _LOWERED).clamp(min=_LEAST)
        self._level = torch.where(is_lowered, lowered, self._level)
        self._before = now
        return torch.where(per_row(is_worse, points), rule.clean, proposed)

    def _margins(self, scores: Tensor) -> Tensor:
        """All margins, 0 where nothing is asked, so that derivatives stay finite."""
        goal = self._rule.goal
        return goal.margins(scores).masked_fill(goal.sign == 0, 0.0)

    def _worth(self, points: Rows) -> Float[Tensor, " rows"]:
        """How many constraints hold."""
        return self._rule.goal.met(self._rule.model(points)).double()

    def _flipped(self, points: Rows) -> Float[Tensor, " rows"]:
        """The probability of the first label to be flipped."""
        scores = self._rule.model(points).double()
        return functional.sigmoid(scores.gather(1, self._first[:, None])[:, 0])
