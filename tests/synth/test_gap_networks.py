"""On tiny networks, by brute force over a grid of epsilons: nothing robust is larger than the upper bound."""

from itertools import product

import numpy as np
import pytest
from tiny_networks import exact_supremum, random_dense_network

from attacks.margin import MarginAttack
from synth.goals import labels_survive
from synth.grow import GrowOptions, grow_zones
from synth.zones import Zones
from verifier.lowering import lower

GRID = 5


@pytest.mark.parametrize("seed", [1, 5])
def test_no_robust_grid_point_exceeds_the_bound(seed):
    network = random_dense_network(seed, inputs=2, hidden=3, labels=3)
    image = np.random.default_rng(seed).random(network.input_shape).astype(np.float32).astype(np.float64)
    target = int(np.argmax(lower(network).evaluate(image.reshape(1, -1))[-1][0]))
    goals = labels_survive([target], 1, 3)
    zones = Zones.of_layers(image, np.array([[True, False]]))
    options = GrowOptions(step=1.0 / 32.0, corners=8)
    result = grow_zones(network, zones, goals, options=options, falsifier=MarginAttack())
    assert result.is_proved
    assert exact_supremum(network, goals[0], result.neighbourhood.box()) < 0.0
    for epsilons in product(np.linspace(0.0, 1.0, GRID), repeat=2):
        point = np.array(epsilons)
        is_robust = exact_supremum(network, goals[0], zones.box(point)) < -1e-9
        is_forbidden = any((point >= radii).all() for radii in result.cuts)
        assert not (is_robust and is_forbidden)
        if is_robust:
            assert result.weights @ point <= result.upper_bound
    for layer, found in enumerate(result.evidence):
        if found is not None:
            larger = result.neighbourhood.epsilons.copy()
            larger[layer] = min(1.0, larger[layer] + options.step)
            assert zones.box(larger).contains(found.image)
            assert goals[0].margin(lower(network).evaluate(found.image.reshape(1, -1).astype(np.float64))[-1][0]) > 0.0
