"""The end of a run: what is known about each layer, why it ended, and the result."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from synth.expand import Expansion, raised
from synth.ledger import Ledger
from synth.result import GapPoint, GapStop, GrowResult, StopReason
from synth.upper_bound import UpperBound
from synth.zones import Zones
from verifier.verdict import Counterexample

Vector = Float[np.ndarray, " layers"]


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """What narrowing the gap came to.

    Attributes:
        bound: The upper bound's books.
        stop: Why it ended.
        history: Size and bound as they came.
    """

    bound: UpperBound
    stop: GapStop
    history: tuple[GapPoint, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Ending:
    """How a run ended.

    Attributes:
        stop: Why growing ended.
        gap: What narrowing the gap came to; None where it was not tried.
    """

    stop: StopReason
    gap: Gap | None = None


def evidence(ledger: Ledger, step: float) -> tuple[Counterexample | None, ...]:
    """For each layer a counterexample in the neighbourhood enlarged by `step` in this layer alone, None where none is known.

    Soundness: each is replayed anew inside just that neighbourhood. Of several, the nearest known is taken.
    """
    found: list[Counterexample | None] = []
    for layer, epsilon in enumerate(ledger.robust):
        wanted = ledger.saturated(raised(ledger.robust, layer, step))
        cuts = sorted((cut for cut in ledger.cuts if epsilon < 1.0 and cut.forbids(wanted)), key=ledger.excess)
        replays = (ledger.oracle.replay(cut.counterexample.image, wanted, cut.counterexample.found_by) for cut in cuts)
        found.append(next((replayed for replayed in replays if replayed is not None), None))
    return tuple(found)


def stop_reason(ledger: Ledger, expansion: Expansion) -> StopReason:
    """Why growing ended, after its last phase."""
    if not expansion.undecided:
        return StopReason.NO_EXPANSION
    if ledger.queries >= ledger.limits.max_queries:
        return StopReason.QUERY_LIMIT
    return StopReason.TIME_LIMIT if expansion.ran_out else StopReason.UNDECIDED


def summarise(ledger: Ledger, zones: Zones, ending: Ending, step: float) -> GrowResult:
    """The result as the books stand; `start` must have asked about the image itself, even if time had ended."""
    if ledger.outcome is None:
        raise RuntimeError("summarise: nothing was asked about the final neighbourhood")
    nearest = ledger.nearest_cut()
    bound = ending.gap.bound if ending.gap is not None else UpperBound(ledger.objective, np.ones(len(ledger.robust)))
    for cut in ledger.cuts[len(bound.radii) :]:
        bound.add(cut.radii)
    return GrowResult(
        neighbourhood=zones.neighbourhood(ledger.robust),
        names=zones.names,
        outcome=ledger.outcome,
        is_proved=ledger.is_proved,
        weighted_size=ledger.size,
        objective=ledger.objective,
        step=step,
        counts=ledger.counts,
        seconds=ledger.seconds,
        counterexample=None if nearest is None else nearest.counterexample,
        counterexample_radii=None if nearest is None else nearest.radii,
        evidence=evidence(ledger, step),
        upper_bound=bound.corner().size,
        cuts=bound.radii,
        steps=tuple(ledger.steps),
        stop=ending.stop,
        gap_stop=None if ending.gap is None else ending.gap.stop,
        gap_history=() if ending.gap is None else ending.gap.history,
    )
