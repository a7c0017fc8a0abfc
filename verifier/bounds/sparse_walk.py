"""CROWN's backward walk on sparse rows, for one region and without gradients; `backward` is the dense differentiable one.

A unit of a convolution reads a small patch of the image, so the rows of intermediate units are sparse: SciPy products on them
are many times cheaper than dense transposed convolutions. Rows turn dense where they fill up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from verifier.bounds.relaxation import Relaxation
from verifier.canonical import Affine, CanonicalNetwork, DenseMap, Vector

_DENSE_FILL = 0.1

Dense = Float[np.ndarray, "_ _"]
Rows = sparse.csr_array | Dense


@dataclass(frozen=True, slots=True, eq=False)
class ReluPlanes:
    """The planes of a ReLU node: z -> above * z + constant from above, below * z from below; float64 (size,) each."""

    above: Vector
    below: Vector
    constant: Vector


@dataclass(frozen=True, slots=True, eq=False)
class MaxPlanes:
    """The planes of a Max node: above @ z + constant from above, below @ z from below; sparse (size, input) matrices."""

    above: sparse.csr_array
    below: sparse.csr_array
    constant: Vector


Planes = ReluPlanes | MaxPlanes


def crown_planes(relaxation: Relaxation, input_size: int) -> Planes:
    """The planes of a relaxation of one region at CROWN's parameters."""
    above, constant = (part[0].numpy() for part in relaxation.plane_above(relaxation.first_fraction()))
    below = relaxation.first_weights()[0].numpy()
    if relaxation.windows.is_identity:
        return ReluPlanes(above[:, 0], below[:, 0], constant)
    index = relaxation.windows.index.numpy()

    def matrix(slopes: Float[np.ndarray, "size width"]) -> sparse.csr_array:
        rows, slots = np.nonzero(slopes)
        return sparse.csr_array((slopes[rows, slots], (rows, index[rows, slots])), shape=(len(slopes), input_size))

    return MaxPlanes(matrix(above), matrix(below), constant)


def units(entries: Int[np.ndarray, " n"], size: int) -> sparse.csr_array:
    """One row per entry that reads that entry of a value of this size."""
    return sparse.csr_array((np.ones(len(entries)), entries, np.arange(len(entries) + 1)), shape=(len(entries), size))


def upper_planes(
    canonical: CanonicalNetwork,
    planes: Mapping[int, Planes],
    value: int,
    rows: Rows,
    record: dict[int, Rows] | None = None,
) -> tuple[Rows, Float[np.ndarray, " rows"]]:
    """Upper planes over the input: coefficients (rows, inputs) and constants (rows,), of rows over a value.

    With a `record`, the rows over every node's value met on the way are left there, by node.

    Soundness: rows @ value(x) <= coefficients @ x + constants wherever the planes hold, up to rounding.
    """
    pending: dict[int, Rows] = {value: rows}
    constants = np.zeros(rows.shape[0])
    for index in range(value - 1, -1, -1):
        if index + 1 not in pending:
            continue
        current = _settled(pending.pop(index + 1))
        if record is not None:
            record[index] = current
        node = canonical.nodes[index]
        if isinstance(node, Affine):
            constants += current @ node.bias
            parts = [(read, _through_term(canonical, index, term, current)) for term, read in enumerate(node.inputs)]
        else:
            part, constant = _through_planes(planes[index], current)
            constants += constant
            parts = [(node.input, part)]
        for read, part in parts:
            pending[read] = _sum(pending[read], part) if read in pending else part
    nothing = sparse.csr_array((rows.shape[0], canonical.input_size))
    return pending.get(0, nothing), constants


def concretised(
    coefficients: Rows,
    constants: Float[np.ndarray, " rows"],
    lower: Float[np.ndarray, " inputs"],
    upper: Float[np.ndarray, " inputs"],
) -> Float[np.ndarray, " rows"]:
    """The maxima of planes over the box."""
    return constants + coefficients @ (0.5 * (lower + upper)) + abs(coefficients) @ (0.5 * (upper - lower))


def _settled(rows: Rows) -> Rows:
    """Dense, column by column, once a tenth is filled: from there on dense products are faster."""
    if isinstance(rows, np.ndarray) or rows.nnz < _DENSE_FILL * rows.shape[0] * rows.shape[1]:
        return rows
    return rows.toarray(order="F")


def _sum(first: Rows, second: Rows) -> Rows:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.add(*(part if isinstance(part, np.ndarray) else part.toarray(order="F") for part in (first, second)))
    return sparse.csr_array(first + second)


def _product(rows: Rows, matrix: sparse.csr_array, transposed: sparse.csr_array) -> Rows:
    """The product with a matrix, given both ways: the transposes multiply dense rows several times faster."""
    if isinstance(rows, np.ndarray):
        return (transposed @ rows.T).T
    return sparse.csr_array(rows @ matrix)


@lru_cache(maxsize=128)
def _transposed(canonical: CanonicalNetwork, index: int, term: int) -> sparse.csr_array:
    return canonical.matrix(index, term).T.tocsr()


def _through_term(canonical: CanonicalNetwork, index: int, term: int, rows: Rows) -> Rows:
    node = canonical.nodes[index]
    linear = node.terms[term][0] if isinstance(node, Affine) else None
    if isinstance(rows, np.ndarray) and isinstance(linear, DenseMap):
        return rows @ linear.weight
    return _product(rows, canonical.matrix(index, term), _transposed(canonical, index, term))


def _through_planes(planes: Planes, rows: Rows) -> tuple[Rows, Float[np.ndarray, " rows"]]:
    rising, falling = _split(rows)
    constants = rising @ planes.constant
    if isinstance(planes, MaxPlanes):
        above = _product(rising, planes.above, planes.above.T.tocsr())
        return _sum(above, _product(falling, planes.below, planes.below.T.tocsr())), constants
    if isinstance(rows, np.ndarray):
        return rows * np.where(rows > 0, planes.above, planes.below), constants
    return _scaled(rows, planes), constants


def _scaled(rows: sparse.csr_array, planes: ReluPlanes) -> sparse.csr_array:
    slopes = np.where(rows.data > 0, planes.above[rows.indices], planes.below[rows.indices])
    scaled = sparse.csr_array((rows.data * slopes, rows.indices.copy(), rows.indptr.copy()), shape=rows.shape)
    scaled.eliminate_zeros()
    return scaled


def _split(rows: Rows) -> tuple[Rows, Rows]:
    """The positive and the negative part; fresh arrays where dense."""
    if isinstance(rows, np.ndarray):
        return np.maximum(rows, 0.0), np.minimum(rows, 0.0)
    rising, falling = (
        sparse.csr_array((clip(rows.data, 0.0), rows.indices, rows.indptr), shape=rows.shape)
        for clip in (np.maximum, np.minimum)
    )
    return rising, falling
