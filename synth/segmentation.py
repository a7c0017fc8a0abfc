"""Which pixels belong to the perturbed object: from a mask, from a bounding box, or from the ink of a digit image."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from verifier.errors import InputError
from verifier.region import check_image

Mask = Bool[np.ndarray, "height width"]
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int64)


def mask_pixels(mask: np.ndarray, size: tuple[int, int]) -> Mask:
    """The marked pixels of a mask array: True, or any integer but 0, marks a pixel.

    Args:
        mask: Boolean or integer (height, width), such as a PNG read as uint8.
        size: The image's (height, width).

    Raises:
        InputError: Not boolean or integer, another size than the image, or no pixel marked.
    """
    array = np.asarray(mask)
    if array.dtype.kind not in "bui":
        raise InputError(f"mask: got dtype {array.dtype}, wanted booleans or integers (0 outside the object)")
    if array.shape != size:
        raise InputError(f"mask: got shape {array.shape}, wanted the image's height and width {size}")
    pixels = array != 0
    if not pixels.any():
        raise InputError("mask: no pixel is marked, wanted the pixels of the perturbed object; check the mask")
    return pixels


def box_pixels(box: tuple[int, int, int, int], size: tuple[int, int]) -> Mask:
    """The pixels of a bounding box (top, left, bottom, right): rows top to bottom - 1, columns left to right - 1.

    Args:
        box: Row and column of the first pixel inside, then of the first pixel past the box, as in slices.
        size: The image's (height, width).

    Raises:
        InputError: The box is empty or does not lie inside the image.
    """
    top, left, bottom, right = box
    height, width = size
    if min(top, left) < 0 or bottom > height or right > width:
        raise InputError(
            f"box: got (top, left, bottom, right) = {box}, wanted it inside the image of {height} x {width} pixels"
        )
    if not (top < bottom and left < right):
        raise InputError(f"box: got (top, left, bottom, right) = {box}, wanted top < bottom and left < right")
    pixels = np.zeros(size, dtype=np.bool_)
    pixels[top:bottom, left:right] = True
    return pixels


def ink_pixels(image: Float[np.ndarray, "..."], objects: int = 2, threshold: float = 0.0) -> tuple[Mask, ...]:
    """One mask per digit of an image of bright digits side by side on a dark ground, from left to right.

    Ink is every pixel with a channel above `threshold`. Its connected pieces (8 neighbours) are merged, always the two
    neighbours whose merger adds least to the ink's squared column distances (Ward 1963), until `objects` are left: specks and
    broken strokes join the digit they lie over. The masks are disjoint and together are the ink.

    Raises:
        InputError: The image is not (channels, height, width) in [0, 1], or its ink falls into fewer pieces than `objects`.
    """
    pixels = check_image(image)
    if pixels.ndim != 3:
        raise InputError(f"image: got shape {pixels.shape}, wanted (channels, height, width)")
    if objects < 1:
        raise InputError(f"objects: got {objects}, wanted at least 1")
    pieces, count = ndimage.label((pixels > threshold).any(axis=0), structure=EIGHT_NEIGHBOURS)
    if count < objects:
        raise InputError(
            f"image: its ink above {threshold:g} has {count} connected pieces, wanted at least {objects}, one per object;"
            " give a mask or a box instead"
        )
    groups = _merged(np.asarray(pieces, dtype=np.int64), int(count), objects)
    return tuple(np.isin(pieces, group) for group in groups)


def _merged(pieces: Int[np.ndarray, "height width"], count: int, objects: int) -> list[list[int]]:
    """Piece numbers 1..count in `objects` groups from left to right (Ward's criterion on columns)."""
    columns = np.broadcast_to(np.arange(pieces.shape[1]), pieces.shape)
    numbers = range(1, count + 1)
    mass = np.bincount(pieces.ravel(), minlength=count + 1).astype(np.float64)
    centre = np.bincount(pieces.ravel(), weights=columns.ravel(), minlength=count + 1) / np.maximum(mass, 1.0)
    order = sorted(numbers, key=lambda piece: (float(centre[piece]), piece))
    groups = [([piece], float(mass[piece]), float(centre[piece])) for piece in order]
    while len(groups) > objects:
        costs = [
            left[1] * right[1] / (left[1] + right[1]) * (left[2] - right[2]) ** 2 for left, right in pairwise(groups)
        ]
        at = int(np.argmin(costs))
        (pieces_l, mass_l, centre_l), (pieces_r, mass_r, centre_r) = groups[at], groups[at + 1]
        total = mass_l + mass_r
        groups[at : at + 2] = [(pieces_l + pieces_r, total, (mass_l * centre_l + mass_r * centre_r) / total)]
    return [group for group, _, _ in groups]
