"""Bounds of values that one layer of ReLUs separates from the input, tighter than any linear relaxation gives.

Such a value reads a small patch of the image: its exact range is a small problem, and around an image most of these problems are
the same one shifted (background, and any area of one shade), so that each distinct one is solved once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse

from verifier.bounds.shallow_evidence import ShallowProof, SplitLeaves, split_leaves
from verifier.bounds.shallow_search import Maxima, ShallowFunctions, maximise
from verifier.canonical import Affine, CanonicalNetwork, Relu, Vector
from verifier.deadline import Deadline

_TOLERANCE = 0.05
_MOST_PARTS = 60
_LARGEST_PROBLEM = 1_000_000
"""Numbers (units times inputs) in one problem; a larger one would not pay."""
_GROUP_GROWTH = 1.5
_PADDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ShallowExpressions:
    """Values as coefficients @ [input, first-layer ReLUs' outputs] + constants.

    Attributes:
        coefficients: float64 CSR (entries, columns).
        constants: float64 (entries,).
    """

    coefficients: sparse.csr_array
    constants: Vector


@dataclass(frozen=True, slots=True, eq=False)
class _Function:
    """One function before padding: see `ShallowFunctions`; `constant` is what it leaves out, `units` says which ReLUs it reads."""

    direct: Float[np.ndarray, " inputs"]
    weights: Float[np.ndarray, " units"]
    hidden: Float[np.ndarray, "units inputs"]
    offsets: Float[np.ndarray, " units"]
    constant: float
    units: Int[np.ndarray, " units"]

    @property
    def key(self) -> bytes:
        """Equal for functions that are the same up to the constant."""
        parts = (self.direct, self.weights, self.hidden, self.offsets)
        return b"|".join(np.array(part.shape).tobytes() + np.ascontiguousarray(part).tobytes() for part in parts)

    @property
    def negated(self) -> "_Function":
        return _Function(-self.direct, -self.weights, self.hidden, self.offsets, -self.constant, self.units)


def shallow_values(canonical: CanonicalNetwork) -> frozenset[int]:
    """The values that are affine in the input and in first-layer ReLUs: `tightened_region` comes near their exact ranges."""
    depth: dict[int, int] = {0: 0}
    for index, node in enumerate(canonical.nodes):
        if isinstance(node, Affine):
            if all(value in depth for value in node.inputs):
                depth[index + 1] = max(depth[value] for value in node.inputs)
        elif isinstance(node, Relu) and depth.get(node.input) == 0:
            depth[index + 1] = 1
    return frozenset(depth)


class ShallowTightener:
    """Follows a network's values while they are affine in the input and in first-layer ReLUs, and bounds them.

    Values must be followed in order, each once, nonlinear ones with the final bounds of what they read.

    Args:
        canonical: The network.
        lower, upper: The box, flat.
    """

    def __init__(self, canonical: CanonicalNetwork, lower: Vector, upper: Vector) -> None:
        self._canonical = canonical
        self._lower, self._upper = lower, upper
        self._centre, self._radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
        size = canonical.input_size
        self._values: dict[int, ShallowExpressions] = {
            0: ShallowExpressions(sparse.eye_array(size, format="csr"), np.zeros(size))
        }
        self._hidden = sparse.csr_array((0, size))
        self._offsets = np.zeros(0)
        self._unit_node, self._unit_place = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._is_by_intervals = True

    def follow(self, index: int, bounds: tuple[Vector, Vector] | None) -> None:
        """Takes up the value of node `index`; `bounds` are those of the value that a nonlinear node reads."""
        node = self._canonical.nodes[index]
        if isinstance(node, Affine):
            if all(value in self._values for value in node.inputs):
                self._values[index + 1] = self._affine(index, node)
        elif isinstance(node, Relu) and node.input in self._values and bounds is not None:
            read = self._values[node.input]
            if not read.coefficients[:, self._canonical.input_size :].nnz:
                self._values[index + 1] = self._relu(index, read, *bounds)

    def covers(self, value: int) -> bool:
        """Whether a value is such an expression, with ReLUs in it."""
        held = self._values.get(value)
        return held is not None and bool(held.coefficients[:, self._canonical.input_size :].nnz)

    def tightened(
        self,
        value: int,
        sides: tuple[Int[np.ndarray, " low"], Int[np.ndarray, " high"]],
        bounds: tuple[Vector, Vector],
        deadline: Deadline,
    ) -> tuple[Vector, Vector, list[ShallowProof]]:
        """The bounds of a value, tightened at the given entries: those whose lower, and those whose upper bound is wanted.

        With what proves them: nothing if some first-layer ReLU was taken for stable that its interval leaves open.

        Soundness: each bound comes from parts that cover the box of the inputs read (`maximise`), padded for rounding.
        """
        lower, upper = bounds[0].copy(), bounds[1].copy()
        functions: dict[bytes, _Function] = {}
        wanted: dict[tuple[int, bytes], list[tuple[int, _Function]]] = {}
        for sign, entries in zip((-1, 1), sides, strict=True):
            for entry in entries.tolist():
                made = None if deadline.has_expired else self._function(value, entry)
                if made is None:
                    continue
                function = made if sign > 0 else made.negated
                key = function.key
                functions.setdefault(key, function)
                wanted.setdefault((sign, key), []).append((entry, function))
        found = _solved(functions, deadline)
        proofs: list[ShallowProof] = []
        for (sign, key), members in wanted.items():
            maximum, leaves = found[key]
            entries = np.array([entry for entry, _ in members])
            bounds_here = maximum + np.array([function.constant for _, function in members])
            bounds_here += _PADDING * np.maximum(1.0, np.abs(bounds_here))
            if sign > 0:
                upper[entries] = np.minimum(upper[entries], bounds_here)
            else:
                lower[entries] = np.maximum(lower[entries], -bounds_here)
            if leaves is not None and self._is_by_intervals:
                units = np.stack([function.units for _, function in members])
                places = self._unit_node[units], self._unit_place[units]
                proofs.append(ShallowProof(value, sign, entries, bounds_here, *places, leaves))
        return lower, upper, proofs

    def _affine(self, index: int, node: Affine) -> ShallowExpressions:
        columns = self._canonical.input_size + len(self._offsets)
        coefficients, constants = sparse.csr_array((node.size, columns)), node.bias.copy()
        for term, value in enumerate(node.inputs):
            held, matrix = self._values[value], self._canonical.matrix(index, term)
            coefficients = coefficients + matrix @ _widened(held.coefficients, columns)
            constants = constants + matrix @ held.constants
        coefficients = sparse.csr_array(coefficients)
        coefficients.eliminate_zeros()
        coefficients.sort_indices()
        return ShallowExpressions(coefficients, constants)

    def _relu(self, index: int, read: ShallowExpressions, lower: Vector, upper: Vector) -> ShallowExpressions:
        """Stable units are their input or 0, the others new columns."""
        inputs = self._canonical.input_size
        centre = read.coefficients[:, :inputs] @ self._centre + read.constants
        reach = abs(read.coefficients[:, :inputs]) @ self._radius
        takes_both_signs = reach - np.abs(centre) > _PADDING * np.maximum(1.0, np.abs(centre))
        if (takes_both_signs & ((lower >= 0) | (upper <= 0))).any():
            self._is_by_intervals = False
        kept = sparse.csr_array(sparse.diags_array((lower >= 0).astype(np.float64)) @ read.coefficients)
        unstable = np.flatnonzero((lower < 0) & (upper > 0))
        self._unit_node = np.concatenate([self._unit_node, np.full(len(unstable), index)])
        self._unit_place = np.concatenate([self._unit_place, unstable])
        first = inputs + len(self._offsets)
        fresh = sparse.csr_array(
            (np.ones(len(unstable)), (unstable, first + np.arange(len(unstable)))),
            shape=(len(lower), first + len(unstable)),
        )
        self._hidden = sparse.csr_array(sparse.vstack([self._hidden, read.coefficients[unstable][:, :inputs]]))
        self._offsets = np.concatenate([self._offsets, read.constants[unstable]])
        coefficients = sparse.csr_array(_widened(kept, first + len(unstable)) + fresh)
        coefficients.eliminate_zeros()
        coefficients.sort_indices()
        return ShallowExpressions(coefficients, np.where(lower >= 0, read.constants, 0.0))

    def _function(self, value: int, entry: int) -> _Function | None:
        """One entry over [-1, 1] per free input read; None where it has no ReLU, or is no small problem."""
        held, inputs = self._values[value], self._canonical.input_size
        row = slice(*held.coefficients.indptr[entry : entry + 2])
        columns, data = held.coefficients.indices[row], held.coefficients.data[row]
        is_unit = columns >= inputs
        units = columns[is_unit] - inputs
        if not len(units):
            return None
        hidden = self._hidden[units]
        read = np.unique(np.concatenate([columns[~is_unit], hidden.indices]))
        free = read[self._radius[read] > 0]
        if len(units) * len(free) > _LARGEST_PROBLEM:
            return None
        direct = np.zeros(len(free))
        at, place = columns[~is_unit], np.searchsorted(free, columns[~is_unit])
        moves = self._radius[at] > 0
        direct[place[moves]] = data[~is_unit][moves] * self._radius[at[moves]]
        constant = float(held.constants[entry] + data[~is_unit] @ self._centre[at])
        offsets = self._offsets[units] + hidden @ self._centre
        dense = hidden[:, free].toarray() * self._radius[free]
        return _Function(direct, data[is_unit], dense, offsets, constant, units)


def _widened(matrix: sparse.csr_array, columns: int) -> sparse.csr_array:
    return sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns))


def _solved(functions: dict[bytes, _Function], deadline: Deadline) -> dict[bytes, tuple[float, SplitLeaves | None]]:
    """Upper bounds of the functions' maxima with the trees that prove them, those of similar size together."""
    ordered = sorted(functions.items(), key=lambda pair: pair[1].hidden.size)
    solved: dict[bytes, tuple[float, SplitLeaves | None]] = {}
    first = 0
    while first < len(ordered):
        least = max(64, ordered[first][1].hidden.size)
        last = first
        while last < len(ordered) and ordered[last][1].hidden.size <= _GROUP_GROWTH * least:
            last += 1
        keys = [key for key, _ in ordered[first:last]]
        group = [function for _, function in ordered[first:last]]
        found = _maxima(group, deadline)
        trees = split_leaves(found, [function.weights for function in group])
        solved.update(zip(keys, zip(found.upper.tolist(), trees, strict=True), strict=True))
        first = last
    return solved


def _maxima(functions: list[_Function], deadline: Deadline) -> Maxima:
    units = max(len(function.weights) for function in functions)
    inputs = max(len(function.direct) for function in functions)
    direct, weights = np.zeros((len(functions), inputs)), np.zeros((len(functions), units))
    hidden, offsets = np.zeros((len(functions), units, inputs)), np.zeros((len(functions), units))
    for number, function in enumerate(functions):
        height, width = function.hidden.shape
        direct[number, :width], weights[number, :height] = function.direct, function.weights
        hidden[number, :height, :width], offsets[number, :height] = function.hidden, function.offsets
    padded = ShallowFunctions.of(*(torch.from_numpy(array) for array in (direct, weights, hidden, offsets)))
    return maximise(padded, tolerance=_TOLERANCE, most_parts=_MOST_PARTS, deadline=deadline)
