"""What growing a neighbourhood returns: the neighbourhood, its proof, and the steps that led there."""

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from jaxtyping import Float

from synth.size import Size
from synth.zones import Neighbourhood
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
    CORNER = "largest corner left"


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
    OPTIMISED = "the optimiser's trade-off parameter fell below its floor"
    BISECTED = "the bisection reached its tolerance"
    NOT_ROBUST_AT_ZERO = "the unperturbed image itself was not proved robust, so nothing was grown"


class GapStop(Enum):
    """Why narrowing ended; the text is what reports print."""

    CLOSED = "no robust neighbourhood is larger by more than one step in every layer"
    UNDECIDED = "the largest corner left was neither proved nor refuted within its time"
    LIMIT = "time or queries ended; more narrow the gap further"


@dataclass(frozen=True, slots=True)
class QueryCounts:
    """What a run asked, by kind.

    Attributes:
        complete: Queries that the complete verifier might have to decide.
        bounds: Queries answered by bounds alone (incomplete).
        attack: Attacks outside verifier queries.
        gradient: Bounds computed with their gradient, to choose a step.
    """

    complete: int = 0
    bounds: int = 0
    attack: int = 0
    gradient: int = 0

    @property
    def verifier(self) -> int:
        """Complete and incomplete queries."""
        return self.complete + self.bounds

    def plus(self, kind: str) -> "QueryCounts":
        """One more of a kind."""
        return replace(self, **{kind: getattr(self, kind) + 1})


@dataclass(frozen=True, slots=True)
class GapPoint:
    """The gap at one time: seconds since growing began, what was asked so far, the proved size and its upper bound."""

    seconds: float
    counts: QueryCounts
    size: float
    upper_bound: float


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
        counts: What was asked so far.
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
    counts: QueryCounts
    seconds: float
    best_size: float

    @property
    def queries(self) -> int:
        """Verifier queries so far, complete and incomplete."""
        return self.counts.verifier


@dataclass(frozen=True, slots=True, eq=False)
class GrowResult:
    """A layered neighbourhood and what is known about it.

    Soundness: `outcome` is the verifier's answer to the whole neighbourhood, one query per property; no region is put together from
    parts. `upper_bound` and `evidence` rest on replayed counterexamples alone.

    Attributes:
        neighbourhood: The image, the object and the final epsilons.
        names: What each epsilon is for, such as "layer 3".
        outcome: The verifier's answer for exactly this neighbourhood.
        is_proved: Whether that answer is `Robust`.
        weighted_size: sum_d f_d(eps_d), with plain weights sum_d w_d eps_d.
        objective: The size that was grown, and that upper bound and gap are about: its weights w and its kind.
        step: The step by which layers were enlarged.
        counts: What was asked, including earlier runs of a resumed trace.
        seconds: Time spent in this run.
        counterexample: A replayed violation outside the neighbourhood, the nearest found, or None.
        counterexample_radii: Its largest change per layer: no robust epsilons reach all of these. None without one.
        evidence: For each layer a replayed counterexample in the neighbourhood enlarged by `step` in this layer alone; None where
            there is none, or where the layer is unrestricted.
        upper_bound: No robust epsilons have a larger weighted size: proved from the counterexamples met.
        cuts: The radii of these counterexamples, one row each.
        steps: The steps of this run.
        stop: Why growing ended.
        gap_stop: Why narrowing the gap ended; None where it was not tried.
        gap_history: Size and upper bound as narrowing went on.
    """

    neighbourhood: Neighbourhood
    names: tuple[str, ...]
    outcome: Outcome
    is_proved: bool
    weighted_size: float
    objective: Size
    step: float
    counts: QueryCounts
    seconds: float
    counterexample: Counterexample | None
    counterexample_radii: Vector | None
    evidence: tuple[Counterexample | None, ...]
    upper_bound: float
    cuts: Float[np.ndarray, "cuts layers"]
    steps: tuple[GrowStep, ...]
    stop: StopReason
    gap_stop: GapStop | None
    gap_history: tuple[GapPoint, ...]

    @property
    def queries(self) -> int:
        """Verifier queries spent, complete and incomplete."""
        return self.counts.verifier

    @property
    def weights(self) -> Vector:
        """w, float64 (layers,)."""
        return self.objective.weights

    @property
    def gap(self) -> float:
        """How much larger, at most, a robust neighbourhood could be, as a share of the upper bound."""
        return max(0.0, 1.0 - self.weighted_size / self.upper_bound) if self.upper_bound > 0.0 else 0.0

    @property
    def saturated_layers(self) -> tuple[int, ...]:
        """The layers with epsilon 1: unrestricted."""
        return tuple(int(d) for d in np.flatnonzero(self.neighbourhood.epsilons >= 1.0))

    @property
    def excluded_layers(self) -> tuple[int, ...]:
        """The layers whose expansion by one step provably contains a counterexample."""
        return tuple(layer for layer, found in enumerate(self.evidence) if found is not None)

    @property
    def undecided_layers(self) -> tuple[int, ...]:
        """The layers below 1 whose expansion by one step was neither proved nor refuted."""
        known = {*self.excluded_layers, *self.saturated_layers}
        return tuple(layer for layer in range(len(self.evidence)) if layer not in known)

    @property
    def is_maximal(self) -> bool:
        """Whether the neighbourhood is proved robust and provably no layer can grow by one step."""
        return self.is_proved and not self.undecided_layers

    @property
    def pixels_above_zero(self) -> int:
        """Pixels that may change at all; size alone would hide a neighbourhood that is large in few pixels."""
        return int((self.neighbourhood.widths > 0.0).any(axis=0).sum())
