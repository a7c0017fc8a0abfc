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
from synth.weights import weighted_size

Vector = Float[np.ndarray, " layers"]
Ask = Callable[[Ledger, StepKind, Vector, int | None], StepVerdict | None]
SMALLEST_COST = 1e-12
FILL_PATIENCE = 4


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


def refute_rest(ledger: Ledger, expansion: Expansion, step: float) -> Expansion:
    """Attacks the layers left undecided once more, thoroughly; what remains undecided."""
    undecided = []
    for layer in expansion.undecided:
        verdict = ledger.try_attack(StepKind.EXPAND, raised(ledger.robust, layer, step), layer)
        if verdict not in (StepVerdict.EXCLUDED, StepVerdict.VULNERABLE):
            undecided.append(layer)
    return Expansion(tuple(undecided), ledger.is_spent)


def _is_refuted(ledger: Ledger, layer: int, step: float) -> bool:
    """Whether the layer is 1, or a counterexample in its expansion by one step is known or found by a quick attack."""
    if ledger.robust[layer] >= 1.0:
        return True
    verdict = ledger.try_attack(StepKind.EXPAND, raised(ledger.robust, layer, step), layer, is_quick=True)
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


def by_bounds(ledger: Ledger, kind: StepKind, epsilons: Vector, layer: int | None) -> StepVerdict | None:
    """Asks bounds alone."""
    return ledger.attempt(kind, epsilons, Effort.BOUNDS, layer)


def fill_layers(ledger: Ledger, slope: Slope | None, step: float) -> None:
    """Spends what is left of the proved bound on single layers, the best worth per cost first, by bounds alone.

    A layer whose predicted room is below a quarter step is passed over, and the rest after a few refusals in a row: the
    expansion of every layer comes later.
    """
    if slope is None:
        return
    refused = 0
    for layer in by_worth(ledger, slope):
        room = -slope.margin / max(float(slope.gradient[layer]), SMALLEST_COST)
        if ledger.is_spent or refused >= FILL_PATIENCE:
            return
        if room >= 0.25 * step:
            before = ledger.size
            expand_layer(ledger, layer, step, by_bounds)
            refused = 0 if ledger.size > before else refused + 1


def concentrate(ledger: Ledger, slope: Slope | None, step: float, patience: int) -> None:
    """Tries to spend on one layer what all layers worth less for their cost spend now, for a larger size.

    The margin is nearly linear in the epsilons, and a linear objective under a linear constraint is largest at a vertex: the layers
    worth most filled, one partly, the rest 0. There few units change phase, too. The first layer that can make up for the rest
    alone is tried: galloping by a quarter, then by bisection down to `step`, giving up after `patience` undecided tries.
    """
    chosen = _replacement(ledger, by_worth(ledger, slope))
    if chosen is None:
        return
    layer, base, low = chosen
    refused, wanted = np.inf, 1.25 * max(low, step)
    while patience > 0 and low + step < min(refused, 1.0):
        wanted = min(wanted, 1.0)
        verdict = ledger.settle(StepKind.GROW, raised(base, layer, wanted), layer)
        if verdict is None:
            return
        if verdict is StepVerdict.ROBUST:
            low = wanted
        else:
            refused = wanted
            patience -= verdict is StepVerdict.UNKNOWN
        wanted = 1.25 * low if np.isinf(refused) else 0.5 * (low + refused)


def _replacement(ledger: Ledger, order: list[int]) -> tuple[int, Vector, float] | None:
    """The layer, the epsilons with it and all layers worth less at 0, and what it must reach to keep the current size."""
    base = ledger.robust.copy()
    base[~ledger.oracle.free_layers] = 0.0
    for layer in order:
        needed = (ledger.size - weighted_size(ledger.weights, base)) / max(float(ledger.weights[layer]), SMALLEST_COST)
        if ledger.robust[layer] < 1.0 and needed < 1.0:
            return layer, base, needed
        base[layer] = ledger.robust[layer]
    return None


def by_worth(ledger: Ledger, slope: Slope | None) -> list[int]:
    """The layers by falling w_d / g_d, or by falling weight without a slope; the inner one first on ties."""
    cost = np.ones(len(ledger.robust)) if slope is None else np.maximum(slope.gradient, SMALLEST_COST)
    return [int(layer) for layer in np.argsort(-ledger.weights / cost, kind="stable")]


def raised(epsilons: Vector, layer: int, by: float) -> Vector:
    """The epsilons with one layer larger by that much, at most 1."""
    larger = epsilons.copy()
    larger[layer] = min(1.0, larger[layer] + by)
    return larger
