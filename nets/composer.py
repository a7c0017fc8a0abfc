"""Places digits side by side on a canvas: Double-MNIST, Triple-MNIST and their kin.

The placement is that of the MultiDigitMNIST generator (Sun 2019): the canvas is cut into equal vertical
strips, one a digit, and each 28x28 cell lands anywhere within its strip. Unlike there, the digits of one image
are always different, so that an image of n digits has exactly n labels, and a generator sees one split only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nets.mnist import DIGIT_SIZE, Digits
from verifier.errors import InputError

_CLASSES: Final = 10


@dataclass(frozen=True, slots=True)
class Canvas:
    """The size of the images in pixels and the number of digits on each."""

    height: int
    width: int
    digits: int

    def __post_init__(self) -> None:
        """Refuse canvases on which the cells do not fit."""
        if not 1 <= self.digits <= _CLASSES:
            raise InputError(f"Canvas: {self.digits} digits; wanted 1 to 10 different ones")
        if self.height < DIGIT_SIZE or self.strip < DIGIT_SIZE:
            raise InputError(
                f"Canvas: {self.height}x{self.width} pixels for {self.digits} digit(s); wanted at least "
                f"{DIGIT_SIZE}x{DIGIT_SIZE * self.digits}"
            )

    @property
    def strip(self) -> int:
        """The width of the strip that one digit moves in."""
        return self.width // self.digits


SINGLE_MNIST: Final = Canvas(28, 28, 1)
DOUBLE_MNIST: Final = Canvas(64, 64, 2)
TRIPLE_MNIST: Final = Canvas(84, 84, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which digit lies where, for a batch; every array has shape (batch, digits), digits from left to right.

    Attributes:
        indices: positions in a `Digits` value.
        tops: first row of each cell.
        lefts: first column of each cell; the cells of an image never overlap.
    """

    indices: NDArray[np.int64]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ComposedImages:
    """Images with their label sets and one mask a digit; every array is a copy and read-only.

    Attributes:
        images: float32 (n, 1, height, width), each value an exact float32 quotient j/255.
        labels: int64 (n, digits), different within an image, from left to right.
        masks: bool (n, digits, height, width), true exactly on the ink (value > 0) of that digit.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Copy, validate and freeze the arrays."""
        images = np.array(self.images)
        labels = np.array(self.labels)
        masks = np.array(self.masks)
        if (
            images.ndim != 4
            or images.shape[1] != 1
            or labels.ndim != 2
            or masks.shape != (*labels.shape, *images.shape[2:])
            or len(images) != len(labels)
        ):
            raise InputError(
                f"ComposedImages: images {images.shape}, labels {labels.shape}, masks {masks.shape}; "
                "wanted (n, 1, h, w), (n, digits) and (n, digits, h, w)"
            )
        for name, array in (("images", images), ("labels", labels), ("masks", masks)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.images)


def compose(digits: Digits, canvas: Canvas, count: int, generator: np.random.Generator) -> ComposedImages:
    """`count` images of `canvas.digits` different, non-overlapping digits, drawn from `digits` alone.

    Every set of classes in every order is equally likely, then every digit of its class, then every offset
    within its strip. The same generator state gives the same images.
    """
    layout = draw_layout(digits.labels, canvas, count, generator)
    pixels = digits.images[layout.indices]
    images = paste(pixels, layout, canvas)
    masks = np.stack([paste(pixels[:, [i]], _column(layout, i), canvas) > 0 for i in range(canvas.digits)], axis=1)
    labels = digits.labels[layout.indices].astype(np.int64)
    return ComposedImages(to_unit_range(images)[:, None], labels, masks)


def draw_layout(labels: NDArray[np.uint8], canvas: Canvas, count: int, generator: np.random.Generator) -> Layout:
    """A layout of `count` images: different digit classes, cells that do not overlap."""
    if count < 0:
        raise InputError(f"draw_layout: count {count}; wanted 0 or more")
    shape = (count, canvas.digits)
    # The order of ten uniform draws is a uniform permutation of the classes; its head is the label set.
    classes = np.argsort(generator.random((count, _CLASSES)), axis=1)[:, : canvas.digits]
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=_CLASSES)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    within = (generator.random(shape) * sizes[classes]).astype(np.int64)
    tops = generator.integers(0, canvas.height - DIGIT_SIZE, size=shape, endpoint=canvas.height == DIGIT_SIZE)
    jitter = max(1, canvas.strip - DIGIT_SIZE)
    lefts = generator.integers(0, jitter, size=shape) + canvas.strip * np.arange(canvas.digits)
    return Layout(by_class[starts[classes] + within], tops, lefts)


def paste(pixels: NDArray[np.uint8], layout: Layout, canvas: Canvas) -> NDArray[np.uint8]:
    """The canvases, uint8 (batch, height, width), with cell `pixels[b, d]` placed at its offset on black."""
    batch = len(layout.tops)
    images = np.zeros((batch, canvas.height, canvas.width), np.uint8)
    cell = np.arange(DIGIT_SIZE)
    rows = (layout.tops[:, :, None] + cell)[:, :, :, None]
    columns = (layout.lefts[:, :, None] + cell)[:, :, None, :]
    images[np.arange(batch)[:, None, None, None], rows, columns] = pixels
    return images


def to_unit_range(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The float32 nearest to j/255 for every stored value j."""
    return images.astype(np.float32) / np.float32(255)


def _column(layout: Layout, index: int) -> Layout:
    """The layout of the digits at one position only."""
    return Layout(layout.indices[:, [index]], layout.tops[:, [index]], layout.lefts[:, [index]])
