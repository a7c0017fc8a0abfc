"""Changes of training images: off means untouched, rectangles only darken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nets.augmentation import Augmentation, Rectangles, augment_digits, paste_rectangles
from nets.mnist import Digits
from verifier.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)


def test_no_augmentation_changes_and_draws_nothing(training_digits: Digits) -> None:
    generator = np.random.default_rng(0)
    state = generator.bit_generator.state
    changed = augment_digits(training_digits.images, Augmentation(), generator)
    np.testing.assert_array_equal(changed, training_digits.images)
    assert generator.bit_generator.state == state


def test_a_negligible_change_moves_no_pixel_by_more_than_a_grey_level(training_digits: Digits) -> None:
    changed = augment_digits(training_digits.images, Augmentation(1e-4, 1e-6), np.random.default_rng(0))
    assert np.abs(changed.astype(int) - training_digits.images).max() <= 1


def test_shape_type_and_seed_are_kept(training_digits: Digits) -> None:
    cells = training_digits.images[:40].reshape(20, 2, 28, 28)
    options = Augmentation(10.0, 0.1, 0.1, 1.0)
    first, again = (augment_digits(cells, options, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == cells.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, cells)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, most=st.integers(1, 5), longest_side=st.integers(1, 20))
def test_rectangles_only_set_pixels_to_black(seed: int, most: int, longest_side: int) -> None:
    images = np.full((7, 30, 40), 9, np.uint8)
    pasted = paste_rectangles(images, Rectangles(most, longest_side), np.random.default_rng(seed))
    assert set(np.unique(pasted).tolist()) <= {0, 9}
    assert int((pasted == 0).sum(axis=(1, 2)).max()) <= most * longest_side**2
    assert (images == 9).all()


def test_every_pixel_is_covered_about_equally_often() -> None:
    images = np.ones((20_000, 12, 12), np.uint8)
    share = 1 - paste_rectangles(images, Rectangles(2, 4), np.random.default_rng(0)).mean(axis=0)
    assert share.min() > 0
    assert share.max() / share.min() < 1.5


def test_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="rotation_degrees = -1"):
        Augmentation(rotation_degrees=-1.0)
    with pytest.raises(InputError, match="inside out"):
        Augmentation(scale=1.0)
    with pytest.raises(InputError, match="wanted 1 or more"):
        Rectangles(most=0)
