"""What a proof rests on. The machine-checkable form comes later; this one names the engine, the bound and the trust."""

from dataclasses import dataclass
from enum import Enum


class TrustedClaim(Enum):
    """A fact that a proof uses and nobody re-derived; the text is what reports print."""

    FLOAT64_ROUNDING = "float64 bound arithmetic rounded to nearest, its error assumed below the margin of safety"
    MIP_SOLVER_STATUS = "a MIP solver's answer that a model is infeasible, or its best bound"
    LP_SOLVER_STATUS = "an LP solver's optimum, rounded to nearest"
    AUTO_LIRPA = "auto-LiRPA's bound arithmetic and relaxations"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The evidence behind `Robust`.

    Attributes:
        engine: The engine that finished the proof, such as "alpha-CROWN" or "MILP (HiGHS)".
        bound: A number < 0 that the margin never exceeds over the region, or None if only infeasibility was shown.
        trusted: Every claim taken on trust, without repetition.
    """

    engine: str
    bound: float | None
    trusted: tuple[TrustedClaim, ...]
