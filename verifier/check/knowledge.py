"""What the checker knows of every value over the region: an interval, and how much rounding on the way through a step can matter.

Soundness: intervals are rounded outward. For an affine step y = W x + b (several terms W x alike), any coefficients r on y and
the floats R = fl(r @ W), B = fl(r @ b),

    |r @ y - (R @ x + B)| <= |r] @ noise + underflow      at every x of the region,

where noise = gamma_n (|W| X + |b|) + the uncertainty of constants that float64 does not hold, X >= |x|. So whatever a product loses
is made up for by adding that to an upper bound; nothing else about the product matters.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from verifier.check.maps import INFLATION, Rows, Vector
from verifier.check.steps import AffineStep, MaximumStep, Steps
from verifier.proof.errors import CertificateError
from verifier.rounding import down, gamma, up

UNDERFLOW = 2.0**-700
"""More than 2^60 underflows of 2^-1022 each, even when multiplied by the largest float32 and as large a value."""

Bounds = tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """Facts about every value at every point of the region.

    Attributes:
        steps: The network.
        lower, upper: By value, float64 (size,), finite.
        magnitude: By value, max(|lower|, |upper|).
        noise: By the value an affine step produces, float64 (size,): see the module's text; None elsewhere.
        underflow: Added once to every bound.
    """

    steps: Steps
    lower: tuple[Vector, ...]
    upper: tuple[Vector, ...]
    magnitude: tuple[Vector, ...]
    noise: tuple[Vector | None, ...]
    underflow: float

    @classmethod
    def of(cls, steps: Steps, lower: Vector, upper: Vector, stated: Mapping[int, Bounds]) -> "Knowledge":
        """Intervals by interval arithmetic, intersected with what lemmas have shown.

        Args:
            steps: The network.
            lower: The box, flat.
            upper: The same.
            stated: By value, bounds (1, size) that hold over the region; -inf and inf where nothing is.

        Raises:
            CertificateError: A bound is not finite.
        """
        known: list[Bounds] = [(lower[None], upper[None])]
        noises: list[Vector | None] = [None]
        underflow = UNDERFLOW * (1.0 + float(np.abs(lower).sum() + np.abs(upper).sum()))
        with np.errstate(all="ignore"):
            for step in steps.steps:
                if isinstance(step, AffineStep):
                    noise = _noise(
                        step, [np.maximum(np.abs(known[v][0]), np.abs(known[v][1]))[0] for _, v in step.terms]
                    )
                    found = affine_interval(step, [known[value] for _, value in step.terms], noise)
                else:
                    noise, found = None, _maximum_interval(step, known[step.source])
                if step.output in stated:
                    found = np.maximum(found[0], stated[step.output][0]), np.minimum(found[1], stated[step.output][1])
                known.append(found)
                noises.append(noise)
                underflow += UNDERFLOW * (1.0 + float(np.abs(found[0]).sum() + np.abs(found[1]).sum()))
        if not all(np.isfinite(end).all() for pair in known for end in pair) or not np.isfinite(underflow):
            raise CertificateError("the network's values overflow over this region: nothing can be shown")
        if any((low > high).any() for low, high in known):
            raise CertificateError("bounds contradict each other")
        lowers, uppers = (tuple(pair[side][0] for pair in known) for side in (0, 1))
        magnitudes = tuple(np.maximum(np.abs(low), np.abs(high)) for low, high in zip(lowers, uppers, strict=True))
        return cls(steps, lowers, uppers, magnitudes, tuple(noises), underflow)

    def shallow_bounds(self, lower: Rows, upper: Rows) -> dict[int, Bounds]:
        """Bounds (boxes, size) of the values that affine steps alone separate from the input, over parts of the region.

        Args:
            lower: (boxes, inputs), boxes inside the region's.
            upper: The same.
        """
        known: dict[int, Bounds] = {0: (lower, upper)}
        for step in self.steps.steps:
            noise = self.noise[step.output]
            if step.output in self.steps.shallow and isinstance(step, AffineStep) and noise is not None:
                low, high = affine_interval(step, [known[value] for _, value in step.terms], noise)
                at = step.output
                known[at] = np.maximum(low, self.lower[at]), np.minimum(high, self.upper[at])
        return known


def affine_interval(step: AffineStep, sources: list[Bounds], noise: Vector) -> Bounds:
    """Contains the step's value: W m + b, plus or minus |W| r and the noise, for midpoints m and radii r of what it reads."""
    centre, reach = step.bias[None], np.zeros(1)
    for (linear, _), (lower, upper) in zip(step.terms, sources, strict=True):
        middle = 0.5 * lower + 0.5 * upper
        radius = np.maximum(up(upper - middle), up(middle - lower))
        centre = centre + linear.forward(middle)
        reach = reach + linear.magnitude(radius)
    half = up((reach + noise) * INFLATION**2 + UNDERFLOW * (1.0 + np.abs(centre)))
    return down(centre - half), up(centre + half)


def _noise(step: AffineStep, magnitudes: list[Vector]) -> Vector:
    """See the module's text; covers the sum of the terms, forward, as well."""
    total = (gamma(len(step.bias) + 2) * np.abs(step.bias) + step.radius) * INFLATION
    reach = np.abs(step.bias)
    for (linear, _), magnitude in zip(step.terms, magnitudes, strict=True):
        total = total + linear.noise(magnitude)
        reach = reach + linear.magnitude(magnitude[None])[0]
    return (total + gamma(len(step.terms) + 3) * reach) * INFLATION


def _maximum_interval(step: MaximumStep, source: Bounds) -> Bounds:
    lower, upper = alternatives(step, source)
    return lower.max(axis=0), upper.max(axis=0)


def alternatives(
    step: MaximumStep, bounds: Bounds, windows: slice | Int[np.ndarray, " n"] = slice(None)
) -> tuple[Float[np.ndarray, "alternatives batch n"], Float[np.ndarray, "alternatives batch n"]]:
    """Bounds of the alternatives of some windows: 0 for the floor, -inf in the padding."""
    index, present = step.index[:, windows], step.present[:, windows]
    found = []
    for end in bounds:
        gathered = np.where((index >= 0)[:, None, :], end[:, index].transpose(1, 0, 2), 0.0)
        found.append(np.where(present[:, None, :], gathered, -np.inf))
    return found[0], found[1]
