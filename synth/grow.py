"""Grows the largest layered neighbourhood that verifies (Mour 2023; MaRVeL: Kabaha and Drachsler-Cohen 2023).

Every neighbourhood the loop moves to was proved robust as a whole. It starts at epsilon 0, grows all layers together, then
climbs in the direction of the best worth per cost, first by bounds alone and then by complete queries from the weakest points,
and ends by expanding single layers until none can grow by one step.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from attacks.margin import MarginAttack
from synth.climb import ClimbOptions, ascend
from synth.conclude import Ending, stop_reason, summarise
from synth.cuts import Cut
from synth.cutting import CutRule, fixed_cutting_weights, sensitivity_cutting_weights
from synth.expand import expand_layers, refute_rest, unexpanded
from synth.gap import narrow
from synth.goals import check_clean, labels_survive
from synth.ledger import RADII_ROUNDING, Ledger, Limits
from synth.levels import press, rise_by_bounds
from synth.network_oracle import NetworkOracle
from synth.oracle import Effort, Oracle
from synth.outside import enclose
from synth.proposal import ProposalRule
from synth.result import GrowResult, GrowStep, QueryCounts, StepKind, StepVerdict, StopReason
from synth.size import SizeKind, size_of
from synth.trace import Checkpoint, TraceKey, append, cut_record, open_trace, step_record
from synth.zones import Zones
from verifier.bounds import check_size
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.lowering import lower
from verifier.network import Network
from verifier.property import Property
from verifier.region import check_image, frozen
from verifier.verify import Falsifier, VerifyOptions

Vector = Float[np.ndarray, " layers"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrowOptions:
    """How to grow.

    Attributes:
        cut: Which cutting weights shrink a refused neighbourhood.
        weights: One per layer; None for 1 / (1 + d), or with volumes for each layer's share of the image's entries.
        size: What is made large: sums of epsilons, or volumes (`synth.size`).
        step: The step of the final expansion of single layers; no layer tried can grow by it afterwards.
        query_seconds: The most time for one query; a tenth of the time given, if that is more.
        bounds_seconds: The most time for one query by bounds alone.
        max_queries: The most queries.
        patience: The complete phases end after this many undecided queries in a row.
        bounds_only: Stop before the complete phases: faster, smaller.
        corners: After no layer can grow, at most so many corners are asked about, to lower the upper bound of the size or find a
            larger neighbourhood; 0 to leave that out.
        climb: How the ascent moves.

    Raises:
        InputError: A number is out of range.
    """

    cut: CutRule = CutRule.FIXED
    weights: tuple[float, ...] | None = None
    size: SizeKind = SizeKind.LINEAR
    step: float = 1.0 / 255.0
    query_seconds: float = 5.0
    bounds_seconds: float = 3.0
    max_queries: int = 1000
    patience: int = 3
    bounds_only: bool = False
    corners: int = 1000
    climb: ClimbOptions = ClimbOptions()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not 0.0 < self.step <= 1.0:
            raise InputError(f"step: got {self.step}, wanted a number in (0, 1]")
        if not (self.query_seconds > 0.0 and self.bounds_seconds > 0.0):
            raise InputError(
                f"query_seconds and bounds_seconds: got {self.query_seconds} and {self.bounds_seconds}, wanted positive numbers"
            )
        if self.max_queries < 1 or self.patience < 1:
            raise InputError(
                f"max_queries and patience: got {self.max_queries} and {self.patience}, wanted at least 1 each"
            )
        if self.corners < 0:
            raise InputError(f"corners: got {self.corners}, wanted a number >= 0")


DEFAULTS = GrowOptions()
QUERY_SHARE = 0.1
"""The share of a run's time that one query may take."""

QUICK_ITERATIONS = 3
"""Optimisation steps of bounds effort: sizes reached with 1 and with 8 differ by 2 %, the seconds by half."""


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

    Args:
        network: From `load_network`.
        image: (channels, height, width) in [0, 1].
        pixels: The perturbed object, (height, width), True inside.
        target: The label that must survive.
        k: How many labels are assigned.
        options: As in `grow_zones`, which does the work and says what is promised.
        falsifier: Likewise.
        verify_options: Likewise.
        deadline: Likewise.
        on_step: Likewise.
        trace: Likewise.

    Raises:
        InputError: Image, mask, label, k, weights or trace do not fit, or the target is not strictly among the top k of
            the image itself.
    """
    zones, goals = label_question(network, image, pixels, target, k)
    return grow_zones(
        network,
        zones,
        goals,
        options=options,
        falsifier=falsifier,
        verify_options=verify_options,
        deadline=deadline,
        on_step=on_step,
        trace=trace,
    )


def grow_zones(
    network: Network,
    zones: Zones,
    goals: Sequence[Property],
    *,
    options: GrowOptions = DEFAULTS,
    falsifier: Falsifier | None = None,
    verify_options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    deadline: Deadline = Deadline(),  # noqa: B008 - frozen
    on_step: Callable[[GrowStep], None] | None = None,
    trace: Path | None = None,
) -> GrowResult:
    """A neighbourhood with one epsilon per zone in which all goals provably hold, grown as far as limits allow.

    Soundness: the result's outcome is the verifier's answer for the whole final neighbourhood; `is_proved` says whether it is
    `Robust`. `is_maximal` and `upper_bound` rest on counterexamples that were replayed.

    Args:
        network: From `load_network`.
        zones: The image, and which entries share an epsilon.
        goals: What must hold everywhere in the neighbourhood, such as `labels_survive` gives.
        options: How to grow.
        falsifier: The attack handed to `verify`; without one no counterexamples are found early.
        verify_options: How complete queries are verified.
        deadline: The end of the search; the best proved neighbourhood so far is returned then.
        on_step: Called after each step, such as to draw progress.
        trace: A JSON Lines file to write steps and counterexamples to. If it exists and belongs to the same question, its
            counterexamples are replayed, its last robust neighbourhood is proved again, and growing goes on from there.

    Raises:
        InputError: Zones, goals, weights or trace do not fit, or a goal does not hold strictly at the image itself.
    """
    oracle = zone_oracle(network, zones, goals, falsifier=falsifier, verify_options=verify_options)
    objective = size_of(options.size, options.weights, zones)
    checkpoint = Checkpoint(None, QueryCounts(), 0)
    if trace is not None:
        names = [goal.name for goal in goals]
        checkpoint = open_trace(trace, TraceKey.of(network.sha256, zones, names, objective))

    def on_every_step(step: GrowStep) -> None:
        if trace is not None:
            append(trace, step_record(step))
        if on_step is not None:
            on_step(step)

    def on_cut(cut: Cut) -> None:
        if trace is not None:
            append(trace, cut_record(cut))

    ledger = Ledger(
        oracle,
        objective,
        limits_of(options, deadline),
        on_every_step,
        on_cut=on_cut,
        first_index=checkpoint.next_index,
        counts=checkpoint.counts,
        cuts=recalled(oracle, checkpoint.images),
    )
    ending = grow_with(ledger, cutting_weights(options.cut, oracle), options, checkpoint.epsilons)
    return summarise(ledger, zones, ending, options.step)


def limits_of(options: GrowOptions, deadline: Deadline) -> Limits:
    """When a run with these options stops asking."""
    left = deadline.remaining()
    share = QUERY_SHARE * left if np.isfinite(left) else 0.0
    return Limits(deadline, options.max_queries, max(options.query_seconds, share), options.bounds_seconds)


def recalled(oracle: Oracle, images: Sequence[Float[np.ndarray, "..."]]) -> list[Cut]:
    """The counterexamples of a trace that a replay confirms; the others are dropped."""
    cuts = []
    for image in images:
        radii = oracle.radii(image)
        if not np.isfinite(radii).all():
            continue
        found = oracle.replay(image, np.minimum(radii + RADII_ROUNDING, 1.0), "attack, in an earlier run")
        if found is not None:
            cuts.append(Cut(frozen(oracle.radii(found.image)), found))
    return cuts


def label_question(
    network: Network, image: Float[np.ndarray, "..."], pixels: Bool[np.ndarray, "..."], target: int, k: int
) -> tuple[Zones, tuple[Property, ...]]:
    """One object's layers, and the goal "target stays in the top k".

    Raises:
        InputError: As in `grow`.
    """
    centre = check_image(image, network.input_shape)
    if centre.ndim != 3:
        raise InputError(f"image: layers need (channels, height, width), the network reads {network.input_shape}")
    goals = labels_survive([target], k, network.labels)
    check_clean(network, centre, goals)
    return Zones.of_layers(centre, pixels), goals


def zone_oracle(
    network: Network,
    zones: Zones,
    goals: Sequence[Property],
    *,
    falsifier: Falsifier | None,
    verify_options: VerifyOptions,
) -> NetworkOracle:
    """The oracle for "all goals hold", with the clean image checked.

    Raises:
        InputError: The zones' image does not fit the network, or a goal does not hold strictly there.
        NetworkTooLargeError: Bounds would not fit in memory.
    """
    check_image(zones.image, network.input_shape)
    check_clean(network, zones.image, goals)
    bounds = verify_options.bounds
    check_size(lower(network), bounds)
    quick = replace(bounds, iterations=min(bounds.iterations, QUICK_ITERATIONS))
    return NetworkOracle(network, tuple(goals), zones, falsifier, scout_of(falsifier), verify_options, quick)


def scout_of(falsifier: Falsifier | None) -> Falsifier | None:
    """The margin attack with fewer steps, or any other attack as it is.

    Many quick attacks at different epsilons find a nearer image than few thorough ones.
    """
    if isinstance(falsifier, MarginAttack):
        quick = replace(falsifier.options, scout_steps=10, steps=15, restarts=0, max_subsets=8)
        return MarginAttack(quick, falsifier.seed)
    return falsifier


def cutting_weights(rule: CutRule, oracle: NetworkOracle) -> Vector:
    """The cutting weights of a rule for this image and object."""
    match rule:
        case CutRule.FIXED:
            return fixed_cutting_weights(oracle.layers)
        case CutRule.SENSITIVITY | CutRule.SENSITIVITY_REVERSED:
            return sensitivity_cutting_weights(oracle.sensitivity(), is_reversed=rule is CutRule.SENSITIVITY_REVERSED)


def grow_with(ledger: Ledger, cutting: Vector, options: GrowOptions, resumed: Vector | None = None) -> Ending:
    """The loop itself, on any oracle: grows `ledger.robust` and says why it stopped.

    Shares of the time: growing by bounds ends at 40 % of it, levels of complete queries at 85 %, the ascent from the weakest points
    at 89 %, expansions at 94 %; what is left goes to the gap, to expansions of what that found, and to a counterexample just
    outside. Where levels end for want of answers, complete queries have reached what they can do in this time: attacks and
    bounds alone go on.
    """
    start(ledger, resumed)
    if not ledger.is_proved:
        has_ended = ledger.limits.deadline.has_expired
        return Ending(StopReason.TIME_LIMIT if has_ended else StopReason.NOT_ROBUST_AT_ZERO, None)
    with ledger.until(0.4):
        room = rise_by_bounds(ledger, cutting, options.climb.cuts)
        if options.climb.rule is ProposalRule.MARVEL:
            ascend(ledger, cutting, Effort.BOUNDS, options.climb)
        slope = ledger.slope(Effort.BOUNDS)
    is_stuck, effort = False, Effort.BOUNDS if options.bounds_only else Effort.COMPLETE
    if effort is Effort.COMPLETE:
        with ledger.until(0.75):
            is_stuck = press(ledger, room, cutting, options.patience, options.climb.cuts)
    if is_stuck:
        effort, expansion = Effort.BOUNDS, unexpanded(ledger)
    else:
        with ledger.until(0.25):
            ascend(ledger, cutting, effort, replace(options.climb, patience=options.patience))
        with ledger.until(0.5):
            expansion = expand_layers(ledger, slope, options.step, effort, options.patience)
    gap = None
    if options.corners:
        before = ledger.robust
        with ledger.until(0.6):
            gap = narrow(ledger, options.step, options.patience, options.corners, effort)
        if ledger.robust is not before and not is_stuck:
            with ledger.until(0.8):
                expansion = expand_layers(ledger, slope, options.step, effort, options.patience)
    with ledger.until(0.8):
        expansion = refute_rest(ledger, expansion, options.step)
    enclose(ledger, options.step)
    return Ending(stop_reason(ledger, expansion), gap)


def start(ledger: Ledger, resumed: Vector | None) -> None:
    """Proves a first neighbourhood: the resumed one, else layers that cannot matter at 1, else none but the image."""
    if resumed is not None:
        if ledger.attempt(StepKind.RESUME, resumed, Effort.COMPLETE) is StepVerdict.ROBUST:
            return
        _log.warning("the neighbourhood of the trace was not proved again; growing starts from epsilon 0")
    zero, free = np.zeros(ledger.oracle.layers), np.where(ledger.oracle.free_layers, 1.0, 0.0)
    if free.any() and ledger.attempt(StepKind.START, free, Effort.BOUNDS) is StepVerdict.ROBUST:
        return
    if ledger.attempt(StepKind.START, zero, Effort.BOUNDS) is not StepVerdict.ROBUST:
        ledger.attempt(StepKind.START, zero, Effort.COMPLETE, even_if_spent=True)
