from fractions import Fraction

import numpy as np
import pytest
from exact_arithmetic import exact
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.rounding import UNIT_ROUNDOFF, down, gamma, inner_product_error, up

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(0, 2**40))
def test_gamma_is_no_less_than_its_formula_and_hardly_more(terms: int) -> None:
    product = terms * Fraction(UNIT_ROUNDOFF)
    formula = product / (1 - product)
    assert formula <= Fraction(gamma(terms)) <= formula * (1 + 8 * Fraction(UNIT_ROUNDOFF))


def test_gamma_refuses_so_many_terms_that_it_says_nothing() -> None:
    with pytest.raises(OverflowError, match="too many"):
        gamma(2**52)


@given(FINITE)
def test_up_and_down_are_the_neighbours(value: float) -> None:
    array = np.array([value])
    with np.errstate(over="ignore"):
        assert down(array)[0] < value < up(array)[0]
        assert down(up(array))[0] == up(down(array))[0] == value


@given(FINITE, FINITE)
def test_up_and_down_enclose_a_rounded_sum_and_product(a: float, b: float) -> None:
    with np.errstate(over="ignore"):
        for rounded, result in (
            (np.array([a]) + b, Fraction(a) + Fraction(b)),
            (np.array([a]) * b, Fraction(a) * Fraction(b)),
        ):
            lower, upper = down(rounded)[0], up(rounded)[0]
            assert lower == -np.inf or Fraction(lower) <= result
            assert upper == np.inf or result <= Fraction(upper)


def numbers(generator: np.random.Generator, *shape: int, exponents: tuple[int, int]) -> np.ndarray:
    signs = generator.choice([-1.0, 1.0], shape)
    return signs * generator.random(shape) * 2.0 ** generator.integers(*exponents, shape)


@settings(max_examples=80)
@given(
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.sampled_from([(-30, 30), (-1, 1), (-600, -400), (-1074, -530), (-60, 60)]),
)
def test_the_radius_contains_the_error_of_every_computed_inner_product(
    seed: int, terms: int, exponents: tuple[int, int]
) -> None:
    generator = np.random.default_rng(seed)
    a, b = (numbers(generator, terms, exponents=exponents) for _ in range(2))
    # Halves that cancel: the exact sum is small beside its terms.
    a = np.concatenate([a, -a])
    b = np.concatenate([b, b + numbers(generator, terms, exponents=exponents) * 2.0**-50])
    expected = (exact(a) * exact(b)).sum()
    radius = inner_product_error(np.array([np.abs(a) @ np.abs(b)]), len(a))[0]
    order = generator.permutation(len(a))
    sequential = 0.0
    for x, y in zip(a, b, strict=True):
        sequential += x * y
    for computed in (a @ b, sequential, a[order] @ b[order], (a * b).sum(), np.sort(a * b).sum()):
        assert abs(Fraction(float(computed)) - expected) <= Fraction(radius)


def test_the_radius_is_of_the_size_of_the_rounding() -> None:
    radius = inner_product_error(np.array([1.0]), 100)[0]
    assert 100 * UNIT_ROUNDOFF < radius < 110 * UNIT_ROUNDOFF


def test_the_radius_covers_products_that_underflow_to_zero() -> None:
    small = np.full(100, 2.0**-538)
    assert small @ small == 0.0
    expected = (exact(small) * exact(small)).sum()
    assert expected <= Fraction(inner_product_error(np.array([small @ small]), 100)[0])


def test_the_radius_after_overflow_is_infinite() -> None:
    assert inner_product_error(np.array([np.inf]), 1)[0] == np.inf
