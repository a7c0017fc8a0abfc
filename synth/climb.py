"""The ascent: propose a larger neighbourhood, let the verifier dispose, and cut a refused one back (CEGIS)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from synth.cutting import cut
from synth.ledger import Ledger
from synth.oracle import Effort
from synth.proposal import ProposalRule, Slope, linearised_step, marvel_step
from synth.result import StepKind, StepVerdict
from synth.weights import weighted_size
from verifier.errors import InputError

Vector = Float[np.ndarray, " layers"]


@dataclass(frozen=True, slots=True)
class ClimbOptions:
    """How the ascent moves.

    Attributes:
        rule: How a step is proposed.
        trade_off: lambda at the start: the share of the margin that a step may spend (linearised), or the weight of the
            gradient against the sign vector (MaRVeL).
        decay: The factor on lambda after a failure or a step of little progress.
        floor: The ascent ends when lambda falls below this.
        learning_rate: The first reach of a step: a share of each layer's epsilon (linearised), or its length (MaRVeL).
        progress: A gain in weighted size below this share of the size counts as little.
        cuts: The most cuts of one refused neighbourhood.
        patience: End after this many undecided queries in a row.

    Raises:
        InputError: A number is out of range.
    """

    rule: ProposalRule = ProposalRule.LINEARISED
    trade_off: float = 0.99
    decay: float = 0.75
    floor: float = 0.1
    learning_rate: float = 0.5
    progress: float = 1e-2
    cuts: int = 4
    patience: int = 6

    def __post_init__(self) -> None:
        if not (0.0 < self.trade_off < 1.0 and 0.0 < self.decay < 1.0 and self.floor > 0.0):
            raise InputError("climb options: wanted trade_off and decay in (0, 1) and floor > 0")
        if not (self.learning_rate > 0.0 and self.progress > 0.0):
            raise InputError("climb options: wanted learning_rate > 0 and progress > 0")
        if self.cuts < 0 or self.patience < 1:
            raise InputError("climb options: wanted cuts >= 0 and patience >= 1")


def scale_up(ledger: Ledger, slope: Slope | None, tolerance: float = 0.1) -> None:
    """Grows all layers by one common epsilon, as far as bounds prove it, to within the relative tolerance.

    Starts from the scale at which the slope's margin reaches 0, doubles or halves until one scale is proved and one is not, and
    bisects. Layers already larger keep their epsilon. Ends at 1, or after 24 queries.
    """
    base = ledger.robust
    total = 0.0 if slope is None else float(slope.gradient[base < 1.0].sum())
    guess = -slope.margin / total if slope is not None and total > 0.0 else 0.01
    scale, proved, refused = float(np.clip(guess, 1e-6, 1.0)), 0.0, np.inf
    for _ in range(24):
        verdict = ledger.attempt(StepKind.GROW, np.maximum(base, scale), Effort.BOUNDS)
        if verdict is None:
            return
        if verdict is StepVerdict.ROBUST:
            proved = scale
        else:
            refused = scale
        if proved >= 1.0 or refused - proved <= tolerance * refused or refused < 1e-7:
            return
        scale = _next_scale(proved, refused)


def _next_scale(proved: float, refused: float) -> float:
    if proved == 0.0:
        return 0.5 * refused
    return min(1.0, 2.0 * proved) if np.isinf(refused) else 0.5 * (proved + refused)


def ascend(ledger: Ledger, cutting_weights: Vector, effort: Effort, options: ClimbOptions) -> None:
    """Steps uphill in weighted size until lambda falls below its floor, patience ends, or nothing may be asked any more.

    Terminates: each round either gains a share `progress` of the size (bounded above) or lowers lambda.
    """
    trade_off, reach = options.trade_off, options.learning_rate
    undecided = 0
    slope, slope_at = None, None
    while trade_off >= options.floor and undecided < options.patience and not ledger.is_spent:
        before, first_step = ledger.size, len(ledger.steps)
        if slope_at is not ledger.robust:
            slope, slope_at = ledger.oracle.slope(ledger.robust, effort, ledger.limits.deadline), ledger.robust
        if slope is None:
            return
        if _try_with_cuts(
            ledger, _proposal(ledger, slope, trade_off, reach, options), cutting_weights, effort, options.cuts
        ):
            undecided = 0
        undecided += sum(step.verdict is StepVerdict.UNKNOWN for step in ledger.steps[first_step:])
        if ledger.size - before > options.progress * max(ledger.size, 1e-12):
            reach = min(1.0, 1.5 * reach)
        else:
            trade_off, reach = options.decay * trade_off, 0.5 * reach


def _proposal(ledger: Ledger, slope: Slope, trade_off: float, reach: float, options: ClimbOptions) -> Vector:
    robust = ledger.robust
    if options.rule is ProposalRule.MARVEL:
        return marvel_step(robust, slope.gradient / ledger.oracle.sizes, trade_off, 0.1 * reach)
    is_open = robust < 1.0
    typical = float(np.median(robust[is_open])) if is_open.any() else 1.0
    radius = reach * np.maximum(robust, max(typical, 1e-4))
    return linearised_step(robust, ledger.weights, slope, trade_off, radius)


def _try_with_cuts(ledger: Ledger, candidate: Vector, cutting_weights: Vector, effort: Effort, cuts: int) -> bool:
    """Asks about the candidate and, while refused, about the candidate cut towards the last robust neighbourhood."""
    robust, kind = ledger.robust, StepKind.GROW
    for _ in range(cuts + 1):
        if weighted_size(ledger.weights, candidate) <= ledger.size:
            return False
        verdict = ledger.attempt(kind, candidate, effort)
        if verdict is None or verdict is StepVerdict.ROBUST:
            return verdict is StepVerdict.ROBUST
        candidate, kind = shrunk(candidate, robust, cutting_weights), StepKind.CUT
    return False


def shrunk(failing: Vector, robust: Vector, cutting_weights: Vector) -> Vector:
    """The failing epsilons cut towards the robust ones; halfway between them where the cut would hardly move them.

    Weights of 1 (sensitivity weights reach it) keep failing values, so that a cut alone might ask the same question for ever.
    """
    shorter = cut(failing, robust, cutting_weights)
    if np.abs(shorter - failing).max() < 0.1 * np.abs(failing - robust).max():
        return 0.5 * (failing + robust)
    return shorter
