"""Narrows the gap between the proved neighbourhood and the best there can be, for as long as it is given.

The largest corner that the counterexamples leave is asked about, one step inside. Robust: nothing is larger by more than that
step. Otherwise the counterexample, shrunk, cuts the corner off. Proofs: docs/layered-neighbourhoods.md.
"""

import numpy as np
from jaxtyping import Float

from synth.conclude import Gap
from synth.expand import raised
from synth.ledger import Ledger
from synth.oracle import Effort
from synth.result import GapPoint, GapStop, StepKind, StepVerdict
from synth.upper_bound import Corner, UpperBound
from verifier.rounding import up

Vector = Float[np.ndarray, " layers"]


def narrow(ledger: Ledger, step: float, patience: int, corners: int, effort: Effort = Effort.COMPLETE) -> Gap:
    """Adds counterexamples, and proves larger neighbourhoods where it meets them, until the gap is closed or limits end it.

    First each layer alone is capped; then at most `corners` corners are asked about, giving up after `patience` undecided ones in
    a row. Afterwards `ledger` holds the best neighbourhood proved, which is perhaps not locally maximal.
    """
    _cap_layers(ledger)
    bound = UpperBound(ledger.objective, np.ones(len(ledger.robust)))
    history: list[GapPoint] = []
    undecided = asked = used = 0
    while True:
        for cut in ledger.cuts[used:]:
            bound.add(cut.radii)
        used = len(ledger.cuts)
        corner = bound.corner()
        candidate = inside(ledger, corner, step)
        history.append(GapPoint(ledger.seconds, ledger.counts, ledger.size, corner.size))
        if ledger.objective.value(candidate) <= ledger.size:
            return Gap(bound, GapStop.CLOSED, tuple(history))
        # Where branching ended early, the corner may hold a known counterexample: nothing new to ask.
        if ledger.is_excluded(candidate) or ledger.is_spent or asked >= corners:
            return Gap(bound, GapStop.LIMIT, tuple(history))
        asked += 1
        verdict = _ask(ledger, candidate, effort)
        undecided = undecided + 1 if verdict is StepVerdict.UNKNOWN else 0
        if undecided >= patience:
            return Gap(bound, GapStop.UNDECIDED, tuple(history))


def inside(ledger: Ledger, corner: Corner, step: float) -> Vector:
    """The corner, one step smaller in every layer that obeys a counterexample there: none known lies inside, if it is attained.

    A layer at 1 is left unrestricted, unless a counterexample with a radius of 1 needs it.
    """
    lowered = np.where(corner.epsilons < 1.0, np.maximum(corner.epsilons - step, 0.0), 1.0)
    for cut in ledger.cuts:
        if cut.forbids(lowered):
            obeys = (cut.radii > 0.0) & (corner.epsilons <= up(cut.radii))
            lowered = np.where(obeys, np.minimum(lowered, np.maximum(cut.radii - step, 0.0)), lowered)
    return ledger.saturated(lowered)


def _ask(ledger: Ledger, candidate: Vector, effort: Effort) -> StepVerdict | None:
    """Refutes or proves the candidate; what refutes it is shrunk."""
    known = len(ledger.cuts)
    ask = ledger.settle if effort is Effort.COMPLETE else ledger.try_cheaply
    verdict = ask(StepKind.CORNER, candidate)
    if verdict is not StepVerdict.VULNERABLE or len(ledger.cuts) == known:
        return verdict
    ledger.shrink(ledger.cuts[-1].counterexample, candidate)
    return verdict


def _cap_layers(ledger: Ledger) -> None:
    """A counterexample that changes one layer alone, as little as possible, for each layer, the weightiest first."""
    zero = np.zeros(len(ledger.robust))
    for layer in np.argsort(-ledger.objective.weights, kind="stable"):
        alone = ledger.saturated(raised(zero, int(layer), 1.0))
        if ledger.is_spent:
            return
        known = any(cut.forbids(alone) and np.delete(cut.radii, layer).max(initial=0.0) == 0.0 for cut in ledger.cuts)
        if known or ledger.robust[layer] >= 1.0:
            continue
        found = ledger.falsify(alone, is_quick=True)
        if found is not None:
            ledger.shrink(found, alone)
