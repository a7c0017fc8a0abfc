"""Influence maps from planted results: matrices by pair, limits by layer, nothing claimed for a pair without an answer."""

import dataclasses

import numpy as np
import pytest

from synth.influence import Failure, Influence, InfluenceMap, Limit, exceeded_layers
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood, layer_distances

SIDE = 8


def mask(column):
    marked = np.zeros((SIDE, SIDE), np.bool_)
    marked[3:5, column : column + 2] = True
    return marked


OBJECTS = (mask(0), mask(6))
IMAGE = np.full((1, SIDE, SIDE), 0.5)


def pair(perturbed, kept, epsilons, **changes):
    pixels = OBJECTS[perturbed]
    layers = int(layer_distances(pixels).max()) + 1
    widths = np.zeros(layers)
    widths[: len(epsilons)] = epsilons
    neighbourhood = LayeredNeighbourhood(IMAGE, pixels, widths)
    found = Influence(perturbed, kept, kept + 4, neighbourhood, True, True, 0.25, 0.5, (), (), (), None)
    return dataclasses.replace(found, **changes)


def limit(layer, epsilon):
    return Limit(layer, f"layer {layer}", epsilon, 0.01, 0.1, 0.2)


def test_matrices_are_by_perturbed_row_and_kept_column():
    there, back = pair(0, 1, [0.5]), pair(1, 0, [0.5, 0.25], weighted_size=0.75)
    influence = InfluenceMap(IMAGE, OBJECTS, (4, 5), (there, back))
    sizes = influence.matrix(lambda one: one.weighted_size)
    assert np.isnan(np.diag(sizes)).all()
    assert (sizes[0, 1], sizes[1, 0]) == (0.25, 0.75)


def test_mean_epsilon_and_area_count_pixels():
    # Layer 0 has 4 pixels; layer 1, at the border of the image, 4 * 3 - 4 = 8.
    found = pair(0, 1, [0.5, 0.25])
    assert found.area_above_zero == 12 / 64
    assert found.mean_epsilon == pytest.approx((4 * 0.5 + 8 * 0.25) / 64)


def test_the_tightest_limit_has_the_smallest_epsilon():
    assert pair(0, 1, [0.5]).tightest is None
    limits = (limit(0, 0.3), limit(1, 0.1), limit(2, 0.1))
    assert pair(0, 1, [0.5], limits=limits).tightest is limits[1]


def test_a_pair_without_an_answer_has_no_number():
    failure = Failure(1, 0, "label 4 is not among the highest")
    influence = InfluenceMap(IMAGE, OBJECTS, (4, 5), (pair(0, 1, [0.5]),), (failure,))
    assert np.isnan(influence.matrix(lambda one: one.upper_bound)[1, 0])


@pytest.mark.parametrize("pairs", [(), ((0, 1),), ((0, 1), (0, 1)), ((0, 1), (1, 0), (1, 0))])
def test_every_ordered_pair_is_there_once(pairs):
    with pytest.raises(InputError, match="pairs"):
        InfluenceMap(IMAGE, OBJECTS, (4, 5), tuple(pair(*place, [0.5]) for place in pairs))


def test_one_label_per_object():
    with pytest.raises(InputError, match="labels"):
        InfluenceMap(IMAGE, OBJECTS, (4,), (pair(0, 1, [0.5]), pair(1, 0, [0.5])))


def test_a_counterexample_exceeds_the_layers_that_it_changes_more():
    assert exceeded_layers(("a", "b", "c"), np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.3, 0.0])) == ("b",)
