"""Mixed-integer and linear programs that decide top-k properties over a box."""

from verifier.milp.decision import decide, tighten_region
from verifier.milp.options import MilpOptions, MilpOutcome, MilpStatus
from verifier.milp.solvers.answer import MilpSolver, SolveResult, SolverName, SolveStatus
from verifier.milp.solvers.registry import AUTO, SolverInfo, available_solvers, pick_solver

__all__ = [
    "AUTO",
    "MilpOptions",
    "MilpOutcome",
    "MilpSolver",
    "MilpStatus",
    "SolveResult",
    "SolveStatus",
    "SolverInfo",
    "SolverName",
    "available_solvers",
    "decide",
    "pick_solver",
    "tighten_region",
]
