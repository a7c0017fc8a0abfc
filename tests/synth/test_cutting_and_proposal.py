"""Formulas, evaluated literally."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from synth.climb import shrunk
from synth.cutting import cut, fixed_cutting_weights, scaled_sensitivity, sensitivity_cutting_weights
from synth.proposal import Slope, linearised_step, marvel_step
from synth.weights import default_weights, layer_weights, weighted_size
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


@given(vectors(unit, st.floats(0.0, 3.0), costs, st.floats(0.01, 0.5)), st.floats(0.0, 2.0))
def test_linearised_step_solves_its_linear_program(drawn, room):
    epsilons, weights, cost, radius = drawn
    proposed = linearised_step(epsilons, weights, Slope(-room, cost), 0.9, radius)
    low, high = np.maximum(0.0, epsilons - radius), np.minimum(1.0, epsilons + radius)
    assert (proposed >= low - 1e-12).all()
    assert (proposed <= high + 1e-12).all()
    assert cost @ (proposed - epsilons) <= 0.9 * room + 1e-9
    best = linprog(-weights, A_ub=[cost], b_ub=[0.9 * room + cost @ epsilons], bounds=list(zip(low, high, strict=True)))
    assert weighted_size(weights, proposed) == pytest.approx(-best.fun, abs=1e-6)


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
