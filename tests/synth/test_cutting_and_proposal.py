"""Formulas, evaluated literally."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.climb import CURVATURE, scaled_down, shrunk
from synth.cutting import cut, fixed_cutting_weights, scaled_sensitivity, sensitivity_cutting_weights
from synth.proposal import SPENT_SHARE, Slope, exponentiated_step, marvel_step
from synth.weights import default_weights, layer_weights
from verifier.errors import InputError

unit = st.floats(0.0, 1.0)
costs = st.just(0.0) | st.floats(1e-3, 5.0)


def vectors(*elements):
    return st.integers(1, 6).flatmap(
        lambda n: st.tuples(*(st.lists(e, min_size=n, max_size=n).map(np.array) for e in elements))
    )


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_fixed_cutting_weights_are_the_formula(layers):
    r = layers - 1
    assert fixed_cutting_weights(layers) == pytest.approx([((r - d) / (r + 1)) ** 5 for d in range(r + 1)])
    assert fixed_cutting_weights(layers)[-1] == 0.0


def test_sensitivity_cutting_weights_in_both_readings():
    sensitivity = np.array([1.0, 4.0, 0.0, 2.0])
    assert sensitivity_cutting_weights(sensitivity) == pytest.approx([0.75, 0.0, 1.0, 0.5])
    assert sensitivity_cutting_weights(sensitivity, is_reversed=True) == pytest.approx([0.25, 1.0, 0.0, 0.5])
    assert not scaled_sensitivity(np.zeros(3)).any()


def test_cut_is_the_formula():
    failing, robust, weights = np.array([0.8, 0.5, 0.4]), np.array([0.2, 0.1, 0.4]), np.array([0.0, 0.25, 1.0])
    assert cut(failing, robust, weights) == pytest.approx(failing * weights + robust * (1 - weights))


@given(vectors(unit, unit, unit))
def test_cut_lies_between(drawn):
    failing, robust, weights = drawn
    between = cut(failing, robust, weights)
    assert (between >= np.minimum(failing, robust)).all()
    assert (between <= np.maximum(failing, robust)).all()


def test_a_cut_that_keeps_everything_is_halved():
    failing, robust = np.array([0.8, 0.5]), np.array([0.2, 0.1])
    assert shrunk(failing, robust, np.ones(2)) == pytest.approx([0.5, 0.3])
    assert shrunk(failing, robust, np.array([1.0, 0.0])) == pytest.approx([0.8, 0.1])


@given(vectors(unit, unit, unit))
def test_a_cut_never_enlarges_and_never_falls_below_both(drawn):
    failing, robust, weights = drawn
    shorter = shrunk(failing, robust, weights)
    assert (shorter <= failing).all()
    assert (shorter >= np.minimum(failing, robust)).all()


def test_exponentiated_step_is_the_formula():
    epsilons, weights, gradient = np.array([0.1, 0.2, 0.05]), np.array([1.0, 0.5, 0.25]), np.array([2.0, 4.0, 1.0])
    margin = -0.15
    mu = (weights @ epsilons) / (gradient @ epsilons)
    grown = epsilons * np.clip((weights / (mu * gradient)) ** 0.5, 0.25, 4.0)
    expected = grown * SPENT_SHARE * (gradient @ epsilons - margin) / (gradient @ grown)
    assert exponentiated_step(epsilons, weights, Slope(margin, gradient), 0.5) == pytest.approx(expected)


@given(vectors(unit, st.floats(0.0, 3.0), costs), st.floats(-1.0, 2.0), st.floats(0.1, 1.0))
def test_exponentiated_step_spends_no_more_than_the_margin(drawn, room, trade_off):
    epsilons, weights, cost = drawn
    weights[0] = 1.0
    proposed = exponentiated_step(epsilons, weights, Slope(-room, cost), trade_off)
    assert ((proposed >= 0) & (proposed <= 1)).all()
    spent = cost @ np.maximum(epsilons, 1e-6)
    assert cost @ proposed <= max(spent + room, 0.25 * spent) + 1e-6


def test_exponentiated_step_stays_where_worth_equals_cost():
    cost, epsilons = np.array([2.0, 1.0, 0.5]), np.array([0.1, 0.3, 0.2])
    assert exponentiated_step(epsilons, 3.0 * cost, Slope(0.0, cost), 0.9) == pytest.approx(SPENT_SHARE * epsilons)


def test_exponentiated_step_keeps_unrestricted_layers_and_leaves_zero():
    proposed = exponentiated_step(np.array([0.0, 1.0, 0.1]), np.ones(3), Slope(-0.5, np.array([1.0, 0.0, 5.0])), 0.9)
    assert proposed[1] == 1.0
    assert proposed[0] > 0.0


def test_scaling_down_removes_the_excess_to_first_order():
    slope = Slope(-0.1, np.array([2.0, 4.0]))
    candidate = np.array([0.5, 0.25])
    assert scaled_down(candidate, slope, 0.2) == pytest.approx(candidate * (1 - CURVATURE * 0.2 / 2.0))
    assert scaled_down(candidate, slope, -0.2) is candidate
    assert scaled_down(candidate, slope, np.inf) is candidate
    assert scaled_down(candidate, slope, 50.0) == pytest.approx(candidate / 2)


def test_marvel_step_is_the_formula():
    epsilons, gradient = np.array([0.0, 0.2, 0.1]), np.array([3.0, 0.0, 4.0])
    scaled = gradient * np.sqrt(3) / 5.0
    direction = np.maximum(1.0 - 0.5 * scaled, 0.0)
    expected = epsilons + 0.05 * direction / np.linalg.norm(direction)
    assert marvel_step(epsilons, gradient, 0.5, 0.05) == pytest.approx(expected)


@given(vectors(unit, costs), st.floats(0.01, 0.99), st.floats(0.01, 0.5))
def test_marvel_step_only_grows(drawn, trade_off, rate):
    epsilons, gradient = drawn
    stepped = marvel_step(epsilons, gradient, trade_off, rate)
    assert (stepped >= epsilons).all()
    assert (stepped <= 1.0).all()
    assert np.linalg.norm(stepped - epsilons) <= rate + 1e-9


def test_default_weights_are_the_formula():
    assert default_weights(4) == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 4])
    assert layer_weights(None, 3) == pytest.approx(default_weights(3))
    assert layer_weights([1.0, 0.0, 2.0], 3) == pytest.approx([1.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [([1.0], "wanted 3"), ([1.0, -1.0, 1.0], "negative"), ([1.0, np.nan, 1.0], "NaN"), ([0.0, 0.0, 0.0], "all are 0")],
)
def test_wrong_weights_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        layer_weights(given, 3)
