"""What a caller of the MILP engine chooses, and what it answers."""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.certificate import TrustedClaim
from verifier.errors import InputError
from verifier.milp.solvers.registry import AUTO


@dataclass(frozen=True, slots=True)
class MilpOptions:
    """Choices of the MILP engine.

    Attributes:
        solver: "auto" or a solver's name.
        pipeline: LPs of the count-subsets, then a model per surviving subset; False solves one model of the count-th largest
            form instead.
        tightening_seconds: The most time spent on tightening bounds by linear programs, and never more than a quarter of what
            is left; 0 leaves it out.
        subset_cap: With more open subsets than this, or none listed, the single model is used.
        witness_margin: Solvers may stop at a solution with at least this margin: smaller ones mostly fail the replay.
        proof_slack: A proof excludes margins >= -proof_slack times the forms' scale, so that a solver's feasibility tolerance
            (1e-6) and rounded coefficients cannot hide a violation.

    Raises:
        InputError: A number is out of range.
    """

    solver: str = AUTO
    pipeline: bool = True
    tightening_seconds: float = 10.0
    subset_cap: int = 256
    witness_margin: float = 1e-4
    proof_slack: float = 1e-6

    def __post_init__(self) -> None:
        for name, least in (
            ("tightening_seconds", 0.0),
            ("subset_cap", 1),
            ("witness_margin", 0.0),
            ("proof_slack", 0.0),
        ):
            if math.isnan(getattr(self, name)) or getattr(self, name) < least:
                raise InputError(f"MILP options: {name} is {getattr(self, name)}, wanted at least {least}")


class MilpStatus(Enum):
    """How the engine ended."""

    REFUTED = "no open subset can be violated"
    WITNESS = "a violation was found and its replay accepted it"
    UNDECIDED = "neither"


@dataclass(frozen=True, slots=True, eq=False)
class MilpOutcome:
    """The engine's answer about the open subsets it was given.

    Attributes:
        status: REFUTED rests on `trusted`; WITNESS on the replay alone.
        best_bound: An upper bound of the margin over the open subsets; < 0 iff REFUTED. Subsets that the caller refuted before
            keep the caller's bound.
        witness: float64 (inputs,), the point whose replay was accepted, or None.
        seeds: float64 (n, inputs), where relaxations and solvers attained their optima, largest true margin first: places to
            start an attack.
        open_subsets: The subsets that stayed open; empty where the single model was used or none is left.
        solver: Who solved the mixed-integer models, or "" if none was needed.
        binaries: Of the largest model solved.
        trusted: What the answer takes on trust.
        detail: What happened, in one line.
    """

    status: MilpStatus
    best_bound: float
    witness: Float[np.ndarray, " inputs"] | None
    seeds: Float[np.ndarray, "n inputs"]
    open_subsets: tuple[tuple[int, ...], ...]
    solver: str
    binaries: int
    trusted: tuple[TrustedClaim, ...]
    detail: str
