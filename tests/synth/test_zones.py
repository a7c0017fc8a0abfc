"""Zones: which entries share an epsilon, and that boxes, radii and sums agree about it."""

import numpy as np
import pytest
from tiny_networks import dense_network, exact_supremum, linear_network, random_dense_network

from synth.bands import parse_bands
from synth.goals import labels_survive
from synth.grow import GrowOptions, grow_zones
from synth.zones import FIXED, Sides, ZonedNeighbourhood, Zones
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood
from verifier.lowering import lower

IMAGE = np.random.default_rng(0).random((2, 5, 7))
STEP = 1.0 / 64.0


def mask(row, column, shape=(5, 7)):
    pixels = np.zeros(shape, dtype=np.bool_)
    pixels[row, column] = True
    return pixels


def test_layers_of_one_object_are_a_layered_neighbourhood():
    zones = Zones.of_layers(IMAGE, mask(2, 1))
    epsilons = np.linspace(0.0, 0.6, zones.count)
    layered = LayeredNeighbourhood(IMAGE, mask(2, 1), epsilons)
    shown = zones.neighbourhood(epsilons)
    assert isinstance(shown, LayeredNeighbourhood)
    assert np.array_equal(zones.box(epsilons).lower, layered.box().lower)
    assert np.array_equal(zones.box(epsilons).upper, layered.box().upper)
    other = np.random.default_rng(1).random(IMAGE.shape)
    assert np.array_equal(zones.radii(other), layered.radii(other))
    assert zones.sizes.tolist() == (2.0 * np.bincount(layered.layers.ravel())).tolist()
    assert zones.worth == pytest.approx(1.0 / (1.0 + np.arange(zones.count)))
    assert zones.names[:2] == ("layer 0", "layer 1")


@pytest.mark.parametrize("sides", Sides)
@pytest.mark.parametrize("bands", [None, "0,1-2,3-"])
def test_an_image_lies_in_the_neighbourhood_of_its_own_radii_and_in_none_smaller(sides, bands):
    parsed = None if bands is None else parse_bands(bands)
    zones = Zones.of_objects(IMAGE, [mask(0, 0), mask(4, 6)], keep=mask(2, slice(2, 4)), bands=parsed, sides=sides)
    everything = zones.box(np.ones(zones.count))
    other = everything.lower + np.random.default_rng(2).random(IMAGE.shape) * (everything.upper - everything.lower)
    radii = zones.radii(other)
    assert zones.box(np.minimum(radii + 1e-12, 1.0)).contains(other)
    for zone in np.flatnonzero(radii > 0.0):
        smaller = np.ones(zones.count)
        smaller[zone] = radii[zone] - 1e-9
        assert not zones.box(smaller).contains(other)
    assert np.array_equal(everything.lower[:, 2, 2:4], IMAGE[:, 2, 2:4])
    assert (everything.lower < IMAGE).any() == (sides is not Sides.BRIGHTER)
    assert (everything.upper > IMAGE).any() == (sides is not Sides.DARKER)


def test_a_change_that_is_not_allowed_is_in_no_neighbourhood():
    zones = Zones.of_objects(IMAGE, [mask(0, 0)], keep=mask(4, 6))
    changed = IMAGE.copy()
    changed[0, 4, 6] = 1.0
    assert np.isinf(zones.radii(changed)).all()
    brighter = Zones.of_objects(IMAGE, [mask(0, 0)], sides=Sides.BRIGHTER)
    assert np.isinf(brighter.radii(0.5 * IMAGE)).all()


def test_two_objects_have_layers_of_their_own():
    zones = Zones.of_objects(IMAGE, [mask(0, 0), mask(4, 6)])
    assert zones.rising[0, 0, 1] == 1
    assert zones.names[zones.rising[0, 4, 5]] == "object 2 layer 1"
    assert zones.rising[0, 4, 5] != zones.rising[0, 0, 1]


def test_bands_add_up_their_layers_and_sides_apart_halve_them():
    layers = Zones.of_layers(IMAGE, mask(2, 1)).worth
    bands = Zones.of_objects(IMAGE, [mask(2, 1)], bands=parse_bands("0,1-2,3-"))
    assert bands.worth == pytest.approx([layers[0], layers[1:3].sum(), layers[3:].sum()])
    assert bands.names == ("layer 0", "layers 1-2", "layers 3-")
    apart = Zones.of_objects(IMAGE, [mask(2, 1)], sides=Sides.APART)
    assert apart.worth.sum() == pytest.approx(layers.sum())
    assert apart.count == 2 * len(layers)


def test_means_and_sums_over_zones():
    zones = Zones.of_objects(IMAGE, [mask(2, 1)], bands=parse_bands("0,1-"), keep=mask(0, 0))
    values = np.ones(IMAGE.shape)
    assert zones.mean(values) == pytest.approx([1.0, 1.0])
    assert zones.total(values, values).tolist() == [4.0, 2.0 * (2 * 35 - 4)]
    assert (zones.rising == FIXED).sum() == 2


@pytest.mark.parametrize("text", ["", "0", "1-", "0,2-", "0-1,1-", "0,a-", "0-,1-"])
def test_bands_with_gaps_or_an_end_are_refused(text):
    with pytest.raises(InputError, match="bands"):
        parse_bands(text)


@pytest.mark.parametrize(("k", "targets"), [(2, [0]), (3, [0, 2]), (2, [1, 3]), (4, [0, 1, 4])])
def test_labels_survive_exactly_when_all_are_strictly_among_the_k_highest(k, targets):
    goals = labels_survive(targets, k, 6)
    for scores in np.random.default_rng(0).integers(0, 5, size=(500, 6)).astype(np.float64):
        inside = all((np.delete(scores, t) >= scores[t]).sum() < k for t in targets)
        assert inside == all(goal.margin(scores) < 0.0 for goal in goals)


@pytest.mark.parametrize(
    ("targets", "message"), [([], "at least one"), ([1, 1], "each once"), ([0, 1, 2], "at most k")]
)
def test_targets_that_make_no_sense_are_refused(targets, message):
    with pytest.raises(InputError, match=message):
        labels_survive(targets, 2, 5)


def test_each_side_is_grown_as_far_as_it_goes():
    """Label 0 survives iff 2 x0 < 4 x1: rising costs for pixel 0 alone, falling for pixel 1 alone."""
    network = linear_network([[0.0, 0.0], [2.0, -4.0]], [0.0, 0.0])
    image = np.array([[[0.25, 0.5]]])
    zones = Zones.of_objects(image, [np.array([[True, False]])], sides=Sides.APART)
    result = grow_zones(network, zones, labels_survive([0], 1, 2), options=GrowOptions(step=STEP, corners=3))
    epsilons = dict(zip(result.names, result.neighbourhood.epsilons, strict=True))
    assert isinstance(result.neighbourhood, ZonedNeighbourhood)
    assert epsilons["layer 0 darker"] == epsilons["layer 1 brighter"] == 1.0
    used = 2.0 * min(epsilons["layer 0 brighter"], 0.75) + 4.0 * min(epsilons["layer 1 darker"], 0.5)
    assert 1.5 - 4.0 * STEP <= used < 1.5
    assert result.is_proved


@pytest.mark.parametrize("seed", range(2))
def test_several_goals_hold_over_the_whole_result(seed):
    network = random_dense_network(seed + 3, inputs=3, labels=5)
    image = np.random.default_rng(seed).random(network.input_shape).astype(np.float32).astype(np.float64)
    scores = lower(network).evaluate(image.reshape(1, -1))[-1][0]
    ranked = np.argsort(-scores, kind="stable")
    goals = labels_survive([int(label) for label in ranked[:2]], 3, 5)
    if any(goal.margin(scores) >= 0.0 for goal in goals):
        pytest.skip("a tie at the image")
    zones = Zones.of_layers(image, np.array([[True, False, False]]))
    result = grow_zones(network, zones, goals, options=GrowOptions(step=STEP, corners=2, max_queries=60))
    assert result.is_proved
    assert len(goals) == 2
    assert all(exact_supremum(network, goal, result.neighbourhood.box()) < 0.0 for goal in goals)


def test_a_planted_largest_neighbourhood_is_found_and_its_gap_closed():
    """max(x0, x1) + x2 < 1/2 by ReLUs: the best of weights 1, 1/2, 1/3 is x0 = x1 = 1/2, x2 = 0."""
    network = dense_network(
        [
            ([[1.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 0.0]),
            ([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]], [0.0, -1.0]),
        ]
    )
    zones = Zones.of_layers(np.zeros((1, 1, 3)), np.array([[True, False, False]]))
    result = grow_zones(network, zones, labels_survive([0], 1, 2), options=GrowOptions(step=2.0 * STEP, corners=20))
    assert result.is_proved
    best = 0.5 + 0.5 / 2.0
    assert result.weighted_size <= best <= result.upper_bound
    assert result.weighted_size >= best - 3.0 * STEP * result.weights.sum()
