"""Growing along levels of the bound: the largest neighbourhood whose margin bound is a given number, and how high queries reach.

What bounds prove ends where the margin bound is 0. Complete queries prove more: what they can close is, much the same in all
directions, an excess of the bound, a level above 0. So the layers are traded for each other at a fixed level, by gradients of
the bound alone, and only what comes of that is asked about.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from synth.climb import part_of_way, shrunk
from synth.ledger import Ledger
from synth.oracle import Effort
from synth.proposal import Slope, exponentiated_step
from synth.result import StepKind, StepVerdict

Vector = Float[np.ndarray, " layers"]

LARGEST_GROWTH = 1.6
"""The most one step multiplies the size by, to first order: far from the level the bound's slope says little."""

TRADE_OFF = 0.8
FIRST_FACTOR, LARGEST_FACTOR, SMALLEST_FACTOR = 2.0, 3.0, 1.04
"""The most a step multiplies or divides a layer by, before all are rescaled: at first, at most, and where the ascent ends."""

OFF_LEVEL = 0.15
"""Farther than this share from the level nothing is traded: all layers are scaled alike."""

LITTLE_PROGRESS, IDLE_ROUNDS = 0.01, 4
"""The ascent ends after so many rounds that gained less than this share of the size."""

BEND = 0.7
"""What is taken off the size predicted at the level, as a share of the way there: bounds bend upwards."""

PROOF_SHARE = 0.02
"""How far below 0, as a share of the room at the image itself, a neighbourhood is aimed that bounds are to prove."""

FIRST_LEVEL, LEVEL_STEP, LEVEL_TOLERANCE = 0.35, 0.25, 0.1
"""Levels of complete queries, as shares of the room at the image itself: the first, how they rise, and where bisection ends."""

ROUNDS_BY_BOUNDS, ROUNDS_PER_LEVEL = 20, 6
SHARE_OF_GRADIENTS = 0.7
"""The most of a phase's time that goes to looking for a point: what is found must still be asked about."""

WEAK_START = 0.2
"""The share of the way to a margin of 0, to first order, at which the ascent starts."""


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """A neighbourhood and its bound.

    Attributes:
        epsilons, slope, size: The neighbourhood, its margin bound to first order, its weighted size.
        miss: How far the bound is above the level, as a share of what the epsilons cost.
        aimed: The neighbourhood scaled down to where the level is predicted to be.
        worth: The weighted size of that.
    """

    epsilons: Vector
    slope: Slope
    size: float
    miss: float
    aimed: Vector
    worth: float


def first_point(ledger: Ledger, slope: Slope) -> Vector:
    """Where the ascent starts: epsilons in one direction (see `Size`), at a fifth of the way to a margin of 0 to first order."""
    direction = ledger.objective.direction(slope.gradient)
    cost = float(slope.gradient @ direction)
    scale = WEAK_START * max(-slope.margin, 0.0) / cost if cost > 0.0 else 1.0
    return np.maximum(ledger.robust, np.minimum(scale * direction, 1.0))


def largest_at(ledger: Ledger, level: float, tolerance: float, start: Vector, rounds: int) -> Vector | None:
    """The largest neighbourhood found whose margin bound is, or is predicted to be, at most level + tolerance; None without bounds.

    Exponentiated steps from the best point so far, each aimed at the level. Far from the level all layers are scaled alike; near it
    they are traded for each other, in a trust region that narrows where a step does not promise more. Ends after `rounds` bounds,
    or where little more is gained. A point above the level that promises more than any met below is scaled down unasked.
    """
    best: Vector | None = None
    held: _Point | None = None
    factor, idle, wanted = FIRST_FACTOR, 0, start
    for _ in range(rounds):
        slope = ledger.slope(Effort.BOUNDS, wanted)
        if slope is None or not math.isfinite(slope.margin):
            break
        point = _point(ledger, wanted, slope, level)
        if slope.margin <= level + tolerance and (best is None or point.size > ledger.objective.value(best)):
            best = wanted
        is_off = held is not None and abs(held.miss) > OFF_LEVEL
        is_progress = held is None or is_off or point.worth > (1.0 + LITTLE_PROGRESS) * held.worth
        idle = 0 if is_progress else idle + 1
        if held is None or is_off or point.worth > held.worth:
            held, factor = point, min(LARGEST_FACTOR, factor if is_off else factor**1.5)
        else:
            factor = math.sqrt(factor)
        if factor < SMALLEST_FACTOR or idle >= IDLE_ROUNDS:
            break
        wanted = _step(ledger, held, level, factor)
    if held is not None and (best is None or held.worth > (1.0 + LITTLE_PROGRESS) * ledger.objective.value(best)):
        return ledger.saturated(held.aimed)
    return best


def _point(ledger: Ledger, epsilons: Vector, slope: Slope, level: float) -> _Point:
    value, spent = ledger.objective.value, float(slope.gradient @ epsilons)
    miss = (slope.margin - level) / spent if spent > 0.0 else 0.0
    aimed = epsilons * max(0.0, 1.0 - (1.0 + BEND) * max(miss, 0.0))
    return _Point(epsilons, slope, value(epsilons), miss, aimed, value(aimed))


def _step(ledger: Ledger, held: _Point, level: float, factor: float) -> Vector:
    aimed = Slope(held.slope.margin - level, held.slope.gradient)
    largest = 1.0 if abs(held.miss) > OFF_LEVEL else factor
    worth = ledger.objective.marginal(held.epsilons)
    wanted = exponentiated_step(held.epsilons, worth, aimed, TRADE_OFF, largest)
    return ledger.saturated(part_of_way(held.epsilons, wanted, worth, LARGEST_GROWTH - 1.0))


def rise_by_bounds(ledger: Ledger, cutting: Vector, cuts: int) -> float:
    """Grows to the largest neighbourhood that bounds are seen to prove; the room at the image itself, -margin.

    What bounds refuse after all is cut towards the last proved one, at most `cuts` times.
    """
    slope = ledger.slope(Effort.BOUNDS)
    if slope is None or not slope.margin < 0.0:
        return 0.0
    room = -slope.margin
    aim = PROOF_SHARE * room
    with ledger.until(SHARE_OF_GRADIENTS):
        point = largest_at(ledger, -aim, aim, first_point(ledger, slope), ROUNDS_BY_BOUNDS)
    kind = StepKind.GROW
    for _ in range(cuts + 1):
        if point is None or ledger.objective.value(point) <= ledger.size:
            break
        if ledger.attempt(kind, point, Effort.BOUNDS) in (StepVerdict.ROBUST, None):
            break
        point, kind = _shorter(ledger, point, cutting), StepKind.CUT
    return room


def press(ledger: Ledger, room: float, cutting: Vector, patience: int, cuts: int) -> bool:
    """Grows to the highest level that complete queries prove. Returns whether it ended for want of answers.

    The level starts at 0.35 of the room, rises while queries prove what is there, and is bisected between what was proved and
    what was not. What an attack or a query refutes is cut towards the last proved neighbourhood (CEGIS).
    """
    if room <= 0.0:
        return False
    proved, refused, level = 0.0, math.inf, FIRST_LEVEL
    while not ledger.is_spent and refused - proved > LEVEL_TOLERANCE:
        with ledger.until(SHARE_OF_GRADIENTS):
            point = largest_at(ledger, level * room, 0.5 * LEVEL_TOLERANCE * room, ledger.robust, ROUNDS_PER_LEVEL)
        verdict = None if point is None else _ask_with_cuts(ledger, point, cutting, cuts)
        if verdict is None:
            return ledger.is_spent
        if verdict is StepVerdict.UNKNOWN:
            patience -= 1
            if patience <= 0:
                return True
        proved, refused = (level, refused) if verdict is StepVerdict.ROBUST else (proved, level)
        level = level + LEVEL_STEP if math.isinf(refused) else 0.5 * (proved + refused)
    return ledger.is_spent


def _ask_with_cuts(ledger: Ledger, point: Vector, cutting: Vector, cuts: int) -> StepVerdict | None:
    """The verdict on the point; where it is refuted, its cuts are asked about until one is proved. None: nothing larger to ask."""
    verdict: StepVerdict | None = None
    kind, wanted = StepKind.GROW, point
    for _ in range(cuts + 1):
        if ledger.objective.value(wanted) <= ledger.size:
            return verdict
        found = ledger.try_attack(kind, wanted, is_quick=True)
        if found is StepVerdict.UNKNOWN:
            found = ledger.attempt(kind, wanted, Effort.COMPLETE)
        verdict = verdict or found
        if found not in (StepVerdict.VULNERABLE, StepVerdict.EXCLUDED):
            return verdict
        wanted, kind = _shorter(ledger, wanted, cutting), StepKind.CUT
    return verdict


def _shorter(ledger: Ledger, failing: Vector, cutting: Vector) -> Vector:
    """The cut, or halfway to the proved epsilons where that is larger: a cut may fall back in just the layers that count."""
    cut, halfway = shrunk(failing, ledger.robust, cutting), 0.5 * (failing + ledger.robust)
    return max(cut, halfway, key=ledger.objective.value)
