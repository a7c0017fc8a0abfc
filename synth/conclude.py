"""The end of a run: a counterexample just outside, why it ended, and the result."""

import numpy as np
from jaxtyping import Float

from synth.expand import Expansion, raised
from synth.ledger import Ledger
from synth.result import GrowResult, StopReason
from verifier.layered import LayeredNeighbourhood

Vector = Float[np.ndarray, " layers"]


def enclose(ledger: Ledger, step: float) -> None:
    """Looks for a counterexample near the final neighbourhood: in all layers enlarged by `step`, twice that, and so on.

    Stops at the first found, where a known one is at least as near, or where time ends.
    """
    by = step
    while not ledger.limits.deadline.has_expired:
        nearest = ledger.nearest_exclusion()
        if nearest is not None and ledger.excess(nearest) <= by:
            return
        wider = np.minimum(ledger.robust + by, 1.0)
        found = ledger.oracle.falsify(wider, ledger.limits.deadline)
        if found is not None:
            ledger.exclude(found)
            return
        if (wider >= 1.0).all():
            return
        by *= 2.0


def excluded_layers(ledger: Ledger, step: float) -> tuple[int, ...]:
    """The layers whose expansion by one step contains a known counterexample."""
    return tuple(
        layer
        for layer in range(len(ledger.robust))
        if ledger.robust[layer] < 1.0 and ledger.is_excluded(raised(ledger.robust, layer, step))
    )


def stop_reason(ledger: Ledger, expansion: Expansion) -> StopReason:
    """Why growing ended, after its last phase."""
    if not expansion.undecided:
        return StopReason.NO_EXPANSION
    if ledger.queries >= ledger.limits.max_queries:
        return StopReason.QUERY_LIMIT
    return StopReason.TIME_LIMIT if expansion.ran_out else StopReason.UNDECIDED


def summarise(ledger: Ledger, zero: LayeredNeighbourhood, stop: StopReason, step: float) -> GrowResult:
    """The result as the books stand; `start` must have asked about the image itself, even if time had ended."""
    if ledger.outcome is None:
        raise RuntimeError("summarise: nothing was asked about the final neighbourhood")
    nearest = ledger.nearest_exclusion()
    return GrowResult(
        neighbourhood=zero.with_epsilons(ledger.robust),
        outcome=ledger.outcome,
        is_proved=ledger.is_proved,
        weighted_size=ledger.size,
        weights=ledger.weights,
        queries=ledger.queries,
        seconds=ledger.seconds,
        counterexample=None if nearest is None else nearest.counterexample,
        counterexample_radii=None if nearest is None else nearest.radii,
        steps=tuple(ledger.steps),
        stop=stop,
        excluded_layers=excluded_layers(ledger, step),
    )
