"""Composed images: disjoint cells, different digits, masks that are exactly the ink, one seed one set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nets.composer import DOUBLE_MNIST, TRIPLE_MNIST, Canvas, ComposedImages, Layout, compose, draw_layout, paste
from nets.mnist import Digits, Split
from verifier.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def canvases(draw: st.DrawFn) -> Canvas:
    digits = draw(st.integers(1, 4))
    return Canvas(draw(st.integers(28, 70)), draw(st.integers(28 * digits, 28 * digits + 40)), digits)


@pytest.mark.parametrize(("canvas", "shape"), [(DOUBLE_MNIST, (5, 1, 64, 64)), (TRIPLE_MNIST, (5, 1, 84, 84))])
def test_shapes_and_types(training_digits: Digits, canvas: Canvas, shape: tuple[int, ...]) -> None:
    images = compose(training_digits, canvas, 5, np.random.default_rng(0))
    assert images.images.shape == shape
    assert images.images.dtype == np.float32
    assert images.labels.shape == (5, canvas.digits)
    assert images.masks.shape == (5, canvas.digits, *shape[2:])
    assert len(images) == 5


@settings(max_examples=30, deadline=None)
@given(canvas=canvases(), seed=SEEDS)
def test_cells_lie_within_their_strips_and_never_overlap(canvas: Canvas, seed: int) -> None:
    labels = (np.arange(50) % 10).astype(np.uint8)
    layout = draw_layout(labels, canvas, 20, np.random.default_rng(seed))
    assert (layout.tops >= 0).all()
    assert (layout.tops + 28 <= canvas.height).all()
    strips = canvas.strip * np.arange(canvas.digits)
    assert (layout.lefts >= strips).all()
    assert (layout.lefts + 28 <= strips + canvas.strip).all()


@settings(max_examples=30, deadline=None)
@given(canvas=canvases(), seed=SEEDS)
def test_images_agree_with_their_labels_and_masks(training_digits: Digits, canvas: Canvas, seed: int) -> None:
    images = compose(training_digits, canvas, 6, np.random.default_rng(seed))
    assert all(len(set(row)) == canvas.digits for row in images.labels.tolist())
    assert (images.masks.sum(axis=1) <= 1).all()
    np.testing.assert_array_equal(images.masks.any(axis=1), images.images[:, 0] > 0)
    levels = images.images * np.float32(255)
    np.testing.assert_array_equal(images.images, np.rint(levels) / np.float32(255))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_each_mask_holds_the_ink_of_one_digit_of_that_label(training_digits: Digits, seed: int) -> None:
    images = compose(training_digits, DOUBLE_MNIST, 4, np.random.default_rng(seed))
    for image, labels, masks in zip(images.images, images.labels, images.masks, strict=True):
        for label, mask in zip(labels, masks, strict=True):
            ink = np.sort(np.rint(image[0][mask] * 255).astype(np.uint8))
            candidates = training_digits.images[training_digits.labels == label]
            assert any(np.array_equal(ink, np.sort(cell[cell > 0])) for cell in candidates)


def test_one_seed_one_set(training_digits: Digits) -> None:
    first, again, other = (compose(training_digits, DOUBLE_MNIST, 8, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert not np.array_equal(first.images, other.images)


def test_only_digits_of_the_given_split_appear() -> None:
    labels = (np.arange(40) % 10).astype(np.uint8)
    training = Digits(np.full((40, 28, 28), 10, np.uint8), labels, Split.TRAINING)
    test = Digits(np.full((40, 28, 28), 200, np.uint8), labels, Split.TEST)
    for digits, level in ((training, 10), (test, 200)):
        images = compose(digits, DOUBLE_MNIST, 20, np.random.default_rng(0)).images
        assert set(np.unique(np.rint(images * 255)).tolist()) == {0, level}


def test_every_offset_of_the_generator_occurs_and_classes_are_uniform() -> None:
    labels = (np.arange(1000) % 10).astype(np.uint8)
    layout = draw_layout(labels, DOUBLE_MNIST, 20_000, np.random.default_rng(0))
    assert set(np.unique(layout.lefts[:, 0]).tolist()) == set(range(4))
    assert set(np.unique(layout.lefts[:, 1]).tolist()) == set(range(32, 36))
    assert set(np.unique(layout.tops).tolist()) == set(range(36))
    counts = np.bincount(labels[layout.indices].ravel(), minlength=10)
    assert abs(counts / 4000 - 1).max() < 0.1


def test_paste_by_hand() -> None:
    layout = Layout(np.zeros((1, 2), np.int64), np.array([[0, 2]]), np.array([[1, 29]]))
    pixels = np.stack([np.full((28, 28), 7, np.uint8), np.full((28, 28), 9, np.uint8)])[None]
    image = paste(pixels, layout, Canvas(30, 60, 2))[0]
    assert (image[0:28, 1:29] == 7).all()
    assert (image[2:30, 29:57] == 9).all()
    assert int((image > 0).sum()) == 2 * 28 * 28


def test_values_are_copies_and_read_only() -> None:
    pixels, labels = np.zeros((1, 1, 28, 28), np.float32), np.zeros((1, 1), np.int64)
    images = ComposedImages(pixels, labels, np.zeros((1, 1, 28, 28), bool))
    pixels[:] = 1
    assert images.images.max() == 0
    with pytest.raises(ValueError, match="read-only"):
        images.masks[0, 0, 0, 0] = True


def test_misuse_is_refused(training_digits: Digits) -> None:
    with pytest.raises(InputError, match="11 digits"):
        Canvas(64, 64 * 11, 11)
    with pytest.raises(InputError, match=r"wanted at least 28x84"):
        Canvas(64, 83, 3)
    with pytest.raises(InputError, match="count -1"):
        compose(training_digits, DOUBLE_MNIST, -1, np.random.default_rng(0))
    with pytest.raises(InputError, match="masks"):
        ComposedImages(np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 2), np.int64), np.zeros((1, 1, 4, 4), bool))
