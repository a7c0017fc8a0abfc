"""What growing a neighbourhood returns: the neighbourhood, its proof, and the steps that led there."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.layered import LayeredNeighbourhood
from verifier.verdict import Counterexample
from verifier.verify import Outcome

Vector = Float[np.ndarray, " layers"]


class StepKind(Enum):
    """Why a neighbourhood was tried."""

    START = "start"
    RESUME = "resume"
    GROW = "grow"
    CUT = "cut"
    EXPAND = "expand layer"
    BISECT = "bisect"


class StepVerdict(Enum):
    """What became of it."""

    ROBUST = "robust"
    VULNERABLE = "vulnerable"
    UNKNOWN = "unknown"
    EXCLUDED = "contains a known counterexample"


class StopReason(Enum):
    """Why growing ended; the text is what reports print."""

    NO_EXPANSION = "no single layer can be expanded by one step: each try was refuted by a counterexample"
    UNDECIDED = "no single layer was proved expandable by one step; some tries stayed undecided within their time limit"
    TIME_LIMIT = "the time limit was reached; more time may give a larger neighbourhood"
    QUERY_LIMIT = "the query limit was reached; more queries may give a larger neighbourhood"
    BISECTED = "the bisection reached its tolerance"
    NOT_ROBUST_AT_ZERO = "the unperturbed image itself was not proved robust, so nothing was grown"


@dataclass(frozen=True, slots=True, eq=False)
class GrowStep:
    """One neighbourhood tried.

    Attributes:
        index: Counts from 0; goes on counting in a resumed run.
        kind: Why it was tried.
        layer: The layer expanded or bisected, None for steps of all layers.
        epsilons: What was tried, float64 (layers,).
        weighted_size: Of these epsilons.
        margin_bound: The proof's bound (robust), the counterexample's margin (vulnerable), the best bound (unknown), or None.
        verdict: What became of it; the current neighbourhood grows only on ROBUST.
        queries: Verifier queries spent so far.
        seconds: Time since growing began.
        best_size: The weighted size of the current, proved neighbourhood after this step; never falls.
    """

    index: int
    kind: StepKind
    layer: int | None
    epsilons: Vector
    weighted_size: float
    margin_bound: float | None
    verdict: StepVerdict
    queries: int
    seconds: float
    best_size: float


@dataclass(frozen=True, slots=True, eq=False)
class GrowResult:
    """A layered neighbourhood and what is known about it.

    Soundness: `outcome` is the verifier's answer to the whole neighbourhood, as one query; nothing is composed of parts.

    Attributes:
        neighbourhood: The image, the object and the final epsilons.
        outcome: The verifier's answer for exactly this neighbourhood.
        is_proved: Whether that answer is `Robust`.
        weighted_size: sum_d w_d eps_d.
        weights: w, float64 (layers,).
        queries: Verifier queries spent, including those of earlier runs in a resumed trace.
        seconds: Time spent in this run.
        counterexample: A replayed violation outside the neighbourhood, the nearest found, or None.
        counterexample_radii: Its largest change per layer: no robust epsilons reach all of these. None without one.
        steps: The steps of this run.
        stop: Why growing ended.
        excluded_layers: The layers whose expansion by one step provably contains a counterexample.
    """

    neighbourhood: LayeredNeighbourhood
    outcome: Outcome
    is_proved: bool
    weighted_size: float
    weights: Vector
    queries: int
    seconds: float
    counterexample: Counterexample | None
    counterexample_radii: Vector | None
    steps: tuple[GrowStep, ...]
    stop: StopReason
    excluded_layers: tuple[int, ...]

    @property
    def saturated_layers(self) -> tuple[int, ...]:
        """The layers with epsilon 1: unrestricted."""
        return tuple(int(d) for d in np.flatnonzero(self.neighbourhood.epsilons >= 1.0))

    @property
    def pixels_above_zero(self) -> int:
        """Pixels that may change at all; size alone would hide a neighbourhood that is large in few pixels."""
        return int((self.neighbourhood.epsilons[self.neighbourhood.layers] > 0.0).sum())
