"""Whether an image lies within a bound of another: exact arithmetic, so that rounding decides nothing."""

from fractions import Fraction

import numpy as np
from jaxtyping import Float

from attacks.metrics import Norm
from verifier.errors import InputError
from verifier.region import VALID_LOWER, VALID_UPPER, Box, check_image
from verifier.rounding import down, up

ROUNDING = 2.0**-23
"""What storing images of [0, 1] and bounds as float32 may add to the change of one entry."""


def is_within(
    clean: Float[np.ndarray, "*shape"], image: Float[np.ndarray, "*shape"], norm: Norm, bound: float, slack: float = 0.0
) -> bool:
    """Whether the change is at most the bound plus `slack` per changed entry, in exact rational arithmetic.

    With a slack e and d changed entries, L-infinity may exceed the bound by e, L1 by d e, L2 by sqrt(d) e at most, L0 by nothing.
    """
    changed = np.flatnonzero(clean.ravel() != image.ravel())
    pairs = zip(clean.ravel()[changed].tolist(), image.ravel()[changed].tolist(), strict=True)
    changes = [abs(Fraction(after) - Fraction(before)) for before, after in pairs]
    limit, extra, count = Fraction(bound), Fraction(slack), len(changed)
    match norm:
        case Norm.LINF:
            return max(changes, default=Fraction(0)) <= limit + extra
        case Norm.L1:
            return sum(changes, Fraction(0)) <= limit + count * extra
        case Norm.L2:
            # |change| <= bound + sqrt(d) e is implied by |change|^2 <= bound^2 + d e^2 + 2 bound e, and needs no root.
            square = sum((change * change for change in changes), Fraction(0))
            return square <= limit * limit + count * extra * extra + (2 * limit * extra if count else 0)
        case Norm.L0:
            return count <= limit


def enclosing_box(clean: Float[np.ndarray, "..."], norm: Norm | None, bound: float | None) -> Box:
    """A box that holds every image within the bound: for L-infinity the ball itself, its ends rounded outward.

    L1 and L2 balls lie in the L-infinity ball of the same radius. Nothing is known of single entries from L0, or without a bound.

    Soundness: each end is at least as far out as the exact sum, so no image within the bound is left out.

    Raises:
        InputError: The image is not one of finite values in [0, 1].
    """
    centre = check_image(clean)
    radius = 1.0 if norm is None or bound is None else bound
    if norm is Norm.L0:
        radius = 1.0 if radius >= 1 else 0.0
    lower, upper = (centre, centre) if radius == 0.0 else (down(centre - radius), up(centre + radius))
    return Box(np.maximum(lower, VALID_LOWER), np.minimum(upper, VALID_UPPER))


def check_bound(norm: Norm | None, bound: float | None) -> None:
    """Refuses a bound that means nothing.

    Raises:
        InputError: Only one of norm and bound is given, or the bound is negative or not finite.
    """
    if (norm is None) != (bound is None):
        raise InputError(f"bound: got norm {norm or 'none'} and bound {bound}, wanted both or neither")
    if bound is not None and not (np.isfinite(bound) and bound >= 0):
        raise InputError(f"bound: got {bound:g}, wanted a finite number >= 0")
