"""Which solvers there are here, and which one answers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from verifier.deadline import Deadline
from verifier.errors import InputError, SolverUnavailableError
from verifier.milp.model import MilpModel
from verifier.milp.solvers import cbc, gurobi, scip
from verifier.milp.solvers.answer import MilpSolver, SolveResult, SolverName, package_version
from verifier.milp.solvers.highs import HighsSolver

AUTO = "auto"

_MAKERS: dict[SolverName, Callable[[], MilpSolver]] = {
    SolverName.HIGHS: HighsSolver,
    SolverName.GUROBI: gurobi.GurobiSolver,
    SolverName.CBC: cbc.CbcSolver,
    SolverName.SCIP: scip.ScipSolver,
}

_HOW_TO_GET = {
    SolverName.HIGHS: "pip install highspy",
    SolverName.GUROBI: gurobi.HOW_TO_GET,
    SolverName.CBC: cbc.HOW_TO_GET,
    SolverName.SCIP: scip.HOW_TO_GET,
}

_PACKAGES = {
    SolverName.HIGHS: "highspy",
    SolverName.GUROBI: "gurobipy",
    SolverName.CBC: "pulp",
    SolverName.SCIP: "pyscipopt",
}


@dataclass(frozen=True, slots=True)
class SolverInfo:
    """One known solver, as found on this machine.

    Attributes:
        name: Which.
        version: Its package's version, or "" where not installed.
        is_available: Whether a tiny model was solved with it just now.
        licence: What its licence allows, in words, or why it did not answer.
        how_to_get: How to install it, or to extend its licence.
    """

    name: SolverName
    version: str
    is_available: bool
    licence: str
    how_to_get: str


@dataclass(frozen=True, slots=True)
class FallbackSolver:
    """The first of several solvers that accepts a model; why the others declined is part of the answer.

    Attributes:
        choices: In order of preference.
    """

    choices: tuple[MilpSolver, ...]

    @property
    def label(self) -> str:
        """All of them, in order."""
        return ", else ".join(choice.label for choice in self.choices)

    def solve(self, model: MilpModel, *, target: float, deadline: Deadline) -> SolveResult:
        """See `MilpSolver.solve`.

        Raises:
            SolverUnavailableError: None accepts the model.
        """
        declined: list[str] = []
        for choice in self.choices:
            try:
                result = choice.solve(model, target=target, deadline=deadline)
            except SolverUnavailableError as error:
                declined.append(str(error))
                continue
            detail = "; ".join([*declined, result.detail])
            return SolveResult(result.solver, result.status, result.solution, result.objective, result.bound, detail)
        raise SolverUnavailableError(f"no solver accepts this model ({model.size}): {'; '.join(declined)}")


def pick_solver(name: str = AUTO) -> MilpSolver:
    """The solver of that name; "auto" is Gurobi where its licence accepts the model, otherwise HiGHS, then CBC.

    "gurobi" hands models that its licence declines to HiGHS; every answer names who gave it, and why.

    Raises:
        InputError: Unknown name.
        SolverUnavailableError: Known but not usable here.
    """
    if name == AUTO:
        return FallbackSolver((gurobi.GurobiSolver(), HighsSolver(), cbc.CbcSolver()))
    known = {solver.value: solver for solver in SolverName}
    if name not in known:
        raise InputError(f"solver: got {name!r}, wanted one of {', '.join([AUTO, *known])}; see aureole doctor")
    info = probe(known[name])
    if not info.is_available:
        raise SolverUnavailableError(
            f"solver {name!r}: {info.licence}; wanted one of {', '.join([AUTO, *known])}; to get it: {info.how_to_get}"
        )
    made = _MAKERS[known[name]]()
    return FallbackSolver((made, HighsSolver())) if known[name] is SolverName.GUROBI else made


def available_solvers() -> list[SolverInfo]:
    """Every known solver as found here, each tried on a tiny model."""
    return [probe(name) for name in SolverName]


def probe(name: SolverName) -> SolverInfo:
    """One solver as found here: it must solve a tiny model correctly to count as available."""
    version = package_version(_PACKAGES[name])
    try:
        result = _MAKERS[name]().solve(_tiny_model(2), target=np.inf, deadline=Deadline.after(10.0))
    except SolverUnavailableError as error:
        return SolverInfo(name, version, False, str(error), _HOW_TO_GET[name])
    works = result.solution is not None and abs(result.objective - 1.0) < 1e-6
    licence = _licence(name) if works else f"it answered {result.detail!r} to a tiny model"
    return SolverInfo(name, version, works, licence, _HOW_TO_GET[name])


def _licence(name: SolverName) -> str:
    if name is not SolverName.GUROBI:
        return "open source, no limits"
    try:
        gurobi.GurobiSolver().solve(_tiny_model(2500), target=np.inf, deadline=Deadline.after(10.0))
    except SolverUnavailableError as error:
        return f"size-limited: a model of 2,500 variables was declined ({error.__cause__}); larger models go to HiGHS"
    return "accepts models of 2,500 variables and more"


def _tiny_model(columns: int) -> MilpModel:
    """Maximise x_0 + ... subject to 2 sum x <= 3, x binary: optimum 1."""
    return MilpModel(
        sparse.csr_array(np.full((1, columns), 2.0)),
        np.array([-np.inf]),
        np.array([3.0]),
        np.zeros(columns),
        np.ones(columns),
        np.ones(columns, dtype=np.bool_),
        np.ones(columns),
        0.0,
        tuple(f"x{i}" for i in range(columns)),
        ("row",),
    )
