"""A counterexample just outside a proved neighbourhood: replayed, outside, and near."""

import numpy as np
import pytest

import aureole as public
from aureole.outside import find_outside
from verifier.deadline import Deadline
from verifier.layered import LayeredNeighbourhood, layer_distances


@pytest.fixture
def neighbourhood(pixels):
    mask = np.zeros(pixels.shape[1:], np.bool_)
    mask[:, :3] = True
    layers = int(layer_distances(mask).max()) + 1
    return LayeredNeighbourhood(pixels.astype(np.float64), mask, np.full(layers, 0.1))


def test_found_just_outside(halves, neighbourhood):
    network = public.load_network(str(halves))
    asked = public.stays_in_top_k(1, 2, network.labels)
    found = find_outside(network, neighbourhood, asked, seed=0, deadline=Deadline())
    assert found is not None
    assert asked.margin(found.scores) > 0
    assert not neighbourhood.box().contains(found.image)
    # The right half must fall by 0.4: the least enlargement of epsilon 0.1 that shows it is 0.3.
    radii = neighbourhood.radii(found.image)
    assert 0.4 < radii.max() <= 0.45
    assert neighbourhood.with_epsilons(radii).box().contains(found.image)


def test_nothing_is_found_where_nothing_is(halves, neighbourhood):
    network = public.load_network(str(halves))
    # The constant 0.2 of label 2 is always above the constant 0.1 of label 3.
    asked = public.stays_out_of_top_k(3, 1, network.labels)
    assert find_outside(network, neighbourhood, asked, seed=0, deadline=Deadline()) is None
    assert (
        find_outside(network, neighbourhood, public.stays_in_top_k(1, 2, 4), seed=0, deadline=Deadline.after(0)) is None
    )
