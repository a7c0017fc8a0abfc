import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood, layer_distances


def brute_force_distances(pixels: np.ndarray) -> np.ndarray:
    marked = np.argwhere(pixels)
    distances = np.empty(pixels.shape, dtype=np.int64)
    for pixel in np.ndindex(pixels.shape):
        distances[pixel] = min(max(abs(pixel[0] - i), abs(pixel[1] - j)) for i, j in marked)
    return distances


def mask(seed: int, share: float = 0.08) -> np.ndarray:
    generator = np.random.default_rng(seed)
    pixels = generator.random(tuple(generator.integers(1, 13, 2))) < share
    pixels.flat[generator.integers(pixels.size)] = True
    return pixels


@settings(max_examples=100)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.08, 0.5, 1.0]))
def test_layers_are_chebyshev_distances(seed: int, share: float) -> None:
    pixels = mask(seed, share)
    np.testing.assert_array_equal(layer_distances(pixels), brute_force_distances(pixels))


@given(st.integers(0, 2**31))
def test_the_box_widens_each_pixel_by_its_layer_s_epsilon(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pixels = mask(seed)
    distances = brute_force_distances(pixels)
    epsilons = generator.choice([0.0, 0.1, 1.0], distances.max() + 1)
    image = generator.random((2, *pixels.shape))
    neighbourhood = LayeredNeighbourhood(image, pixels, epsilons)
    box = neighbourhood.box()
    np.testing.assert_array_equal(neighbourhood.layers, distances)
    for channel, row, column in np.ndindex(image.shape):
        value, width = image[channel, row, column], epsilons[distances[row, column]]
        assert box.lower[channel, row, column] == max(value - width, 0.0)
        assert box.upper[channel, row, column] == min(value + width, 1.0)


def test_a_hand_computed_halo() -> None:
    pixels = np.zeros((3, 4), bool)
    pixels[1, 0] = True
    np.testing.assert_array_equal(layer_distances(pixels), [[1, 1, 2, 3], [0, 1, 2, 3], [1, 1, 2, 3]])


def test_other_epsilons_keep_image_and_object() -> None:
    neighbourhood = LayeredNeighbourhood(np.full((1, 1, 2), 0.5), np.array([[True, False]]), np.array([0.1, 0.2]))
    other = neighbourhood.with_epsilons(np.array([0.0, 0.5]))
    np.testing.assert_array_equal(other.box().lower, [[[0.5, 0.0]]])
    np.testing.assert_array_equal(neighbourhood.epsilons, [0.1, 0.2])


def test_arrays_are_copied_and_read_only() -> None:
    pixels, epsilons = np.array([[True, False]]), np.array([0.1, 0.2])
    neighbourhood = LayeredNeighbourhood(np.full((1, 1, 2), 0.5), pixels, epsilons)
    pixels[0, 1], epsilons[0] = True, 0.9
    np.testing.assert_array_equal(neighbourhood.pixels, [[True, False]])
    np.testing.assert_array_equal(neighbourhood.epsilons, [0.1, 0.2])
    assert neighbourhood.pixels.dtype == np.bool_
    for array in (neighbourhood.image, neighbourhood.pixels, neighbourhood.epsilons):
        assert not array.flags.writeable


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 2), bool), "no pixel is marked"),
        (np.ones((2, 2), np.uint8), "wanted a boolean height x width array"),
        (np.ones(4, bool), "wanted a boolean height x width array"),
    ],
)
def test_bad_masks_are_refused(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        layer_distances(pixels)


@pytest.mark.parametrize(
    ("image", "pixels", "epsilons", "message"),
    [
        (np.zeros((1, 2, 2)), np.ones((2, 3), bool), [0.1], r"wanted the image's height and width \(2, 2\)"),
        (np.zeros((2, 2)), np.ones((2, 2), bool), [0.1], "mask"),
        (np.zeros((1, 2, 2)), np.ones((2, 2), bool), [0.1, 0.1], r"wanted \(1,\), one per layer"),
        (np.zeros((1, 2, 2)), np.ones((2, 2), bool), [-0.1], r"must lie in \[0, 1\]"),
        (np.zeros((1, 2, 2)), np.ones((2, 2), bool), [np.nan], r"must lie in \[0, 1\]"),
        (np.full((1, 2, 2), 2.0), np.ones((2, 2), bool), [0.1], r"wanted \[0, 1\]"),
    ],
)
def test_bad_neighbourhoods_are_refused(
    image: np.ndarray, pixels: np.ndarray, epsilons: list[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        LayeredNeighbourhood(image, pixels, np.array(epsilons))
