"""Outlines against masks drawn by hand, run lengths there and back, and covers that lose no pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nets.readers.outlines import BoxOutline, IndexedOutline, PolygonOutline, RunLengthOutline, cover, run_lengths
from verifier.errors import InputError


def text_of(counts: list[int]) -> str:
    """COCO's compressed run lengths, by the format's description."""
    characters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            is_last = value == (-1 if bits & 16 else 0)
            characters.append(chr(48 + bits + (0 if is_last else 32)))
            if is_last:
                break
    return "".join(characters)


def test_a_box_marks_every_pixel_it_touches() -> None:
    mask = BoxOutline(4, 5, 1.0, 0.5, 3.2, 2.0).mask()
    wanted = np.zeros((4, 5), bool)
    wanted[0:2, 1:4] = True
    np.testing.assert_array_equal(mask, wanted)
    assert BoxOutline(2, 2, -3, -3, 9, 9).mask().all()


def test_polygons_are_filled_and_joined() -> None:
    outline = PolygonOutline(6, 8, (((1, 1), (3, 1), (3, 4), (1, 4)), ((6, 0), (7, 0), (7, 0))))
    wanted = np.zeros((6, 8), bool)
    wanted[1:5, 1:4] = True
    wanted[0, 6:8] = True
    np.testing.assert_array_equal(outline.mask(), wanted)


def test_run_lengths_go_column_by_column_and_begin_outside() -> None:
    mask = RunLengthOutline(2, 3, (1, 3, 2)).mask()
    np.testing.assert_array_equal(mask, [[False, True, False], [True, True, False]])


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=12))
def test_compressed_run_lengths_come_back(counts: list[int]) -> None:
    assert run_lengths(text_of(counts)) == tuple(counts)


def test_compressed_run_lengths_by_hand() -> None:
    # 6, 1, then 40 = 8 + 32 * 1 in two characters, then 5 = 1 + 4 as a difference to the last but one.
    assert run_lengths("61X14") == (6, 1, 40, 5)
    # -2 is 30 with the sign bit: 40 - 2.
    assert run_lengths("61X1" + "4" + chr(48 + 30)) == (6, 1, 40, 5, 38)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
def test_a_cover_is_every_overlapping_pixel(seed: int, height: int, width: int, rows: int, columns: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    wanted = np.zeros((rows, columns), bool)
    for i, j in np.argwhere(mask):
        for row in range(rows):
            for column in range(columns):
                in_rows = max(i * rows, row * height) < min((i + 1) * rows, (row + 1) * height)
                in_columns = max(j * columns, column * width) < min((j + 1) * columns, (column + 1) * width)
                wanted[row, column] |= in_rows and in_columns
    np.testing.assert_array_equal(cover(mask, rows, columns), wanted)


def test_unusable_outlines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted left < right"):
        BoxOutline(4, 4, 2, 0, 2, 1)
    with pytest.raises(InputError, match="wanted left < right"):
        BoxOutline(4, 4, float("nan"), 0, 2, 1)
    with pytest.raises(InputError, match="lies outside the image of 4x4"):
        BoxOutline(4, 4, 4, 0, 5, 1)
    for counts in ((3, 2), (-1, 7)):
        with pytest.raises(InputError, match="wanted lengths of 0 or more that fill 2x3"):
            RunLengthOutline(2, 3, counts)
    for text in ("é", "P"):
        with pytest.raises(InputError, match="run lengths"):
            run_lengths(text)
    with pytest.raises(InputError, match="cannot be read as a picture"):
        IndexedOutline(tmp_path / "none.png", 1).mask()
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="mode RGB; wanted an indexed"):
        IndexedOutline(tmp_path / "colour.png", 1).mask()
