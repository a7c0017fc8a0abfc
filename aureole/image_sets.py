"""Many images from the command line, with their true labels."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
_RANGE = re.compile(r"([0-9]{1,9}(?:-[0-9]{1,9})?):(.+)", re.DOTALL)
Pixels = Float32[np.ndarray, "..."]


@dataclass(frozen=True, slots=True, eq=False)
class NamedImage:
    """One image and where it came from; its pixels are read anew whenever they are asked for, so that many images fit.

    Attributes:
        name: As on the command line; within a stack with its number in brackets, within a set with its path there.
        read: Reads its pixels.
        digest: SHA-256 of the pixels when it was named.
        shipped: Its number among the shipped images, or None.
        labels: Its true labels if it is from an annotated set, or None.
        classes: How many classes that set has.
    """

    name: str
    read: Callable[[], Pixels]
    digest: bytes
    shipped: int | None = None
    labels: tuple[int, ...] | None = None
    classes: int = 0

    @property
    def pixels(self) -> Pixels:
        """float32 of the network's input shape, the same each time.

        Raises:
            InputError: The image can no longer be read, or is another than when it was named.
        """
        found = self.read()
        if _digest(found) != self.digest:
            raise InputError(f"images {self.name}: has changed since this command began; run it again")
        return found


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()


def _image(
    name: str,
    read: Callable[[], Pixels],
    *,
    shipped: int | None = None,
    labels: tuple[int, ...] | None = None,
    classes: int = 0,
) -> NamedImage:
    """The image, after reading it once: what cannot be used is refused before any work."""
    return NamedImage(name, read, _digest(read()), shipped, labels, classes)


def read_images(references: Sequence[str], shape: tuple[int, ...]) -> list[NamedImage]:
    """The images that references name, each once; every one has been read, and none is held.

    A reference is `shipped:N` or `shipped:A-B`, a PNG or NPY file, an NPY file of several images (one more axis in front), a
    folder of such files, or a split of an annotated set in its official layout, `voc:SPLIT:FOLDER`, `coco:SPLIT:FOLDER` or
    `nus-wide:SPLIT:FOLDER`, or its images A to B, `voc:SPLIT:A-B:FOLDER`, counted from 0; pictures of a set are resized to the
    network's input.

    Raises:
        MissingFileError, UsageError, InputError: A reference names nothing, an image cannot be used, or two that differ have
            one name.
    """
    found: dict[str, NamedImage] = {}
    for reference in references:
        for image in _named(reference, shape):
            first = found.setdefault(image.name, image)
            if (first.digest, first.labels) != (image.digest, image.labels):
                raise InputError(
                    f"images {image.name}: named twice, with other pixels or labels; wanted one image a name: take the"
                    " second out of the set's list, or give its file another name"
                )
    if not found:
        raise InputError(f"images {', '.join(references)}: no image found; wanted PNG or NPY files")
    return list(found.values())


def _named(reference: str, shape: tuple[int, ...]) -> Iterator[NamedImage]:
    if reference.startswith(SHIPPED_PREFIX):
        for place in _shipped_places(reference):
            name = f"{SHIPPED_PREFIX}{place}"
            # All of these few small images lie in one file, which reading one takes as long as reading all.
            yield _image(name, partial(np.copy, read_image(name, shape)), shipped=place)
    elif reference.startswith(_SETS):
        yield from _of_set(reference, shape)
    else:
        yield from _of_path(reference, shape)


def _of_path(reference: str, shape: tuple[int, ...]) -> Iterator[NamedImage]:
    path = Path(reference)
    if not path.exists():
        raise MissingFileError(f"images {reference}: no such file or folder")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        for file in files:
            yield from _named(str(file), shape)
        return
    count = _stacked(path, shape) if path.suffix.lower() == ".npy" else None
    if count is None:
        yield _image(reference, partial(read_image, reference, shape))
        return
    for place in range(count):
        yield _image(f"{reference}[{place}]", partial(_of_stack, path, place, shape))


def _of_set(reference: str, shape: tuple[int, ...]) -> Iterator[NamedImage]:
    """The images of one split of an annotated set, or a range of them, with their labels."""
    from nets import readers

    kind, _, rest = reference.partition(":")
    split, colon, folder = rest.partition(":")
    ranged = _RANGE.fullmatch(folder)
    words, folder = ranged.groups() if ranged else (None, folder)
    if not (split and colon and folder):
        raise UsageError(
            f"images {reference}: wanted {kind}:SPLIT:FOLDER, such as"
            f" {kind}:{_SPLITS[kind]}:path/to/folder, or {kind}:SPLIT:A-B:FOLDER"
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
    places = range(len(found.images)) if words is None else _set_places(reference, words, len(found.images))
    for image in found.images[places.start : places.stop]:
        yield _image(
            f"{kind}:{split}:{folder}/{image.path.relative_to(found.folder).as_posix()}",
            partial(readers.read_pixels, image.path, *shape),
            labels=image.labels,
            classes=len(found.names),
        )


def _set_places(reference: str, words: str, count: int) -> range:
    """The images that N or A-B means among so many of a split."""
    first, _, last = words.partition("-")
    places = _places(reference, int(first), int(last or first))
    if places.stop > count:
        raise UsageError(f"images {reference}: the split has {count} images; wanted numbers from 0 to {count - 1}")
    return places


def _shipped_places(reference: str) -> range:
    from nets import shipped

    count = len(shipped.images().images)
    first, dash, last = reference.removeprefix(SHIPPED_PREFIX).partition("-")
    start = shipped_index(SHIPPED_PREFIX + first, count)
    return _places(reference, start, shipped_index(SHIPPED_PREFIX + last, count) if dash else start)


def _places(reference: str, first: int, last: int) -> range:
    if last < first:
        raise UsageError(f"images {reference}: wanted the smaller number first")
    return range(first, last + 1)


def _stacked(path: Path, shape: tuple[int, ...]) -> int | None:
    """How many images an NPY file with one more axis than an image holds, None if it is none or holds a single one."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # read_image says what is wrong with it
    if not isinstance(array, np.ndarray) or array.ndim != len(shape) + 1 or array.shape[1:] != shape or len(array) == 1:
        return None
    if array.dtype.kind != "f":
        raise InputError(f"{path}: got dtype {array.dtype}, wanted float32 or float64 in [0, 1]")
    return len(array)


def _of_stack(path: Path, place: int, shape: tuple[int, ...]) -> Pixels:
    """One image of such a file; the others are not read."""
    try:
        pixels = np.array(np.load(path, mmap_mode="r", allow_pickle=False)[place])
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise InputError(f"{path}[{place}]: no longer readable ({error}); run the command again") from error
    return check_image(pixels, shape).astype(np.float32)


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

    An NPY file holds 0 and 1, one row an image in their order. A CSV file has the columns `image` (a name, or its last part
    where only one image ends so) and `labels` (such as 3 7).

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
    endings = Counter(Path(image.name).name for image in images)
    marks = np.zeros((len(images), labels), dtype=np.bool_)
    for place, image in enumerate(images):
        ending = Path(image.name).name
        words = known.get(image.name, known.get(ending) if endings[ending] == 1 else None)
        if words is None:
            several = "" if endings[ending] == 1 else f"; wanted its whole name, as {endings[ending]} images end so"
            raise InputError(f"labels {path}: no row for image {image.name}{several}")
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
