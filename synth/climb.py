"""The ascent: propose a larger neighbourhood, let the verifier dispose, and cut a refused one back (CEGIS)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from synth.cutting import cut
from synth.ledger import Ledger
from synth.oracle import Effort
from synth.proposal import ProposalRule, Slope, exponentiated_step, marvel_step
from synth.result import StepKind, StepVerdict
from verifier.errors import InputError

Vector = Float[np.ndarray, " layers"]

LARGEST_GAIN = {Effort.BOUNDS: 0.4, Effort.COMPLETE: 0.25}
"""The most a step tries to gain, as a share of the size: bounds bend upwards, and the margin at weakest points is no bound."""

CURVATURE = 1.3
"""How much more than predicted a candidate is scaled down: bounds bend upwards in the epsilons."""


@dataclass(frozen=True, slots=True)
class ClimbOptions:
    """How the ascent moves.

    Attributes:
        rule: How a step is proposed.
        trade_off: lambda at the start: the exponent of the trade between layers (exponentiated), or the weight of the
            gradient against the sign vector (MaRVeL).
        decay: The factor on lambda after a failure or a step of little progress.
        floor: The ascent ends when lambda falls below this.
        learning_rate: The length of a MaRVeL step.
        progress: A gain in weighted size below this share of the size counts as little.
        cuts: The most cuts of one refused neighbourhood.
        patience: End after this many undecided queries in a row.

    Raises:
        InputError: A number is out of range.
    """

    rule: ProposalRule = ProposalRule.EXPONENTIATED
    trade_off: float = 0.99
    decay: float = 0.75
    floor: float = 0.25
    learning_rate: float = 0.02
    progress: float = 1e-2
    cuts: int = 4
    patience: int = 8

    def __post_init__(self) -> None:
        if not (0.0 < self.trade_off < 1.0 and 0.0 < self.decay < 1.0 and self.floor > 0.0):
            raise InputError("climb options: wanted trade_off and decay in (0, 1) and floor > 0")
        if not (self.learning_rate > 0.0 and self.progress > 0.0):
            raise InputError("climb options: wanted learning_rate > 0 and progress > 0")
        if self.cuts < 0 or self.patience < 1:
            raise InputError("climb options: wanted cuts >= 0 and patience >= 1")


def ascend(ledger: Ledger, cutting_weights: Vector, effort: Effort, options: ClimbOptions) -> None:
    """Steps uphill in weighted size until lambda falls below its floor, patience ends, or nothing may be asked any more.

    Terminates: each round either gains a share `progress` of the size (bounded above) or lowers lambda.
    """
    trade_off, undecided = options.trade_off, 0
    slope, slope_at = None, None
    while trade_off >= options.floor and undecided < options.patience and not ledger.is_spent:
        before, first_step = ledger.size, len(ledger.steps)
        if slope_at is not ledger.robust:
            slope, slope_at = ledger.slope(effort), ledger.robust
        if slope is None:
            return
        candidate = shortened(ledger, _proposal(ledger, slope, trade_off, options), LARGEST_GAIN[effort])
        _try_with_cuts(ledger, candidate, slope, cutting_weights, effort, options.cuts)
        verdicts = [step.verdict for step in ledger.steps[first_step:]]
        undecided = 0 if StepVerdict.ROBUST in verdicts else undecided + verdicts.count(StepVerdict.UNKNOWN)
        if ledger.size - before <= options.progress * max(ledger.size, 1e-12):
            # A step that was proved and gained little is near the end of the way; one that failed may have been too long.
            trade_off *= options.decay**2 if StepVerdict.ROBUST in verdicts else options.decay


def shortened(ledger: Ledger, candidate: Vector, largest_gain: float) -> Vector:
    """The candidate, or the point on the way there whose size is larger by that share, all at the worth f' of the current one.

    Steps that spend all the margin to first order are refuted, or never decided, and cost the most time.
    """
    return part_of_way(ledger.robust, candidate, ledger.objective.marginal(ledger.robust), largest_gain)


def part_of_way(start: Vector, end: Vector, worth: Vector, largest_gain: float) -> Vector:
    """The point from `start` to `end` that gains at most that share of worth . start; `end` itself from where that is 0."""
    own = float(worth @ start)
    gain = float(worth @ end) - own
    share = min(1.0, largest_gain * own / gain) if gain > 0.0 and own > 0.0 else 1.0
    return start + share * (end - start)


def _proposal(ledger: Ledger, slope: Slope, trade_off: float, options: ClimbOptions) -> Vector:
    match options.rule:
        case ProposalRule.EXPONENTIATED:
            return exponentiated_step(ledger.robust, ledger.objective.marginal(ledger.robust), slope, trade_off)
        case ProposalRule.MARVEL:
            mean = slope.gradient / ledger.oracle.sizes
            return marvel_step(ledger.robust, mean, trade_off, options.learning_rate)


def _try_with_cuts(
    ledger: Ledger, candidate: Vector, slope: Slope, cutting_weights: Vector, effort: Effort, cuts: int
) -> None:
    """Asks about the candidate and, while refused, about the candidate cut towards the last robust neighbourhood.

    Where bounds alone refused, their proved bound says how far off the candidate is: if the slope predicts that the cut one is
    still refused, it is scaled down as well. Where complete effort stayed undecided, only a much smaller step may be
    decidable: the cut is halfway. A cut that would end below the current size goes straight back towards it, halfway.
    """
    kind = StepKind.GROW
    for _ in range(cuts + 1):
        if ledger.objective.value(candidate) <= ledger.size:
            return
        is_complete = effort is Effort.COMPLETE
        verdict = ledger.settle(kind, candidate) if is_complete else ledger.attempt(kind, candidate, effort)
        if verdict is None or verdict is StepVerdict.ROBUST:
            return
        halfway = 0.5 * (candidate + ledger.robust)
        if verdict is StepVerdict.UNKNOWN and effort is Effort.COMPLETE:
            shorter = halfway
        else:
            excess = ledger.steps[-1].margin_bound if effort is Effort.BOUNDS else None
            shorter = _cut(candidate, ledger.robust, cutting_weights, slope, excess)
        is_smaller = ledger.objective.value(shorter) <= ledger.size
        candidate, kind = halfway if is_smaller else shorter, StepKind.CUT


def _cut(failing: Vector, robust: Vector, cutting_weights: Vector, slope: Slope, bound: float | None) -> Vector:
    """The failing epsilons cut, and scaled down by what their proved bound and the slope still predict as excess."""
    shorter = shrunk(failing, robust, cutting_weights)
    if bound is None:
        return shorter
    return scaled_down(shorter, slope, bound + float(slope.gradient @ (shorter - failing)))


def scaled_down(candidate: Vector, slope: Slope, excess: float) -> Vector:
    """The candidate times 1 - 1.3 excess / (g . candidate), at least 1/2: without an excess of the margin over 0."""
    spent = float(slope.gradient @ candidate)
    if not np.isfinite(excess) or excess <= 0.0 or spent <= 0.0:
        return candidate
    return candidate * max(0.5, 1.0 - CURVATURE * excess / spent)


def shrunk(failing: Vector, robust: Vector, cutting_weights: Vector) -> Vector:
    """The failing epsilons cut towards the last robust ones inside them: eps * cw + eps_prev * (1 - cw).

    A step may make some layers smaller; there eps_prev is the smaller value, for the lesser of the two in each layer is robust too,
    and a cut must never make a failing neighbourhood larger. Where the cut would hardly move anything it is halfway instead:
    weights of 1 (sensitivity weights reach it) keep failing values, and a cut alone might ask the same question for ever.
    """
    inside = np.minimum(failing, robust)
    shorter = cut(failing, inside, cutting_weights)
    if np.abs(shorter - failing).max() < 0.05 * np.abs(failing - inside).max():
        return 0.5 * (failing + inside)
    return shorter
