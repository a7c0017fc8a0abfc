"""Planes around maxima y = max of alternatives z_i, the floor being one with l = u = 0. Every parameter gives a valid plane.

Below: y >= sum w_i z_i for w >= 0 with sum 1. It holds whichever alternatives are alive.

Above, where y is the largest of a set A: with F the largest lower bound of all alternatives (y is at least that), an alternative
of A with u_i < F is never the largest, so let K be the others. If K is empty there is no such point. Otherwise, for any T >= L, the
largest lower bound in K, and any slopes a_i,

    y <= T + sum over K of (z_i - T)^+ <= T + sum over u_i > T of (a_i z_i + max(-a_i l_i, u_i - T - a_i u_i)),

because (z - T)^+ - a z is convex in z, so at most its value at l_i (there (l_i - T)^+ = 0) or at u_i. With the chord's slope
a_i = (u_i - T) / (u_i - l_i) both are equal. So slopes may be rounded as they like; only the constant must be rounded upwards.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from verifier.check.maps import INFLATION
from verifier.rounding import gamma

ByAlternative = Float[np.ndarray, "alternatives batch windows"]
ByWindow = Float[np.ndarray, "batch windows"]


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """Planes of a batch of windows.

    Attributes:
        above: Slopes of y <= above @ z + constant.
        constant: See above.
        below: Slopes of y >= below @ z.
        kept: The set K.
        is_empty: Where K is: no point satisfies the splits.
    """

    above: ByAlternative
    constant: ByWindow
    below: ByAlternative
    kept: Bool[np.ndarray, "alternatives batch windows"]
    is_empty: Bool[np.ndarray, "batch windows"]


def planes_of(
    lower: ByAlternative,
    upper: ByAlternative,
    alive: Bool[np.ndarray, "alternatives batch windows"],
    *,
    weights: ByAlternative | None = None,
    fractions: ByWindow | None = None,
) -> Planes:
    """The planes for given parameters, the default ones where there are none.

    Above, a window whose K has one alternative is that alternative, whatever the fraction.

    Args:
        lower: Bounds of the alternatives, -inf in the padding.
        upper: The same.
        alive: The set A, no padding in it.
        weights: Below: each window's are >= 0 and sum to 1, or its first is NaN for the default.
        fractions: Above: T = L + fraction (U - L), U the largest upper bound in K; NaN for the default.
    """
    forced = lower.max(axis=0)
    kept = alive & (upper >= forced)
    count = kept.sum(axis=0)
    is_empty = count == 0
    low = np.where(kept, lower, 0.0)
    high = np.where(kept, upper, 0.0)
    least = np.where(is_empty, 0.0, np.where(kept, lower, -np.inf).max(axis=0))
    tops = np.where(kept, upper, -np.inf)
    most = np.where(is_empty, 0.0, tops.max(axis=0))
    threshold = np.maximum(_second_largest(tops), least) if len(tops) > 1 else least
    if fractions is not None:
        threshold = np.where(np.isnan(fractions), threshold, least + fractions * (most - least))
    threshold = np.where(count > 1, threshold, least)

    rises = kept & (high > threshold)
    width = np.where(rises, high - low, 1.0)
    above = np.where(rises & (width > 0.0), (high - threshold) / np.where(width > 0.0, width, 1.0), 0.0)
    lost = np.where(rises, np.maximum(-above * low, (high - threshold) - above * high), 0.0)
    size = np.where(rises, np.abs(above) * (np.abs(low) + np.abs(high)) + (high - threshold), 0.0)
    constant = threshold + lost.sum(axis=0)
    rounding = gamma(2 * len(above) + 8) * (np.abs(threshold) + size.sum(axis=0)) * INFLATION
    if weights is None:
        below = _default_below(low, high, kept)
    else:
        is_default = np.isnan(weights[0])
        below = np.where(is_default, _default_below(low, high, kept), weights) if is_default.any() else weights
    # One alternative left: y is that one.
    single = (count == 1) & kept
    above = np.where(count == 1, single, above)
    constant = np.where(count == 1, 0.0, constant + rounding)
    return Planes(above, constant, below, kept, is_empty)


def _second_largest(values: ByAlternative) -> ByWindow:
    return values.min(axis=0) if len(values) == 2 else np.partition(values, -2, axis=0)[-2]


def _default_below(low: ByAlternative, high: ByAlternative, kept: Bool[np.ndarray, "..."]) -> ByAlternative:
    """All weight on the alternative of K with the largest l + u; of several the last alternative (the floor), else the first."""
    score = np.where(kept, low + high, -np.inf)
    best = (np.roll(score, 1, axis=0).argmax(axis=0) - 1) % len(score)
    choice = np.zeros_like(low)
    np.put_along_axis(choice, best[None], 1.0, axis=0)
    return choice
