"""Masks from arrays, boxes and ink."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.segmentation import box_pixels, ink_pixels, mask_pixels
from verifier.errors import InputError


def test_masks_mark_what_is_not_zero():
    marked = np.array([[0, 255], [1, 0]], dtype=np.uint8)
    assert mask_pixels(marked, (2, 2)).tolist() == [[False, True], [True, False]]
    assert mask_pixels(marked > 0, (2, 2)).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 2), dtype=np.uint8), "no pixel"),
        (np.ones((3, 2), dtype=np.bool_), r"shape \(3, 2\)"),
        (np.ones((1, 2, 2), dtype=np.bool_), "shape"),
        (np.ones((2, 2)), "dtype float64"),
    ],
)
def test_wrong_masks_are_refused(mask, message):
    with pytest.raises(InputError, match=message):
        mask_pixels(mask, (2, 2))


def test_boxes_are_half_open():
    pixels = box_pixels((1, 2, 3, 3), (4, 5))
    assert np.argwhere(pixels).tolist() == [[1, 2], [2, 2]]


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, 0, 5, 2), (0, 0, 2, 6), (2, 2, 2, 3), (2, 3, 3, 1)])
def test_wrong_boxes_are_refused(box):
    with pytest.raises(InputError, match="box"):
        box_pixels(box, (4, 5))


def test_ink_splits_digits_from_left_to_right_and_keeps_broken_strokes_together():
    image = np.zeros((1, 12, 20))
    image[0, 1:5, 2:6] = 0.9
    image[0, 7:10, 3:5] = 0.5  # the left digit's second stroke
    image[0, 2:10, 14:17] = 1.0
    image[0, 0, 12] = 0.1  # a speck beside the right digit
    left, right = ink_pixels(image)
    assert left[:, :8].sum() == 4 * 4 + 3 * 2
    assert right[:, 12:].sum() == 8 * 3 + 1
    assert not left[:, 8:].any()
    assert not right[:, :12].any()


@given(st.integers(1, 4), st.integers(0, 1000))
def test_ink_masks_partition_the_ink(objects, seed):
    image = np.where(np.random.default_rng(seed).random((1, 9, 17)) > 0.8, 0.7, 0.0)
    ink = image[0] > 0
    try:
        masks = ink_pixels(image, objects)
    except InputError:
        return
    assert len(masks) == objects
    assert (np.sum(masks, axis=0) == ink).all()
    centres = [np.argwhere(mask)[:, 1].mean() for mask in masks]
    assert centres == sorted(centres)


def test_too_few_pieces_and_wrong_images_are_refused():
    image = np.zeros((1, 6, 6))
    with pytest.raises(InputError, match="0 connected pieces"):
        ink_pixels(image)
    image[0, 2:4, 2:4] = 1.0
    with pytest.raises(InputError, match="1 connected pieces"):
        ink_pixels(image)
    with pytest.raises(InputError, match="objects"):
        ink_pixels(image, 0)
    with pytest.raises(InputError, match="channels"):
        ink_pixels(image[0])
