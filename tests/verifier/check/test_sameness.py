"""Claims about several entries: which are one function shifted, and that a claim about others is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from network_strategies import SEEDS, NetworkBuilder, constants
from proof_examples import DEFAULT

from verifier.check import sameness
from verifier.check.judge import Judge
from verifier.evaluation import evaluate_values
from verifier.network import BatchNorm, Conv, Dense, Network, Relu, Reshape
from verifier.proof.errors import CertificateError
from verifier.proof.records import RowClaim, Tree, TreeLemma
from verifier.property import Property
from verifier.region import Box

SIDE = 9


def two_convolutions(seed: int, norm: bool) -> tuple[Network, int]:
    """Conv (batch norm) ReLU conv ReLU dense; and the value that the second ReLU reads."""
    generator = np.random.default_rng(seed)
    builder = NetworkBuilder((1, SIDE, SIDE))
    stride = int(generator.integers(1, 3))
    value = builder.add(
        Conv(constants(generator, 2, 1, 2, 2), constants(generator, 2), (1, 1), (0, 1, 1, 0), (1, 1), 1), 0
    )
    if norm:
        variance = generator.uniform(0.1, 2, 2).astype(np.float32)
        value = builder.add(BatchNorm(*(constants(generator, 2) for _ in range(3)), variance, 1e-5), value)
    value = builder.add(Relu(), value)
    second = Conv(constants(generator, 3, 2, 3, 3), constants(generator, 3), (stride, stride), (1, 1, 1, 1), (1, 1), 1)
    read = builder.add(second, value)
    value = builder.add(Relu(), read)
    size = int(np.prod(builder.shape(value)))
    value = builder.add(Reshape((size,)), value)
    builder.add(Dense(constants(generator, 2, size), constants(generator, 2)), value)
    return builder.network(), read


def question(network: Network, seed: int) -> tuple[Judge, Box]:
    """A flat background with one odd pixel, so that many patches are alike and some are not."""
    generator = np.random.default_rng(seed)
    image = np.full((1, SIDE, SIDE), 0.5)
    image[0, generator.integers(SIDE), generator.integers(SIDE)] = 0.75
    box = Box(image - 0.125, image + 0.125)
    return Judge(network, box, Property("x", np.array([[1.0, -1.0]]), np.zeros(1), 1)), box


@settings(max_examples=25)
@given(SEEDS)
def test_same_entries_have_the_same_range(seed: int) -> None:
    """Moving the receptive field moves the value: checked by evaluation, at images built place by place."""
    network, read = two_convolutions(seed, norm=bool(seed % 2))
    judge, box = question(network, seed)
    generator = np.random.default_rng(seed)
    shape = network.value_shape(read)
    first = int(generator.integers(np.prod(shape)))
    entries = np.concatenate([[first], generator.permutation(int(np.prod(shape)))])
    same = judge.same_as_first(1, entries)
    assert same[0]
    channel, row, column = np.unravel_index(first, shape)
    stride = network.nodes[read - 1].op.strides[0]
    images = box.lower + (box.upper - box.lower) * generator.integers(0, 2, (40, 1, SIDE, SIDE))
    values = evaluate_values(network, images)[read].reshape(40, -1)
    for entry in entries[same].tolist():
        other, y, x = np.unravel_index(entry, shape)
        assert other == channel
        # Shifted images, the box's ends where nothing is known: inside the first's receptive field nothing is missing.
        shift = ((y - row) * stride, (x - column) * stride)
        moved = np.roll(images, (-shift[0], -shift[1]), axis=(2, 3))
        moved = np.clip(moved, box.lower, box.upper)
        shifted = evaluate_values(network, moved)[read].reshape(40, -1)
        assert np.allclose(shifted[:, first], values[:, entry], rtol=1e-9, atol=1e-9)


def test_background_entries_are_the_same_and_the_odd_ones_are_not() -> None:
    network, read = two_convolutions(4, norm=False)
    image = np.full((1, SIDE, SIDE), 0.5)
    image[0, 1, 1] = 0.75
    box = Box(image - 0.125, image + 0.125)
    judge = Judge(network, box, Property("x", np.array([[1.0, -1.0]]), np.zeros(1), 1))
    shape = network.value_shape(read)
    stride = network.nodes[read - 1].op.strides[0]
    grid = np.arange(np.prod(shape)).reshape(shape)
    # Rows that an entry reads: stride y - 1 to stride y + 2; columns stride x - 2 to stride x + 1.
    tops, lefts = (stride * np.arange(size) - before for size, before in zip(shape[1:], (1, 2), strict=True))
    is_inside = ((tops >= 0) & (tops + 3 < SIDE))[:, None] & ((lefts >= 0) & (lefts + 3 < SIDE))
    is_odd = ((tops <= 1) & (tops + 3 >= 1))[:, None] & ((lefts <= 1) & (lefts + 3 >= 1))
    plain = is_inside & ~is_odd
    assert plain.sum() > 1
    assert (is_inside & is_odd).any()
    first = grid[1][plain][0]
    same = judge.same_as_first(1, np.concatenate([[first], grid.ravel()]))[1:].reshape(shape)
    assert not same[[0, 2]].any()
    assert np.array_equal(same[1], plain)


def test_claims_about_different_functions_are_refused() -> None:
    network, _ = two_convolutions(4, norm=False)
    judge, _ = question(network, 0)
    lower, upper = judge.region_bounds(1)
    same = judge.same_as_first(1, np.arange(len(upper)))
    alike = np.flatnonzero(same)
    tree = Tree((), (DEFAULT,))
    bound = float(upper.max()) + 1.0
    judge.judge(TreeLemma(1, (RowClaim(alike, 1, bound, tree),)))
    with pytest.raises(CertificateError, match="different functions"):
        judge.judge(TreeLemma(1, (RowClaim(np.array([alike[0], np.flatnonzero(~same)[0]]), 1, bound, tree),)))
    assert len(lower) == len(upper)


def test_shared_claims_bound_every_entry() -> None:
    """One claim, better than intervals, moves the bounds of all its entries and of no other."""
    network, _ = two_convolutions(4, norm=False)
    judge, _ = question(network, 0)
    _, upper = (side.copy() for side in judge.region_bounds(1))
    entries = max(
        (np.flatnonzero(judge.same_as_first(1, np.r_[e, 0 : len(upper)])[1:]) for e in range(len(upper))), key=len
    )
    assert len(entries) > 3
    bound = _best(judge, int(entries[0]))
    assert bound < upper[entries[0]]
    judge.judge(TreeLemma(1, (RowClaim(entries, 1, bound, Tree((), (DEFAULT,))),)))
    after = judge.region_bounds(1)[1]
    assert (after[entries] <= bound).all()
    others = np.setdiff1d(np.arange(len(upper)), entries)
    assert np.array_equal(after[others], upper[others])


def _best(judge: Judge, entry: int) -> float:
    from verifier.check.trees import Goal, parts_of

    goal = Goal(judge._steps.maxima[1].source, np.array([entry]), np.ones(1), np.zeros(1))
    ((_, bound),) = judge._bounder.bounds(parts_of(goal, Tree((), (DEFAULT,)), judge._steps.maxima))
    return bound + 1e-9


def test_long_formulas_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = two_convolutions(4, norm=False)
    judge, _ = question(network, 0)
    monkeypatch.setattr(sameness, "_MOST_READ", 100)
    with pytest.raises(CertificateError, match="too long to compare"):
        judge.same_as_first(1, np.arange(40))
