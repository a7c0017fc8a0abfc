"""What every solver adapter promises, and the one vocabulary their answers are translated into."""

import importlib.metadata
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from verifier.deadline import Deadline
from verifier.milp.model import MilpModel


class SolverName(Enum):
    """The solvers there are adapters for; the values are what `--solver` takes."""

    HIGHS = "highs"
    GUROBI = "gurobi"
    CBC = "cbc"
    SCIP = "scip"


class SolveStatus(Enum):
    """How a solve ended. Whatever an adapter does not recognise is UNKNOWN."""

    INFEASIBLE = "proved infeasible"
    OPTIMAL = "proved optimal"
    TARGET_REACHED = "stopped at a solution that reaches the target"
    FEASIBLE = "stopped at some solution"
    TIME_LIMIT = "time limit"
    UNKNOWN = "no conclusion"
    ERROR = "the solver failed"


@dataclass(frozen=True, slots=True, eq=False)
class SolveResult:
    """A solver's answer, in our words. Nothing in it has been checked.

    Attributes:
        solver: The solver that answered, with its version.
        status: How the solve ended. "Infeasible or unbounded" is UNKNOWN, never INFEASIBLE.
        solution: float64 (columns,), the best solution found, or None.
        objective: Its objective as the solver states it, offset included; -inf without a solution.
        bound: The solver's upper bound of the objective, offset included; inf if it has none, -inf where INFEASIBLE.
        detail: What the solver said, in its own words.
    """

    solver: str
    status: SolveStatus
    solution: Float[np.ndarray, " n"] | None
    objective: float
    bound: float
    detail: str


@runtime_checkable
class MilpSolver(Protocol):
    """A mixed-integer solver behind the neutral encoding."""

    @property
    def label(self) -> str:
        """The solver's name and version, for reports."""

    def solve(self, model: MilpModel, *, target: float, deadline: Deadline) -> SolveResult:
        """Maximises the model, and may stop at the first solution whose objective reaches `target`.

        The deadline is honoured within about a second. A solver may stop earlier, at any solution, with FEASIBLE.

        Raises:
            SolverUnavailableError: The solver is not installed, or its licence does not cover this model.
        """


def package_version(package: str) -> str:
    """The installed version of a package, or "" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def without_solution(solver: str, status: SolveStatus, detail: str, bound: float = np.inf) -> SolveResult:
    """An answer that carries no solution."""
    value = -np.inf if status is SolveStatus.INFEASIBLE else bound
    return SolveResult(solver, status, None, -np.inf, float(value), detail)


def with_solution(
    solver: str, status: SolveStatus, solution: np.ndarray, model: MilpModel, bound: float, detail: str
) -> SolveResult:
    """An answer that carries a solution; its objective is computed here. Not finite or of another length: ERROR."""
    values = np.array(solution, dtype=np.float64)
    if values.shape != model.objective.shape or not np.isfinite(values).all():
        return without_solution(solver, SolveStatus.ERROR, f"{detail}; the solution is unreadable")
    values.setflags(write=False)
    objective = float(model.objective @ values) + model.offset
    return SolveResult(solver, status, values, objective, float(bound), detail)
