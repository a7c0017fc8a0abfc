"""Interval arithmetic on arrays, rounded outward.

Soundness: every function returns intervals that contain f(x, ...) in exact real arithmetic for all x, ... in its arguments,
where an end of -inf or inf claims nothing. A NaN end, which overflow and division by zero produce, claims nothing either; the
walk over a network turns it into an infinite end (`without_nan`). Callers silence floating-point warnings.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from verifier.rounding import down, inner_product_error, up


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """All arrays x with lower <= x <= upper, entry by entry; float64, of one shape."""

    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]


def point(values: np.ndarray) -> Interval:
    """The interval that holds these float32 or float64 numbers alone."""
    exact = np.asarray(values, dtype=np.float64)
    return Interval(exact, exact)


def without_nan(interval: Interval) -> Interval:
    """The interval with every NaN end moved out to infinity."""
    lower, upper = interval.lower, interval.upper
    return Interval(np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper))


def add(first: Interval, second: Interval) -> Interval:
    """Contains x + y, broadcast."""
    return Interval(down(first.lower + second.lower), up(first.upper + second.upper))


def subtract(first: Interval, second: Interval) -> Interval:
    """Contains x - y, broadcast."""
    return Interval(down(first.lower - second.upper), up(first.upper - second.lower))


def multiply(first: Interval, second: Interval) -> Interval:
    """Contains x * y, broadcast."""
    return _around([a * b for a in (first.lower, first.upper) for b in (second.lower, second.upper)])


def divide(first: Interval, second: Interval) -> Interval:
    """Contains x / y, broadcast; NaN where y may be 0."""
    may_be_zero = (second.lower <= 0.0) & (second.upper >= 0.0)
    lower, upper = (np.where(may_be_zero, np.nan, end) for end in (second.lower, second.upper))
    return _around([a / b for a in (first.lower, first.upper) for b in (lower, upper)])


def square_root(interval: Interval) -> Interval:
    """The square root; NaN where x may be negative. IEEE 754 rounds it correctly."""
    return Interval(down(np.sqrt(interval.lower)), up(np.sqrt(interval.upper)))


def total(interval: Interval, axis: int) -> Interval:
    """The sum along an axis."""
    terms = interval.lower.shape[axis]
    low_error = inner_product_error(np.abs(interval.lower).sum(axis=axis), terms)
    high_error = inner_product_error(np.abs(interval.upper).sum(axis=axis), terms)
    return Interval(
        down(interval.lower.sum(axis=axis) - low_error),
        up(interval.upper.sum(axis=axis) + high_error),
    )


def affine(interval: Interval, weight: Float[np.ndarray, "out n"], bias: Float[np.ndarray, " out"]) -> Interval:
    """Contains weight @ x + bias along the last axis, for float64 weight and bias taken as exact.

    With a midpoint m and a radius r of x (r rounded up): the computed weight @ m + bias, plus or minus the error of that
    inner product, plus or minus |weight| @ r.
    """
    middle = 0.5 * interval.lower + 0.5 * interval.upper
    radius = np.maximum(up(interval.upper - middle), up(middle - interval.lower))
    magnitudes = np.abs(weight).T
    terms = weight.shape[1] + 1
    computed = middle @ weight.T + bias
    rounding = inner_product_error(np.abs(middle) @ magnitudes + np.abs(bias), terms)
    spread = radius @ magnitudes
    spread = up(spread + inner_product_error(spread, terms))
    half_width = up(rounding + spread)
    return Interval(down(computed - half_width), up(computed + half_width))


def _around(candidates: list[Float[np.ndarray, "..."]]) -> Interval:
    """Once-rounded results: the interval between the least and the largest, one step wider."""
    return Interval(down(np.minimum.reduce(candidates)), up(np.maximum.reduce(candidates)))
