"""Regions of perturbed images: boxes inside the valid input range."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from verifier.errors import InputError

VALID_LOWER, VALID_UPPER = 0.0, 1.0


def frozen(array: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """A read-only C-ordered copy."""
    copy: np.ndarray = np.array(array, dtype=dtype, order="C", copy=True)
    copy.setflags(write=False)
    return copy


def check_image(image: np.ndarray, shape: tuple[int, ...] | None = None) -> Float[np.ndarray, "..."]:
    """The image as a read-only float64 array, after checking it.

    Raises:
        InputError: Not floating point, another shape than `shape`, not finite, or outside [0, 1].
    """
    array = np.asarray(image)
    if array.dtype.kind != "f":
        raise InputError(
            f"image: got dtype {array.dtype}, wanted float32 or float64 in [0, 1]; divide 8-bit pixels by 255"
        )
    if shape is not None and array.shape != shape:
        raise InputError(
            f"image: got shape {array.shape}, wanted {shape} (channels, height, width) as the network's input"
        )
    if not np.isfinite(array).all():
        raise InputError(
            f"image: {int((~np.isfinite(array)).sum())} pixels are NaN or infinite, wanted values in [0, 1]"
        )
    if array.min(initial=0.0) < VALID_LOWER or array.max(initial=0.0) > VALID_UPPER:
        raise InputError(f"image: values span [{array.min():g}, {array.max():g}], wanted [0, 1]; rescale the image")
    return frozen(array)


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """All images x with lower <= x <= upper, entry by entry; never leaves the valid input range [0, 1].

    Attributes:
        lower: float64, the network's input shape without the batch axis; read-only.
        upper: The same shape; `upper >= lower` everywhere.

    Raises:
        InputError: Shapes differ, a bound is not finite, lower > upper, or a bound lies outside [0, 1].
    """

    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]

    def __post_init__(self) -> None:
        lower, upper = frozen(self.lower), frozen(self.upper)
        if lower.shape != upper.shape:
            raise InputError(f"box: lower has shape {lower.shape}, upper {upper.shape}; wanted equal shapes")
        if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
            raise InputError("box: a bound is NaN or infinite, wanted finite numbers")
        if (lower > upper).any():
            raise InputError(f"box: lower > upper at {int((lower > upper).sum())} entries; swap or fix the bounds")
        if (lower < VALID_LOWER).any() or (upper > VALID_UPPER).any():
            raise InputError("box: a bound lies outside the valid input range [0, 1]; intersect the box with it first")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @classmethod
    def around(cls, image: np.ndarray, widths: np.ndarray | float) -> "Box":
        """The images within `widths` of `image` (a number or one width per entry), intersected with [0, 1].

        The sums image -+ width are rounded to nearest; the box is the one these doubles name.

        Raises:
            InputError: A width is negative or NaN, or its shape is not the image's.
        """
        centre = check_image(image)
        radius = np.asarray(widths, dtype=np.float64)
        if radius.ndim and radius.shape != centre.shape:
            raise InputError(f"widths: got shape {radius.shape}, wanted {centre.shape} as the image, or one number")
        if np.isnan(radius).any() or (radius < 0).any():
            raise InputError(f"widths: the smallest is {np.min(radius):g}, wanted numbers >= 0")
        return cls(np.clip(centre - radius, VALID_LOWER, centre), np.clip(centre + radius, centre, VALID_UPPER))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the images."""
        return self.lower.shape

    @property
    def centre(self) -> Float[np.ndarray, "..."]:
        """The midpoint of the box."""
        return 0.5 * (self.lower + self.upper)

    def contains(self, image: np.ndarray) -> bool:
        """Whether the image lies inside, by exact comparison; NaN never does."""
        point = np.asarray(image, dtype=np.float64)
        return point.shape == self.shape and bool(((point >= self.lower) & (point <= self.upper)).all())

    def encloses(self, other: "Box") -> bool:
        """Whether the other box is a subset of this one."""
        return self.contains(other.lower) and self.contains(other.upper)
