import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from verifier.canonical import Affine, CanonicalNetwork, ConvolutionMap, DenseMap, Max, Relu, SparseMap


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    groups=st.integers(1, 3),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_convolution_matrix_equals_torch(seed: int, groups: int, strides, pads, dilations, kernel, size) -> None:
    generator = np.random.default_rng(seed)
    per_group, out = int(generator.integers(1, 3)), groups * int(generator.integers(1, 3))
    weight = generator.normal(size=(out, per_group, *kernel)) * (generator.random((out, per_group, *kernel)) < 0.8)
    top, left, bottom, right = pads
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    assume(size[0] + top + bottom >= spans[0] and size[1] + left + right >= spans[1])
    image = generator.normal(size=(groups * per_group, *size))
    padded = torch.nn.functional.pad(torch.tensor(image)[None], (left, right, top, bottom))
    expected = torch.nn.functional.conv2d(padded, torch.tensor(weight), None, strides, 0, dilations, groups)[0].numpy()
    linear = ConvolutionMap(weight, image.shape, expected.shape, strides, pads, dilations, groups)
    matrix = linear.matrix()
    assert matrix.shape == (linear.out_size, linear.in_size) == (expected.size, image.size)
    np.testing.assert_allclose(matrix @ image.ravel(), expected.ravel(), atol=1e-12)
    assert matrix.nnz == np.count_nonzero(matrix.toarray()) <= linear.most_entries
    assert any(pads) or matrix.nnz == linear.most_entries
    np.testing.assert_allclose(linear.times(image.ravel()), expected.ravel(), atol=1e-12)


def test_dense_and_sparse_matrices_are_the_maps() -> None:
    weight = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]])
    dense = DenseMap(weight)
    assert (dense.out_size, dense.in_size) == (2, 3)
    np.testing.assert_array_equal(dense.matrix().toarray(), weight)
    linear = SparseMap(sparse.csr_array(weight))
    assert (linear.out_size, linear.in_size) == (2, 3)
    np.testing.assert_array_equal(linear.matrix().toarray(), weight)
    for each in (dense, linear):
        np.testing.assert_array_equal(each.times(np.array([1.0, 2.0, 3.0])), [7.0, -3.0])
    assert (dense.most_entries, linear.most_entries) == (6, 3)


def tiny() -> CanonicalNetwork:
    """h = x0 - x1; r = relu(h, -h); m = max(0, h, ...) windows; scores = r + 2 m + bias."""
    return CanonicalNetwork(
        2,
        (
            Affine(((DenseMap(np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])), 0),), np.array([0.0, 0.0, -1.0])),
            Relu(1, 3),
            Max(1, np.array([[0, 1], [2, -1]]), has_floor=False),
            Max(1, np.array([[2, -1], [-1, 0]]), has_floor=True),
            Affine(
                (
                    (SparseMap(sparse.csr_array(np.eye(2, 3))), 2),
                    (DenseMap(2.0 * np.eye(2)), 3),
                    (DenseMap(np.eye(2)), 4),
                ),
                np.array([10.0, 20.0]),
            ),
        ),
    )


def test_evaluate_by_hand() -> None:
    network = tiny()
    values = network.evaluate(np.array([[0.25, 0.5], [1.0, 0.5]]))
    np.testing.assert_array_equal(values[1], [[-0.25, 0.25, -0.25], [0.5, -0.5, 0.5]])
    np.testing.assert_array_equal(values[2], [[0.0, 0.25, 0.0], [0.5, 0.0, 0.5]])
    np.testing.assert_array_equal(values[3], [[0.25, -0.25], [0.5, 0.5]])
    np.testing.assert_array_equal(values[4], [[0.0, 0.0], [0.5, 0.5]])
    np.testing.assert_array_equal(values[5], [[10.5, 19.75], [12.0, 21.5]])


def test_sizes_and_inputs() -> None:
    network = tiny()
    assert (network.labels, network.output, network.input_size) == (2, 5, 2)
    assert [network.value_size(value) for value in range(6)] == [2, 3, 3, 2, 2, 2]
    assert network.nonlinear_inputs() == (1,)
    assert [node.inputs for node in network.nodes] == [(0,), (1,), (1,), (1,), (2, 3, 4)]


def test_a_constant_affine_has_no_terms() -> None:
    network = CanonicalNetwork(1, (Affine((), np.array([1.0, 2.0])),))
    np.testing.assert_array_equal(network.evaluate(np.zeros((3, 1)))[-1], [[1.0, 2.0]] * 3)


def test_matrices_are_built_once_and_only_for_affine_nodes() -> None:
    network = tiny()
    assert network.matrix(4, 1) is network.matrix(4, 1)
    np.testing.assert_array_equal(network.matrix(4, 1).toarray(), 2.0 * np.eye(2))
    with pytest.raises(TypeError, match="node 1 is Relu"):
        network.matrix(1, 0)
