"""Random changes of training images: affine changes of single digits, and black rectangles over images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from verifier.errors import InputError


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a digit may be changed before it is placed; all zero means not at all.

    Attributes:
        rotation_degrees: rotations are uniform in plus or minus this.
        scale: each axis is scaled by a factor uniform in 1 plus or minus this.
        shear: the horizontal shear factor is uniform in plus or minus this.
        shift_pixels: shifts within the cell are uniform in plus or minus this, per axis.
    """

    rotation_degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift_pixels: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative and non-finite amounts."""
        for name in ("rotation_degrees", "scale", "shear", "shift_pixels"):
            amount = getattr(self, name)
            if not (math.isfinite(amount) and amount >= 0):
                raise InputError(f"Augmentation: {name} = {amount}; wanted a finite number, 0 or more")
        if self.scale >= 1:
            raise InputError(f"Augmentation: scale = {self.scale}; wanted below 1, or digits turn inside out")

    @property
    def is_off(self) -> bool:
        """Whether digits stay exactly as they are."""
        return not (self.rotation_degrees or self.scale or self.shear or self.shift_pixels)


@dataclass(frozen=True, slots=True)
class Rectangles:
    """The L0 defence: black rectangles pasted into training images.

    Attributes:
        most: each image gets a number of rectangles uniform in 0..most.
        longest_side: sides are uniform in 1..longest_side pixels.
    """

    most: int = 4
    longest_side: int = 12

    def __post_init__(self) -> None:
        """Refuse counts and sides below one."""
        if self.most < 1 or self.longest_side < 1:
            raise InputError(f"Rectangles: most {self.most}, longest_side {self.longest_side}; wanted 1 or more")


def augment_digits(
    pixels: NDArray[np.uint8], options: Augmentation, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Each cell of `pixels` (..., rows, columns) under its own random affine map, bilinear, black outside.

    With all options zero this is `pixels` itself and nothing is drawn from `generator`.
    """
    if options.is_off:
        return pixels
    rows, columns = pixels.shape[-2:]
    cells = pixels.reshape(-1, 1, rows, columns)
    count = len(cells)

    def uniform(amount: float) -> NDArray[np.float64]:
        return generator.uniform(-amount, amount, size=count)

    angle = np.deg2rad(uniform(options.rotation_degrees))
    across, down = 1 + uniform(options.scale), 1 + uniform(options.scale)
    shear = uniform(options.shear)
    cosine, sine = np.cos(angle), np.sin(angle)
    # grid_sample wants the map from output to input coordinates, both in [-1, 1].
    maps = np.empty((count, 2, 3), np.float32)
    maps[:, 0, 0] = cosine / across
    maps[:, 0, 1] = -sine / down + shear
    maps[:, 0, 2] = uniform(options.shift_pixels) * 2 / columns
    maps[:, 1, 0] = sine / across
    maps[:, 1, 1] = cosine / down
    maps[:, 1, 2] = uniform(options.shift_pixels) * 2 / rows
    grid = functional.affine_grid(torch.from_numpy(maps), [count, 1, rows, columns], align_corners=False)
    sampled = functional.grid_sample(torch.from_numpy(cells.astype(np.float32)), grid, align_corners=False)
    return sampled.round_().clamp_(0, 255).to(torch.uint8).numpy().reshape(pixels.shape)


def paste_rectangles(
    images: NDArray[np.uint8], options: Rectangles, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Copies of `images` (batch, height, width) in which random rectangles are black, all else unchanged."""
    batch, height, width = images.shape
    shape = (batch, options.most)
    is_used = generator.integers(0, options.most, size=(batch, 1), endpoint=True) > np.arange(options.most)
    sides = generator.integers(1, options.longest_side, size=(2, *shape), endpoint=True)
    # A rectangle may start outside, so that pixels at the border are covered as often as others.
    tops = generator.integers(1 - sides[0], height)
    lefts = generator.integers(1 - sides[1], width)
    rows, columns = np.arange(height), np.arange(width)
    in_rows = (rows >= tops[..., None]) & (rows < (tops + sides[0])[..., None]) & is_used[..., None]
    in_columns = (columns >= lefts[..., None]) & (columns < (lefts + sides[1])[..., None])
    covered = (in_rows[..., :, None] & in_columns[..., None, :]).any(axis=1)
    return np.where(covered, np.uint8(0), images)
