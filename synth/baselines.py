"""Simpler ways to a layered neighbourhood, with the same oracle and the same kind of result, to compare with."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from synth.conclude import Ending, summarise
from synth.expand import raised
from synth.grow import DEFAULTS, GrowOptions, label_question, limits_of, start, zone_oracle
from synth.ledger import Ledger
from synth.network_oracle import NetworkOracle
from synth.oracle import Effort
from synth.outside import enclose
from synth.result import GrowResult, GrowStep, StepKind, StepVerdict, StopReason
from synth.size import size_of
from synth.zones import Zones
from verifier.deadline import Deadline
from verifier.network import Network
from verifier.verify import Falsifier, VerifyOptions

UNIFORM_TOLERANCE = 1.0 / 16.0
"""The uniform bisection's tolerance in steps: its one epsilon is shared by every layer and often below one step."""


def uniform(
    network: Network,
    image: Float[np.ndarray, "..."],
    pixels: Bool[np.ndarray, "..."],
    target: int,
    k: int = 2,
    *,
    options: GrowOptions = DEFAULTS,
    falsifier: Falsifier | None = None,
    verify_options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    deadline: Deadline = Deadline(),  # noqa: B008 - frozen
    on_step: Callable[[GrowStep], None] | None = None,
) -> GrowResult:
    """The largest common epsilon of all layers that verifies, by bisection; arguments and errors as in `grow`."""
    return _run(
        bisect_uniform,
        (network, image, pixels, target, k),
        options,
        (falsifier, verify_options),
        deadline,
        on_step,
    )


def layer_by_layer(
    network: Network,
    image: Float[np.ndarray, "..."],
    pixels: Bool[np.ndarray, "..."],
    target: int,
    k: int = 2,
    *,
    options: GrowOptions = DEFAULTS,
    falsifier: Falsifier | None = None,
    verify_options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    deadline: Deadline = Deadline(),  # noqa: B008 - frozen
    on_step: Callable[[GrowStep], None] | None = None,
) -> GrowResult:
    """Each layer in turn, from the object outwards, as large as verifies; arguments and errors as in `grow`."""
    return _run(
        bisect_layers,
        (network, image, pixels, target, k),
        options,
        (falsifier, verify_options),
        deadline,
        on_step,
    )


def bisect_uniform(ledger: Ledger, step: float) -> StopReason:
    """Grows all layers to one epsilon: the largest proved is within a sixteenth of `step` of one that was refused."""
    base = ledger.robust
    low, high = 0.0, 1.0
    wanted = high
    while high - low > step * UNIFORM_TOLERANCE:
        verdict = ledger.attempt(StepKind.BISECT, np.maximum(base, wanted), Effort.COMPLETE)
        if verdict is None:
            return limit(ledger)
        if verdict is StepVerdict.ROBUST:
            low = wanted
        else:
            high = wanted
        wanted = 0.5 * (low + high)
    return StopReason.BISECTED


def bisect_layers(ledger: Ledger, step: float) -> StopReason:
    """Grows layer 0, then 1, and so on: each is within `step` of a value that was refused, or 1."""
    for layer in range(len(ledger.robust)):
        low, high = float(ledger.robust[layer]), 1.0
        wanted = high
        while high - low > step:
            candidate = raised(ledger.robust, layer, wanted - float(ledger.robust[layer]))
            verdict = ledger.attempt(StepKind.BISECT, candidate, Effort.COMPLETE, layer)
            if verdict is None:
                return limit(ledger)
            if verdict is StepVerdict.ROBUST:
                low = wanted
            else:
                high = wanted
            wanted = 0.5 * (low + high)
    return StopReason.BISECTED


def limit(ledger: Ledger) -> StopReason:
    """Which limit ended the run."""
    return StopReason.QUERY_LIMIT if ledger.queries >= ledger.limits.max_queries else StopReason.TIME_LIMIT


def _run(
    bisect: Callable[[Ledger, float], StopReason],
    question: tuple[Network, np.ndarray, np.ndarray, int, int],
    options: GrowOptions,
    engines: tuple[Falsifier | None, VerifyOptions],
    deadline: Deadline,
    on_step: Callable[[GrowStep], None] | None,
) -> GrowResult:
    ledger, zones, _ = prepared(question, options, engines, deadline, on_step)
    if not ledger.is_proved:
        return summarise(ledger, zones, Ending(StopReason.NOT_ROBUST_AT_ZERO), options.step)
    with ledger.until(0.95):
        stop = bisect(ledger, options.step)
    enclose(ledger, options.step)
    return summarise(ledger, zones, Ending(stop), options.step)


def prepared(
    question: tuple[Network, np.ndarray, np.ndarray, int, int],
    options: GrowOptions,
    engines: tuple[Falsifier | None, VerifyOptions],
    deadline: Deadline,
    on_step: Callable[[GrowStep], None] | None,
    *,
    prunes: bool = True,
) -> tuple[Ledger, Zones, NetworkOracle]:
    """The books of a run about one object's layers, after its first question: the image itself."""
    zones, goals = label_question(*question)
    oracle = zone_oracle(question[0], zones, goals, falsifier=engines[0], verify_options=engines[1])
    objective = size_of(options.size, options.weights, zones)
    ledger = Ledger(oracle, objective, limits_of(options, deadline), on_step or _ignore, prunes=prunes)
    start(ledger, None)
    return ledger, zones, oracle


def _ignore(_: GrowStep) -> None:
    return None
