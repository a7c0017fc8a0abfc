from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from exact_arithmetic import exact, square_root
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from verifier.check import interval
from verifier.check.interval import Interval

# From subnormal to huge, so that underflow, cancellation and overflow occur.
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, 5e-324, 1e-300, 2.0**60, 1e308, -1e308]
)
SEEDS = st.integers(0, 2**31)


def interval_of(a: float, b: float) -> Interval:
    return Interval(np.array([min(a, b)]), np.array([max(a, b)]))


def encloses(enclosure: Interval, value: Fraction) -> bool:
    lower, upper = enclosure.lower.item(), enclosure.upper.item()
    return (lower == -np.inf or Fraction(lower) <= value) and (upper == np.inf or value <= Fraction(upper))


@settings(max_examples=150)
@given(FLOATS, FLOATS, FLOATS, FLOATS)
@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (interval.add, Fraction.__add__),
        (interval.subtract, Fraction.__sub__),
        (interval.multiply, Fraction.__mul__),
        (interval.divide, Fraction.__truediv__),
    ],
)
def test_arithmetic_encloses_the_exact_result(
    function: Callable, operation: Callable, a: float, b: float, c: float, d: float
) -> None:
    with np.errstate(all="ignore"):
        result = interval.without_nan(function(interval_of(a, b), interval_of(c, d)))
    for x in (a, b):
        for y in (c, d):
            if y or function is not interval.divide:
                assert encloses(result, operation(Fraction(x), Fraction(y)))


@given(st.floats(0, allow_infinity=False), st.floats(0, allow_infinity=False))
def test_square_root_encloses_the_exact_result(a: float, b: float) -> None:
    with np.errstate(all="ignore"):
        result = interval.square_root(interval_of(a, b))
    for x in (a, b):
        assert encloses(result, square_root(Fraction(x)))


@pytest.mark.parametrize(
    ("function", "tight"),
    [(interval.add, 0.75), (interval.subtract, 0.25), (interval.multiply, 0.125), (interval.divide, 2.0)],
)
def test_arithmetic_is_tight_to_one_step(function: Callable, tight: float) -> None:
    result = function(interval_of(0.5, 0.5), interval_of(0.25, 0.25))
    assert (result.lower, result.upper) == (np.nextafter(tight, -np.inf), np.nextafter(tight, np.inf))


def test_division_by_an_interval_around_zero_claims_nothing() -> None:
    result = interval.without_nan(interval.divide(interval_of(1.0, 1.0), interval_of(-1.0, 1.0)))
    assert (result.lower, result.upper) == (-np.inf, np.inf)


def wild(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers of very different magnitudes, so that sums cancel."""
    return generator.choice([-1.0, 1.0], shape) * 2.0 ** generator.integers(-40, 40, shape) * generator.random(shape)


@settings(max_examples=60)
@given(SEEDS)
def test_affine_and_total_enclose_the_exact_results(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weight, bias, lower = wild(generator, 3, 12), wild(generator, 3), wild(generator, 12)
    lower[6:] = -lower[:6]
    weight[:, 6:] = weight[:, :6]  # the exact sums are small, the terms large
    upper = lower + generator.choice([0.0, 1e-9, 1.0], 12)
    enclosure = interval.affine(Interval(lower, upper), weight, bias)
    summed = interval.total(Interval(lower[None], upper[None]), axis=1)
    for share in (0.0, 0.25, 1.0):
        inside = np.clip(lower + share * (upper - lower), lower, upper)
        expected = (exact(weight) * exact(inside)).sum(axis=1) + exact(bias)
        for row, value in enumerate(expected):
            assert encloses(Interval(enclosure.lower[row : row + 1], enclosure.upper[row : row + 1]), value)
        assert encloses(summed, exact(inside).sum())


def test_affine_of_a_point_is_as_tight_as_rounding_allows() -> None:
    generator = np.random.default_rng(0)
    weight, bias, x = generator.normal(size=(4, 100)), generator.normal(size=4), generator.random(100)
    enclosure = interval.affine(interval.point(x), weight, bias)
    assert ((enclosure.upper - enclosure.lower) < 1e-11).all()
    assert (enclosure.lower <= enclosure.upper).all()


@given(FLOATS, FLOATS)
def test_affine_never_claims_after_overflow(a: float, b: float) -> None:
    assume(abs(a) > 1e200)
    with np.errstate(all="ignore"):
        weight = np.array([[1e200, 1.0]])
        enclosure = interval.without_nan(interval.affine(interval.point(np.array([a, b])), weight, np.zeros(1)))
    assert encloses(enclosure, Fraction(a) * Fraction(1e200) + Fraction(b))
