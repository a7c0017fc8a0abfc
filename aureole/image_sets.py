"""Many images from the command line, with their true labels."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from aureole.exits import MissingFileError, UsageError
from aureole.images import SHIPPED_PREFIX, read_image, shipped_index
from verifier.errors import InputError
from verifier.region import check_image

_SUFFIXES = (".png", ".npy")
_SPLITS = {"voc": "test", "coco": "val2017", "nus-wide": "test"}
_SETS = tuple(f"{kind}:" for kind in _SPLITS)


@dataclass(frozen=True, slots=True, eq=False)
class NamedImage:
    """One image and where it came from.

    Attributes:
        name: As on the command line; within a stack with its number in brackets.
        pixels: float32 of the network's input shape.
        shipped: Its number among the shipped images, or None.
        labels: Its true labels if it is from an annotated set, or None.
        classes: How many classes that set has.
    """

    name: str
    pixels: Float32[np.ndarray, "..."]
    shipped: int | None = None
    labels: tuple[int, ...] | None = None
    classes: int = 0


def read_images(references: Sequence[str], shape: tuple[int, ...]) -> list[NamedImage]:
    """The images that references name, each once.

    A reference is `shipped:N` or `shipped:A-B`, a PNG or NPY file, an NPY file of several images (one more axis in front), a
    folder of such files, or a split of an annotated set in its official layout, `voc:SPLIT:FOLDER`, `coco:SPLIT:FOLDER` or
    `nus-wide:SPLIT:FOLDER`; pictures of a set are resized to the network's input.

    Raises:
        MissingFileError, UsageError, InputError: A reference names nothing, or an image cannot be used.
    """
    found: dict[str, NamedImage] = {}
    for reference in references:
        for image in _named(reference, shape):
            found.setdefault(image.name, image)
    if not found:
        raise InputError(f"images {', '.join(references)}: no image found; wanted PNG or NPY files")
    return list(found.values())


def _named(reference: str, shape: tuple[int, ...]) -> list[NamedImage]:
    if reference.startswith(SHIPPED_PREFIX):
        return [
            NamedImage(f"{SHIPPED_PREFIX}{place}", read_image(f"{SHIPPED_PREFIX}{place}", shape), place)
            for place in _shipped_places(reference)
        ]
    if reference.startswith(_SETS):
        return _of_set(reference, shape)
    path = Path(reference)
    if not path.exists():
        raise MissingFileError(f"images {reference}: no such file or folder")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        return [image for file in files for image in _named(str(file), shape)]
    if path.suffix.lower() == ".npy":
        stack = _stack(path, shape)
        if stack is not None:
            return [NamedImage(f"{reference}[{place}]", pixels) for place, pixels in enumerate(stack)]
    return [NamedImage(reference, read_image(reference, shape))]


def _of_set(reference: str, shape: tuple[int, ...]) -> list[NamedImage]:
    """The images of one split of an annotated set, with their labels."""
    from nets import readers

    kind, _, rest = reference.partition(":")
    split, colon, folder = rest.partition(":")
    if not (split and colon and folder):
        raise UsageError(
            f"images {reference}: wanted {kind}:SPLIT:FOLDER, such as {kind}:{_SPLITS[kind]}:path/to/folder"
        )
    if not Path(folder).is_dir():
        raise MissingFileError(f"images {reference}: no folder {folder}")
    if len(shape) != 3:
        raise InputError(
            f"images {reference}: the network takes images of shape {shape}, wanted channels, height, width"
        )
    reading: dict[str, Callable[[Path, str], readers.LabelledImages]] = {
        "voc": readers.read_voc,
        "coco": readers.read_coco,
        "nus-wide": readers.read_nus_wide,
    }
    found = reading[kind](Path(folder), split)
    return [
        NamedImage(
            f"{reference}/{image.path.name}",
            readers.read_pixels(image.path, *shape),
            labels=image.labels,
            classes=len(found.names),
        )
        for image in found.images
    ]


def _shipped_places(reference: str) -> range:
    from nets import shipped

    count = len(shipped.images().images)
    first, dash, last = reference.removeprefix(SHIPPED_PREFIX).partition("-")
    start = shipped_index(SHIPPED_PREFIX + first, count)
    stop = shipped_index(SHIPPED_PREFIX + last, count) if dash else start
    if stop < start:
        raise UsageError(f"images {reference}: wanted the smaller number first")
    return range(start, stop + 1)


def _stack(path: Path, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."] | None:
    """The images of an NPY file with one more axis than an image, None if it holds a single one."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # read_image says what is wrong with it
    if not isinstance(array, np.ndarray) or array.ndim != len(shape) + 1 or array.shape[1:] != shape or len(array) == 1:
        return None
    if array.dtype.kind != "f":
        raise InputError(f"{path}: got dtype {array.dtype}, wanted float32 or float64 in [0, 1]")
    return np.stack([check_image(pixels, shape).astype(np.float32) for pixels in array])


def known_labels(images: Sequence[NamedImage], labels: int) -> Bool[np.ndarray, "rows labels"] | None:
    """The true labels of images that bring them: all from annotated sets, or all shipped; else None.

    None, too, where the network has no label for a shipped digit.

    Raises:
        InputError: A set has another number of classes than the network has labels.
    """
    if not all(image.labels is not None for image in images):
        return _shipped_labels(images, labels)
    marks = np.zeros((len(images), labels), dtype=np.bool_)
    for row, image in zip(marks, images, strict=True):
        if image.classes != labels:
            raise InputError(
                f"images {image.name}: the set has {image.classes} classes, the network {labels} labels; wanted as many,"
                " or --labels"
            )
        row[list(image.labels or ())] = True
    return marks


def _shipped_labels(images: Sequence[NamedImage], labels: int) -> Bool[np.ndarray, "rows labels"] | None:
    from nets import shipped

    places = [image.shipped for image in images if image.shipped is not None]
    if len(places) < len(images):
        return None
    chosen = shipped.images().labels[places]
    if chosen.max() >= labels:
        return None
    marks = np.zeros((len(images), labels), dtype=np.bool_)
    np.put_along_axis(marks, chosen, True, axis=1)
    return marks


def read_labels(path: Path, images: Sequence[NamedImage], labels: int) -> Bool[np.ndarray, "rows labels"]:
    """The true labels of the images, from a file.

    An NPY file holds 0 and 1, one row an image in their order. A CSV file has the columns `image` (a name, or its last part) and
    `labels` (such as 3 7).

    Raises:
        MissingFileError: There is no such file.
        InputError: It is not one of these, a label is out of range, or an image is missing from it.
    """
    if not path.is_file():
        raise MissingFileError(f"labels {path}: no such file")
    if path.suffix.lower() == ".npy":
        return _matrix(path, len(images), labels)
    if path.suffix.lower() != ".csv":
        raise InputError(f"labels {path}: got a {path.suffix or 'suffixless'} file, wanted .csv or .npy")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"labels {path}: not a readable CSV file ({error})") from error
    if not rows or not {"image", "labels"} <= rows[0].keys():
        raise InputError(f"labels {path}: wanted a CSV file with the columns image and labels")
    known = {str(row["image"]): str(row["labels"] or "") for row in rows}
    marks = np.zeros((len(images), labels), dtype=np.bool_)
    for place, image in enumerate(images):
        words = known.get(image.name, known.get(Path(image.name).name))
        if words is None:
            raise InputError(f"labels {path}: no row for image {image.name}")
        for word in words.replace(",", " ").split():
            if not word.isdecimal() or int(word) >= labels:
                raise InputError(f"labels {path}: image {image.name}: got {word!r}, wanted labels 0 to {labels - 1}")
            marks[place, int(word)] = True
    return marks


def _matrix(path: Path, rows: int, labels: int) -> Bool[np.ndarray, "rows labels"]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"labels {path}: not a readable NPY file ({error})") from error
    if not isinstance(array, np.ndarray) or array.shape != (rows, labels) or not np.isin(array, (0, 1)).all():
        shape = getattr(array, "shape", "several arrays")
        raise InputError(f"labels {path}: got {shape}, wanted 0 and 1 of shape {(rows, labels)}, one row an image")
    return array.astype(np.bool_)
