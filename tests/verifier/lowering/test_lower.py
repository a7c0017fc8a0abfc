from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from network_strategies import SEEDS, UNARY, NetworkBuilder, chain, constants, dense, images, random_network
from onnx_strategies import network_files

from verifier import evaluation, runtime, torch_network
from verifier.canonical import Affine, CanonicalNetwork, ConvolutionMap, DenseMap, Max, SparseMap
from verifier.check import enclosure
from verifier.errors import UnsupportedOpError
from verifier.lowering import lower, rules
from verifier.network import (
    Add,
    AddConstant,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DivConstant,
    LeakyRelu,
    MaxPool,
    MulConstant,
    Network,
    Op,
    Pad,
    Relu,
    Reshape,
    Subtract,
    Transpose,
)
from verifier.onnx_import import load_network_bytes

RNG = np.random.default_rng(5)
POOL = MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))


def conv_op(out: int, channels: int, kernel: int = 3, pad: int = 1) -> Conv:
    weight = constants(RNG, out, channels, kernel, kernel)
    return Conv(weight, constants(RNG, out), (1, 1), (pad,) * 4, (1, 1), 1)


def norm_op(channels: int) -> BatchNorm:
    scale, shift, mean = (constants(RNG, channels) for _ in range(3))
    return BatchNorm(scale, shift, mean, RNG.uniform(0.1, 2, channels).astype(np.float32), 1e-5)


def kinds(network: CanonicalNetwork) -> list[str]:
    return [type(node).__name__ for node in network.nodes]


def maps(network: CanonicalNetwork, node: int) -> list[type]:
    affine = network.nodes[node]
    assert isinstance(affine, Affine)
    return [type(linear) for linear, _ in affine.terms]


def maps_or_none(network: CanonicalNetwork, node: int) -> list[type]:
    return maps(network, node) if isinstance(network.nodes[node], Affine) else []


def assert_equal(network: Network) -> CanonicalNetwork:
    """The canonical form gives the typed graph's scores, and is well formed."""
    lowered = lower(network)
    points = images(network, 5)
    expected = evaluation.evaluate(network, points)
    got = lowered.evaluate(points.reshape(5, -1))[-1]
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11 * max(1.0, np.abs(expected).max()))
    assert lowered.labels == network.labels
    assert lowered.input_size == np.prod(network.input_shape)
    assert isinstance(lowered.nodes[-1], Affine)
    readers = {value for node in lowered.nodes for value in node.inputs} | {lowered.output}
    for index, node in enumerate(lowered.nodes):
        assert index + 1 in readers
        assert all(0 <= value <= index for value in node.inputs)
        for linear, value in node.terms if isinstance(node, Affine) else ():
            assert (linear.out_size, linear.in_size) == (node.size, lowered.value_size(value))
        if not isinstance(node, Affine):
            assert node.size == lowered.value_size(node.input) or isinstance(node, Max)
    return lowered


@settings(max_examples=150)
@given(SEEDS)
def test_canonical_form_equals_the_typed_graph(seed: int) -> None:
    network = random_network(seed, blocks=6)
    assert_equal(network)


@settings(max_examples=8)
@given(seed=SEEDS)
@pytest.mark.parametrize("name", sorted(UNARY))
def test_every_operation_alone(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    builder = NetworkBuilder((2, 4, 3))
    value = builder.add(UNARY[name](generator, (2, 4, 3)), 0)
    value = builder.add(Reshape((int(np.prod(builder.shape(value))),)), value)
    builder.add(dense(generator, builder.shape(value)), value)
    assert_equal(builder.network())


@pytest.mark.parametrize("order", [(Relu(), POOL), (POOL, Relu())])
def test_relu_and_pool_become_one_max_with_a_floor(order: tuple) -> None:
    network = chain((1, 8, 8), conv_op(2, 1), Relu(), conv_op(3, 2), *order, Reshape((48,)), dense(RNG, (48,), 10))
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine", "Relu", "Affine", "Max", "Affine"]
    assert lowered.nodes[3].has_floor
    assert [maps(lowered, node) for node in (0, 2, 4)] == [[ConvolutionMap], [ConvolutionMap], [DenseMap]]


def test_padding_never_wins_even_with_a_floor() -> None:
    pool = MaxPool((2, 2), (2, 2), (1, 1, 1, 1), (1, 1))
    network = chain((1, 4, 4), AddConstant(np.float32([[[-0.5]]])), Relu(), pool, Reshape((9,)))
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine", "Max", "Affine"]
    assert (lowered.nodes[1].windows[0] == [-1, -1, -1, 0]).all()


def test_pool_without_a_relu_has_no_floor() -> None:
    network = chain((1, 4, 4), AddConstant(np.float32([[[-2.0]]])), POOL, Reshape((4,)))
    lowered = assert_equal(network)
    assert [node.has_floor for node in lowered.nodes if isinstance(node, Max)] == [False]
    assert (lowered.evaluate(np.zeros((1, 16)))[-1] == -2.0).all()


def test_relu_read_twice_stays_apart_from_the_pool() -> None:
    builder = NetworkBuilder((1, 4, 4))
    relu = builder.add(Relu(), builder.add(conv_op(1, 1), 0))
    pooled = builder.add(Reshape((4,)), builder.add(POOL, relu))
    both = builder.add(Concat(0), pooled, builder.add(Reshape((16,)), relu))
    builder.add(dense(RNG, (20,)), both)
    lowered = assert_equal(builder.network())
    assert kinds(lowered) == ["Affine", "Relu", "Max", "Affine"]
    assert not lowered.nodes[2].has_floor
    assert maps(lowered, 3) == [DenseMap, DenseMap]


def test_repeated_relus_vanish() -> None:
    network = chain((1, 4, 4), conv_op(1, 1), Relu(), Relu(), POOL, Relu(), Relu(), Reshape((4,)), dense(RNG, (4,)))
    assert kinds(assert_equal(network)) == ["Affine", "Max", "Affine"]


def test_a_repeated_relu_hands_its_readers_on() -> None:
    builder = NetworkBuilder((1, 4, 4))
    relu = builder.add(Relu(), builder.add(Relu(), builder.add(conv_op(1, 1), 0)))
    pooled = builder.add(Reshape((4,)), builder.add(POOL, relu))
    both = builder.add(Concat(0), pooled, builder.add(Reshape((16,)), relu))
    builder.add(dense(RNG, (20,)), both)
    assert kinds(assert_equal(builder.network())) == ["Affine", "Relu", "Max", "Affine"]


def test_an_identity_hands_its_readers_on() -> None:
    builder = NetworkBuilder((2, 3, 3))
    same = builder.add(MulConstant(np.ones((1, 1, 1), np.float32)), builder.add(conv_op(2, 2), 0))
    total = builder.add(Add(), builder.add(Relu(), same), builder.add(MulConstant(np.float32([[[2.0]]])), same))
    builder.add(dense(RNG, (18,)), builder.add(Reshape((18,)), total))
    lowered = assert_equal(builder.network())
    convolutions = [node for node in range(len(lowered.nodes)) if ConvolutionMap in maps_or_none(lowered, node)]
    assert convolutions == [0]


def test_pool_read_twice_keeps_the_relu_after_it() -> None:
    builder = NetworkBuilder((1, 4, 4))
    pooled = builder.add(Reshape((4,)), builder.add(POOL, builder.add(conv_op(1, 1), 0)))
    both = builder.add(Concat(0), builder.add(Relu(), pooled), pooled)
    builder.add(dense(RNG, (8,)), both)
    lowered = assert_equal(builder.network())
    assert kinds(lowered) == ["Affine", "Max", "Relu", "Affine"]
    assert not lowered.nodes[1].has_floor


def test_batch_norm_folds_into_the_convolution_and_the_dense_layer_before() -> None:
    network = chain(
        (2, 4, 4),
        conv_op(3, 2),
        norm_op(3),
        Relu(),
        Reshape((48,)),
        dense(RNG, (48,), 5),
        norm_op(5),
        Relu(),
        dense(RNG, (5,)),
    )
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine", "Relu", "Affine", "Relu", "Affine"]
    assert [maps(lowered, node) for node in (0, 2, 4)] == [[ConvolutionMap], [DenseMap], [DenseMap]]


def test_batch_norm_after_a_value_read_twice_is_a_diagonal() -> None:
    builder = NetworkBuilder((2, 3, 3))
    convolved = builder.add(conv_op(2, 2), 0)
    total = builder.add(Add(), builder.add(Relu(), builder.add(norm_op(2), convolved)), convolved)
    builder.add(dense(RNG, (18,)), builder.add(Reshape((18,)), total))
    lowered = assert_equal(builder.network())
    assert maps(lowered, 1) == [SparseMap]
    assert maps(lowered, 0) == [ConvolutionMap]


def test_input_normalisation_folds_into_the_first_convolution_despite_its_padding() -> None:
    network = chain(
        (2, 4, 4),
        AddConstant(np.float32([[[-0.5]], [[-0.25]]])),
        DivConstant(np.float32([[[0.25]], [[3.0]]])),
        conv_op(2, 2),
        Relu(),
        Reshape((32,)),
        dense(RNG, (32,)),
    )
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine", "Relu", "Affine"]
    assert maps(lowered, 0) == [ConvolutionMap]


def test_grouped_convolution_absorbs_scales_per_input_channel() -> None:
    weight = constants(RNG, 6, 2, 2, 2)
    grouped = Conv(weight, constants(RNG, 6), (1, 2), (0, 1, 1, 0), (1, 1), 2)
    network = chain((4, 4, 4), MulConstant(constants(RNG, 4, 1, 1)), grouped, Reshape((6 * 4 * 2,)))
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine"]
    assert maps(lowered, 0) == [ConvolutionMap]


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_padding_before_a_convolution_becomes_its_pads(value: float) -> None:
    network = chain((2, 3, 4), Pad(((0, 0), (1, 2), (0, 1)), value), conv_op(2, 2), Reshape((2 * 6 * 5,)))
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine"]
    linear = lowered.nodes[0].terms[0][0]
    assert isinstance(linear, ConvolutionMap)
    assert linear.pads == (2, 1, 3, 2)


def test_transposes_that_cancel_vanish_and_others_join_the_dense_layer() -> None:
    network = chain(
        (2, 3, 4),
        conv_op(2, 2),
        Transpose((1, 2, 0)),
        Transpose((2, 0, 1)),
        Relu(),
        Transpose((1, 2, 0)),
        Reshape((24,)),
        dense(RNG, (24,)),
    )
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine", "Relu", "Affine"]
    assert [maps(lowered, node) for node in (0, 2)] == [[ConvolutionMap], [DenseMap]]


def test_residual_block_is_one_affine_with_two_terms() -> None:
    builder = NetworkBuilder((2, 3, 3))
    first = builder.add(Relu(), builder.add(conv_op(2, 2), 0))
    total = builder.add(Relu(), builder.add(Add(), builder.add(norm_op(2), builder.add(conv_op(2, 2), first)), first))
    builder.add(dense(RNG, (18,)), builder.add(Reshape((18,)), total))
    lowered = assert_equal(builder.network())
    assert kinds(lowered) == ["Affine", "Relu", "Affine", "Relu", "Affine"]
    assert maps(lowered, 2) == [ConvolutionMap, SparseMap]


@pytest.mark.parametrize("op", [Add(), Subtract()])
def test_a_value_added_to_or_subtracted_from_itself(op: Add | Subtract) -> None:
    builder = NetworkBuilder((3,))
    first = builder.add(dense(RNG, (3,), 4), 0)
    builder.add(op, first, first)
    lowered = assert_equal(builder.network())
    assert len(lowered.nodes[-1].terms) == 1


def test_leaky_relu_reads_its_input_twice() -> None:
    network = chain((3,), dense(RNG, (3,), 4), LeakyRelu(float(np.float32(0.1))), dense(RNG, (4,), 2))
    lowered = assert_equal(network)
    assert kinds(lowered) == ["Affine", "Relu", "Affine", "Affine"]
    assert lowered.nodes[2].inputs == (1, 2)


@pytest.mark.parametrize(
    "ops",
    [(Relu(),), (Reshape((4,)),), (MulConstant(np.float32([1.0])),), (dense(RNG, (4,), 4), Relu(), Reshape((4,)))],
)
def test_the_last_node_is_affine_whatever_the_network_ends_with(ops: tuple) -> None:
    assert_equal(chain((4,), *ops))


def test_dense_on_the_last_of_several_axes_acts_on_each_row() -> None:
    lowered = assert_equal(chain((2, 3, 4), dense(RNG, (4,), 5), Reshape((30,))))
    assert maps(lowered, 0) == [SparseMap]


def test_dead_nodes_vanish() -> None:
    builder = NetworkBuilder((3,))
    builder.add(Relu(), builder.add(dense(RNG, (3,), 7), 0))
    builder.add(dense(RNG, (3,), 2), 0)
    assert kinds(assert_equal(builder.network())) == ["Affine"]


def test_arrays_are_read_only_and_float64() -> None:
    lowered = lower(chain((2, 4, 4), conv_op(2, 2), norm_op(2), Relu(), POOL, Reshape((8,)), dense(RNG, (8,))))
    conv_map, dense_map = lowered.nodes[0].terms[0][0], lowered.nodes[-1].terms[0][0]
    for array in (conv_map.weight, lowered.nodes[0].bias, dense_map.weight, lowered.nodes[1].windows):
        assert not array.flags.writeable
    assert conv_map.weight.dtype == dense_map.weight.dtype == lowered.nodes[0].bias.dtype == np.float64


def test_unfolded_weights_are_the_file_s_exactly() -> None:
    op = conv_op(2, 1)
    layer = Dense(constants(RNG, 3, 32), constants(RNG, 3))
    lowered = lower(chain((1, 4, 4), op, Relu(), Reshape((32,)), layer))
    assert (lowered.nodes[0].terms[0][0].weight == op.weight).all()
    assert (lowered.nodes[2].terms[0][0].weight == layer.weight).all()
    assert (lowered.nodes[2].bias == layer.bias).all()


def test_refuses_a_window_of_padding_only_and_infinite_padding_by_node_name() -> None:
    pool = MaxPool((1, 1), (1, 1), (1, 0, 0, 0), (1, 1))
    with pytest.raises(UnsupportedOpError, match="MaxPool0"):
        lower(chain((1, 2, 2), pool, Reshape((6,))))
    with pytest.raises(UnsupportedOpError, match="Pad0"):
        lower(chain((2,), Pad(((1, 0),), -np.inf)))


def test_refuses_an_unknown_operation_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(rules.RULES, LeakyRelu)
    with pytest.raises(UnsupportedOpError, match=r"'LeakyRelu0' \(LeakyRelu\).*supported: Add,"):
        lower(chain((2,), LeakyRelu(0.5)))


def test_one_network_is_lowered_once() -> None:
    network = chain((2,), dense(RNG, (2,)))
    assert lower(network) is lower(network)
    assert lower(chain((2,), *(node.op for node in network.nodes))) is not lower(network)


def test_every_operation_has_a_rule_everywhere() -> None:
    operations = set(get_args(Op))
    for table in (rules.RULES, torch_network.RULES, enclosure.RULES, evaluation.RULES):
        assert set(table) == operations


@settings(max_examples=15)
@given(network_files())
def test_imported_networks_give_the_runtime_s_scores_in_canonical_form(data: bytes) -> None:
    network = load_network_bytes(data, "drawn.onnx")
    points = images(network, 3).astype(np.float32)
    scores = assert_equal(network).evaluate(points.reshape(3, -1).astype(np.float64))[-1]
    outputs = runtime.run(network, points)
    np.testing.assert_allclose(evaluation.apply_head(network.head, scores), outputs, rtol=1e-4, atol=1e-4)


def test_lowering_builds_no_matrix_of_a_convolution(monkeypatch) -> None:
    """A network whose matrices would fill the memory is lowered all the same."""

    def refuse(_self: ConvolutionMap) -> None:
        raise AssertionError("the matrix of a convolution")

    monkeypatch.setattr(ConvolutionMap, "matrix", refuse)
    shift = AddConstant(constants(RNG, 3, 1, 1))
    lowered = lower(chain((3, 200, 200), shift, conv_op(64, 3), norm_op(64), Relu(), conv_op(64, 64)))
    assert kinds(lowered) == ["Affine", "Relu", "Affine"]
    assert lowered.most_entries > 1e9
