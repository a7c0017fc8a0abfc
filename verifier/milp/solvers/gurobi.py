"""Gurobi through its matrix interface. The licence found decides what it accepts; nothing is assumed about it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from verifier.deadline import Deadline
from verifier.errors import SolverUnavailableError
from verifier.milp.model import MilpModel
from verifier.milp.solvers.answer import SolveResult, SolveStatus, package_version, with_solution, without_solution

HOW_TO_GET = (
    "pip install gurobipy; larger models need a licence, free for academic use: https://www.gurobi.com/academia"
)


@dataclass(frozen=True, slots=True)
class GurobiSolver:
    """Solves models with Gurobi on one thread."""

    @property
    def label(self) -> str:
        """The solver's name and version."""
        return f"Gurobi {package_version('gurobipy')}".strip()

    def solve(self, model: MilpModel, *, target: float, deadline: Deadline) -> SolveResult:
        """See `MilpSolver.solve`.

        Raises:
            SolverUnavailableError: gurobipy is missing, or the licence found does not cover this model.
        """
        gurobipy = _gurobipy()
        try:
            with gurobipy.Env(params={"OutputFlag": 0}) as env, gurobipy.Model(env=env) as program:
                columns = _load(program, model)
                program.Params.Threads = 1
                program.Params.MIPGap = 0.0
                program.Params.BestObjStop = target
                if np.isfinite(deadline.at):
                    program.Params.TimeLimit = deadline.remaining()
                program.optimize()
                return _answer(program, columns, model, self.label)
        except gurobipy.GurobiError as error:
            if error.errno in _licence_errors():
                raise SolverUnavailableError(
                    f"solver 'gurobi': the licence found does not cover this model ({model.size}): {error}; {HOW_TO_GET}"
                ) from error
            return without_solution(self.label, SolveStatus.ERROR, f"error {error.errno}: {error}")


def _load(program: Any, model: MilpModel) -> Any:
    gurobipy = _gurobipy()
    kinds = np.where(model.is_integer, gurobipy.GRB.BINARY, gurobipy.GRB.CONTINUOUS)
    columns = program.addMVar(
        len(model.objective), lb=model.column_lower, ub=model.column_upper, obj=model.objective, vtype=kinds
    )
    program.ModelSense = gurobipy.GRB.MAXIMIZE
    program.ObjCon = model.offset
    is_equal = model.row_lower == model.row_upper
    has_upper = np.isfinite(model.row_upper) & ~is_equal
    has_lower = np.isfinite(model.row_lower) & ~is_equal
    for chosen, sense, sides in (
        (is_equal, "=", model.row_upper),
        (has_upper, "<", model.row_upper),
        (has_lower, ">", model.row_lower),
    ):
        if chosen.any():
            program.addMConstr(model.rows[np.flatnonzero(chosen)], columns, sense, sides[chosen])
    return columns


def _answer(program: Any, columns: Any, model: MilpModel, label: str) -> SolveResult:
    codes = _gurobipy().GRB.Status
    status = {
        codes.INFEASIBLE: SolveStatus.INFEASIBLE,
        codes.OPTIMAL: SolveStatus.OPTIMAL,
        codes.USER_OBJ_LIMIT: SolveStatus.TARGET_REACHED,
        codes.SOLUTION_LIMIT: SolveStatus.FEASIBLE,
        codes.TIME_LIMIT: SolveStatus.TIME_LIMIT,
        codes.INTERRUPTED: SolveStatus.TIME_LIMIT,
    }.get(program.Status, SolveStatus.UNKNOWN)
    detail = f"{status.value} (Gurobi status {program.Status})"
    bound = float(program.ObjBound) if status is not SolveStatus.INFEASIBLE and _has(program, "ObjBound") else np.inf
    bound = bound if abs(bound) < 1e99 else np.inf
    if status is SolveStatus.INFEASIBLE or program.SolCount == 0:
        return without_solution(label, status, detail, bound)
    return with_solution(label, status, np.array(columns.X), model, bound, detail)


def _has(program: Any, attribute: str) -> bool:
    try:
        getattr(program, attribute)
    except (AttributeError, _gurobipy().GurobiError):
        return False
    return True


def _licence_errors() -> tuple[int, ...]:
    codes = _gurobipy().GRB.Error
    return (codes.NO_LICENSE, codes.SIZE_LIMIT_EXCEEDED, codes.NETWORK, codes.JOB_REJECTED, codes.CLOUD)


def _gurobipy() -> Any:
    try:
        import gurobipy
    except ImportError as error:
        raise SolverUnavailableError(f"solver 'gurobi': gurobipy is not installed; {HOW_TO_GET}") from error
    return gurobipy
