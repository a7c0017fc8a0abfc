"""Maxima of functions with one ReLU layer, against enumeration of all phases and against sampling."""

from itertools import product

import numpy as np
import pytest
import torch
from bound_networks import NETWORKS, convolution, convolved, dense, square_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from verifier.bounds import BoundMethod, BoundOptions, analyse_region, shallow_values, tightened_region
from verifier.bounds.shallow_search import Parts, ShallowFunctions, maximise
from verifier.canonical import CanonicalNetwork, Max, Relu
from verifier.deadline import Deadline
from verifier.region import Box

EXACTLY = {"tolerance": 1e-6, "most_parts": 4000, "deadline": Deadline(), "steps": 300}


def functions(seed, count=3, units=4, inputs=3, shift=0.0):
    generator = np.random.default_rng(seed)
    direct, weights = generator.normal(size=(count, inputs)), generator.normal(size=(count, units))
    hidden, offsets = generator.normal(size=(count, units, inputs)), generator.normal(size=(count, units)) + shift
    return ShallowFunctions.of(*(torch.from_numpy(array) for array in (direct, weights, hidden, offsets)))


def values(held, number, points):
    hidden = points @ held.hidden[number].numpy().T + held.offsets[number].numpy()
    return points @ held.direct[number].numpy() + np.maximum(hidden, 0) @ held.weights[number].numpy()


def exact_maximum(held, number):
    """The largest of the linear programs of all phases."""
    weights, offsets = held.weights[number].numpy(), held.offsets[number].numpy()
    hidden, direct = held.hidden[number].numpy(), held.direct[number].numpy()
    best = -np.inf
    for phases in product((0.0, 1.0), repeat=len(weights)):
        active = np.array(phases)
        sign = 1 - 2 * active
        answer = linprog(
            -(direct + (weights * active) @ hidden), sign[:, None] * hidden, -sign * offsets, bounds=(-1, 1)
        )
        if answer.status == 0:
            best = max(best, (weights * active) @ offsets - answer.fun)
    return best


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_maxima_equal_those_of_all_phases(seed):
    held = functions(seed)
    found = maximise(held, **EXACTLY)
    exact = np.array([exact_maximum(held, number) for number in range(3)])
    assert (found.upper.numpy() >= exact - 1e-9).all()
    assert (found.attained.numpy() <= exact + 1e-9).all()
    np.testing.assert_allclose(found.upper.numpy(), exact, atol=0.02)


@given(st.integers(0, 10_000), st.sampled_from([3, 40, 400]))
@settings(max_examples=30)
def test_leaves_cover_the_box_and_bound_their_parts(seed, most_parts):
    held = functions(seed, count=2, units=5)
    found = maximise(held, tolerance=0.01, most_parts=most_parts, deadline=Deadline())
    points = np.random.default_rng(seed).uniform(-1, 1, size=(400, 3))
    for number in range(2):
        hidden = points @ held.hidden[number].numpy().T + held.offsets[number].numpy()
        mine = (found.leaves.owner == number).nonzero().squeeze(1)
        phase, bounds = found.leaves.phase[mine].numpy(), found.leaves.bounds[mine].numpy()
        inside = ((phase[None] == 0) | (np.sign(hidden)[:, None] == phase[None])).all(axis=2)
        assert inside.any(axis=1).all()
        exceeds = values(held, number, points)[:, None] > bounds[None] + 1e-9
        assert not (inside & exceeds).any()
        assert found.upper[number] == bounds.max()


def test_children_are_the_two_phases_of_one_unit():
    held = functions(7, count=1, units=4)
    first = maximise(held, tolerance=0.5, most_parts=1, deadline=Deadline()).leaves
    then = maximise(held, tolerance=1e-9, most_parts=3, deadline=Deadline()).leaves
    assert first.phase.tolist() == [[0, 0, 0, 0]]
    assert sorted(then.phase.abs().sum(dim=1).tolist()) == [1, 1]
    assert then.phase.sum(dim=0).tolist() == [0, 0, 0, 0]
    assert isinstance(then, Parts)


def test_padding_changes_nothing():
    held = functions(11, count=1)
    wider = ShallowFunctions.of(
        torch.nn.functional.pad(held.direct, (0, 2)),
        torch.nn.functional.pad(held.weights, (0, 3)),
        torch.nn.functional.pad(held.hidden, (0, 2, 0, 3)),
        torch.nn.functional.pad(held.offsets, (0, 3)),
    )
    alone, padded = (maximise(each, **EXACTLY) for each in (held, wider))
    np.testing.assert_allclose(alone.upper.numpy(), padded.upper.numpy(), atol=1e-9)


def test_without_time_nothing_is_claimed():
    found = maximise(functions(3), tolerance=0.1, most_parts=10, deadline=Deadline.after(0))
    assert torch.isinf(found.upper).all()


def shallow_network(seed, floor):
    """A convolution, ReLUs, a convolution, pool windows, and a sum with the input that is affine in it."""
    generator = np.random.default_rng(seed)
    first = convolution(generator, (1, 6, 6), 2, 3, 1, (1, 1, 1, 1))
    second = convolution(generator, (2, 6, 6), 2, 3, 1, (1, 1, 1, 1))
    windows = square_windows((2, 6, 6), 3)
    nodes = (
        convolved(generator, first, 0),
        Relu(1, 72),
        convolved(generator, second, 2),
        Max(3, windows, floor) if seed % 2 else Relu(3, 72),
        dense(generator, 3, (4, 8 if seed % 2 else 72), (0, 36)),
    )
    return CanonicalNetwork(36, nodes)


def grey_box(size, generator, width):
    """Half of the image is of one shade, so that problems repeat."""
    image = np.where(np.arange(size) < size // 2, 0.5, generator.random(size))
    return Box.around(image, width)


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.02, 0.2]))
@settings(max_examples=25)
def test_tightened_bounds_contain_every_value_and_are_no_looser(seed, floor, width):
    canonical, generator = shallow_network(seed, floor), np.random.default_rng(seed)
    box = grey_box(36, generator, width)
    region = analyse_region(canonical, box)
    tighter = tightened_region(region, Deadline())
    points = generator.uniform(box.lower, box.upper, size=(500, 36))
    corners = np.where(generator.random((300, 36)) < 0.5, box.lower, box.upper)
    reached = canonical.evaluate(np.vstack([points, corners]))
    for value in region.node_bounds.lower:
        lower, upper = tighter.node_bounds.lower[value], tighter.node_bounds.upper[value]
        assert (reached[value] >= lower - 1e-9).all()
        assert (reached[value] <= upper + 1e-9).all()
        assert (lower >= region.node_bounds.lower[value] - 1e-12).all()
        assert (upper <= region.node_bounds.upper[value] + 1e-12).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_kind_of_network_keeps_sound_bounds(name):
    canonical, generator = NETWORKS[name](4), np.random.default_rng(4)
    box = Box.around(generator.random(canonical.input_size), 0.2)
    region = tightened_region(analyse_region(canonical, box), Deadline())
    reached = canonical.evaluate(generator.uniform(box.lower, box.upper, size=(2000, canonical.input_size)))
    for value, lower in region.node_bounds.lower.items():
        assert (reached[value] >= lower - 1e-9).all()
        assert (reached[value] <= region.node_bounds.upper[value] + 1e-9).all()


def test_exact_ranges_beat_the_linear_relaxation():
    canonical = shallow_network(3, floor=True)
    box = grey_box(36, np.random.default_rng(5), 0.2)
    region = analyse_region(canonical, box, options=BoundOptions(method=BoundMethod.CROWN))
    tighter = tightened_region(region, Deadline())
    gain = region.node_bounds.upper[3] - tighter.node_bounds.upper[3]
    assert gain.max() > 0.01


def test_out_of_time_the_bounds_stay():
    canonical = shallow_network(3, floor=True)
    region = analyse_region(canonical, grey_box(36, np.random.default_rng(5), 0.2))
    late = tightened_region(region, Deadline.after(0))
    for value in region.node_bounds.lower:
        np.testing.assert_array_equal(late.node_bounds.upper[value], region.node_bounds.upper[value])


def test_which_values_are_shallow():
    assert shallow_values(shallow_network(3, floor=True)) == frozenset({0, 1, 2, 3})
    deep = CanonicalNetwork(
        4,
        (
            dense(np.random.default_rng(0), 5, (0, 4)),
            Relu(1, 5),
            dense(np.random.default_rng(1), 5, (2, 5)),
            Relu(3, 5),
            dense(np.random.default_rng(2), 3, (4, 5), (2, 5)),
        ),
    )
    assert shallow_values(deep) == frozenset({0, 1, 2, 3})
