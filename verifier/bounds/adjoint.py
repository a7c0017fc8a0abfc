"""How CROWN's bounds of intermediate values change with the box and with the planes they rest on.

Along one row of the backward walk every choice of side is fixed almost everywhere, so the row's bound is the sum over nodes of
A+ (above z + constant) + A- (below z), evaluated forwards at the corner of the box that attains it. Its derivative by a plane's
slope is therefore the row's coefficient there times the value z that arrives along the row's own planes, and its derivative by
the box is the input coefficient at that corner. Both need only entries that the backward walk touched: sparse rows stay sparse.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from verifier.bounds.sparse_walk import MaxPlanes, Planes, Rows, upper_planes
from verifier.canonical import Affine, CanonicalNetwork, Max


@dataclass(frozen=True, slots=True, eq=False)
class RowsGradient:
    """The derivatives of sum_j weight_j * bound_j over some rows j.

    Attributes:
        lower, upper: float64 (inputs,), by the box.
        planes: By node, by the slopes (size, width) and constants (size,) of the planes above. Planes below do not move with
            bounds: CROWN's slopes there jump between 0 and 1.
    """

    lower: Float[np.ndarray, " inputs"]
    upper: Float[np.ndarray, " inputs"]
    planes: dict[int, tuple[Float[np.ndarray, "size width"], Float[np.ndarray, " size"]]]


def rows_gradient(
    canonical: CanonicalNetwork,
    planes: Mapping[int, Planes],
    value: int,
    rows: Rows,
    weights: Float[np.ndarray, " rows"],
    lower: Float[np.ndarray, " inputs"],
    upper: Float[np.ndarray, " inputs"],
) -> RowsGradient:
    """The derivatives of the weighted sum of the rows' upper bounds over the box."""
    record: dict[int, Rows] = {}
    coefficients, _ = upper_planes(canonical, planes, value, rows, record)
    arriving: dict[int, Rows] = {0: _corners(coefficients, lower, upper)}
    gradients = {}
    for index in sorted(record):
        node, current = canonical.nodes[index], record[index]
        if isinstance(node, Affine):
            arriving[index + 1] = _affine_values(canonical, index, node, current, arriving)
            continue
        values = arriving[node.input]
        gradients[index] = _plane_gradient(planes[index], node, _weighted(_positive(current), weights), values)
        arriving[index + 1] = _planes_values(planes[index], current, values)
    return RowsGradient(
        np.asarray(weights @ _negative(coefficients)).ravel(),
        np.asarray(weights @ _positive(coefficients)).ravel(),
        gradients,
    )


def _affine_values(
    canonical: CanonicalNetwork, index: int, node: Affine, current: Rows, arriving: Mapping[int, Rows]
) -> Rows:
    total = _scaled(_touched(current), node.bias)
    for term, read in enumerate(node.inputs):
        # A value that the rows read with coefficient 0 throughout contributes nothing that is needed.
        if read in arriving:
            total = total + _sampled(current, _times_transposed(arriving[read], canonical.matrix(index, term)))
    return total


def _planes_values(planes: Planes, current: Rows, values: Rows) -> Rows:
    """The node's value along each row's planes."""
    rising, falling = _sign(current, rises=True), _sign(current, rises=False)
    constants = _scaled(rising, planes.constant)
    if isinstance(planes, MaxPlanes):
        above, below = (_times_transposed(values, matrix) for matrix in (planes.above, planes.below))
        return constants + _sampled(rising, above) + _sampled(falling, below)
    return (
        constants + _scaled(_sampled(rising, values), planes.above) + _scaled(_sampled(falling, values), planes.below)
    )


def _plane_gradient(
    planes: Planes, node: object, rising: Rows, values: Rows
) -> tuple[Float[np.ndarray, "size width"], Float[np.ndarray, " size"]]:
    constant = np.asarray(rising.sum(axis=0)).ravel()
    if not (isinstance(planes, MaxPlanes) and isinstance(node, Max)):
        return np.asarray(_sampled(rising, values, keep=True).sum(axis=0)).reshape(-1, 1), constant
    met = sparse.csr_array(rising.T @ values)
    windows = np.where(node.windows < 0, 0, node.windows)
    size, width = windows.shape
    slopes = np.asarray(met[np.repeat(np.arange(size), width), windows.ravel()]).reshape(size, width)
    return np.where(node.windows < 0, 0.0, slopes), constant


def _corners(coefficients: Rows, lower: Float[np.ndarray, " n"], upper: Float[np.ndarray, " n"]) -> Rows:
    """Where each row's plane is largest, at the inputs it reads."""
    if isinstance(coefficients, np.ndarray):
        return np.where(coefficients > 0, upper, lower)
    at = coefficients.indices
    return _with_data(coefficients, np.where(coefficients.data > 0, upper[at], lower[at]))


def _with_data(rows: sparse.csr_array, data: Float[np.ndarray, " entries"]) -> sparse.csr_array:
    return sparse.csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def _positive(rows: Rows) -> Rows:
    return np.maximum(rows, 0.0) if isinstance(rows, np.ndarray) else _with_data(rows, np.maximum(rows.data, 0.0))


def _negative(rows: Rows) -> Rows:
    return np.minimum(rows, 0.0) if isinstance(rows, np.ndarray) else _with_data(rows, np.minimum(rows.data, 0.0))


def _touched(rows: Rows) -> Rows:
    """1 where the rows may have an entry."""
    return np.ones_like(rows) if isinstance(rows, np.ndarray) else _with_data(rows, np.ones_like(rows.data))


def _sign(rows: Rows, *, rises: bool) -> Rows:
    """1 where the entry is positive, or where it is not."""
    if isinstance(rows, np.ndarray):
        return ((rows > 0) == rises).astype(np.float64)
    return _with_data(rows, ((rows.data > 0) == rises).astype(np.float64))


def _weighted(rows: Rows, weights: Float[np.ndarray, " rows"]) -> Rows:
    """Each row times its weight."""
    if isinstance(rows, np.ndarray):
        return rows * weights[:, None]
    return _with_data(rows, rows.data * np.repeat(weights, np.diff(rows.indptr)))


def _scaled(rows: Rows, factors: Float[np.ndarray, " n"]) -> Rows:
    """Each column times its factor."""
    return rows * factors if isinstance(rows, np.ndarray) else _with_data(rows, rows.data * factors[rows.indices])


def _sampled(pattern: Rows, values: Rows, *, keep: bool = False) -> Rows:
    """The values where the pattern has entries: times the pattern's own ones (or, to `keep` them, its coefficients)."""
    mask = pattern if keep else _nonzero(pattern)
    if isinstance(mask, np.ndarray):
        return mask * (values if isinstance(values, np.ndarray) else values.toarray())
    return sparse.csr_array(mask.multiply(values))


def _nonzero(rows: Rows) -> Rows:
    if isinstance(rows, np.ndarray):
        return (rows != 0).astype(np.float64)
    return _with_data(rows, (rows.data != 0).astype(np.float64))


def _times_transposed(values: Rows, matrix: sparse.csr_array) -> Rows:
    if isinstance(values, np.ndarray):
        return (matrix @ values.T).T
    return sparse.csr_array(values @ matrix.T)
