"""Outward rounding, in one place.

IEEE 754 double precision rounds to nearest, so a sum or product of n terms carries a relative error of at most
gamma(n) = n u / (1 - n u), u = 2^-53 (Higham 2002, Lemma 3.1), whatever the order of evaluation. The helpers here turn that
bound into enclosures that also cover their own rounding and underflow.
"""

import numpy as np
from jaxtyping import Float

UNIT_ROUNDOFF = 2.0**-53
_TINY = np.finfo(np.float64).tiny


def gamma(terms: int) -> float:
    """An upper bound of Higham's gamma_n for `terms` operations, itself rounded outward."""
    product = terms * UNIT_ROUNDOFF
    if product >= 0.5:
        raise OverflowError(f"gamma: {terms} terms are too many for a meaningful error bound")
    return product / (1.0 - product) * (1.0 + 4.0 * UNIT_ROUNDOFF)


def up(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The next larger doubles: an upper bound of any result that was rounded to nearest once."""
    return np.nextafter(values, np.inf)


def down(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The next smaller doubles: a lower bound of any result that was rounded to nearest once."""
    return np.nextafter(values, -np.inf)


def inner_product_error(magnitude: Float[np.ndarray, "..."], terms: int) -> Float[np.ndarray, "..."]:
    """Bounds the error of computed inner products.

    Args:
        magnitude: The computed sum of |a_i| |b_i| over the same `terms` (rounded to nearest), per entry.
        terms: The number of products in each inner product, the bias included.

    Returns:
        A radius that contains the distance of every computed inner product to the exact one, in any summation order,
        including gradual underflow.
    """
    # |error| <= gamma_n sum|a||b|, and the computed magnitude itself may be low by the same relative amount.
    return up(magnitude * (gamma(terms + 2) * (1.0 + 2.0 * gamma(terms + 2))) + (terms + 2) * _TINY)
