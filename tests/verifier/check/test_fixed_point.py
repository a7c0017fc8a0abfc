"""Numbers in base 2^20 against Python's whole numbers: nothing rounds but what says so."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.check.fixed_point import (
    BITS,
    LARGEST,
    Fixed,
    added,
    carried,
    products,
    rounded,
    scaled,
    signs,
    split,
    truncated,
    unit,
    whole,
)

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**52), 2**52)
DIGITS = st.dictionaries(st.integers(-4, 4), st.lists(WHOLE, min_size=2, max_size=2), min_size=1)


def arrays(digits):
    return {place: np.array(entries, dtype=np.float64) for place, entries in digits.items()}


def value(digits, entry=0):
    """The number at an entry, exactly."""
    return sum(
        (Fraction(float(digit.flat[entry])) * Fraction(2) ** (BITS * place) for place, digit in digits.items()),
        Fraction(0),
    )


def assert_carried(digits):
    assert all(np.abs(digit).max() <= LARGEST and (digit == np.rint(digit)).all() for digit in digits.values())


@given(st.lists(FLOATS, min_size=1, max_size=5))
def test_every_float32_is_split_exactly(numbers):
    digits = split(np.array(numbers))
    assert_carried(digits)
    for entry, number in enumerate(numbers):
        assert value(digits, entry) == Fraction(number)


def test_extreme_numbers_are_split_exactly_and_smaller_ones_refused():
    for number in (2.0**-149, 2.0**-160, 0.1, 1 / 3, float(np.finfo(np.float32).max), -(2.0**19), 2.0**19 + 0.5, 0.0):
        digits = split(np.array([number]))
        assert_carried(digits)
        assert value(digits) == Fraction(number)
    for number in (np.nan, np.inf, 2.0**-161):
        with pytest.raises(OverflowError, match="digits"):
            split(np.array([1.0, number]))


@given(DIGITS)
def test_carrying_changes_no_number_and_the_sign_is_read_off(digits):
    given_digits = arrays(digits)
    found = carried(given_digits)
    assert_carried(found)
    for entry in (0, 1):
        exact = value(given_digits, entry)
        assert value(found, entry) == exact
        assert signs(found)[entry] == (exact > 0) - (exact < 0)


@given(DIGITS, st.integers(-5, 5))
def test_what_is_cut_off_lies_within_the_bound(digits, lowest):
    whole_number = carried(arrays(digits))
    kept, bound = truncated(whole_number, lowest)
    assert min(kept) >= lowest
    for entry in (0, 1):
        assert abs(value(whole_number, entry) - value(kept, entry)) <= Fraction(bound)


@given(DIGITS, DIGITS, st.sampled_from([1.0, -1.0]))
def test_sums_and_products_are_exact(first, second, sign):
    left, right = carried(arrays(first)), carried(arrays(second))
    total, product = added(left, right, sign), scaled(left, right)
    assert_carried(total)
    assert_carried(product)
    for entry in (0, 1):
        assert value(total, entry) == value(left, entry) + Fraction(sign) * value(right, entry)
        assert value(product, entry) == value(left, entry) * value(right, entry)


@pytest.mark.parametrize("columns", [3, 9_000, 40_000])
def test_inner_products_of_the_largest_digits_are_exact(columns):
    # All digits alike and largest: the sums that come nearest to what float64 can hold.
    row = {place: np.full((1, columns), LARGEST) for place in range(6)}
    weight = {place: np.full((1, columns), LARGEST) for place in range(3)}
    assert value(products(row.items(), weight)) == columns * value(row) * value(weight)
    generator = np.random.default_rng(columns)
    mixed = {place: generator.integers(-(2**19), 2**19, (1, columns)).astype(np.float64) for place in range(4)}
    exact = sum(value(mixed, entry) for entry in range(columns)) * value(weight)
    assert value(products(mixed.items(), weight)) == exact


@given(st.integers(0, 2**300), st.integers(-9, 0))
def test_whole_numbers_become_digits(number, lowest):
    digits = whole(number, lowest)
    assert_carried(digits)
    assert value(digits) == Fraction(number) * Fraction(2) ** (BITS * lowest)


@given(DIGITS, st.floats(0, 1e3))
def test_rounding_encloses(digits, error):
    found = carried(arrays(digits))
    lower, upper = rounded(Fixed(found, error))
    for entry in (0, 1):
        assert Fraction(float(lower[entry])) <= value(found, entry) - Fraction(error)
        assert value(found, entry) + Fraction(error) <= Fraction(float(upper[entry]))
        assert float(upper[entry] - lower[entry]) <= 2 * error + 1e-15 * abs(float(upper[entry])) + 1e-300
    assert Fixed(found, error).magnitude >= max(abs(value(found, entry)) for entry in (0, 1))


def test_places_out_of_reach_are_refused():
    assert unit(-50) == 2.0**-1000
    with pytest.raises(OverflowError, match="out of reach"):
        unit(51)
