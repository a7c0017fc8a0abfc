"""Where an object lies in its image: one small type a notation, each giving the mask of its pixels when asked.

Masks are made when asked for, because image sets hold hundreds of thousands of objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from verifier.errors import InputError

Mask = Bool[np.ndarray, "height width"]


@dataclass(frozen=True, slots=True)
class BoxOutline:
    """A rectangle: every pixel that it touches.

    Attributes:
        height, width: The image's size in pixels.
        left, top, right, bottom: Edges in pixels from the image's left and top; pixel (i, j) is [j, j + 1] x [i, i + 1].
    """

    height: int
    width: int
    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        """Refuse empty boxes and boxes outside the image."""
        edges = (self.left, self.top, self.right, self.bottom)
        if not (all(map(math.isfinite, edges)) and self.left < self.right and self.top < self.bottom):
            raise InputError(f"object box {edges}: wanted left < right and top < bottom")
        if self.right <= 0 or self.bottom <= 0 or self.left >= self.width or self.top >= self.height:
            raise InputError(f"object box {edges}: lies outside the image of {self.height}x{self.width} pixels")

    def mask(self) -> Mask:
        """The object's pixels."""
        rows, columns = np.arange(self.height), np.arange(self.width)
        in_rows = (rows + 1 > self.top) & (rows < self.bottom)
        in_columns = (columns + 1 > self.left) & (columns < self.right)
        return in_rows[:, None] & in_columns


@dataclass(frozen=True, slots=True)
class PolygonOutline:
    """The union of polygons, as Pillow fills them: at the border it may differ by a pixel from other tools.

    Attributes:
        height, width: The image's size in pixels.
        polygons: Corners (x, y) of each, three or more; without polygons no pixel is the object's.
    """

    height: int
    width: int
    polygons: tuple[tuple[tuple[float, float], ...], ...]

    def mask(self) -> Mask:
        """The object's pixels."""
        picture = Image.new("L", (self.width, self.height))
        draw = ImageDraw.Draw(picture)
        for polygon in self.polygons:
            draw.polygon(list(polygon), fill=1, outline=1)
        return np.array(picture, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class RunLengthOutline:
    """Lengths of runs of pixels outside and inside in turn, column by column, outside first.

    Attributes:
        height, width: The image's size in pixels.
        counts: The lengths; their sum is the number of pixels.
    """

    height: int
    width: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse lengths that do not fill the image."""
        if min(self.counts, default=0) < 0 or sum(self.counts) != self.height * self.width:
            raise InputError(
                f"run lengths: {len(self.counts)} of them with the sum {sum(self.counts)}; wanted lengths of 0 or more "
                f"that fill {self.height}x{self.width} pixels"
            )

    def mask(self) -> Mask:
        """The object's pixels."""
        is_inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(is_inside, self.counts).reshape(self.width, self.height).T


@dataclass(frozen=True, slots=True)
class IndexedOutline:
    """The pixels of one value in an indexed picture.

    Attributes:
        path: The picture.
        index: The value.
    """

    path: Path
    index: int

    def mask(self) -> Mask:
        """The object's pixels.

        Raises:
            InputError: The picture is missing or damaged, or is not indexed.
        """
        try:
            with Image.open(self.path) as picture:
                mode, values = picture.mode, np.array(picture)
        except (OSError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.path}: cannot be read as a picture of objects ({error})") from error
        if mode not in ("P", "L"):
            raise InputError(f"{self.path}: mode {mode}; wanted an indexed or grey picture, one value an object")
        return values == self.index


Outline = BoxOutline | PolygonOutline | RunLengthOutline | IndexedOutline
"""Whatever has a `mask()`: bool (height, width), in the image's own size."""


def run_lengths(text: str) -> tuple[int, ...]:
    """The run lengths in COCO's compressed text: base 32, six bits a character, from the third difference to the last but one.

    Raises:
        InputError: The text ends within a number, or has characters out of range.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise InputError(f"run lengths: character {character!r}; wanted '0' to 'o'")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError("run lengths: the text ends within a number; the file is damaged")
    return tuple(counts)


def cover(mask: Bool[np.ndarray, "rows columns"], height: int, width: int) -> Mask:
    """The mask in an image resized to height x width: every new pixel that overlaps a marked one.

    So a region grown from it holds the whole object, however much the image shrinks.
    """
    rows, columns = _overlaps(mask.shape[0], height), _overlaps(mask.shape[1], width)
    return rows @ mask @ columns.T


def _overlaps(old: int, new: int) -> Bool[np.ndarray, "new old"]:
    """Which of `new` equal parts of an interval overlap which of `old` equal parts; in integers, so exactly."""
    starts, parts = np.arange(new)[:, None] * old, np.arange(old) * new
    return (starts < parts + new) & (parts < starts + old)
