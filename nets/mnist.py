"""Finds MNIST, in a folder or by a verified download, and keeps training digits and test digits apart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nets.idx import read_images, read_labels
from verifier.errors import InputError

MIRROR: Final = "https://ossci-datasets.s3.amazonaws.com/mnist/"
OFFICIAL_SHA256: Final = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
DIGIT_SIZE: Final = 28


class Split(Enum):
    """Which digits: those networks may learn from, or those they are judged on."""

    TRAINING = "training"
    TEST = "test"


# The full training set comes first; `train10k` is a subset of it that some installations carry.
_PREFIXES: Final = {Split.TRAINING: ("train", "train10k"), Split.TEST: ("t10k",)}


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """Digit images and their labels, all of one split; both arrays are copies and read-only.

    Attributes:
        images: uint8, shape (n, 28, 28).
        labels: uint8 in 0..9, shape (n,); every digit occurs.
        split: where they come from.
        sha256: file name -> SHA-256 of the files read, for the record.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    split: Split
    sha256: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Copy, validate and freeze the arrays."""
        images, labels = np.array(self.images), np.array(self.labels)
        wanted = (len(labels), DIGIT_SIZE, DIGIT_SIZE)
        if images.dtype != np.uint8 or labels.dtype != np.uint8 or images.shape != wanted:
            raise InputError(
                f"Digits: images {images.dtype}{images.shape}, labels {labels.dtype}{labels.shape}; "
                "wanted uint8 (n, 28, 28) and uint8 (n,) of the same n"
            )
        missing = sorted(set(range(10)) - set(labels.tolist()))
        if missing or int(labels.max()) > 9:
            raise InputError(f"Digits: labels {np.unique(labels).tolist()}; wanted every digit 0..9")
        images.setflags(write=False)
        labels.setflags(write=False)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)


def load_digits(split: Split, directory: Path | None = None) -> Digits:
    """The MNIST digits of one split, from `directory`, or downloaded once and cached when it is None.

    The files are `train-*` or `train10k-*` (training) and `t10k-*` (test), gzip-compressed IDX. A download is
    checked against the SHA-256 of the official files before it is read.

    Raises:
        InputError: a file is missing, damaged or does not match its partner, or the download failed.
    """
    images_path, labels_path = _locate(split, directory) if directory else _download(split)
    images, labels = read_images(images_path), read_labels(labels_path)
    if len(images) != len(labels):
        raise InputError(
            f"{images_path}: {len(images)} images, but {labels_path.name} has {len(labels)} labels; "
            "wanted the same number. The two files belong to different sets."
        )
    sums = tuple((path.name, _sha256(path)) for path in (images_path, labels_path))
    return Digits(images, labels, split, sums)


def _locate(split: Split, directory: Path) -> tuple[Path, Path]:
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; wanted one with the MNIST files (see docs/networks.md)")
    for prefix in _PREFIXES[split]:
        images = directory / f"{prefix}-images-idx3-ubyte.gz"
        labels = directory / f"{prefix}-labels-idx1-ubyte.gz"
        if images.exists() and labels.exists():
            return images, labels
    wanted = " or ".join(f"{prefix}-{{images-idx3,labels-idx1}}-ubyte.gz" for prefix in _PREFIXES[split])
    raise InputError(f"{directory}: no {split.value} digits; wanted {wanted}")


def _download(split: Split) -> tuple[Path, Path]:
    import pooch

    prefix = _PREFIXES[split][0]
    names = (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    paths = []
    for name in names:
        try:
            fetched = pooch.retrieve(
                MIRROR + name,
                known_hash=f"sha256:{OFFICIAL_SHA256[name]}",
                fname=name,
                path=pooch.os_cache("aureole") / "mnist",
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"{MIRROR}{name}: download failed ({error}); fetch the four MNIST files by hand and pass "
                "their folder with --mnist-dir"
            ) from error
        paths.append(Path(fetched))
    return paths[0], paths[1]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
