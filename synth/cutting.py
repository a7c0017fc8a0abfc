"""Cutting weights: how far each layer of a failing neighbourhood falls back towards the last robust one (Mour 2023)."""

from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.region import frozen

Vector = Float[np.ndarray, " layers"]


class CutRule(Enum):
    """Which cutting weights shrink a failing neighbourhood.

    The source contradicts itself on sensitivity: its formula gives the smaller weight to the more sensitive layer, which
    therefore shrinks more; its text says that the less sensitive layers shrink more. Both readings are here.
    """

    FIXED = "fixed"
    SENSITIVITY = "sensitivity"
    SENSITIVITY_REVERSED = "sensitivity-reversed"


def fixed_cutting_weights(layers: int) -> Vector:
    """cw_d = ((r - d) / (r + 1))^5 with r = layers - 1: the farther from the object, the more is cut; the farthest, all."""
    r = layers - 1
    d = np.arange(layers)
    return frozen(((r - d) / (r + 1)) ** 5)


def scaled_sensitivity(sensitivity: Vector) -> Vector:
    """s_d / max s, in [0, 1]; all 0 where no layer is sensitive."""
    largest = float(sensitivity.max(initial=0.0))
    return frozen(sensitivity / largest if largest > 0.0 else np.zeros(len(sensitivity)))


def sensitivity_cutting_weights(sensitivity: Vector, *, is_reversed: bool = False) -> Vector:
    """cw_d = 1 - scaled sensitivity (as the source defines it), or the scaled sensitivity itself (as its text says).

    Args:
        sensitivity: The mean over each layer's entries of the absolute gradient of the target's margin with respect to the
            image (vanilla gradient, Simonyan et al. 2013).
        is_reversed: False: the most sensitive layer has weight 0 and falls back to its last robust epsilon at once, an
            insensitive one has weight 1 and keeps its failing epsilon. True: the other way round.
    """
    scaled = scaled_sensitivity(sensitivity)
    return scaled if is_reversed else frozen(1.0 - scaled)


def cut(failing: Vector, robust: Vector, cutting_weights: Vector) -> Vector:
    """The mixture eps * cw + eps_prev * (1 - cw), elementwise: weight 1 keeps the failing epsilon, weight 0 the last robust one.

    Lies between the two in every layer, exactly (rounding is clipped away).
    """
    mixed = failing * cutting_weights + robust * (1.0 - cutting_weights)
    return frozen(np.clip(mixed, np.minimum(failing, robust), np.maximum(failing, robust)))
