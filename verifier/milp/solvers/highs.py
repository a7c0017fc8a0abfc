"""HiGHS through highspy: the default open solver, in process, and the one linear programs are solved with."""

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from jaxtyping import Float

from verifier.deadline import Deadline
from verifier.milp.duals import dual_bound
from verifier.milp.model import ColumnVector, MilpModel
from verifier.milp.solvers.answer import SolveResult, SolveStatus, package_version, with_solution, without_solution

# Smaller coefficients than HiGHS' default 1e-9 carry weight in networks; the encoding drops what is below this, soundly.
_SMALLEST_COEFFICIENT = 1e-12


@dataclass(frozen=True, slots=True)
class HighsSolver:
    """Solves models with HiGHS on one thread.

    `objective_bound` is never set: on a mixed-integer model HiGHS then reports a false optimum.
    """

    @property
    def label(self) -> str:
        """The solver's name and version."""
        return f"HiGHS {package_version('highspy')}"

    def solve(self, model: MilpModel, *, target: float, deadline: Deadline) -> SolveResult:
        """See `MilpSolver.solve`; the time limit is HiGHS' own and a callback's."""
        highs = _loaded(model)
        highs.setOptionValue("objective_target", -target)
        highs.setOptionValue("mip_rel_gap", 0.0)
        highs.setOptionValue("mip_abs_gap", 1e-9)

        def interrupt(event: Any) -> None:
            if deadline.has_expired:
                event.interrupt()

        if np.isfinite(deadline.at):
            highs.setOptionValue("time_limit", deadline.remaining())
            highs.cbMipInterrupt.subscribe(interrupt)
            highs.cbSimplexInterrupt.subscribe(interrupt)
        highs.run()
        return _answer(highs, model, self.label)


_STATUS = {
    highspy.HighsModelStatus.kInfeasible: SolveStatus.INFEASIBLE,
    highspy.HighsModelStatus.kOptimal: SolveStatus.OPTIMAL,
    highspy.HighsModelStatus.kObjectiveTarget: SolveStatus.TARGET_REACHED,
    highspy.HighsModelStatus.kSolutionLimit: SolveStatus.FEASIBLE,
    highspy.HighsModelStatus.kTimeLimit: SolveStatus.TIME_LIMIT,
    highspy.HighsModelStatus.kInterrupt: SolveStatus.TIME_LIMIT,
    highspy.HighsModelStatus.kLoadError: SolveStatus.ERROR,
    highspy.HighsModelStatus.kModelError: SolveStatus.ERROR,
    highspy.HighsModelStatus.kPresolveError: SolveStatus.ERROR,
    highspy.HighsModelStatus.kSolveError: SolveStatus.ERROR,
    highspy.HighsModelStatus.kPostsolveError: SolveStatus.ERROR,
}


def _answer(highs: Any, model: MilpModel, label: str) -> SolveResult:
    said = highs.getModelStatus()
    status = _STATUS.get(said, SolveStatus.UNKNOWN)
    info = highs.getInfo()
    raw = info.mip_dual_bound if model.binaries else info.objective_function_value
    bound = -raw if np.isfinite(raw) and (model.binaries or status is SolveStatus.OPTIMAL) else np.inf
    detail = "stopped at the deadline" if status is SolveStatus.TIME_LIMIT else highs.modelStatusToString(said)
    has_solution = info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
    if status in (SolveStatus.INFEASIBLE, SolveStatus.ERROR) or not has_solution:
        return without_solution(label, status, detail, bound)
    return with_solution(label, status, np.array(highs.getSolution().col_value), model, bound, detail)


def _loaded(model: MilpModel) -> Any:
    highs = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("small_matrix_value", _SMALLEST_COEFFICIENT),
    ):
        highs.setOptionValue(option, value)
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = model.rows.shape
    program.col_cost_ = -model.objective
    program.offset_ = -model.offset
    program.col_lower_, program.col_upper_ = model.column_lower, model.column_upper
    program.row_lower_, program.row_upper_ = model.row_lower, model.row_upper
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.num_row_, program.a_matrix_.num_col_ = model.rows.shape
    program.a_matrix_.start_ = model.rows.indptr
    program.a_matrix_.index_ = model.rows.indices
    program.a_matrix_.value_ = model.rows.data
    if model.binaries:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        program.integrality_ = [kinds[int(integer)] for integer in model.is_integer]
    highs.passModel(program)
    return highs


@dataclass(frozen=True, slots=True, eq=False)
class LinearAnswer:
    """What one linear program gave.

    Attributes:
        point: float64 (columns,), an optimal point as HiGHS states it, or None if it stopped early.
        bound: An upper bound of the objective, re-derived from the multipliers; inf if HiGHS gave none.
    """

    point: Float[np.ndarray, " columns"] | None
    bound: float


class LinearProgram:
    """One relaxed model, solved again and again with other objectives and row bounds, hot-started unless told otherwise.

    Soundness: bounds come from HiGHS' multipliers through `dual_bound`, not from its word.

    Args:
        model: Its integrality is ignored, its objective is the first one.
    """

    def __init__(self, model: MilpModel) -> None:
        self._model = model
        self._row_lower = model.row_lower.copy()
        self._highs = _loaded(
            MilpModel(
                model.rows,
                model.row_lower,
                model.row_upper,
                model.column_lower,
                model.column_upper,
                np.zeros(len(model.is_integer), dtype=np.bool_),
                model.objective,
                model.offset,
                model.column_names,
                model.row_names,
            )
        )

    def set_row_lower(self, row: int, lower: float) -> None:
        """Replaces one row's lower bound; -inf switches it off where its upper bound is inf."""
        self._row_lower[row] = lower
        self._highs.changeRowBounds(row, lower, float(self._model.row_upper[row]))

    def forget_basis(self) -> None:
        """The next program is solved from scratch."""
        self._highs.clearSolver()

    def maximise(self, objective: ColumnVector, deadline: Deadline) -> LinearAnswer:
        """The largest objective @ x over the program, and a point attaining it."""
        if deadline.has_expired:
            return LinearAnswer(None, np.inf)
        width = len(objective)
        self._highs.changeColsCost(width, np.arange(width, dtype=np.int32), -objective)
        if np.isfinite(deadline.at):
            # HiGHS counts the time of all runs of one object.
            self._highs.setOptionValue("time_limit", self._highs.getRunTime() + deadline.remaining())
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return LinearAnswer(None, np.inf)
        solution = self._highs.getSolution()
        if not solution.dual_valid:
            return LinearAnswer(None, np.inf)
        bound = dual_bound(
            self._model.rows,
            (self._row_lower, self._model.row_upper),
            (self._model.column_lower, self._model.column_upper),
            objective,
            -np.array(solution.row_dual),
        )
        return LinearAnswer(np.array(solution.col_value), bound)
