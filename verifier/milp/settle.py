"""Settles one mixed-integer model: infeasible, a witness the replay accepts, or neither."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from verifier.deadline import Deadline
from verifier.milp.evidence import Evidence
from verifier.milp.solvers.answer import MilpSolver, SolveResult, SolveStatus
from verifier.milp.topk import TopKModel

_ATTEMPTS = 4


class Settlement(Enum):
    """How a model was settled."""

    REFUTED = "refuted"
    WITNESS = "witness"
    NEAR_TIE = "solutions exist only within tolerances of 0, or their replay failed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Settled:
    """What is known about one model.

    Attributes:
        settlement: How it ended.
        bound: The solver's upper bound of s; the proof threshold where refuted; inf where there is none.
        solver: Who answered last.
        detail: What the solver said last.
        binaries: Of the model.
    """

    settlement: Settlement
    bound: float
    solver: str
    detail: str
    binaries: int


def settle(
    make_model: Callable[[float], TopKModel],
    solver: MilpSolver,
    evidence: Evidence,
    *,
    slack: float,
    witness_margin: float,
    check: Callable[[float, str], None],
    deadline: Deadline,
) -> Settled:
    """Asks the solver for s >= -slack, and for more where the replay refuses what it found.

    Only an INFEASIBLE answer to s >= -slack refutes. One to a larger threshold, asked after a solution was refused, shows
    that violations are near-ties at most: NEAR_TIE.

    Args:
        make_model: The model with a given least s.
        solver: The solver.
        evidence: Replays solutions.
        slack: The proof threshold is -slack.
        witness_margin: The solver may stop at a solution with this s.
        check: Called with (bound, who) before a bound of s is believed.
        deadline: When to stop.
    """
    least, bound, last, binaries = -slack, np.inf, None, 0
    for attempt in range(_ATTEMPTS):
        if deadline.has_expired:
            break
        model = make_model(least)
        binaries = model.model.binaries
        last = solver.solve(model.model, target=max(witness_margin, least), deadline=deadline)
        if last.status is SolveStatus.INFEASIBLE:
            check(least, last.solver)
            settlement = Settlement.REFUTED if attempt == 0 else Settlement.NEAR_TIE
            return Settled(settlement, min(bound, least), last.solver, last.detail, binaries)
        bound = min(bound, _believed(last, least, check))
        if last.solution is None:
            break
        if evidence.add(model.point(last.solution)):
            return Settled(Settlement.WITNESS, bound, last.solver, last.detail, binaries)
        if last.status is SolveStatus.OPTIMAL and last.objective < witness_margin:
            return Settled(Settlement.NEAR_TIE, bound, last.solver, last.detail, binaries)
        least = witness_margin if last.objective < witness_margin else 2.0 * last.objective
    if last is None:
        return Settled(Settlement.OPEN, bound, "", "the time limit was reached before a model was solved", binaries)
    refused = last.solution is not None
    return Settled(Settlement.NEAR_TIE if refused else Settlement.OPEN, bound, last.solver, last.detail, binaries)


def _believed(result: SolveResult, least: float, check: Callable[[float, str], None]) -> float:
    """The solver's bound, as a bound without the row s >= least, after holding it against the evidence."""
    if not np.isfinite(result.bound) or result.status in (SolveStatus.UNKNOWN, SolveStatus.ERROR):
        return float(np.inf)
    bound = max(result.bound, least)
    check(bound, result.solver)
    return bound
