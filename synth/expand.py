"""Maximality, layer by layer: expand single layers until none can grow by one step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from synth.ledger import Ledger
from synth.oracle import Effort
from synth.proposal import Slope
from synth.result import StepKind, StepVerdict

Vector = Float[np.ndarray, " layers"]
Ask = Callable[[Ledger, StepKind, Vector, int | None], StepVerdict | None]
SMALLEST_COST = 1e-12


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a pass over the layers found.

    Attributes:
        undecided: Layers whose expansion by one step stayed undecided or was not tried.
        ran_out: Whether time or queries ended before every layer was tried.
    """

    undecided: tuple[int, ...]
    ran_out: bool


def expand_layers(ledger: Ledger, slope: Slope | None, step: float, effort: Effort, patience: int) -> Expansion:
    """Expands each layer by `step`, then twice that and so on, then by halves; the layer worth most for its cost first.

    Afterwards no layer tried can grow by `step` (up to 1) as far as this effort can tell: a refused expansion stays refused
    while the others grow, for the set of robust epsilons is downward closed. Quick attacks at all layers come first. What they
    leave is attacked thoroughly, then asked of bounds, unless the layer before was left open, and of the complete verifier;
    gives up on the remaining layers after `patience` undecided ones in a row.
    """
    left = [layer for layer in by_worth(ledger, slope) if not _is_refuted(ledger, layer, step)]
    undecided: list[int] = []
    in_a_row = 0
    for position, layer in enumerate(left):
        if ledger.is_spent or in_a_row >= patience:
            undecided += left[position:]
            break
        if effort is Effort.BOUNDS:
            last = expand_layer(ledger, layer, step, Ledger.try_cheaply)
        else:
            last = expand_layer(ledger, layer, step, partial(Ledger.settle, asks_bounds=in_a_row == 0))
        in_a_row = in_a_row + 1 if last in _OPEN else 0
        undecided += [layer] if last in _OPEN else []
    return Expansion(tuple(sorted(undecided)), ledger.is_spent)


def unexpanded(ledger: Ledger) -> Expansion:
    """The expansion that was not tried: every layer below 1 is open."""
    return Expansion(tuple(int(layer) for layer in np.flatnonzero(ledger.robust < 1.0)), ledger.is_spent)


def refute_rest(ledger: Ledger, expansion: Expansion, step: float) -> Expansion:
    """Attacks the layers left undecided once more, thoroughly; what remains undecided.

    If the attack finds nothing with all of them enlarged by `step` together, none is attacked alone: it would find less.
    """
    together = ledger.robust.copy()
    for layer in expansion.undecided:
        together = raised(together, layer, step)
    undecided = list(expansion.undecided)
    if undecided and (ledger.is_excluded(ledger.saturated(together)) or ledger.falsify(together) is not None):
        undecided = [layer for layer in undecided if not _is_refuted(ledger, layer, step, is_quick=False)]
    return Expansion(tuple(undecided), ledger.is_spent)


def _is_refuted(ledger: Ledger, layer: int, step: float, *, is_quick: bool = True) -> bool:
    """Whether the layer is 1, or a counterexample in its expansion by one step is known or found by an attack."""
    if ledger.robust[layer] >= 1.0:
        return True
    verdict = ledger.try_attack(StepKind.EXPAND, raised(ledger.robust, layer, step), layer, is_quick=is_quick)
    return verdict in (StepVerdict.EXCLUDED, StepVerdict.VULNERABLE)


_OPEN = (StepVerdict.UNKNOWN, None)


def expand_layer(ledger: Ledger, layer: int, step: float, ask: Ask) -> StepVerdict | None:
    """Grows one layer until it is 1 or refuses `step`; the verdict of the last try (ROBUST if the layer is 1)."""
    stride, is_galloping = step, True
    while ledger.robust[layer] < 1.0:
        verdict = ask(ledger, StepKind.EXPAND, raised(ledger.robust, layer, stride), layer)
        if verdict is StepVerdict.ROBUST:
            stride = 2.0 * stride if is_galloping else max(step, 0.5 * stride)
        elif stride <= step or verdict is None:
            return verdict
        else:
            stride, is_galloping = max(step, 0.5 * stride), False
    return StepVerdict.ROBUST


def by_worth(ledger: Ledger, slope: Slope | None) -> list[int]:
    """The layers by falling f'_d / g_d, or by falling worth f'_d without a slope; the inner one first on ties."""
    cost = np.ones(len(ledger.robust)) if slope is None else np.maximum(slope.gradient, SMALLEST_COST)
    return [int(layer) for layer in np.argsort(-ledger.objective.marginal(ledger.robust) / cost, kind="stable")]


def raised(epsilons: Vector, layer: int, by: float) -> Vector:
    """The epsilons with one layer larger by that much, at most 1."""
    larger = epsilons.copy()
    larger[layer] = min(1.0, larger[layer] + by)
    return larger
