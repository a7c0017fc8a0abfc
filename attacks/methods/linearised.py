"""ML-DP and MLA-LP: linearise the labels' constraints, and take the smallest step that meets them all."""

import logging
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.ball import norms
from attacks.domains import Domain
from attacks.goals import Goal
from attacks.linearise import jacobian
from attacks.lp import solve_dual, solve_licensed, solve_whole
from attacks.methods.method import Method, Variant, at_least
from attacks.problem import Outcome, Problem, ascend
from attacks.qp import least_squares_step
from attacks.score_losses import in_probabilities
from attacks.steps import Stepper
from verifier.errors import InputError

Rows = Float[Tensor, "rows pixels"]
_SOLVERS = {"dual": solve_dual, "whole": solve_whole, "gurobi": solve_licensed}


@dataclass(frozen=True, slots=True)
class DeepFoolOptions:
    """Of ML-DP.

    Attributes:
        iterations: Linearisations.
        kappa: The logit margin aimed at; without one, a linear step ends on the boundary itself.
        stops: Whether a row ends at its first success.
    """

    iterations: int = 20
    kappa: float = 0.05
    stops: bool = True

    def __post_init__(self) -> None:
        at_least(self, iterations=1, kappa=0)


@dataclass(frozen=True, slots=True)
class LinearProgrammeOptions:
    """Of MLA-LP.

    Attributes:
        iterations: Linear programmes.
        kappa: The logit margin aimed at.
        trust: The largest change of a pixel in one iteration.
        solver: "dual" (fast), or for the programme as it stands "whole" (SciPy's HiGHS) or "gurobi" (where it is installed and
            its licence covers the size; else HiGHS, and a warning says so).
        stops: Whether a row ends at its first success.
    """

    iterations: int = 10
    kappa: float = 0.05
    trust: float = 0.1
    solver: str = "dual"
    stops: bool = True

    def __post_init__(self) -> None:
        at_least(self, iterations=1, kappa=0, trust=0)
        if self.solver not in _SOLVERS:
            raise InputError(f"option solver: got {self.solver!r}, wanted one of {', '.join(_SOLVERS)}")


@runtime_checkable
class Move(Protocol):
    """The step from a point, row by row."""

    def __call__(self, points: Rows) -> Rows:
        """The step of each row."""

    def at(self, rows: Tensor) -> "Move":
        """The same for some rows, given by index."""


@dataclass(frozen=True, slots=True, eq=False)
class Jump:
    """A step rule that finds its own way from the point alone, and keeps nothing between steps."""

    move: Move

    def begin(self, domain: Domain, starts: Rows, iterations: int) -> Stepper:  # noqa: ARG002
        """The rule for this domain."""
        return _Jumper(domain, self.move)


class _Jumper:
    def __init__(self, domain: Domain, move: Move) -> None:
        self._domain, self._move = domain, move

    def keep(self, rows: Tensor) -> None:
        self._domain, self._move = self._domain.at(rows), self._move.at(rows)

    def advance(self, points: Rows, losses: Tensor, gradients: Rows) -> Rows:  # noqa: ARG002
        return self._domain.project(points + self._move(points))


@dataclass(frozen=True, slots=True, eq=False)
class SmallestImage:
    """The released order of ML-DP: more constraints met, then the smaller image (not the smaller change)."""

    goal: Goal

    def at(self, rows: Tensor) -> "SmallestImage":
        """The order of some rows."""
        return SmallestImage(self.goal.at(rows))

    def __call__(self, scores: Float[Tensor, "rows labels"], points: Rows) -> Float[Tensor, " rows"]:
        """Constraints met plus 1 / (1 + |x|)."""
        return self.goal.met(scores) + 1.0 / (1.0 + norms(points.double(), "l2"))


@dataclass(frozen=True, slots=True, eq=False)
class _Inequalities:
    """The least |r|_2 with every needed constraint met to first order, inside the box."""

    problem: Problem
    kappa: float

    def at(self, rows: Tensor) -> "_Inequalities":
        return _Inequalities(self.problem.at(rows), self.kappa)

    def __call__(self, points: Rows) -> Rows:
        ball = self.problem.ball
        margins, matrix, active = asked(self.problem, points)
        return least_squares_step(matrix, self.kappa - margins, active, ball.lower - points, ball.upper - points)


@dataclass(frozen=True, slots=True, eq=False)
class _Equalities:
    """As released: the least |r|_2 that brings every probability to its threshold to first order."""

    problem: Problem

    def at(self, rows: Tensor) -> "_Equalities":
        return _Equalities(self.problem.at(rows))

    def __call__(self, points: Rows) -> Rows:
        goal = self.problem.goal
        margins, matrix = jacobian(
            self.problem.model, lambda scores: _zeroed(goal, in_probabilities(goal, scores)), points
        )
        return equality_step(matrix, -margins, goal.sign != 0)


def _deepfool(problem: Problem, options: DeepFoolOptions, variant: Variant) -> Outcome:
    if variant is Variant.FIXED:
        move = Jump(_Inequalities(problem, options.kappa))
        return ascend(problem, None, move, options.iterations, stops=options.stops)
    objective = SmallestImage(problem.goal)
    return ascend(problem, None, Jump(_Equalities(problem)), options.iterations, objective=objective, stops=False)


def equality_step(
    matrix: Float[Tensor, "rows constraints pixels"], bound: Float[Tensor, "rows constraints"], active: Tensor
) -> Rows:
    """The least-norm r with (matrix r)_i = bound_i for active i: matrix^T (matrix matrix^T + 1e-9 I)^-1 bound."""
    used = matrix.double() * active[:, :, None]
    eye = torch.eye(matrix.shape[1], dtype=torch.float64, device=matrix.device)
    gram = used @ used.transpose(1, 2) + 1e-9 * eye
    solved = torch.linalg.solve_ex(gram, torch.where(active, bound, 0.0).double()[:, :, None]).result
    return torch.nan_to_num((used.transpose(1, 2) @ solved)[:, :, 0].to(matrix.dtype))


def asked(problem: Problem, points: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """The search margins at the points, their derivatives, and which of them are asked for; 0 elsewhere."""
    with torch.no_grad():
        active = problem.goal.search_margins(problem.model(points)).isfinite()
    margins, matrix = jacobian(
        problem.model, lambda scores: problem.goal.search_margins(scores).masked_fill(~active, 0.0), points
    )
    return margins, matrix, active


def _zeroed(goal: Goal, margins: Tensor) -> Tensor:
    return margins.masked_fill(goal.sign == 0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Programmes:
    """The least |r|_inf with every needed constraint met to first order, inside the box."""

    problem: Problem
    options: LinearProgrammeOptions

    def at(self, rows: Tensor) -> "_Programmes":
        return _Programmes(self.problem.at(rows), self.options)

    def __call__(self, points: Rows) -> Rows:
        ball, trust = self.problem.ball, self.options.trust
        margins, matrix, active = asked(self.problem, points)
        lower = (ball.lower - points).clamp(min=-trust)
        upper = (ball.upper - points).clamp(max=trust)
        return smallest_steps(-matrix, margins - self.options.kappa, active, lower, upper, self.options.solver)


def _linear_programme(problem: Problem, options: LinearProgrammeOptions, variant: Variant) -> Outcome:
    if variant is Variant.RELEASED:
        from attacks.methods.released_lp import ReleasedProgramme

        step = ReleasedProgramme(problem.model, problem.goal, problem.clean)
        return ascend(problem, None, step, options.iterations, keeps_last=True, stops=False)
    move = Jump(_Programmes(problem, options))
    return ascend(problem, None, move, options.iterations, stops=options.stops)


def smallest_steps(
    matrix: Float[Tensor, "rows constraints pixels"],
    bound: Float[Tensor, "rows constraints"],
    active: Tensor,
    lower: Rows,
    upper: Rows,
    solver: str,
) -> Rows:
    """The least |r|_inf subject to (matrix r)_i <= bound_i for active i and lower <= r <= upper, one programme for each row.

    Rows whose constraints cannot be met get the step that violates them least ("dual") or none (the others).
    """
    solve = _SOLVERS[solver]
    steps = torch.zeros_like(lower)
    parts = (each.detach().double().cpu().numpy() for each in (matrix, bound, lower, upper))
    for row, (rows, level, low, high) in enumerate(zip(*parts, strict=True)):
        chosen = active[row].cpu().numpy()
        found = solve(rows[chosen], level[chosen], low, high)
        steps[row] = torch.from_numpy(found.step).to(steps)
        if found.note:
            _tell(f"mla-lp: {found.solver} answers instead: {found.note}")
    return steps


@cache
def _tell(message: str) -> None:
    """Warns, once for each message."""
    logging.getLogger(__name__).warning(message)


METHODS = (
    Method(
        "ml-dp",
        "smallest l2 step to meet linearised constraints, repeated (multi-label DeepFool)",
        "Song et al. 2018; as a non-negative least-squares problem Tondi et al. 2024",
        DeepFoolOptions,
        _deepfool,
        "solves equalities on probabilities, which moves satisfied labels to the boundary too and ends on it; "
        "keeps the image with the smaller norm of the image itself",
        released={"kappa": 0.0},
    ),
    Method(
        "mla-lp",
        "smallest l_inf step to meet linearised constraints, by linear programming, repeated",
        "Zhou et al. 2020",
        LinearProgrammeOptions,
        _linear_programme,
        "linearises the labels' losses, whose steps always fall short; tightens the threshold in a way that loosens labels to "
        "be turned on; the box is left out and clipped to afterwards; goes back to the clean image when an iteration is worse",
        released={"kappa": 0.0},
    ),
)
