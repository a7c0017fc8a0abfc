"""Layered neighbourhoods: one epsilon per Chebyshev distance from an object. They convert to a box."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from verifier.errors import InputError
from verifier.region import Box, check_image, frozen


def layer_distances(pixels: np.ndarray) -> Int[np.ndarray, "height width"]:
    """The Chebyshev distance max(|i-i'|, |j-j'|) of every pixel to the nearest marked one (Mour 2023).

    Raises:
        InputError: The mask is empty, not two-dimensional or not boolean.
    """
    mask = np.asarray(pixels)
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise InputError(f"mask: got dtype {mask.dtype} with shape {mask.shape}, wanted a boolean height x width array")
    if not mask.any():
        raise InputError(
            "mask: no pixel is marked, wanted the pixels of the perturbed object; check the mask or the box"
        )
    return np.asarray(ndimage.distance_transform_cdt(~mask, metric="chessboard"), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class LayeredNeighbourhood:
    """The images around `image` in which each pixel may change by its layer's epsilon (Mour 2023, section "Layers").

    Layer d holds the pixels at Chebyshev distance exactly d from the object; layer 0 is the object. Every channel of a pixel
    shares its layer.

    Attributes:
        image: float64 (channels, height, width) in [0, 1].
        pixels: bool (height, width), the pixels of the perturbed object.
        epsilons: float64 (layers,), each in [0, 1], one per distance 0..r where r is the largest distance in the image.
    """

    # Shapes are checked below, with a message.
    image: Float[np.ndarray, "..."]
    pixels: Bool[np.ndarray, "..."]
    epsilons: Float[np.ndarray, "..."]

    def __post_init__(self) -> None:
        image = check_image(self.image)
        if image.ndim != 3 or image.shape[1:] != np.shape(self.pixels):
            raise InputError(
                f"mask: got shape {np.shape(self.pixels)}, wanted the image's height and width {image.shape[1:]}"
            )
        layers = int(layer_distances(self.pixels).max()) + 1
        epsilons = frozen(self.epsilons)
        if epsilons.shape != (layers,):
            raise InputError(f"epsilons: got shape {epsilons.shape}, wanted ({layers},), one per layer of this mask")
        if not ((epsilons >= 0) & (epsilons <= 1)).all():
            raise InputError("epsilons: every layer's epsilon must lie in [0, 1]")
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "pixels", frozen(self.pixels, np.bool_))
        object.__setattr__(self, "epsilons", epsilons)

    @property
    def layers(self) -> Int[np.ndarray, "height width"]:
        """The layer of every pixel."""
        return layer_distances(self.pixels)

    @property
    def widths(self) -> Float[np.ndarray, "channels height width"]:
        """The width of every entry: its layer's epsilon."""
        return np.broadcast_to(self.epsilons[self.layers], self.image.shape)

    def box(self) -> Box:
        """The neighbourhood as a box, intersected with [0, 1]."""
        return Box.around(self.image, self.widths)

    def radii(self, image: Float[np.ndarray, "..."]) -> Float[np.ndarray, " layers"]:
        """The largest |x' - x| over the entries of each layer, for another image x' of the same shape."""
        change = np.abs(np.asarray(image, dtype=np.float64) - self.image).max(axis=0)
        radii = np.zeros(len(self.epsilons))
        np.maximum.at(radii, self.layers.ravel(), change.ravel())
        return radii

    def with_epsilons(self, epsilons: np.ndarray) -> "LayeredNeighbourhood":
        """The same image and object with other epsilons."""
        return LayeredNeighbourhood(self.image, self.pixels, epsilons)
