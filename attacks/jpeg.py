"""JPEG as a defence: images are encoded and decoded before the network sees them.

Kurakin, Goodfellow and Bengio 2017 and Song et al. 2018 report that this undoes many perturbations. That figure is honest only
beside an attack that knows of the defence: `Purified` is the defended network with straight-through gradients (backward pass
differentiable approximation with the identity, Athalye, Carlini and Wagner 2018), so any attack here can run against it.
"""

import io
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from attacks.any_dtype import AnyDtype
from verifier.errors import InputError
from verifier.network import Network

_BYTE = 255
# 95 is the highest quality that Pillow recommends; above 100 there is none.
MIN_QUALITY, MAX_QUALITY = 1, 100


def jpeg(
    images: Float[np.ndarray, "rows channels height width"], quality: int
) -> Float32[np.ndarray, "rows channels height width"]:
    """Each image after rounding to 8 bits, JPEG encoding at `quality` without chroma subsampling, and decoding.

    Args:
        images: In [0, 1], one channel (gray) or three (RGB); values outside are clipped.
        quality: Of libjpeg, 1 to 100.

    Returns:
        Multiples of 1/255 in [0, 1].

    Raises:
        InputError: Another number of channels, a quality out of range, or an image that is not finite.
    """
    check_jpeg(images.shape[1:], quality)
    if not np.isfinite(images).all():
        raise InputError("images: some pixels are NaN or infinite, wanted values in [0, 1]")
    pixels = np.rint(np.clip(images, 0.0, 1.0) * _BYTE).astype(np.uint8)
    coded = [_through_jpeg(row, quality) for row in pixels]
    return np.array(coded, dtype=np.float32).reshape(images.shape) / np.float32(_BYTE)


def check_jpeg(shape: tuple[int, ...], quality: int) -> None:
    """Refuses what JPEG cannot do, before any work.

    Raises:
        InputError: The image has not 1 or 3 channels of height and width, or the quality is out of range.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"jpeg: got an image of shape {tuple(shape)}, wanted (1, height, width) or (3, height, width)")
    if not MIN_QUALITY <= quality <= MAX_QUALITY:
        raise InputError(f"jpeg: got quality {quality}, wanted {MIN_QUALITY} to {MAX_QUALITY}")


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
    with Image.open(buffer, formats=("JPEG",)) as decoded:
        plane = np.asarray(decoded)
    return plane[None] if plane.ndim == 2 else np.moveaxis(plane, 2, 0)


class _StraightThrough(torch.autograd.Function):
    """Forward: real JPEG. Backward: the identity, since rounding has a derivative of 0 almost everywhere."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, quality: int) -> Tensor:  # noqa: ARG004
        coded = jpeg(images.detach().cpu().double().numpy(), quality)
        return torch.from_numpy(coded).to(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradients[0], None


class Purified(torch.nn.Module):
    """The scores of a network that sees every image through JPEG; differentiable straight through the coding.

    Values are exactly those of `network(jpeg(images))`; only gradients are approximate.

    Attributes:
        network: Images to scores: one of ours, of which every precision is made as needed, or anything callable.
        quality: Of the coding.

    Raises:
        InputError: The quality is out of range.
    """

    def __init__(self, network: Any, quality: int) -> None:
        super().__init__()
        if not MIN_QUALITY <= quality <= MAX_QUALITY:
            raise InputError(f"jpeg: got quality {quality}, wanted {MIN_QUALITY} to {MAX_QUALITY}")
        self.network = AnyDtype(network) if isinstance(network, Network) else network
        self.quality = quality

    def forward(self, images: Float[Tensor, "rows channels height width"]) -> Float[Tensor, "rows labels"]:
        """The scores of the coded images."""
        return self.network(_StraightThrough.apply(images, self.quality))
