"""Reads gzip-compressed IDX files, the format MNIST is published in."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from verifier.errors import InputError

_UNSIGNED_BYTE: Final = 0x08
_IMAGES_RANK: Final = 3
_LABELS_RANK: Final = 1
_CLASSES: Final = 10


def read_images(path: Path) -> NDArray[np.uint8]:
    """Every image of a gzip-compressed IDX3 file, exactly as stored, shape (n, rows, columns), read-only.

    Raises:
        InputError: the file is missing, is not gzip, is not an IDX3 file of unsigned bytes, or holds fewer
            or more bytes than its header announces.
    """
    return _read(path, rank=_IMAGES_RANK)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Every label of a gzip-compressed IDX1 file, each in 0..9, shape (n,), read-only.

    Raises:
        InputError: as `read_images`, or a label lies outside 0..9.
    """
    labels = _read(path, rank=_LABELS_RANK)
    if labels.size and int(labels.max()) >= _CLASSES:
        at = int(np.argmax(labels >= _CLASSES))
        raise InputError(
            f"{path}: label {int(labels[at])} at index {at}; wanted digits 0..9. "
            "Is this the labels file of another data set?"
        )
    return labels


def _read(path: Path, *, rank: int) -> NDArray[np.uint8]:
    content = _decompress(path)
    header_bytes = 4 + 4 * rank
    magic = content[:4]
    wanted = bytes((0, 0, _UNSIGNED_BYTE, rank))
    if magic != wanted:
        raise InputError(
            f"{path}: magic number {magic.hex() or 'missing'}; wanted {wanted.hex()} (unsigned bytes, "
            f"{rank} dimension(s)). Are the images and labels files swapped?"
        )
    if len(content) < header_bytes:
        raise InputError(
            f"{path}: {len(content)} bytes after decompression; wanted a header of {header_bytes}. "
            "The file is truncated: fetch it again."
        )
    shape = tuple(int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in range(1, rank + 1))
    announced = header_bytes + math.prod(shape)
    if len(content) != announced:
        raise InputError(
            f"{path}: {len(content)} bytes after decompression; wanted {announced} for shape {shape}. "
            "The file is truncated or damaged: fetch it again."
        )
    # bytes are immutable, so the array over them is read-only and needs no copy.
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def _decompress(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            return stream.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; wanted a gzip-compressed IDX file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
