"""What callers hand over: images, labels and radii, checked; and what makes a row's random numbers its own."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attacks.ball import Ball, Norm
from attacks.methods import Method
from verifier.errors import InputError


def as_images(images: Tensor | np.ndarray) -> Float[Tensor, "rows ..."]:
    """The images in float32 on the CPU.

    Raises:
        InputError: Not an array of images in [0, 1].
    """
    given = torch.as_tensor(np.asarray(images) if not isinstance(images, Tensor) else images).detach().cpu()
    if given.ndim < 2 or len(given) == 0 or not given.is_floating_point():
        raise InputError(f"images: got {given.dtype} of shape {tuple(given.shape)}, wanted floats of shape (rows, ...)")
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise InputError("images: a pixel is outside [0, 1] or not a number; divide by 255 if they are bytes")
    return given.float().clone()


def as_labels(labels: Any, rows: int) -> Bool[Tensor, "rows labels"]:
    """The labels as bool on the CPU.

    Raises:
        InputError: Not a matrix of 0 and 1 with one row for each image.
    """
    given = torch.as_tensor(np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels))
    if given.ndim != 2 or len(given) != rows:
        raise InputError(f"labels: got shape {tuple(given.shape)}, wanted ({rows}, labels), one row an image")
    if not bool(((given == 0) | (given == 1)).all()):
        raise InputError("labels: wanted only 0 and 1, one column a label")
    return given.bool()


@dataclass(frozen=True, slots=True, eq=False)
class Radius:
    """The ball of every row.

    Attributes:
        norm: None for none.
        largest: The largest radius of all.
        by_row: (rows, 1) if rows differ, (1, pixels) if pixels do, else None.
    """

    norm: Norm | None
    largest: float | None
    by_row: Tensor | None

    def around(self, images: Tensor, rows: Tensor) -> tuple[Ball, float | Tensor | None]:
        """The balls of these images, which are these rows, and the radius to scale steps by."""
        if self.by_row is None:
            return Ball.around(images, self.norm, self.largest), self.largest
        own = (self.by_row if len(self.by_row) == 1 else self.by_row[rows]).to(images.device)
        is_number = own.shape[1] == 1
        return Ball.around(images, self.norm, own.expand(len(images), -1)[:, 0] if is_number else own), own.to(
            images.dtype
        )


def radius_of(
    attack: Method, norm: Norm | None, eps: float | Tensor | np.ndarray | None, shape: tuple[int, ...], rows: int
) -> Radius:
    """The ball that the caller asked for, or the attack's own.

    Raises:
        InputError: Not finite numbers >= 0, of a shape that fits, or a radius without a norm.
    """
    pixels = int(np.prod(shape))
    if eps is None:
        return Radius(*attack.ball(norm, None, pixels), None)
    given = torch.as_tensor(eps, dtype=torch.float64).cpu()
    if given.numel() == 0 or not bool(((given >= 0) & given.isfinite()).all()):
        raise InputError("eps: wanted finite numbers >= 0")
    used, largest = attack.ball(norm, float(given.max()), pixels)
    if given.ndim == 0:
        return Radius(used, largest, None)
    if tuple(given.shape) == shape and used == "linf":
        return Radius(used, largest, given.reshape(1, -1))
    if tuple(given.shape) == (rows, 1) and not attack.is_universal:
        return Radius(used, largest, given)
    raise InputError(
        f"eps: got an array of shape {tuple(given.shape)}, wanted a number, a column ({rows}, 1) with one radius for each "
        f"image, or, with norm 'linf', the shape of an image {shape}"
    )


def row_key(image: Tensor, labels: Tensor) -> int:
    """A number that only equal images with equal labels share."""
    digest = hashlib.blake2b(image.numpy().tobytes() + labels.numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def row_seed(seed: int, key: int) -> int:
    """The seed of one row's generator."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
