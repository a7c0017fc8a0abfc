"""Sizes: their formulas, their inverses, bounds that hold in exact arithmetic, and growing by volume."""

import math
from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from synth_fakes import LinearOracle, StaircaseOracle, strip, violation

from synth.baselines import bisect_uniform
from synth.conclude import Ending, summarise
from synth.cuts import water_level
from synth.cutting import fixed_cutting_weights
from synth.gap import narrow
from synth.grow import GrowOptions, grow_with, start
from synth.ledger import Ledger, Limits
from synth.levels import first_point
from synth.oracle import Effort
from synth.result import GapStop, StopReason
from synth.size import BASE, Size, SizeKind, size_of
from synth.upper_bound import UpperBound
from synth.zones import Sides, Zones
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, InputError

STEP = 1.0 / 64.0
GRID = 8
kinds = st.sampled_from(SizeKind)
unit = st.floats(0.0, 1.0)


def vectors(*elements):
    return st.integers(1, 6).flatmap(
        lambda n: st.tuples(*(st.lists(e, min_size=n, max_size=n).map(np.array) for e in elements))
    )


def volume(shares):
    return Size(np.array(shares), SizeKind.VOLUME)


def exact(objective, epsilons):
    """The size to 60 digits; `Decimal.ln` is correctly rounded."""
    with localcontext() as context:
        context.prec = 60
        total = Decimal(0)
        for weight, epsilon in zip(objective.weights.tolist(), epsilons.tolist(), strict=True):
            share = Decimal(epsilon)
            if objective.kind is SizeKind.VOLUME:
                share = (1 + 255 * share).ln() / Decimal(256).ln()
            total += Decimal(weight) * share
        return total


def test_a_volume_is_the_mean_logarithm_of_the_steps_an_entry_may_take():
    objective = volume([0.25, 0.75])
    assert objective.value(np.zeros(2)) == 0.0
    assert objective.value(np.ones(2)) == pytest.approx(1.0, abs=1e-15)
    # The logarithms of 2, 16 and 256 values to the base 256 are 1/8, 1/2 and 1.
    for steps, logarithm in ((1, 1 / 8), (15, 1 / 2), (255, 1.0)):
        epsilons = np.array([steps / 255.0, 0.0])
        assert objective.value(epsilons) == pytest.approx(0.25 * logarithm)
        assert objective.parts(epsilons) == pytest.approx([0.25 * logarithm, 0.0])


@given(vectors(unit, st.floats(0.0, 5.0)), kinds)
def test_value_sums_parts_and_the_inverse_undoes_them(drawn, kind):
    epsilons, weights = drawn
    weights = np.where(weights < 1e-6, 0.0, weights)
    objective = Size(weights, kind)
    assert objective.value(epsilons) == pytest.approx(float(objective.parts(epsilons).sum()), abs=1e-12)
    back = objective.inverse(objective.parts(epsilons))
    assert back == pytest.approx(np.where(weights > 0.0, epsilons, 0.0), abs=1e-12)
    assert (back <= 1.0).all()


@given(vectors(unit, unit, st.floats(0.0, 5.0)), kinds)
def test_marginal_is_the_derivative_and_loss_the_difference(drawn, kind):
    epsilons, others, weights = drawn
    objective = Size(weights, kind)
    width = 1e-6
    slopes = (objective.parts(epsilons + width) - objective.parts(epsilons)) / width
    assert objective.marginal(epsilons) == pytest.approx(slopes, rel=1e-3, abs=1e-8)
    difference = objective.parts(epsilons) - objective.parts(others)
    assert objective.loss(epsilons, others) == pytest.approx(difference, abs=1e-12)
    # Concave: no tangent lies below.
    tangent = objective.parts(epsilons) + objective.marginal(epsilons) * (others - epsilons)
    assert (objective.parts(others) <= tangent + 1e-12).all()


@given(vectors(unit, st.floats(0.0, 5.0) | st.floats(0.0, 1e-300)), kinds)
@example((np.array([5e-324, 1e-310]), np.array([1e300, 3.0])), SizeKind.VOLUME)
@example((np.ones(6), np.full(6, 1 / 6)), SizeKind.VOLUME)
@settings(max_examples=200)
def test_an_upper_bound_is_not_below_the_exact_size_and_close_to_it(drawn, kind):
    epsilons, weights = drawn
    objective = Size(weights, kind)
    upper = objective.upper(epsilons)
    assert Decimal(upper) >= exact(objective, epsilons)
    assert upper <= objective.value(epsilons) * (1.0 + 1e-13) + 1e-148 * weights.max() + 1e-300


@pytest.mark.parametrize("weights", [[-1.0], [math.nan], [math.inf, 1.0]])
def test_weights_that_make_no_size_are_refused(weights):
    with pytest.raises(InputError, match="weights"):
        Size(np.array(weights))


def test_volumes_weigh_zones_by_their_share_of_the_entries():
    image = np.zeros((1, 4, 5))
    mask = np.zeros((4, 5), dtype=np.bool_)
    mask[0, 0] = True
    shares = size_of(SizeKind.VOLUME, None, Zones.of_layers(image, mask)).weights
    assert shares == pytest.approx(np.array([1, 3, 5, 7, 4]) / 20)
    keep = np.zeros((4, 5), dtype=np.bool_)
    keep[:, 4] = True
    apart = Zones.of_objects(image, [mask], keep=keep, bands=[(0, 10**9)], sides=Sides.APART)
    assert size_of(SizeKind.VOLUME, None, apart).weights == pytest.approx([0.4, 0.4])
    brighter = Zones.of_objects(image, [mask], keep=keep, bands=[(0, 10**9)], sides=Sides.BRIGHTER)
    assert size_of(SizeKind.VOLUME, None, brighter).weights == pytest.approx([0.8])
    assert size_of(SizeKind.VOLUME, [2.0], brighter).weights == pytest.approx([2.0])


@given(vectors(unit, st.floats(0.05, 1.0)), st.floats(0.01, 1.0))
@settings(max_examples=40)
def test_a_water_level_has_the_volume_asked_and_loses_alike(drawn, share):
    corner, weights = drawn
    objective = Size(weights, SizeKind.VOLUME)
    wanted = share * objective.value(corner)
    level = water_level(corner, objective, wanted)
    assert (level <= corner + 1e-12).all()
    assert objective.value(level) == pytest.approx(wanted, abs=1e-9)
    losses = objective.loss(corner, level)
    assert losses[level > 1e-12] == pytest.approx(losses.max(initial=0.0), abs=1e-9)


staircases = st.integers(1, 3).flatmap(
    lambda layers: st.tuples(
        st.lists(st.lists(st.integers(0, GRID), min_size=layers, max_size=layers).filter(any), min_size=1, max_size=5),
        st.lists(st.floats(0.1, 1.0), min_size=layers, max_size=layers),
    )
)


@given(staircases, st.integers(0, 4000))
@settings(max_examples=40)
def test_the_bound_of_volumes_is_the_largest_that_obeys_every_counterexample(case, branchings):
    radii, weights = case
    objective = volume(weights)
    bound = UpperBound(objective, np.ones(len(weights)))
    for row in radii:
        bound.add(np.array(row) / GRID)
    corner = bound.corner(branchings)
    grid = (np.array(point) / GRID for point in product(range(GRID + 1), repeat=len(weights)))
    obeying = (point for point in grid if all(((np.array(row) > 0) & (point * GRID <= row)).any() for row in radii))
    best = exact(objective, max(obeying, key=objective.value))
    assert Decimal(corner.size) >= best
    if corner.is_attained:
        assert corner.size <= float(best) + 1e-9


def ledger_for(oracle, shares):
    return Ledger(oracle, volume(shares), Limits(Deadline(), 5000, 5.0), lambda step: None)


@given(staircases)
@settings(max_examples=25)
def test_enough_corners_find_the_largest_volume_of_any_downward_closed_set(case):
    """By enumeration of all epsilons on the corners' own grid; nothing is larger by more than a step from 0 in every layer."""
    corners, weights = case
    layers = len(weights)
    oracle = StaircaseOracle(layers, corners=np.array(corners) / GRID, gradient=np.ones(layers))
    ledger = ledger_for(oracle, weights)
    start(ledger, None)
    gap = narrow(ledger, STEP, 3, 10_000)
    result = summarise(ledger, strip(layers), Ending(StopReason.NO_EXPANSION, gap), STEP)
    below = [sorted({1.0, *(max(0.0, row[d] / GRID - 1e-9) for row in corners)}) for d in range(layers)]
    robust = (np.array(point) for point in product(*below) if not oracle.hit(np.array(point)))
    best = max(ledger.objective.value(point) for point in robust)
    assert gap.stop is GapStop.CLOSED
    assert not oracle.hit(ledger.robust)
    assert result.weighted_size <= best + 1e-9 <= result.upper_bound + 1e-6
    assert best - ledger.size <= ledger.objective.value(np.full(layers, STEP)) + 1e-6


def best_volume(costs, shares, room):
    """The largest volume with costs @ eps <= room: eps_d = shares_d / (mu costs_d) - 1/255 within [0, 1], by its multiplier."""

    def filled(log_mu):
        return np.clip(shares / (math.exp(log_mu) * costs) - 1.0 / 255.0, 0.0, 1.0)

    if costs.sum() <= room:
        return np.ones(len(costs))
    return filled(brentq(lambda log_mu: float(costs @ filled(log_mu)) - room, -40.0, 40.0, xtol=1e-14))


linear = st.integers(2, 6).flatmap(
    lambda layers: st.tuples(
        st.lists(st.floats(0.05, 8.0), min_size=layers, max_size=layers),
        st.lists(st.floats(0.02, 1.0), min_size=layers, max_size=layers),
        st.floats(0.02, 3.0),
        st.sampled_from([0.3, 1.0]),
    )
)


@given(linear)
@settings(max_examples=12)
def test_growing_by_volume_comes_near_the_best(case):
    costs, shares, room, bounds_share = np.array(case[0]), np.array(case[1]), case[2], case[3]
    shares = shares / shares.sum()
    oracle = LinearOracle(len(costs), costs=costs, room=room, bounds_share=bounds_share)
    ledger = ledger_for(oracle, shares)
    ending = grow_with(ledger, fixed_cutting_weights(len(costs)), GrowOptions(step=1.0 / 255.0, corners=10))
    result = summarise(ledger, strip(len(costs)), ending, 1.0 / 255.0)
    best = ledger.objective.value(best_volume(costs, shares, room))
    assert result.is_proved
    assert oracle.margin(ledger.robust) < 0.0
    assert 0.95 * best <= result.weighted_size <= best + 1e-9 <= result.upper_bound + 2e-9
    assert result.objective.kind is SizeKind.VOLUME


def test_the_uniform_baseline_is_measured_by_volume():
    oracle = LinearOracle(4, costs=np.ones(4), room=1.0)
    ledger = ledger_for(oracle, np.full(4, 0.25))
    start(ledger, None)
    assert bisect_uniform(ledger, STEP) is StopReason.BISECTED
    epsilon = ledger.robust[0]
    assert 0.25 - STEP <= epsilon < 0.25
    assert ledger.size == pytest.approx(math.log(1.0 + 255.0 * epsilon) / math.log(256.0))


def test_volume_spreads_what_plain_weights_concentrate():
    """Equal shares, layer 0 cheaper: the sum of epsilons spends all on it, the volume spends on all alike."""
    costs, room = np.array([0.5, 1.0, 1.0, 1.0]), 0.4
    ends = {}
    for kind in SizeKind:
        oracle = LinearOracle(4, costs=costs, room=room, bounds_share=1.0)
        ledger = Ledger(oracle, Size(np.full(4, 0.25), kind), Limits(Deadline(), 5000, 5.0), lambda step: None)
        grow_with(ledger, fixed_cutting_weights(4), GrowOptions(corners=0))
        ends[kind] = ledger.robust
    assert ends[SizeKind.VOLUME] == pytest.approx(best_volume(costs, np.full(4, 0.25), room), rel=0.2)
    assert ends[SizeKind.LINEAR][0] > 2.0 * ends[SizeKind.VOLUME][0]


def test_the_first_point_spends_a_fifth_in_proportion_to_the_shares():
    shares = np.array([0.5, 0.25, 0.25])
    oracle = LinearOracle(3, costs=np.array([2.0, 4.0, 8.0]), room=1.0, bounds_share=1.0)
    ledger = ledger_for(oracle, shares)
    start(ledger, None)
    point = first_point(ledger, ledger.slope(Effort.BOUNDS))
    assert oracle.costs * point == pytest.approx(0.2 * shares)


def test_a_planted_counterexample_is_never_inside():
    """A violation that changes two layers by one step each; by volume small epsilons are where growing begins."""
    planted = np.array([[1.0, 1.0, 0.0, 0.0]]) / 255.0
    oracle = StaircaseOracle(4, corners=planted, gradient=np.zeros(4))
    ledger = ledger_for(oracle, np.full(4, 0.25))
    ending = grow_with(ledger, fixed_cutting_weights(4), GrowOptions())
    result = summarise(ledger, strip(4), ending, 1.0 / 255.0)
    epsilons = result.neighbourhood.epsilons
    assert result.is_proved
    assert (epsilons[:2] < planted[0, :2]).any()
    # All but one of the two layers may be unrestricted.
    assert 0.75 <= result.upper_bound <= 0.75 + 0.25 * math.log(2.0) / BASE + 1e-9
    with pytest.raises(ContradictionError):
        ledger.exclude(violation(0.5 * epsilons))
