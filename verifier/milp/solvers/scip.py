"""SCIP through PySCIPOpt, where it is installed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from verifier.deadline import Deadline
from verifier.errors import SolverUnavailableError
from verifier.milp.model import MilpModel
from verifier.milp.solvers.answer import SolveResult, SolveStatus, package_version, with_solution, without_solution

HOW_TO_GET = "pip install 'aureole[scip]' (PySCIPOpt)"

_STATUS = {
    "infeasible": SolveStatus.INFEASIBLE,
    "optimal": SolveStatus.OPTIMAL,
    "gaplimit": SolveStatus.FEASIBLE,
    "sollimit": SolveStatus.FEASIBLE,
    "bestsollimit": SolveStatus.FEASIBLE,
    "primallimit": SolveStatus.TARGET_REACHED,
    "timelimit": SolveStatus.TIME_LIMIT,
    "userinterrupt": SolveStatus.TIME_LIMIT,
}


@dataclass(frozen=True, slots=True)
class ScipSolver:
    """Solves models with SCIP, with its emphasis on feasibility."""

    @property
    def label(self) -> str:
        """The solver's name and version."""
        return f"SCIP (PySCIPOpt {package_version('pyscipopt')})"

    def solve(self, model: MilpModel, *, target: float, deadline: Deadline) -> SolveResult:
        """See `MilpSolver.solve`.

        Raises:
            SolverUnavailableError: PySCIPOpt is not installed.
        """
        scip = _pyscipopt()
        program = scip.Model()
        program.hideOutput()
        columns = _load(program, model, scip)
        program.setEmphasis(scip.SCIP_PARAMEMPHASIS.FEASIBILITY)
        program.setParam("limits/gap", 0.0)
        program.setParam("limits/primal", target)
        if np.isfinite(deadline.at):
            program.setParam("limits/time", max(deadline.remaining(), 1e-3))
        program.optimize()
        return _answer(program, columns, model, self.label)


def _load(program: Any, model: MilpModel, scip: Any) -> list[Any]:
    columns = [
        program.addVar(vtype="B" if integer else "C", lb=float(low), ub=float(high), obj=float(cost))
        for integer, low, high, cost in zip(
            model.is_integer, model.column_lower, model.column_upper, model.objective, strict=True
        )
    ]
    program.setMaximize()
    program.addObjoffset(model.offset)
    for row, (low, high) in enumerate(zip(model.row_lower, model.row_upper, strict=True)):
        if not (np.isfinite(low) or np.isfinite(high)):
            continue
        span = slice(model.rows.indptr[row], model.rows.indptr[row + 1])
        terms = zip(model.rows.data[span], model.rows.indices[span], strict=True)
        body = scip.quicksum(float(value) * columns[column] for value, column in terms)
        program.addCons(
            scip.scip.ExprCons(
                body, float(low) if np.isfinite(low) else None, float(high) if np.isfinite(high) else None
            )
        )
    return columns


def _answer(program: Any, columns: list[Any], model: MilpModel, label: str) -> SolveResult:
    detail = program.getStatus()
    status = _STATUS.get(detail, SolveStatus.UNKNOWN)
    bound = float(program.getDualbound()) if status is not SolveStatus.INFEASIBLE else np.inf
    bound = bound if abs(bound) < 1e19 else np.inf
    if status is SolveStatus.INFEASIBLE or program.getNSols() == 0:
        return without_solution(label, status, detail, bound)
    best = program.getBestSol()
    return with_solution(label, status, np.array([best[column] for column in columns]), model, bound, detail)


def _pyscipopt() -> Any:
    try:
        import pyscipopt
    except ImportError as error:
        raise SolverUnavailableError(f"solver 'scip': PySCIPOpt is not installed; {HOW_TO_GET}") from error
    return pyscipopt
