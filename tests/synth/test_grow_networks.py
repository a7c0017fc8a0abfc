"""Growing on real networks through the real verifier; small enough for the exact supremum to be known."""

import numpy as np
import pytest
import torch
from tiny_networks import dense_network, exact_supremum, linear_network, random_dense_network

from nets import shipped
from synth.baselines import layer_by_layer, uniform
from synth.cutting import CutRule
from synth.grow import GrowOptions, grow, label_question, zone_oracle
from synth.network_oracle import entries_that_matter, margin_gradients
from synth.oracle import Effort
from synth.result import StopReason
from verifier.bounds import BoundOptions
from verifier.check import replay
from verifier.deadline import Deadline
from verifier.errors import InputError, NetworkTooLargeError
from verifier.evaluation import evaluate
from verifier.lowering import lower
from verifier.onnx_import import load_network
from verifier.property import stays_in_top_k
from verifier.query import Query
from verifier.torch_network import TorchNetwork
from verifier.verdict import Robust
from verifier.verify import VerifyOptions, verify

STEP = 1.0 / 64.0
OPTIONS = GrowOptions(step=STEP, corners=3)
GROWERS = [grow, uniform, layer_by_layer]


def first_pixel(network):
    pixels = np.zeros(network.input_shape[1:], dtype=np.bool_)
    pixels[0, 0] = True
    return pixels


def oracle_for(network, falsifier):
    """Around the black image: does label 0 stay first?"""
    zones, goals = label_question(network, np.zeros(network.input_shape), first_pixel(network), 0, 1)
    return zone_oracle(network, zones, goals, falsifier=falsifier, verify_options=VerifyOptions())


def corner_attack(query, *, starts, deadline):
    """Float32 corners of the box along the margin's gradient; finds every counterexample of a linear network."""
    images = []
    for start in [*starts, query.region.centre]:
        model = TorchNetwork(query.network, torch.device("cpu"), torch.float64)
        _, gradients = margin_gradients(model, [query.property], np.asarray(start)[None])
        corner = np.where(gradients[0] >= 0, query.region.upper, query.region.lower).astype(np.float32)
        if query.region.contains(corner):
            images.append(corner)
    return images


def question(seed):
    """A random one-hidden-layer network whose top label is known, k = 2 of 4."""
    network = random_dense_network(seed, inputs=4)
    image = np.random.default_rng(seed).random(network.input_shape).astype(np.float32).astype(np.float64)
    scores = lower(network).evaluate(image.reshape(1, -1))[-1][0]
    return network, image, first_pixel(network), int(np.argmax(scores))


@pytest.mark.parametrize("grower", GROWERS)
@pytest.mark.parametrize("seed", range(3))
def test_the_exact_supremum_over_the_result_is_negative(grower, seed):
    network, image, pixels, target = question(seed)
    result = grower(network, image, pixels, target, options=OPTIONS, falsifier=corner_attack)
    assert result.is_proved
    assert isinstance(result.outcome.verdict, Robust)
    goal = stays_in_top_k(target, 2, network.labels)
    assert exact_supremum(network, goal, result.neighbourhood.box()) < 0.0
    again = verify(Query(network, result.neighbourhood.box(), goal))
    assert isinstance(again.verdict, Robust)
    if result.counterexample is not None:
        everything = result.neighbourhood.with_epsilons(np.ones(len(result.weights))).box()
        assert replay(Query(network, everything, goal), result.counterexample.image, "test") is not None
        assert not result.neighbourhood.box().contains(result.counterexample.image)


@pytest.mark.parametrize("cut", CutRule)
def test_a_linear_network_is_grown_to_within_a_step_in_every_layer(cut):
    """Scores 0 and costs @ x - 1 from the black image: label 0 survives iff costs @ eps < 1."""
    costs = np.array([2.0, 0.5, 4.0, 1.0])
    network = linear_network([np.zeros(4), costs], [0.0, -1.0])
    image = np.zeros(network.input_shape)
    options = GrowOptions(step=STEP, cut=cut, corners=3)
    result = grow(network, image, first_pixel(network), 0, 1, options=options, falsifier=corner_attack)
    epsilons = result.neighbourhood.epsilons
    assert costs @ epsilons < 1.0
    for layer in range(4):
        assert epsilons[layer] == 1.0 or costs @ epsilons + costs[layer] * STEP > 1.0 - 1e-4
    assert result.stop is StopReason.NO_EXPANSION
    assert result.counterexample is not None


def test_a_planted_counterexample_is_never_swallowed():
    """The second hidden unit fires only in a corner of layers 1 and 2 that the gradient at the image does not see."""
    layers = [
        ([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]], [-1.25, 0.0]),
        ([[0.0, 0.0], [8.0, 0.25]], [0.0, -1.0]),
    ]
    network = dense_network(layers)
    image, goal = np.zeros((1, 1, 3)), stays_in_top_k(0, 1, 2)
    planted = np.array([0.0, 0.75, 0.75], dtype=np.float32).reshape(1, 1, 3)

    def falsifier(query, *, starts, deadline):
        return [planted] if query.region.contains(planted) else []

    result = grow(network, image, first_pixel(network), 0, 1, options=OPTIONS, falsifier=falsifier)
    assert result.is_proved
    assert not result.neighbourhood.box().contains(planted)
    assert exact_supremum(network, goal, result.neighbourhood.box()) < 0.0
    assert result.neighbourhood.epsilons[0] == 1.0


def test_a_network_too_large_for_bounds_is_refused_at_once():
    network = linear_network([np.zeros(4), np.ones(4)], [0.0, -1.0])
    options = VerifyOptions(bounds=BoundOptions(most_entries=7))
    with pytest.raises(NetworkTooLargeError, match="8 multiplications, wanted at most 7"):
        grow(network, np.zeros(network.input_shape), first_pixel(network), 0, 1, verify_options=options)


def test_pixels_without_a_path_to_the_scores_are_found():
    network = dense_network(
        [([[1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 3.0]], [0.0, 0.0]), ([[1.0, 0.0], [2.0, 0.0]], [0.0, 1.0])]
    )
    assert entries_that_matter(lower(network)).tolist() == [True, False, True, False]
    result = grow(network, np.full((1, 1, 4), 0.25), first_pixel(network), 1, 1, options=OPTIONS)
    assert {1, 3} <= set(result.saturated_layers)


def test_the_sensitivity_is_the_mean_absolute_gradient_of_the_margin():
    network = linear_network([[1.0, -2.0, 0.5], [0.0, 1.0, 0.0]], [1.0, 0.0])
    oracle = oracle_for(network, falsifier=None)
    assert oracle.sensitivity() == pytest.approx([1.0, 3.0, 0.5])


@pytest.mark.parametrize("effort", Effort)
def test_slopes_of_a_linear_network_are_its_costs(effort):
    costs = np.array([2.0, 0.5, 4.0])
    network = linear_network([np.zeros(3), costs], [0.0, -1.0])
    oracle = oracle_for(network, falsifier=corner_attack)
    slope = oracle.slope(np.array([0.125, 0.25, 0.0]), effort, Deadline())
    assert slope.margin == pytest.approx(-0.625, abs=1e-3)
    assert slope.gradient == pytest.approx(costs)


def test_a_resumed_run_is_at_least_as_large_and_writes_on(tmp_path):
    network, image, pixels, target = question(1)
    path = tmp_path / "trace.jsonl"
    short = GrowOptions(step=STEP, max_queries=4)
    first = grow(network, image, pixels, target, options=short, falsifier=corner_attack, trace=path)
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + len(first.steps) + len(first.cuts)
    more = GrowOptions(step=STEP, max_queries=12, corners=1)
    second = grow(network, image, pixels, target, options=more, falsifier=corner_attack, trace=path)
    assert len(second.cuts) >= len(first.cuts)
    assert second.weighted_size >= first.weighted_size
    assert second.steps[0].index == len(first.steps)
    assert second.queries > first.queries
    assert path.read_text().splitlines()[: len(lines)] == lines
    with pytest.raises(InputError, match="goals differ"):
        grow(network, image, pixels, target, 1, options=OPTIONS, trace=path)


def test_steps_are_reported_as_they_happen():
    network, image, pixels, target = question(2)
    seen = []
    options = GrowOptions(step=STEP, max_queries=6, corners=0)
    result = grow(network, image, pixels, target, options=options, on_step=seen.append)
    assert tuple(seen) == result.steps


def test_an_expired_deadline_proves_nothing_or_the_image_alone():
    network, image, pixels, target = question(0)
    result = grow(network, image, pixels, target, options=OPTIONS, deadline=Deadline.after(0.0))
    assert result.stop is StopReason.TIME_LIMIT
    assert not result.neighbourhood.epsilons.any()


@pytest.mark.parametrize("grower", GROWERS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": 1}, "label 1 stays in the top 1: not strictly so"),
        ({"target": 7}, "label: got 7"),
        ({"k": 2}, "k: got 2"),
        ({"image": np.full((1, 1, 3), 2.0)}, "values span"),
        ({"image": np.full((1, 1, 3), np.nan)}, "NaN"),
        ({"image": np.zeros((1, 1, 4))}, "shape"),
        ({"pixels": np.zeros((1, 3), dtype=np.bool_)}, "no pixel"),
        ({"pixels": np.ones((1, 4), dtype=np.bool_)}, "mask: got shape"),
        ({"options": GrowOptions(weights=(1.0,))}, "weights: got 1 numbers"),
    ],
)
def test_wrong_input_is_refused(grower, changes, message):
    network = linear_network([np.zeros(3), np.ones(3)], [0.0, -1.0])
    arguments = {"image": np.zeros((1, 1, 3)), "pixels": first_pixel(network), "target": 0, "k": 1, "options": OPTIONS}
    arguments |= changes
    with pytest.raises(InputError, match=message):
        grower(network, arguments.pop("image"), arguments.pop("pixels"), arguments.pop("target"), **arguments)


def test_a_trained_network_grows_a_neighbourhood_in_which_samples_keep_the_label():
    network = load_network(shipped.network_path("strided3-none"))
    images = shipped.images()
    image, target = np.asarray(images.images[0], dtype=np.float64), int(images.labels[0][1])
    options = GrowOptions(max_queries=5, bounds_only=True, corners=0)
    result = grow(network, image, np.asarray(images.masks[0][0]), target, options=options)
    assert result.is_proved
    assert result.weighted_size > 0.0
    box = result.neighbourhood.box()
    share = np.random.default_rng(0).random((64, *image.shape)) > 0.5
    corners = np.where(share, box.upper, box.lower)
    goal = stays_in_top_k(target, 2, network.labels)
    assert goal.margin(evaluate(network, corners)).max() < 0.0
