"""What every reader returns: images with label sets and objects, in the order of the set's own lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError

from nets.readers.outlines import Outline
from verifier.errors import InputError


@dataclass(frozen=True, slots=True)
class ImageObject:
    """One annotated object.

    Attributes:
        label: Its class, an index into the set's names.
        outline: Where it lies; `outline.mask()` is its pixels.
        is_uncertain: Whether the set marks it as difficult (VOC), or as a crowd (COCO).
    """

    label: int
    outline: Outline
    is_uncertain: bool = False


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image and what is said of it; the image itself is not opened.

    Attributes:
        path: The image file.
        labels: Its classes, ascending, indices into the set's names.
        objects: Its objects; empty where the set has none.
    """

    path: Path
    labels: tuple[int, ...]
    objects: tuple[ImageObject, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """A set of images.

    Attributes:
        names: The classes' names.
        images: The images.
        folder: The folder that all images lie in, some sets' in folders of its own.
    """

    names: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    folder: Path

    def targets(self) -> Float32[np.ndarray, "images classes"]:
        """1 for a label and 0 for others."""
        targets = np.zeros((len(self.images), len(self.names)), np.float32)
        for row, image in zip(targets, self.images, strict=True):
            row[list(image.labels)] = 1
        return targets


def read_pixels(path: Path, channels: int, height: int, width: int) -> Float32[np.ndarray, "channels height width"]:
    """The image with 1 (grey) or 3 (RGB) channels in [0, 1], resized with Pillow's bilinear filter where its size differs.

    Raises:
        InputError: The file is missing or no picture, or another number of channels is asked for.
    """
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise InputError(f"{path}: {channels} channels asked for; wanted 1 or 3")
    try:
        with Image.open(path) as picture:
            converted = picture.convert(modes[channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: cannot be read as a picture ({why(error)}); check the set's folder of images"
        ) from error
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, dtype=np.float32).reshape(height, width, channels) / np.float32(255)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file without surrounding blanks, empty ones left out.

    Raises:
        InputError: The file is missing or no UTF-8 text; the message says what it should hold.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({why(error)}); wanted {what}") from error
    return [line.strip() for line in lines if line.strip()]


def why(error: Exception) -> str:
    """What went wrong with a file, without the file's path, which the message around it names."""
    if isinstance(error, UnidentifiedImageError):
        return "no known picture format"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def splits_there(names: Iterable[str]) -> str:
    """The splits that exist, for the message about one that does not."""
    return f"splits there: {', '.join(sorted(names)) or 'none'}"
