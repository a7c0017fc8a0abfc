"""What is kept of a search: trees that cover the box, whose leaves prove the bound by their own parameters."""

from dataclasses import replace

import numpy as np
import torch
from bound_networks import convolution, convolved, dense, square_windows
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.bounds import NodeBounds, analyse_region, tightened_region
from verifier.bounds.shallow import ShallowTightener
from verifier.bounds.shallow_evidence import SplitLeaves, split_leaves
from verifier.bounds.shallow_search import Maxima, Parts, ShallowFunctions, maximise
from verifier.canonical import Affine, CanonicalNetwork, DenseMap, Max, Relu
from verifier.deadline import Deadline
from verifier.region import Box

SEEDS = st.integers(0, 10_000)


def functions(seed, count=3, units=6, inputs=3):
    generator = np.random.default_rng(seed)
    direct, weights = generator.normal(size=(count, inputs)), generator.normal(size=(count, units))
    hidden, offsets = generator.normal(size=(count, units, inputs)), generator.normal(size=(count, units))
    return ShallowFunctions.of(*(torch.from_numpy(array) for array in (direct, weights, hidden, offsets)))


def kept(held, found):
    return split_leaves(found, [weights.numpy() for weights in held.weights])


def own_bounds(held, number, leaves: SplitLeaves) -> np.ndarray:
    """The bound that a leaf's parameters give, written out: weights > 0 by the chord or the phase, others by slope or phase."""
    direct, weights = held.direct[number].numpy(), held.weights[number].numpy()
    hidden, offsets = held.hidden[number].numpy(), held.offsets[number].numpy()
    low, high = offsets - np.abs(hidden).sum(1), offsets + np.abs(hidden).sum(1)
    bounds = []
    for phase, slopes, multipliers in zip(leaves.phase, leaves.slopes, leaves.multipliers, strict=True):
        on_hidden, constant = np.zeros(len(weights)), 0.0
        for u, weight in enumerate(weights):
            if phase[u] or low[u] >= 0 or high[u] <= 0:
                slope, intercept = float(phase[u] > 0 or (phase[u] == 0 and low[u] >= 0)), 0.0
            elif weight > 0:
                slope = high[u] / (high[u] - low[u])
                intercept = -slope * low[u]
            else:
                slope, intercept = float(slopes[u]), 0.0
            on_hidden[u] = weight * slope + phase[u] * multipliers[u]
            constant += weight * intercept
        bounds.append(constant + on_hidden @ offsets + np.abs(direct + on_hidden @ hidden).sum())
    return np.array(bounds)


def decided_by(leaves: SplitLeaves, signs: np.ndarray) -> np.ndarray:
    """Which leaves (points, leaves) hold points with these signs of the ReLUs' inputs."""
    return ((leaves.phase[None] == 0) | (signs[:, None] == leaves.phase[None])).all(axis=2)


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([1, 5, 30, 300]), st.sampled_from([0.3, 0.01]))
def test_every_leaf_proves_the_bound_by_its_own_parameters(seed, most_parts, tolerance):
    held = functions(seed)
    found = maximise(held, tolerance=tolerance, most_parts=most_parts, deadline=Deadline())
    for number, leaves in enumerate(kept(held, found)):
        upper = float(found.upper[number])
        assert (own_bounds(held, number, leaves) <= upper + 1e-5 * max(1.0, abs(upper))).all()
        assert len(leaves.phase) <= int((found.leaves.owner == number).sum())
        assert ((leaves.slopes >= 0) & (leaves.slopes <= 1)).all()
        assert (leaves.multipliers >= 0).all()
        assert not leaves.multipliers[leaves.phase == 0].any()


@settings(max_examples=30)
@given(SEEDS)
def test_leaves_are_those_of_one_tree(seed):
    held = functions(seed)
    found = maximise(held, tolerance=0.005, most_parts=100, deadline=Deadline())
    for leaves in kept(held, found):
        # Every combination of phases lies in exactly one leaf.
        signs = np.random.default_rng(seed).choice([-1, 1], size=(200, leaves.phase.shape[1]))
        assert (decided_by(leaves, signs).sum(axis=1) == 1).all()
        for order, phase in zip(leaves.order, leaves.phase, strict=True):
            way = order[order >= 0]
            assert sorted(way.tolist()) == np.flatnonzero(phase).tolist()


def test_a_part_that_proves_the_bound_alone_has_no_leaves_below_it():
    """Parts 1 and 2 halve part 0, whose bound is no better than theirs; parts 3 and 4 halve part 1, and gain nothing."""

    def parts(number, parent, unit, phase, bounds, is_own):
        count, size = len(number), 2
        return Parts(
            torch.zeros(count, dtype=torch.int64),
            torch.tensor(phase, dtype=torch.int8),
            torch.full((count, size), 0.5, dtype=torch.float64) * torch.tensor(number)[:, None] / 4,
            torch.zeros((count, size), dtype=torch.float64),
            torch.tensor(bounds, dtype=torch.float64),
            torch.tensor(is_own),
            torch.tensor(number),
            torch.tensor(parent),
            torch.tensor(unit),
        )

    inner = parts([0, 1], [-1, 0], [-1, 1], [[0, 0], [0, 1]], [5.0, 3.0], [True, True])
    leaves = parts([2, 3, 4], [0, 1, 1], [1, 0, 0], [[0, -1], [1, 1], [-1, 1]], [2.0, 3.0, 1.0], [True, False, True])
    found = Maxima(torch.tensor([3.0]), torch.tensor([0.0]), leaves, inner)
    (tree,) = split_leaves(found, [np.array([1.0, -1.0])])
    assert tree.phase.tolist() == [[0, 1], [0, -1]]
    assert tree.order.tolist() == [[1], [1]]
    assert tree.slopes[:, 0].tolist() == [0.125, 0.25]
    assert tree.needs_slope.tolist() == [False, True]


def test_without_a_bound_there_is_no_tree():
    held = functions(1)
    found = maximise(held, tolerance=0.1, most_parts=10, deadline=Deadline.after(0))
    assert kept(held, found) == [None] * 3


def shallow_network(seed):
    """A convolution, ReLUs, a convolution, pool windows or ReLUs, scores."""
    generator = np.random.default_rng(seed)
    first = convolution(generator, (1, 6, 6), 2, 3, 1, (1, 1, 1, 1))
    second = convolution(generator, (2, 6, 6), 2, 3, 1, (1, 1, 1, 1))
    last = Max(3, square_windows((2, 6, 6), 3), True) if seed % 2 else Relu(3, 72)
    nodes = (convolved(generator, first, 0), Relu(1, 72), convolved(generator, second, 2), last)
    return CanonicalNetwork(36, (*nodes, dense(generator, 3, (4, last.size))))


def grey_box(seed, width):
    generator = np.random.default_rng(seed)
    return Box.around(np.where(np.arange(36) < 18, 0.5, generator.random(36)), width)


@settings(max_examples=10)
@given(SEEDS, st.sampled_from([0.02, 0.2]))
def test_proofs_bound_their_entries_over_the_box(seed, width):
    canonical, box = shallow_network(seed), grey_box(seed, width)
    region = tightened_region(analyse_region(canonical, box), Deadline())
    points = np.random.default_rng(seed).uniform(box.lower, box.upper, size=(500, 36))
    reached = canonical.evaluate(points)
    for proof in region.shallow:
        value = reached[proof.value][:, proof.entries]
        assert (proof.sign * value <= proof.bounds + 1e-9).all()
        first, phases = reached[1][:, proof.places[0]], proof.leaves
        assert (proof.nodes == 1).all()
        assert decided_by(phases, np.where(first >= 0, 1, -1)).any(axis=1).all()
        ends = region.node_bounds.upper if proof.sign > 0 else {k: -v for k, v in region.node_bounds.lower.items()}
        assert (ends[proof.value][proof.entries] <= proof.bounds + 1e-9).all()


def test_a_second_tightening_keeps_the_first_ones_proofs():
    canonical, box = shallow_network(3), grey_box(5, 0.2)
    once = tightened_region(analyse_region(canonical, box), Deadline())
    assert len(once.shallow) > 5
    twice = tightened_region(once, Deadline())
    assert twice.shallow[: len(once.shallow)] == once.shallow
    assert len(tightened_region(once, Deadline.after(0)).shallow) == len(once.shallow)
    assert analyse_region(canonical, box).shallow == ()


def test_narrower_bounds_handed_in_do_not_enter_the_proofs():
    """Bounds found otherwise tighten the region, not what is said to be provable from the box alone."""
    canonical, box = shallow_network(3), grey_box(5, 0.2)
    region = analyse_region(canonical, box)
    plain = tightened_region(region, Deadline())
    upper = {value: array - 0.3 * (value == 3) for value, array in region.node_bounds.upper.items()}
    narrowed = replace(region, node_bounds=NodeBounds(region.node_bounds.lower, upper))
    handed = tightened_region(narrowed, Deadline())
    proved = {(p.sign, int(e)): b for p in plain.shallow for e, b in zip(p.entries, p.bounds, strict=True)}
    for proof in handed.shallow:
        for entry, bound in zip(proof.entries, proof.bounds, strict=True):
            assert bound >= proved[proof.sign, int(entry)] - 1e-6


def test_a_unit_taken_for_stable_without_its_interval_leaves_no_proof():
    network = CanonicalNetwork(
        1,
        (
            Affine(((DenseMap(np.array([[1.0], [-1.0]])), 0),), np.zeros(2)),
            Relu(1, 2),
            Affine(((DenseMap(np.array([[1.0, -2.0]])), 2),), np.zeros(1)),
            Relu(3, 1),
            Affine(((DenseMap(np.array([[1.0]])), 4),), np.zeros(1)),
        ),
    )
    everything, nothing = np.array([0]), np.zeros(0, dtype=np.int64)
    for lower, count in ((-1.0, 1), (0.0, 0)):
        tightener = ShallowTightener(network, -np.ones(1), np.ones(1))
        tightener.follow(0, None)
        tightener.follow(1, (np.array([lower, -1.0]), np.ones(2)))
        tightener.follow(2, None)
        _, upper, proofs = tightener.tightened(3, (nothing, everything), (-9 * np.ones(1), 9 * np.ones(1)), Deadline())
        assert upper[0] < 9
        assert len(proofs) == count
