"""Evaluation by NumPy: hand-computed values of every operation, and the heads."""

import typing
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_strategies import NetworkBuilder

from verifier import evaluation
from verifier.errors import InputError
from verifier.evaluation import RULES, apply_head, evaluate, evaluate_values, walk_values
from verifier.network import (
    Add,
    AddConstant,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DivConstant,
    Head,
    LeakyRelu,
    MaxPool,
    MulConstant,
    Network,
    Node,
    Op,
    Pad,
    Relu,
    Reshape,
    Subtract,
    Transpose,
)


def array(*values: object) -> np.ndarray:
    return np.array(values, dtype=np.float32)


MAP = array([[1, -2, 3], [-4, 5, 6]])  # (1, 2, 3): one channel, two rows, three columns
ROW = array(1, -2, 4)

# (operation, input, expected), all computed by hand.
CASES: list[tuple[Op, np.ndarray, object]] = [
    (Conv(array([[[1, 2]]]), array(10), (1, 1), (0, 0, 0, 0), (1, 1), 1), MAP, [[[7, 14], [16, 27]]]),
    (Conv(array([[[1, 2]]]), array(0), (2, 2), (1, 1, 0, 0), (1, 2), 1), MAP, [[[0], [10]]]),
    (Dense(array([1, 1, 0], [0, 0, 2]), array(0.5, 0)), ROW, [-0.5, 8]),
    (AddConstant(array(1, 2, 3)), ROW, [2, 0, 7]),
    (MulConstant(array(2)), ROW, [2, -4, 8]),
    (DivConstant(array(4)), ROW, [0.25, -0.5, 1]),
    (BatchNorm(array(2, 1), array(1, 0), array(3, 0), array(3, 15), 1.0), array([5], [8]), [[3], [2]]),
    (Relu(), ROW, [1, 0, 4]),
    (LeakyRelu(0.25), ROW, [1, -0.5, 4]),
    (MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (1, 1)), MAP, [[[5, 6]]]),
    (MaxPool((1, 2), (1, 2), (0, 1, 0, 0), (1, 2)), MAP, [[[-2], [5]]]),
    (AveragePool((2, 2), (1, 1), (0, 1, 0, 0), count_include_pad=False), MAP, [[[-1.5, 0, 3]]]),
    (AveragePool((2, 2), (1, 1), (0, 1, 0, 0), count_include_pad=True), MAP, [[[-0.75, 0, 3]]]),
    (Reshape((3, 2)), MAP, [[1, -2], [3, -4], [5, 6]]),
    (Transpose((0, 2, 1)), MAP, [[[1, -4], [-2, 5], [3, 6]]]),
    (Concat(0), ROW, [1, -2, 4, 1, -2, 4]),
    (Pad(((1, 2),), 0.5), ROW, [0.5, 1, -2, 4, 0.5, 0.5]),
    (Add(), ROW, [2, -4, 8]),
    (Subtract(), ROW, [0, 0, 0]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case[0]).__name__)
def test_hand_computed(case: tuple[Op, np.ndarray, object]) -> None:
    op, value, expected = case
    # The same value twice is what binary operations read; others read the first.
    images = np.stack([value, value]).astype(np.float64)
    result = RULES[type(op)](op, [images, images])
    np.testing.assert_array_equal(result, np.stack([np.array(expected, dtype=np.float64)] * 2))


def test_every_operation_has_a_rule_and_a_hand_computed_case() -> None:
    operations = set(typing.get_args(Op))
    assert set(RULES) == operations
    assert {type(op) for op, _, _ in CASES} == operations


def test_grouped_convolution_reads_only_its_group() -> None:
    # Two groups of one channel: the first doubles, the second negates.
    op = Conv(array([[[2]]], [[[-1]]]), array(0, 1), (1, 1), (0, 0, 0, 0), (1, 1), 2)
    image = np.array([[[[1.0]], [[5.0]]]])
    np.testing.assert_array_equal(RULES[Conv](op, [image]), [[[[2.0]], [[-4.0]]]])


def network(*nodes: Node, input_shape: tuple[int, ...] = (2,)) -> Network:
    return Network(input_shape, nodes, Head.NONE, b"", "", "test")


def test_values_follow_the_graph() -> None:
    # s = relu(x) - (2 x), a residual difference.
    two = MulConstant(array(2))
    net = network(
        Node("relu", Relu(), (0,), (2,)), Node("twice", two, (0,), (2,)), Node("difference", Subtract(), (1, 2), (2,))
    )
    values = evaluate_values(net, np.array([[1.0, -1.0]]))
    assert [value.tolist() for value in values] == [[[1, -1]], [[1, 0]], [[2, -2]], [[-1, 2]]]
    np.testing.assert_array_equal(evaluate(net, np.array([[1.0, -1.0]])), values[-1])


def test_float32_images_are_evaluated_in_float64() -> None:
    net = network(Node("add", AddConstant(array(1.0, 1.0)), (0,), (2,)))
    tiny = np.array([[1e-10, 0.5]], dtype=np.float32)
    scores = evaluate(net, tiny)
    assert scores.dtype == np.float64
    assert scores[0, 0] > 1.0
    assert evaluate_values(net, tiny)[-1].dtype == np.float32


def test_wrong_shape_is_refused() -> None:
    net = network(Node("relu", Relu(), (0,), (2,)))
    with pytest.raises(InputError, match=r"got shape \(1, 3\), wanted \(batch, 2\)"):
        evaluate(net, np.zeros((1, 3)))


FINITE = st.floats(-1e3, 1e3)
ROWS = st.lists(FINITE, min_size=2, max_size=5).map(lambda row: np.array([row]))


@given(scores=ROWS)
def test_softmax_is_a_distribution_and_matches_log_softmax(scores) -> None:
    shares = apply_head(Head.SOFTMAX, scores)
    np.testing.assert_allclose(shares.sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(shares, np.exp(apply_head(Head.LOG_SOFTMAX, scores)), rtol=1e-9)


@given(scores=ROWS)
def test_sigmoid_is_a_softmax_against_zero(scores) -> None:
    for score, share in zip(scores[0], apply_head(Head.SIGMOID, scores)[0], strict=True):
        expected = apply_head(Head.SOFTMAX, np.array([[score, 0.0]]))[0, 0]
        np.testing.assert_allclose(share, expected, rtol=1e-12)


def test_heads_do_not_overflow() -> None:
    extreme = np.array([[1e30, -1e30]])
    np.testing.assert_array_equal(apply_head(Head.NONE, extreme), extreme)
    np.testing.assert_array_equal(apply_head(Head.SIGMOID, extreme), [[1, 0]])
    np.testing.assert_array_equal(apply_head(Head.SOFTMAX, extreme), [[1, 0]])
    np.testing.assert_array_equal(apply_head(Head.LOG_SOFTMAX, extreme), [[0, -2e30]])


def residual() -> Network:
    """Three blocks whose input is read again after two operations."""
    builder = NetworkBuilder((2, 4, 4))
    value, generator = 0, np.random.default_rng(3)
    for _ in range(3):
        weight = generator.normal(size=(2, 2, 3, 3)).astype(np.float32)
        convolved = builder.add(Conv(weight, np.zeros(2, np.float32), (1, 1), (1, 1, 1, 1), (1, 1), 1), value)
        value = builder.add(Add(), builder.add(Relu(), convolved), value)
    builder.add(Reshape((32,)), value)
    return builder.network()


def test_a_walk_lets_values_go_after_their_last_reader() -> None:
    network = residual()
    given = np.random.default_rng(0).random((2, 2, 4, 4))
    alive: list[weakref.ref] = []
    for value in walk_values(network, given):
        alive.append(weakref.ref(value))
        # The newest, and the two that the operation read at most; a residual sum may still wait for its block's input.
        assert sum(each() is not None for each in alive[1:]) <= 4
    for walked, listed in zip(walk_values(network, given), evaluate_values(network, given), strict=True):
        np.testing.assert_array_equal(walked, listed)


@pytest.mark.parametrize("together", [1, 2, 5, 100])
def test_large_batches_are_evaluated_a_few_images_at_a_time(monkeypatch, together) -> None:
    network = residual()
    images = np.random.default_rng(0).random((5, 2, 4, 4))
    whole = evaluate_values(network, images)[-1]
    sizes: list[int] = []

    def counting(network: Network, images: np.ndarray):
        sizes.append(len(images))
        return walk_values(network, images)

    monkeypatch.setattr(evaluation, "walk_values", counting)
    monkeypatch.setattr(evaluation, "_ENTRIES_TOGETHER", together * network.entries)
    np.testing.assert_allclose(evaluate(network, images), whole, rtol=1e-12)
    assert max(sizes) <= together
    assert sum(sizes) == 5
    assert evaluate(network, images[:0]).shape == (0, 32)


def test_entries_count_every_value_of_an_image() -> None:
    assert residual().entries == 32 * (1 + 3 * 3 + 1)
