"""Grows the largest layered neighbourhood that verifies (Mour 2023; MaRVeL: Kabaha and Drachsler-Cohen 2023).

Every neighbourhood the loop moves to was proved robust as a whole. It starts at epsilon 0, grows all layers together, then
climbs in the direction of the best worth per cost, first by bounds alone and then by complete queries from the weakest points,
and ends by expanding single layers until none can grow by one step.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from synth.climb import ClimbOptions, ascend, scale_up
from synth.conclude import enclose, stop_reason, summarise
from synth.cutting import CutRule, fixed_cutting_weights, sensitivity_cutting_weights
from synth.expand import concentrate, expand_layers, fill_layers
from synth.ledger import Ledger, Limits
from synth.oracle import Effort, NetworkOracle
from synth.proposal import Slope
from synth.result import GrowResult, GrowStep, StepKind, StepVerdict, StopReason
from synth.trace import Checkpoint, TraceKey, append, open_trace, step_record
from synth.weights import layer_weights
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.layered import LayeredNeighbourhood, layer_distances
from verifier.network import Network
from verifier.property import Property, stays_in_top_k
from verifier.region import check_image
from verifier.verify import Falsifier, VerifyOptions

Vector = Float[np.ndarray, " layers"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrowOptions:
    """How to grow.

    Attributes:
        cut: Which cutting weights shrink a refused neighbourhood.
        weights: One per layer; None for 1 / (1 + d).
        step: The step of the final expansion of single layers; no layer tried can grow by it afterwards.
        query_seconds: The most time for one query.
        max_queries: The most queries.
        patience: The complete phases end after this many undecided queries in a row.
        bounds_only: Stop before the complete phases: faster, smaller.
        climb: How the ascent moves.

    Raises:
        InputError: A number is out of range.
    """

    cut: CutRule = CutRule.FIXED
    weights: tuple[float, ...] | None = None
    step: float = 1.0 / 255.0
    query_seconds: float = 5.0
    max_queries: int = 1000
    patience: int = 3
    bounds_only: bool = False
    climb: ClimbOptions = ClimbOptions()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not 0.0 < self.step <= 1.0:
            raise InputError(f"step: got {self.step}, wanted a number in (0, 1]")
        if not self.query_seconds > 0.0:
            raise InputError(f"query_seconds: got {self.query_seconds}, wanted a positive number of seconds")
        if self.max_queries < 1 or self.patience < 1:
            raise InputError(
                f"max_queries and patience: got {self.max_queries} and {self.patience}, wanted at least 1 each"
            )


DEFAULTS = GrowOptions()
QUICK_ITERATIONS = 8
"""Optimisation steps of bounds effort: on a trained network, 30 more moved the bound by less than 1 % of the clean margin."""


def grow(
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
    trace: Path | None = None,
) -> GrowResult:
    """A layered neighbourhood in which `target` provably stays among the k highest scores, grown as far as limits allow.

    Soundness: the result's outcome is the verifier's answer for the whole final neighbourhood; `is_proved` says whether it is
    `Robust`. That it is the largest is not proved: `stop` and `excluded_layers` say what is known.

    Args:
        network: From `load_network`.
        image: (channels, height, width) in [0, 1].
        pixels: The perturbed object, (height, width), True inside.
        target: The label that must survive.
        k: How many labels are assigned.
        options: How to grow.
        falsifier: The attack handed to `verify`; without one no counterexamples are found early.
        verify_options: How complete queries are verified.
        deadline: The end of the search; the best proved neighbourhood so far is returned then.
        on_step: Called after each step, such as to draw progress.
        trace: A JSON Lines file to write steps to. If it exists and belongs to the same question, its last robust
            neighbourhood is proved again and grown from there.

    Raises:
        InputError: Image, mask, label, k, weights or trace do not fit, or the target is not strictly among the top k of
            the image itself.
    """
    oracle = network_oracle(network, image, pixels, target, k, falsifier=falsifier, verify_options=verify_options)
    weights = layer_weights(options.weights, oracle.layers)
    checkpoint = Checkpoint(None, 0, 0)
    if trace is not None:
        checkpoint = open_trace(trace, TraceKey.of(network.sha256, oracle.zero, target, k, weights))

    def on_every_step(step: GrowStep) -> None:
        if trace is not None:
            append(trace, step_record(step))
        if on_step is not None:
            on_step(step)

    ledger = Ledger(
        oracle,
        weights,
        Limits(deadline, options.max_queries, options.query_seconds),
        on_every_step,
        first_index=checkpoint.next_index,
        queries=checkpoint.queries,
    )
    stop = grow_with(ledger, cutting_weights(options.cut, oracle), options, checkpoint.epsilons)
    return summarise(ledger, oracle.zero, stop, options.step)


def network_oracle(
    network: Network,
    image: Float[np.ndarray, "..."],
    pixels: Bool[np.ndarray, "..."],
    target: int,
    k: int,
    *,
    falsifier: Falsifier | None,
    verify_options: VerifyOptions,
) -> NetworkOracle:
    """The oracle for "target stays in the top k" around the image, with the clean image checked.

    Raises:
        InputError: As in `grow`.
    """
    centre = check_image(image, network.input_shape)
    if centre.ndim != 3:
        raise InputError(f"image: layers need (channels, height, width), the network reads {network.input_shape}")
    wanted = stays_in_top_k(target, k, network.labels)
    _check_clean(network, centre, wanted, target, k)
    if pixels.shape != centre.shape[1:]:
        raise InputError(f"mask: got shape {pixels.shape}, wanted the image's height and width {centre.shape[1:]}")
    layers = int(layer_distances(pixels).max()) + 1
    zero = LayeredNeighbourhood(centre, pixels, np.zeros(layers))
    bounds = verify_options.bounds
    quick = replace(bounds, iterations=min(bounds.iterations, QUICK_ITERATIONS))
    return NetworkOracle(network, wanted, zero, falsifier, verify_options, quick)


def _check_clean(network: Network, image: np.ndarray, wanted: Property, target: int, k: int) -> None:
    scores = evaluate(network, image[None])[0]
    if float(wanted.margin(scores)) >= 0.0:
        top = np.argsort(-scores, kind="stable")[:k].tolist()
        raise InputError(
            f"label {target}: not strictly among the top {k} of the image itself (the network's top {k} are {top}), so no"
            " neighbourhood is robust; choose one of these as target"
        )


def cutting_weights(rule: CutRule, oracle: NetworkOracle) -> Vector:
    """The cutting weights of a rule for this image and object."""
    match rule:
        case CutRule.FIXED:
            return fixed_cutting_weights(oracle.layers)
        case CutRule.SENSITIVITY | CutRule.SENSITIVITY_REVERSED:
            return sensitivity_cutting_weights(oracle.sensitivity(), is_reversed=rule is CutRule.SENSITIVITY_REVERSED)


def grow_with(ledger: Ledger, cutting: Vector, options: GrowOptions, resumed: Vector | None = None) -> StopReason:
    """The loop itself, on any oracle: grows `ledger.robust` and says why it stopped.

    Shares of the time: bounds phases end at half of it, one layer alone is tried until 70 %, the complete ascent ends at 82 %,
    expansions go on to 95 %, so that a counterexample just outside can still be searched for.
    """
    start(ledger, resumed)
    if not ledger.is_proved:
        return StopReason.TIME_LIMIT if ledger.limits.deadline.has_expired else StopReason.NOT_ROBUST_AT_ZERO
    with ledger.until(0.5):
        if resumed is None:
            scale_up(ledger, bounds_slope(ledger))
        ascend(ledger, cutting, Effort.BOUNDS, options.climb)
        slope = bounds_slope(ledger)
        fill_layers(ledger, slope, options.step)
    effort = Effort.BOUNDS if options.bounds_only else Effort.COMPLETE
    if effort is Effort.COMPLETE:
        with ledger.until(0.4):
            concentrate(ledger, slope, options.step, effort, options.patience)
        with ledger.until(0.4):
            ascend(ledger, cutting, effort, replace(options.climb, patience=options.patience))
    with ledger.until(0.75):
        expansion = expand_layers(ledger, slope, options.step, effort, options.patience)
    enclose(ledger, options.step)
    return stop_reason(ledger, expansion)


def bounds_slope(ledger: Ledger) -> Slope | None:
    """The slope of the proved bound at the current neighbourhood, None where time has ended."""
    if ledger.is_spent:
        return None
    return ledger.oracle.slope(ledger.robust, Effort.BOUNDS, ledger.limits.deadline)


def start(ledger: Ledger, resumed: Vector | None) -> None:
    """Proves a first neighbourhood: the resumed one, else layers that cannot matter at 1, else none but the image."""
    if resumed is not None:
        if ledger.attempt(StepKind.RESUME, resumed, Effort.COMPLETE) is StepVerdict.ROBUST:
            return
        _log.warning("the neighbourhood of the trace was not proved again; growing starts from epsilon 0")
    zero, free = np.zeros(ledger.oracle.layers), np.where(ledger.oracle.free_layers, 1.0, 0.0)
    if free.any() and ledger.attempt(StepKind.START, free, Effort.COMPLETE) is StepVerdict.ROBUST:
        return
    ledger.attempt(StepKind.START, zero, Effort.COMPLETE, even_if_spent=True)
