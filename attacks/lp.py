"""The smallest l_inf step that meets linear constraints: min max_j |r_j| subject to G r <= b and l <= r <= h.

Ways that agree: the whole linear programme through SciPy's HiGHS or through Gurobi, and its dual, which has one variable per
constraint.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from verifier.deadline import Deadline
from verifier.errors import SolverUnavailableError

_TOLERANCE = 1e-10
_ROUNDS = 500
_ELASTIC = 1e-4
Matrix = Float[np.ndarray, "constraints pixels"]
Vector = Float[np.ndarray, " pixels"]
Bound = Float[np.ndarray, " constraints"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """An answer.

    Attributes:
        step: r, inside its box; if no step meets the constraints, one whose largest violation is about as small as it can be.
        size: The optimal value max |r_j|.
        is_feasible: Whether some step meets the constraints.
        solver: Who answered, if there was a choice.
        note: Why another solver that was asked first did not; "" if there was none.
    """

    step: Vector
    size: float
    is_feasible: bool
    solver: str = ""
    note: str = ""


def solve_whole(matrix: Matrix, bound: Bound, lower: Vector, upper: Vector) -> Step:
    """The programme as it stands, d + 1 variables and m + 2 d rows, by SciPy's HiGHS.

    Raises:
        SolverUnavailableError: HiGHS gave up without an answer.
    """
    from scipy.optimize import linprog

    pixels = len(lower)
    rows = _whole_rows(matrix)
    # SciPy takes sparse rows here; its annotations do not know.
    solve: Any = linprog
    found = solve(
        np.concatenate([np.zeros(pixels), [1.0]]),
        A_ub=rows,
        b_ub=np.concatenate([bound, np.zeros(2 * pixels)]),
        bounds=np.column_stack([np.append(lower, 0.0), np.append(upper, np.inf)]),
        method="highs",
    )
    if found.status == 2:
        return Step(np.zeros(pixels), np.inf, is_feasible=False)
    if found.status != 0:
        raise SolverUnavailableError(f"linear programme: HiGHS stopped with {found.message!r}; use the dual form")
    return Step(np.clip(found.x[:-1], lower, upper), float(found.fun), is_feasible=True)


def solve_licensed(matrix: Matrix, bound: Bound, lower: Vector, upper: Vector) -> Step:
    """The programme as it stands by Gurobi where it is installed and its licence covers the size, else by HiGHS.

    Which licence there is is found out by trying; the answer says who gave it, and why Gurobi did not.

    Raises:
        SolverUnavailableError: Neither gave an answer.
    """
    from verifier.milp.model import MilpModel
    from verifier.milp.solvers.answer import SolveStatus
    from verifier.milp.solvers.gurobi import GurobiSolver
    from verifier.milp.solvers.highs import HighsSolver

    pixels, scale = len(lower), np.maximum(np.abs(matrix).sum(axis=1), np.finfo(np.float64).tiny)
    rows = _whole_rows(matrix / scale[:, None])
    model = MilpModel(
        rows,
        np.full(rows.shape[0], -np.inf),
        np.concatenate([bound / scale, np.zeros(2 * pixels)]),
        np.append(lower, 0.0),
        np.append(upper, max(float(np.abs(lower).max()), float(np.abs(upper).max()))),
        np.zeros(pixels + 1, dtype=np.bool_),
        np.append(np.zeros(pixels), -1.0),
        0.0,
        tuple(f"r{place}" for place in range(pixels + 1)),
        tuple(f"c{place}" for place in range(rows.shape[0])),
    )
    notes = []
    for choice in (GurobiSolver(), HighsSolver()):
        try:
            found = choice.solve(model, target=np.inf, deadline=Deadline())
        except SolverUnavailableError as error:
            notes.append(str(error))
            continue
        if found.status is SolveStatus.INFEASIBLE:
            return Step(np.zeros(pixels), np.inf, False, found.solver, "; ".join(notes))
        if found.status is SolveStatus.OPTIMAL and found.solution is not None:
            step = np.clip(found.solution[:-1], lower, upper)
            return Step(step, -found.objective, True, found.solver, "; ".join(notes))
        notes.append(f"{found.solver}: {found.detail}")
    raise SolverUnavailableError(f"linear programme: no answer ({'; '.join(notes)}); use the dual form")


def _whole_rows(matrix: Matrix) -> sparse.csr_array:
    """G r <= ., r - z <= ., -r - z <= . in the variables (r, z)."""
    unit = sparse.eye_array(matrix.shape[1])
    ones = sparse.csr_array(np.ones((matrix.shape[1], 1)))
    blank = sparse.csr_array((len(matrix), 1))
    return sparse.block_array([[sparse.csr_array(matrix), blank], [unit, -ones], [-unit, -ones]], format="csr")


def solve_dual(matrix: Matrix, bound: Bound, lower: Vector, upper: Vector) -> Step:
    """The dual: weights u on the simplex of constraints.

    For a size z the step within [-z, z] and the box that does best against weights u is known pixel by pixel. Let
    h(z) = max_u min_r u.(G r - b): the constraints can be met by a step of size z iff h(z) <= 0. For fixed u the root in z of
    that inner minimum is a lower bound on the answer and has a closed form. The maximum over u is found by cutting planes
    (Kelley 1960), one small programme with a variable per constraint; its multipliers put the steps met so far together
    into one that meets the constraints. All cuts stay valid while z grows, so a bound and a step of that size meet.
    """
    norms = np.abs(matrix).sum(axis=1)
    is_blank = norms == 0
    if (bound[is_blank] < 0).any():
        return Step(np.zeros(len(lower)), np.inf, is_feasible=False)
    matrix, bound = matrix[~is_blank] / norms[~is_blank, None], bound[~is_blank] / norms[~is_blank]
    if (bound >= 0).all():
        return Step(np.zeros(len(lower)), 0.0, is_feasible=True)
    return _Cuts(matrix, bound, lower, upper).solve()


class _Cuts:
    """The cutting planes of one programme, whose rows have l1 norm 1."""

    def __init__(self, matrix: Matrix, bound: Bound, lower: Vector, upper: Vector) -> None:
        self._matrix, self._bound, self._lower, self._upper = matrix, bound, lower, upper
        self._largest = float(np.maximum(np.abs(lower), np.abs(upper)).max())
        self._steps = [np.zeros_like(lower)]
        self._master = _Master(len(bound))
        self._master.add(-bound)

    def solve(self) -> Step:
        size, is_feasible, wanted = 0.0, True, _TOLERANCE
        for _ in range(_ROUNDS):
            violation, weights, shares = self._master.solve()
            if violation <= wanted:
                break
            direction = weights @ self._matrix
            root = self._root(direction, weights @ self._bound)
            if is_feasible and root > size:
                size, is_feasible = min(root, self._largest), root <= self._largest
            step = self._best(direction, size)
            reached = self._matrix @ step - self._bound
            if not is_feasible:
                # No step is good enough; one near the least violation will do.
                wanted = max(wanted, weights @ reached + _ELASTIC * max(violation, _TOLERANCE))
            self._steps.append(step)
            self._master.add(reached)
        else:
            violation, weights, shares = self._master.solve()
        step = shares @ np.stack(self._steps)
        return Step(np.clip(step, self._lower, self._upper), size if is_feasible else np.inf, is_feasible)

    def _best(self, direction: Vector, size: float) -> Vector:
        """The step of at most this size with the least inner product."""
        return np.where(
            direction > 0, np.maximum(self._lower, -size), np.where(direction < 0, np.minimum(self._upper, size), 0.0)
        )

    def _root(self, direction: Vector, level: float) -> float:
        """The least z with min over steps of size z of direction.r <= level; inf if there is none.

        The minimum is -sum_j |direction_j| min(z, cap_j), where cap_j is how far pixel j can go the right way.
        """
        caps = np.where(direction > 0, -self._lower, self._upper)
        order = np.argsort(caps)
        caps, slopes = caps[order], np.abs(direction)[order]
        before = np.concatenate([[0.0], np.cumsum(slopes * caps)[:-1]])
        after = slopes[::-1].cumsum()[::-1]
        reached = before + after * caps
        place = int(np.searchsorted(reached, -level))
        if place == len(caps):
            return np.inf if -level > reached[-1] else float(caps[-1])
        return float((-level - before[place]) / after[place]) if after[place] > 0 else float(caps[place])


class _Master:
    """max over u on the simplex of min over cuts of u.c, by HiGHS, warm-started after each cut."""

    def __init__(self, constraints: int) -> None:
        import highspy

        self._solver = highspy.Highs()
        self._solver.setOptionValue("output_flag", False)
        self._solver.setOptionValue("primal_feasibility_tolerance", 1e-10)
        self._solver.setOptionValue("dual_feasibility_tolerance", 1e-10)
        infinity = highspy.kHighsInf
        for _ in range(constraints):
            self._solver.addVar(0.0, 1.0)
        self._solver.addVar(-infinity, infinity)
        self._count, self._infinity = constraints, infinity
        self._places = np.arange(constraints + 1, dtype=np.int32)
        self._solver.changeColCost(constraints, -1.0)
        self._solver.addRow(1.0, 1.0, constraints, self._places[:-1], np.ones(constraints))

    def add(self, cut: Bound) -> None:
        """One more cut: t <= u.cut."""
        self._solver.addRow(-self._infinity, 0.0, self._count + 1, self._places, np.concatenate([-cut, [1.0]]))

    def solve(self) -> tuple[float, Bound, np.ndarray]:
        """The value, the weights u, and a share for each cut; the shares are >= 0 and sum to 1."""
        self._solver.run()
        solution = self._solver.getSolution()
        values = np.array(solution.col_value)
        weights = np.maximum(values[:-1], 0.0)
        shares = np.abs(np.array(solution.row_dual)[1:])
        if not (weights.sum() > 0 and shares.sum() > 0):
            raise SolverUnavailableError(f"linear programme: HiGHS answered {self._solver.getModelStatus()}")
        return float(values[-1]), weights / weights.sum(), shares / shares.sum()
