"""Composition of linear maps that keeps convolutions and dense layers what they are."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import sparse

from verifier.canonical import ConvolutionMap, DenseMap, LinearMap, SparseMap, Vector

Shape3 = tuple[int, int, int]


def read_only(array: np.ndarray) -> np.ndarray:
    """The array itself as float64 in C order, set read-only; pass a fresh array."""
    result: np.ndarray = np.ascontiguousarray(array, dtype=np.float64)
    result.setflags(write=False)
    return result


def sparse_map(entries: sparse.csr_array | sparse.coo_array | sparse.dia_array) -> SparseMap:
    """A `SparseMap` without duplicate, explicitly zero or unsorted entries."""
    matrix = sparse.csr_array(entries, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return SparseMap(matrix)


def identity_map(size: int, factor: float = 1.0) -> SparseMap:
    """The map x -> factor * x."""
    return diagonal_map(np.full(size, factor))


def diagonal_map(factors: Vector) -> SparseMap:
    """The map x -> factors * x, entry by entry."""
    return sparse_map(sparse.dia_array((factors[None, :], [0]), shape=(len(factors), len(factors))))


def selection_map(sources: np.ndarray, in_size: int) -> SparseMap:
    """The map x -> x[sources], entry by entry; a source of -1 gives 0."""
    rows = np.flatnonzero(sources >= 0)
    return sparse_map(sparse.coo_array((np.ones(len(rows)), (rows, sources[rows])), shape=(len(sources), in_size)))


def reads_one_entry_per_row(linear: SparseMap) -> bool:
    """Whether every output is a multiple of at most one input: diagonals, permutations, selections, paddings."""
    return bool((np.diff(linear.entries.indptr) <= 1).all())


def is_identity(linear: LinearMap) -> bool:
    """Whether the map is x -> x, and written as a `SparseMap`."""
    if not isinstance(linear, SparseMap) or linear.in_size != linear.out_size:
        return False
    entries, size = linear.entries, linear.in_size
    is_diagonal = entries.nnz == size and bool((entries.indices == np.arange(size)).all())
    return is_diagonal and reads_one_entry_per_row(linear) and bool((entries.data == 1.0).all())


def compose(outer: LinearMap, inner: LinearMap) -> LinearMap | None:
    """The map x -> outer(inner(x)) as one map of a kind no denser than both, or None where the two should stay apart.

    A convolution stays a convolution and a dense layer dense. Products of constants are rounded to nearest in float64 wherever
    neither factor is a power of two.
    """
    if is_identity(inner):
        return outer
    if is_identity(outer):
        return inner
    rule = _COMPOSITIONS.get((type(outer), type(inner)))
    return None if rule is None else rule(outer, inner)


def _sparse_of_sparse(outer: SparseMap, inner: SparseMap) -> SparseMap | None:
    if reads_one_entry_per_row(outer) or reads_one_entry_per_row(inner):
        return sparse_map(outer.entries @ inner.entries)
    return None


def _sparse_of_dense(outer: SparseMap, inner: DenseMap) -> DenseMap | None:
    if reads_one_entry_per_row(outer) and outer.out_size <= inner.out_size:
        return DenseMap(read_only(outer.entries @ inner.weight))
    return None


def _dense_of_sparse(outer: DenseMap, inner: SparseMap) -> DenseMap | None:
    if reads_one_entry_per_row(inner):
        return DenseMap(read_only((inner.entries.T @ outer.weight.T).T))
    return None


def _sparse_of_convolution(outer: SparseMap, inner: ConvolutionMap) -> ConvolutionMap | None:
    factors = _channel_factors(outer, inner.out_shape)
    return None if factors is None else _with_weight(inner, inner.weight * factors[:, None, None, None])


def _convolution_of_sparse(outer: ConvolutionMap, inner: SparseMap) -> ConvolutionMap | None:
    factors = _channel_factors(inner, outer.in_shape)
    if factors is not None:
        # Output channel o reads the input channels of its group, `per_group` of them in a row.
        per_group = factors.reshape(outer.groups, outer.weight.shape[1])
        of_output = np.repeat(per_group, outer.out_shape[0] // outer.groups, axis=0)
        return _with_weight(outer, outer.weight * of_output[:, :, None, None])
    return _convolution_of_padding(outer, inner)


_COMPOSITIONS: dict[tuple[type, type], Callable[..., LinearMap | None]] = {
    (SparseMap, SparseMap): _sparse_of_sparse,
    (SparseMap, DenseMap): _sparse_of_dense,
    (DenseMap, SparseMap): _dense_of_sparse,
    (SparseMap, ConvolutionMap): _sparse_of_convolution,
    (ConvolutionMap, SparseMap): _convolution_of_sparse,
}


def _with_weight(linear: ConvolutionMap, weight: Float[np.ndarray, "out in kh kw"]) -> ConvolutionMap:
    return ConvolutionMap(
        read_only(weight),
        linear.in_shape,
        linear.out_shape,
        linear.strides,
        linear.pads,
        linear.dilations,
        linear.groups,
    )


def _channel_factors(linear: SparseMap, shape: Shape3) -> Float[np.ndarray, " channels"] | None:
    """The factor of each channel where the map is diagonal and constant within channels, else None."""
    entries, size = linear.entries, linear.out_size
    if linear.in_size != size or size != int(np.prod(shape)):
        return None
    diagonal = np.asarray(entries.diagonal())
    per_channel = diagonal.reshape(shape[0], -1)
    if entries.nnz != np.count_nonzero(diagonal) or (per_channel != per_channel[:, :1]).any():
        return None
    return per_channel[:, 0]


def _convolution_of_padding(outer: ConvolutionMap, inner: SparseMap) -> ConvolutionMap | None:
    """The convolution with larger pads where the inner map only surrounds every channel with zeros."""
    channels, height, width = outer.in_shape
    is_filled = (np.diff(inner.entries.indptr) > 0).reshape(outer.in_shape)
    rows, columns = np.flatnonzero(is_filled.any(axis=(0, 2))), np.flatnonzero(is_filled.any(axis=(0, 1)))
    if not len(rows) or not len(columns):
        return None
    top, bottom, left, right = rows[0], height - 1 - rows[-1], columns[0], width - 1 - columns[-1]
    inside = (channels, int(height - top - bottom), int(width - left - right))
    expected = np.full(outer.in_shape, -1)
    expected[:, top : height - bottom, left : width - right] = np.arange(np.prod(inside)).reshape(inside)
    if inner.in_size != int(np.prod(inside)) or not _is_selection(inner, expected.ravel()):
        return None
    pads = tuple(int(a + b) for a, b in zip(outer.pads, (top, left, bottom, right), strict=True))
    top_pad, left_pad, bottom_pad, right_pad = pads
    return ConvolutionMap(
        outer.weight,
        inside,
        outer.out_shape,
        outer.strides,
        (top_pad, left_pad, bottom_pad, right_pad),
        outer.dilations,
        outer.groups,
    )


def _is_selection(linear: SparseMap, sources: np.ndarray) -> bool:
    difference = linear.entries - selection_map(sources, linear.in_size).entries
    return bool(difference.count_nonzero() == 0)
