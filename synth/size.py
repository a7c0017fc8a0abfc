"""The size of a neighbourhood: sum_d f_d(eps_d) with every f_d nondecreasing and concave, f_d(0) = 0, f_d(1) = w_d."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

import numpy as np
from jaxtyping import Float

from synth.weights import layer_weights
from synth.zones import Zones
from verifier.errors import InputError
from verifier.region import frozen
from verifier.rounding import inner_product_error, up

Vector = Float[np.ndarray, " layers"]

STEPS = 255.0
"""Volumes count steps of 1/255, those of an 8-bit image."""

BASE = math.log(1.0 + STEPS)

LOGARITHM_OPERATIONS = 64
"""As how many rounded operations the logarithm of a term counts in an upper bound: 64 * 2^-53 is 32 units in the last place."""

SMALLEST_LOGARITHM = 2.0**-500
"""Smaller epsilons are taken as this one in an upper bound, so that no logarithm underflows."""

SMALLEST_COST = 1e-12


class SizeKind(Enum):
    """How an epsilon counts.

    LINEAR: f_d(e) = w_d e. VOLUME: f_d(e) = w_d log(1 + 255 e) / log 256.
    """

    LINEAR = "linear"
    VOLUME = "volume"

    @property
    def title(self) -> str:
        """What reports call the size."""
        return "weighted size" if self is SizeKind.LINEAR else "volume in logarithms"


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """What neighbourhoods are compared by.

    With `VOLUME` and weights that are shares of the image's entries, the size is the mean over all entries of the base-256
    logarithm of 1 + 255 eps, the number of steps of 1/255 that the entry may take one way, standing still included: 0 where it may
    not change, 1 where it is unrestricted. The logarithm of the volume itself would be minus infinity as long as one entry
    may not change.

    Attributes:
        weights: w, float64 (layers,), finite and >= 0.
        kind: How an epsilon counts.

    Raises:
        InputError: A weight is negative, NaN or infinite.
    """

    weights: Float[np.ndarray, "..."]
    kind: SizeKind = SizeKind.LINEAR

    def __post_init__(self) -> None:
        weights = frozen(self.weights)
        if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0.0).any():
            raise InputError("weights: a weight is negative, NaN or infinite, wanted numbers >= 0, one per layer")
        object.__setattr__(self, "weights", weights)

    def value(self, epsilons: Vector) -> float:
        """sum_d f_d(eps_d), rounded to nearest: sum_d w_d eps_d (Mour 2023), or the volume."""
        return float(self.weights @ self._shape(epsilons))

    def parts(self, epsilons: Vector) -> Vector:
        """f_d(eps_d) per layer."""
        return self.weights * self._shape(epsilons)

    def inverse(self, parts: Vector) -> Vector:
        """The epsilons with these parts, 0 <= parts <= w; 0 in layers without weight."""
        shares = np.divide(parts, self.weights, out=np.zeros(len(parts)), where=self.weights > 0.0)
        match self.kind:
            case SizeKind.LINEAR:
                return shares
            case SizeKind.VOLUME:
                return np.minimum(np.expm1(shares * BASE) / STEPS, 1.0)
            case _:
                assert_never(self.kind)

    def loss(self, before: Vector, after: Float[np.ndarray, "*rows layers"]) -> Float[np.ndarray, "*rows layers"]:
        """f_d(before_d) - f_d(after_d) per layer, for one `after` or several."""
        match self.kind:
            case SizeKind.LINEAR:
                return self.weights * (before - after)
            case SizeKind.VOLUME:
                return self.weights * (np.log1p(STEPS * (before - after) / (1.0 + STEPS * after)) / BASE)
            case _:
                assert_never(self.kind)

    def marginal(self, epsilons: Vector) -> Vector:
        """f'_d(eps_d) per layer: what a little more epsilon is worth."""
        match self.kind:
            case SizeKind.LINEAR:
                return self.weights
            case SizeKind.VOLUME:
                return self.weights * (STEPS / BASE) / (1.0 + STEPS * epsilons)
            case _:
                assert_never(self.kind)

    def direction(self, costs: Vector) -> Vector:
        """Epsilons with a largest of 1 from which to start, where a unit of each layer costs this much.

        LINEAR: w. VOLUME: w_d / cost_d, that is, each layer spends in proportion to its weight: the best for sum_d w_d log eps_d.
        """
        match self.kind:
            case SizeKind.LINEAR:
                rates = self.weights
            case SizeKind.VOLUME:
                rates = self.weights / np.maximum(costs, SMALLEST_COST * max(1.0, float(costs.max(initial=0.0))))
            case _:
                assert_never(self.kind)
        largest = float(rates.max(initial=0.0))
        return rates / largest if largest > 0.0 else np.ones(len(rates))

    def upper(self, epsilons: Vector) -> float:
        """An upper bound of the exact sum_d f_d(eps_d).

        Soundness: LINEAR by Higham's bound on inner products (`verifier.rounding`). VOLUME: every term is >= 0 and off by a
        relative error. Rounding 255 eps once moves log(1 + 255 eps) by less than that relative error, for x / (1 + x) <=
        log(1 + x); `log1p` is not correctly rounded, but libraries document at most 4 units in the last place (8 * 2^-53);
        log 256, off by less than 2 * 2^-53, the quotient, and the product follow: less than 16 operations where 64 are counted,
        beside the terms of the sum. So `log1p` alone may err by 25 units. Epsilons between 0 and 2^-500 are rounded up to it.
        """
        match self.kind:
            case SizeKind.LINEAR:
                size, operations = self.value(epsilons), len(epsilons)
            case SizeKind.VOLUME:
                safe = np.where(epsilons > 0.0, np.maximum(epsilons, SMALLEST_LOGARITHM), 0.0)
                size, operations = self.value(safe), len(epsilons) + LOGARITHM_OPERATIONS
            case _:
                assert_never(self.kind)
        magnitude = np.atleast_1d(size)
        return float(up(magnitude + inner_product_error(magnitude, operations))[0])

    def _shape(self, epsilons: Vector) -> Vector:
        """f_d / w_d."""
        match self.kind:
            case SizeKind.LINEAR:
                return epsilons
            case SizeKind.VOLUME:
                return np.log1p(STEPS * epsilons) / BASE
            case _:
                assert_never(self.kind)


def size_of(kind: SizeKind, weights: Sequence[float] | None, zones: Zones) -> Size:
    """The size of neighbourhoods of these zones; without weights, their worth (LINEAR) or their shares of the image (VOLUME).

    Raises:
        InputError: As in `layer_weights`.
    """
    if weights is not None:
        return Size(layer_weights(weights, zones.count), kind)
    return Size(zones.worth if kind is SizeKind.LINEAR else zones.shares, kind)
