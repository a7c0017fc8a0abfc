import numpy as np
import pytest
from tiny_networks import dense_network

from attacks.sensitivity import layer_means, layer_sensitivity
from verifier.errors import InputError

LAYERS = np.array([[0, 1], [1, 2]])


def test_hand_computed():
    # Score 0 = 4 a - 2 b + 0 c + 1 d on a 2 x 2 image: layer means 4, (2 + 0) / 2, 1.
    network = dense_network([([[4, -2, 0, 1], [0, 0, 0, 0]], [0, 0])], (1, 2, 2))
    image = np.full((1, 2, 2), 0.5)
    np.testing.assert_allclose(layer_sensitivity(network, image, LAYERS, 0), [1.0, 0.25, 0.25])
    np.testing.assert_array_equal(layer_sensitivity(network, image, LAYERS, 1), [0.0, 0.0, 0.0])


def test_channels_share_their_pixel_s_layer_and_empty_layers_count_zero():
    values = np.array([[[1.0, -3.0]], [[3.0, 5.0]]])
    np.testing.assert_allclose(layer_means(values, np.array([[0, 2]])), [2.0, 0.0, 4.0])


def test_is_local():
    # Behind a ReLU that is off at this image nothing matters.
    network = dense_network([([[1, 0, 0, 0]], [-0.75]), ([[1], [0]], [0, 0])], (1, 2, 2))
    np.testing.assert_array_equal(layer_sensitivity(network, np.full((1, 2, 2), 0.5), LAYERS, 0), [0, 0, 0])
    np.testing.assert_array_equal(layer_sensitivity(network, np.full((1, 2, 2), 0.9), LAYERS, 0), [1, 0, 0])


@pytest.mark.parametrize(("shape", "target"), [((1, 1, 4), 0), ((1, 2, 2), 2), ((1, 2, 2), -1)])
def test_refuses_what_does_not_fit(shape, target):
    network = dense_network([(np.ones((2, 4)), [0, 0])], (1, 2, 2))
    with pytest.raises(InputError):
        layer_sensitivity(network, np.full(shape, 0.5), LAYERS, target)
