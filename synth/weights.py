"""What a unit of epsilon in each layer is worth: the weights w of the size sum_d w_d eps_d."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from verifier.errors import InputError
from verifier.region import frozen

Vector = Float[np.ndarray, " layers"]


def default_weights(layers: int) -> Vector:
    """1 / (1 + d) for layer d: near layers count most."""
    return frozen(1.0 / (1.0 + np.arange(layers)))


def layer_weights(given: Sequence[float] | None, layers: int) -> Vector:
    """The given weights, checked, or the default ones for None.

    Raises:
        InputError: Not one number per layer, a number that is negative or not finite, or nothing but zeros.
    """
    if given is None:
        return default_weights(layers)
    weights = frozen(np.asarray(given, dtype=np.float64))
    if weights.shape != (layers,):
        raise InputError(
            f"weights: got {weights.size} numbers, wanted {layers}, one per layer 0..{layers - 1} of this mask"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError("weights: a weight is negative, NaN or infinite, wanted numbers >= 0")
    if not weights.any():
        raise InputError("weights: all are 0, wanted at least one positive weight; otherwise every size is 0")
    return weights
