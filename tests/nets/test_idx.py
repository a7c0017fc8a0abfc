"""IDX files: what is stored comes back, and every kind of damage is an error that says what was found."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from synthetic_digits import idx_bytes, write_idx

from nets.idx import read_images, read_labels
from verifier.errors import InputError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([3, 0, 9], np.uint8)


def test_images_and_labels_come_back_as_stored(tmp_path: Path) -> None:
    images = read_images(write_idx(tmp_path / "images.gz", IMAGES))
    labels = read_labels(write_idx(tmp_path / "labels.gz", LABELS))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert not images.flags.writeable


def test_an_empty_set_of_images_is_read(tmp_path: Path) -> None:
    assert read_images(write_idx(tmp_path / "e.gz", IMAGES[:0])).shape == (0, 3, 4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.gz: no such file"):
        read_images(tmp_path / "nowhere.gz")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_images(tmp_path)


def test_plain_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.gz"
    path.write_bytes(idx_bytes(IMAGES))
    with pytest.raises(InputError, match="not a whole gzip file"):
        read_images(path)


def test_a_gzip_stream_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES))[:-9])
    with pytest.raises(InputError, match="not a whole gzip file"):
        read_images(path)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(IMAGES)))
    content[-6] ^= 0xFF
    path = tmp_path / "flipped.gz"
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="not a whole gzip file"):
        read_images(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number missing"),
        (idx_bytes(LABELS), "magic number 00000801; wanted 00000803"),
        (b"\x00\x00\x0d\x03" + idx_bytes(IMAGES)[4:], "magic number 00000d03"),
        (idx_bytes(IMAGES)[:10], "wanted a header of 16"),
        (idx_bytes(IMAGES)[:-1], "39 bytes after decompression; wanted 40"),
        (idx_bytes(IMAGES) + b"\x00", "41 bytes after decompression; wanted 40"),
    ],
)
def test_contents_that_are_not_the_announced_images_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=message):
        read_images(path)


def test_a_label_above_nine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label 10 at index 1"):
        read_labels(write_idx(tmp_path / "labels.gz", np.array([1, 10], np.uint8)))
