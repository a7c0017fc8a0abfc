import numpy as np
import pytest
from bound_networks import NETWORKS, image_network

from verifier.bounds import BoundMethod, BoundOptions, analyse_region, bound_property, margin_bound_and_gradient
from verifier.errors import InputError
from verifier.property import stays_in_top_k
from verifier.region import Box

CROWN = BoundOptions(method=BoundMethod.CROWN)
LAYERS = 3


def neighbourhood(canonical, seed, scale=1.0):
    generator = np.random.default_rng(seed)
    image = generator.random(canonical.input_size)
    image[:: max(2, canonical.input_size // 8)] = 0.0
    return image, generator.integers(0, LAYERS, canonical.input_size), scale * np.array([0.02, 0.05, 0.03])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 2.0), (2, 6.0), (3, 6.0)])
def test_crowns_gradient_is_the_finite_difference(name, seed, scale):
    """Through every intermediate bound, clipped entries included; a kink within the step is unlikely."""
    canonical = NETWORKS[name](seed)
    image, layers, epsilons = neighbourhood(canonical, seed, scale)
    goal = stays_in_top_k(0, 1, canonical.labels)

    def value(moved):
        return margin_bound_and_gradient(canonical, image, layers, moved, goal, options=CROWN)

    bound, gradient = value(epsilons)
    step = 1e-7
    for layer in range(LAYERS):
        shift = step * np.eye(LAYERS)[layer]
        slope = (value(epsilons + shift)[0] - value(epsilons - shift)[0]) / (2 * step)
        assert gradient[layer] == pytest.approx(slope, rel=1e-4, abs=1e-4)
    region = analyse_region(canonical, Box.around(image, epsilons[layers]), options=CROWN)
    assert bound == bound_property(region, goal, options=CROWN).upper


@pytest.mark.parametrize("pools", [False, True])
def test_alpha_crowns_gradient_predicts_a_small_growth(pools):
    """The optimum's slope by the envelope theorem, up to how well 60 steps optimise."""
    canonical = image_network(2, pools=pools)
    image, layers, epsilons = neighbourhood(canonical, 2)
    goal = stays_in_top_k(0, 2, canonical.labels)
    options = BoundOptions(iterations=60, patience=60)
    bound, gradient = margin_bound_and_gradient(canonical, image, layers, epsilons, goal, options=options)
    grown, _ = margin_bound_and_gradient(canonical, image, layers, epsilons * 1.05, goal, options=options)
    assert (gradient >= -1e-9).all()
    assert grown - bound == pytest.approx(0.05 * epsilons @ gradient, rel=0.25)


def test_layers_must_fit():
    canonical = NETWORKS["relu"](0)
    with pytest.raises(InputError, match="wanted one of 0 to 1 for each of the 4 entries"):
        margin_bound_and_gradient(
            canonical, np.full(4, 0.5), np.array([0, 1, 2, 0]), np.zeros(2), stays_in_top_k(0, 1, 3)
        )
