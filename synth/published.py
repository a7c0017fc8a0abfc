"""The published ways to a layered neighbourhood, to compare with: oracle, numerical optimiser, and cuts on failure.

Mour 2023: the optimiser follows MaRVeL's direction (Kabaha, Drachsler-Cohen 2023) at the weakest points of the last robust
neighbourhood; what is not robust is cut back towards it (CEGIS). MaRVeL itself only lowers lambda. Every question goes to the
complete verifier; no counterexample is remembered, and no bound is asked first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from synth.baselines import limit, prepared
from synth.conclude import Ending, summarise
from synth.cutting import cut
from synth.grow import DEFAULTS, GrowOptions, cutting_weights
from synth.ledger import Ledger
from synth.oracle import Effort
from synth.outside import enclose
from synth.proposal import marvel_step
from synth.result import GrowResult, GrowStep, StepKind, StepVerdict, StopReason
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.network import Network
from verifier.verify import Falsifier, VerifyOptions

Vector = Float[np.ndarray, " layers"]


@dataclass(frozen=True, slots=True)
class PublishedOptions:
    """The optimiser's numbers, as published.

    Attributes:
        learning_rate: The length of a step, 0.01 to 0.2.
        trade_off: lambda at the start: the gradient's weight against the sign vector.
        decay: The factor on lambda after a failure or a step of little progress.
        floor: The end is reached when lambda falls below this.
        progress: A gain in weighted size below this counts as little.
        cuts: The most cuts of one failing neighbourhood; 0 for MaRVeL itself, without CEGIS.

    Raises:
        InputError: A number is out of range.
    """

    learning_rate: float = 0.02
    trade_off: float = 0.99
    decay: float = 0.75
    floor: float = 0.01
    progress: float = 1e-4
    cuts: int = 8

    def __post_init__(self) -> None:
        if not (0.0 < self.trade_off < 1.0 and 0.0 < self.decay < 1.0 and self.floor > 0.0):
            raise InputError("published options: wanted trade_off and decay in (0, 1) and floor > 0")
        if not (self.learning_rate > 0.0 and self.progress >= 0.0 and self.cuts >= 0):
            raise InputError("published options: wanted learning_rate > 0, progress >= 0 and cuts >= 0")


AS_PUBLISHED = PublishedOptions()


def published(
    network: Network,
    image: Float[np.ndarray, "..."],
    pixels: Bool[np.ndarray, "..."],
    target: int,
    k: int = 2,
    *,
    options: GrowOptions = DEFAULTS,
    method: PublishedOptions = AS_PUBLISHED,
    falsifier: Falsifier | None = None,
    verify_options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    deadline: Deadline = Deadline(),  # noqa: B008 - frozen
    on_step: Callable[[GrowStep], None] | None = None,
) -> GrowResult:
    """The neighbourhood the published method ends with; `options.cut` names its cutting weights, other arguments as in `grow`."""
    ledger, zones, oracle = prepared(
        (network, image, pixels, target, k), options, (falsifier, verify_options), deadline, on_step, prunes=False
    )
    if not ledger.is_proved:
        return summarise(ledger, zones, Ending(StopReason.NOT_ROBUST_AT_ZERO), options.step)
    with ledger.until(0.95):
        stop = optimise(ledger, cutting_weights(options.cut, oracle), method)
    enclose(ledger, options.step)
    return summarise(ledger, zones, Ending(stop), options.step)


def optimise(ledger: Ledger, cutting: Vector, method: PublishedOptions) -> StopReason:
    """Steps along sign(eps) - lambda g from robust to robust, with cuts of what fails, until lambda is spent.

    g is the mean over each layer of the absolute gradient of the margin at the weakest points, averaged with softmax weights.
    Terminates: each round either gains `progress` in weighted size, which is bounded, or lowers lambda.
    """
    trade_off = method.trade_off
    while trade_off >= method.floor:
        if ledger.is_spent:
            return limit(ledger)
        if (ledger.robust >= 1.0).all():
            return StopReason.NO_EXPANSION
        slope = ledger.slope(Effort.COMPLETE)
        gradient = np.zeros(len(ledger.robust)) if slope is None else slope.gradient / ledger.oracle.sizes
        before = ledger.size
        step = marvel_step(ledger.robust, gradient, trade_off, method.learning_rate)
        has_failed = not _advance(ledger, step, cutting, method.cuts)
        if has_failed or ledger.size - before < method.progress:
            trade_off *= method.decay
    return StopReason.OPTIMISED


def _advance(ledger: Ledger, failing: Vector, cutting: Vector, cuts: int) -> bool:
    """Whether the step, or one of its cuts towards the last robust epsilons, was proved robust."""
    kind = StepKind.GROW
    for _ in range(cuts + 1):
        if np.array_equal(failing, ledger.robust):
            return False
        verdict = ledger.attempt(kind, failing, Effort.COMPLETE)
        if verdict is StepVerdict.ROBUST or verdict is None:
            return verdict is not None
        failing, kind = cut(failing, ledger.robust, cutting), StepKind.CUT
    return False
