"""Small subproblems, handed to a mixed-integer solver while that pays."""

import os
import time
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.deadline import Deadline
from verifier.errors import SolverUnavailableError
from verifier.milp.solvers.answer import MilpSolver, SolveStatus
from verifier.milp.solvers.highs import HighsSolver
from verifier.milp.solvers.registry import AUTO, pick_solver
from verifier.search.domain import Split
from verifier.search.leaves import exact_model
from verifier.search.skeleton import Skeleton

PROOF_SLACK = 1e-6
"""A model excludes members >= -PROOF_SLACK times the forms' scale, so that a solver's feasibility tolerance hides no violation."""

_WITNESS_MARGIN = 1e-4
_FIRST_SLICE = 4.0
_LONGER, _SMALLER = 1.5, 0.8
_STARVED = 0.5
"""Below this share of the time that passed, a solver was waiting for a processor."""


def _processor_seconds() -> float:
    """Used by this process and by the programs it ran."""
    return sum(os.times()[:4])


def leaf_solver(name: str) -> MilpSolver:
    """The solver of that name; "auto" is HiGHS, which starts fastest on small models.

    Raises:
        InputError: Unknown name.
        SolverUnavailableError: Known but not usable here.
    """
    return HighsSolver() if name == AUTO else pick_solver(name)


class Settlement(Enum):
    """What a mixed-integer model of a subproblem gave."""

    REFUTED = "the solver says that it is infeasible"
    POINT = "a solution"
    OPEN = "no conclusion"


@dataclass(slots=True)
class LeafSolver:
    """Decides when a solver is asked, and for how long: about as long as the search itself has run.

    A failure makes it ask only about smaller subproblems, for longer; one for want of processor time only for longer.

    Attributes:
        solver: The solver.
        limit: The most undecided windows of a subproblem worth trying; 0 for none.
    """

    solver: MilpSolver
    limit: int
    _slice: float = _FIRST_SLICE
    _spent: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def may_try(self) -> bool:
        """Whether the solver has had no more than its share of the time."""
        return self.limit > 0 and 2.0 * self._spent <= time.monotonic() - self._started

    def settle(
        self,
        skeleton: Skeleton,
        members: tuple[int, ...],
        splits: tuple[Split, ...],
        undecided: int,
        deadline: Deadline,
    ) -> tuple[Settlement, Float[np.ndarray, " inputs"] | None]:
        """Asks for a point of the subproblem where all members are >= 0.

        Soundness: REFUTED takes the solver at its word. A point is a candidate, no more.
        """
        started, worked = time.monotonic(), _processor_seconds()
        model = exact_model(skeleton, members, splits, -PROOF_SLACK * skeleton.scale)
        try:
            answer = self.solver.solve(model, target=_WITNESS_MARGIN, deadline=deadline.within(self._slice))
        except SolverUnavailableError:
            # The next one might be small enough for its licence.
            self.limit = undecided - 1
            return Settlement.OPEN, None
        finally:
            self._spent += time.monotonic() - started
        if answer.status is SolveStatus.INFEASIBLE:
            return Settlement.REFUTED, None
        # A point that the replay refuses, a near-tie, says as little as none.
        was_starved = _processor_seconds() - worked < _STARVED * (time.monotonic() - started)
        if answer.status is not SolveStatus.TIME_LIMIT or not was_starved:
            self.limit = min(self.limit, int(_SMALLER * undecided))
        self._slice *= _LONGER
        if answer.solution is None:
            return Settlement.OPEN, None
        return Settlement.POINT, answer.solution[: skeleton.inputs]
