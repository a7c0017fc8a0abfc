import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.region import Box, check_image, frozen

SEEDS = st.integers(0, 2**31)


@given(SEEDS)
def test_a_box_around_an_image_holds_exactly_the_valid_images_within_the_widths(seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = np.where(
        generator.random((1, 3, 2)) < 0.3, np.round(generator.random((1, 3, 2))), generator.random((1, 3, 2))
    )
    widths = generator.choice([0.0, 0.1, 0.5, 3.0], (1, 3, 2))
    box = Box.around(image, widths)
    np.testing.assert_array_equal(box.lower, np.maximum(image - widths, 0.0))
    np.testing.assert_array_equal(box.upper, np.minimum(image + widths, 1.0))
    assert box.contains(image)
    assert box.contains(box.centre)
    assert box.encloses(Box.around(image, widths / 2))
    assert box.encloses(box)


def test_one_width_serves_every_pixel_and_infinity_means_the_valid_range() -> None:
    image = np.float32([0.25, 1.0])
    np.testing.assert_array_equal(Box.around(image, 0.25).lower, [0.0, 0.75])
    everything = Box.around(image, np.inf)
    np.testing.assert_array_equal([everything.lower, everything.upper], [[0.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contains_compares_exactly(dtype: type) -> None:
    point = np.array([0.1, 0.9], dtype)
    box = Box(point, point)
    assert box.contains(point)
    for direction in (0.0, 1.0):
        beside = point.copy()
        beside[1] = np.nextafter(point[1], dtype(direction))
        assert not box.contains(beside)
    assert not box.contains(np.array([0.1, np.nan], dtype))
    assert not box.contains(point[:1])
    assert not box.contains(point[None])


def test_a_float32_image_is_not_its_float64_neighbour() -> None:
    box = Box(np.array([0.1]), np.array([0.1]))
    assert not box.contains(np.float32([0.1]))


def test_arrays_are_copied_float64_and_read_only() -> None:
    lower, upper = np.float32([0.25]), np.array([0.5])
    box = Box(lower, upper)
    lower[0], upper[0] = 0.0, 1.0
    assert (box.lower[0], box.upper[0]) == (0.25, 0.5)
    assert box.lower.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        box.lower[0] = 0.0
    assert box.shape == (1,)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0], [0.0, 1.0], "equal shapes"),
        ([np.nan], [1.0], "NaN or infinite"),
        ([0.0], [np.inf], "NaN or infinite"),
        ([0.5], [0.25], "lower > upper at 1 entries"),
        ([-0.1], [0.25], "outside the valid input range"),
        ([0.5], [np.nextafter(1.0, 2.0)], "outside the valid input range"),
    ],
)
def test_bad_boxes_are_refused(lower: list[float], upper: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Box(np.array(lower), np.array(upper))


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        (-0.1, "wanted numbers >= 0"),
        (np.nan, "wanted numbers >= 0"),
        (np.array([0.1, -0.1]), "wanted numbers >= 0"),
        (np.array([0.1]), r"wanted \(2,\) as the image"),
        (np.array([[0.1, 0.1]]), r"wanted \(2,\) as the image"),
    ],
)
def test_bad_widths_are_refused(widths: np.ndarray | float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Box.around(np.array([0.5, 0.5]), widths)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.array([[0, 255]], np.uint8), "divide 8-bit pixels by 255"),
        (np.array([0.5, 0.5]), r"wanted \(1, 2\)"),
        (np.array([[0.5, np.nan]]), "1 pixels are NaN or infinite"),
        (np.array([[0.5, -np.inf]]), "1 pixels are NaN or infinite"),
        (np.array([[0.5, 1.5]]), r"wanted \[0, 1\]"),
        (np.array([[-1e-9, 0.5]]), r"wanted \[0, 1\]"),
    ],
)
def test_bad_images_are_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_image(image, (1, 2))


def test_a_good_image_comes_back_as_a_read_only_float64_copy() -> None:
    image = np.float32([[0.0, 0.1]])
    checked = check_image(image, (1, 2))
    image[0, 0] = 1.0
    np.testing.assert_array_equal(checked, np.array([[0.0, np.float32(0.1)]], np.float64))
    assert checked.dtype == np.float64
    assert not checked.flags.writeable


def test_frozen_copies_in_c_order() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    copy = frozen(array)
    assert copy.flags.c_contiguous
    assert not np.shares_memory(copy, array)
