"""The canonical form every engine works on: affine maps, ReLU and Max over flat vectors.

Value 0 is the flattened input; node i produces value i + 1; the last node is an `Affine` that produces the scores. Arrays are
float64 (float32 weights are exact in it). Every value is a flat vector in C order, so reshapes vanish.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

Vector = Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class ConvolutionMap:
    """x -> conv2d(x) without bias, between flattened (channels, height, width) vectors.

    Attributes:
        weight: float64 (out, in / groups, kh, kw).
        in_shape, out_shape: (channels, height, width).
        strides, dilations: (vertical, horizontal).
        pads: (top, left, bottom, right).
        groups: As in ONNX.
    """

    weight: Float[np.ndarray, "out in_per_group kh kw"]
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: int

    @property
    def in_size(self) -> int:
        """Entries read."""
        return int(np.prod(self.in_shape))

    @property
    def out_size(self) -> int:
        """Entries produced."""
        return int(np.prod(self.out_shape))

    @property
    def most_entries(self) -> int:
        """How many entries the matrix has at most: padding takes some away."""
        return int(np.count_nonzero(self.weight)) * self.out_shape[1] * self.out_shape[2]

    def times(self, vector: Float[np.ndarray, " in"]) -> Float[np.ndarray, " out"]:
        """matrix() @ vector without the matrix, which may be too large to build."""
        channels, height, width = self.in_shape
        top, left, bottom, right = self.pads
        padded = np.pad(vector.reshape(channels, height, width), ((0, 0), (top, bottom), (left, right)))
        extents = tuple((size - 1) * gap + 1 for size, gap in zip(self.weight.shape[2:], self.dilations, strict=True))
        windows = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=(1, 2))
        windows = windows[:, :: self.strides[0], :: self.strides[1], :: self.dilations[0], :: self.dilations[1]]
        windows = windows.reshape(self.groups, channels // self.groups, *windows.shape[1:])
        weight = self.weight.reshape(self.groups, -1, *self.weight.shape[1:])
        return np.einsum("gcyxij,gocij->goyx", windows, weight, optimize=True).reshape(-1)

    def matrix(self) -> sparse.csr_array:
        """The map as a sparse matrix (out_size, in_size), float64; built anew at each call."""
        channels_in, height_in, width_in = self.in_shape
        channels_out, height_out, width_out = self.out_shape
        per_group, (kernel_h, kernel_w) = self.weight.shape[1], self.weight.shape[2:]
        o, c, i, j, y, x = np.meshgrid(
            np.arange(channels_out),
            np.arange(per_group),
            np.arange(kernel_h),
            np.arange(kernel_w),
            np.arange(height_out),
            np.arange(width_out),
            indexing="ij",
            sparse=True,
        )
        row_in = y * self.strides[0] + i * self.dilations[0] - self.pads[0]
        column_in = x * self.strides[1] + j * self.dilations[1] - self.pads[1]
        channel_in = (o // (channels_out // self.groups)) * per_group + c
        inside = (row_in >= 0) & (row_in < height_in) & (column_in >= 0) & (column_in < width_in)
        rows = (o * height_out + y) * width_out + x
        columns = (channel_in * height_in + row_in) * width_in + column_in
        full = np.broadcast_shapes(rows.shape, columns.shape, inside.shape)
        keep = np.broadcast_to(inside & (self.weight[..., None, None] != 0.0), full)
        values = np.broadcast_to(self.weight[..., None, None], full)[keep]
        entries = (np.broadcast_to(rows, full)[keep], np.broadcast_to(columns, full)[keep])
        return sparse.csr_array((values, entries), shape=(self.out_size, channels_in * height_in * width_in))


@dataclass(frozen=True, slots=True, eq=False)
class DenseMap:
    """x -> weight @ x, weight float64 (out_size, in_size)."""

    weight: Float[np.ndarray, "out in"]

    @property
    def in_size(self) -> int:
        """Entries read."""
        return int(self.weight.shape[1])

    @property
    def out_size(self) -> int:
        """Entries produced."""
        return int(self.weight.shape[0])

    @property
    def most_entries(self) -> int:
        """How many entries the matrix has at most."""
        return int(self.weight.size)

    def times(self, vector: Float[np.ndarray, " in"]) -> Float[np.ndarray, " out"]:
        """matrix() @ vector."""
        return self.weight @ vector

    def matrix(self) -> sparse.csr_array:
        """The map as a sparse matrix; built anew at each call."""
        return sparse.csr_array(self.weight)


@dataclass(frozen=True, slots=True, eq=False)
class SparseMap:
    """x -> entries @ x for a sparse matrix: pooling means, permutations, concatenations, scalings, identities."""

    entries: sparse.csr_array

    @property
    def in_size(self) -> int:
        """Entries read."""
        return int(self.entries.shape[1])

    @property
    def out_size(self) -> int:
        """Entries produced."""
        return int(self.entries.shape[0])

    @property
    def most_entries(self) -> int:
        """How many entries the matrix has."""
        return int(self.entries.nnz)

    def times(self, vector: Float[np.ndarray, " in"]) -> Float[np.ndarray, " out"]:
        """matrix() @ vector."""
        return self.entries @ vector

    def matrix(self) -> sparse.csr_array:
        """The matrix itself."""
        return self.entries


LinearMap = ConvolutionMap | DenseMap | SparseMap


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """The sum of linear maps of earlier values, plus a bias.

    Attributes:
        terms: (map, value) pairs; the maps' out_size is this node's size. May be empty (a constant).
        bias: float64 (size,).
    """

    terms: tuple[tuple[LinearMap, int], ...]
    bias: Vector

    @property
    def size(self) -> int:
        """Entries produced."""
        return len(self.bias)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The values read."""
        return tuple(value for _, value in self.terms)


@dataclass(frozen=True, slots=True)
class Relu:
    """max(x, 0) of one value, entry by entry.

    Attributes:
        input: The value read.
        size: Entries.
        origin: The position in the typed network of the node that this one computes; -1 if it comes from none.
    """

    input: int
    size: int
    origin: int = field(default=-1, compare=False)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The value read."""
        return (self.input,)


@dataclass(frozen=True, slots=True, eq=False)
class Max:
    """The maximum of each window of one value's entries, and of 0 too where `has_floor`.

    A MaxPool right after a ReLU is one Max with a floor, max(0, z_1, ..., z_n): relaxing or encoding the two together is tighter
    than one after the other.

    Attributes:
        input: The value read.
        windows: int64 (size, width): indices into that value; -1 fills windows that have fewer candidates (never all of one).
        has_floor: Whether 0 is a candidate of every window.
        origin: The position in the typed network of the node that this one computes, of a MaxPool and a ReLU together the later
            one's; -1 if it comes from none. Columns of `windows` are the kernel's entries, row by row.
    """

    input: int
    windows: Int[np.ndarray, "size width"]
    has_floor: bool
    origin: int = field(default=-1, compare=False)

    @property
    def size(self) -> int:
        """Entries produced."""
        return len(self.windows)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The value read."""
        return (self.input,)


CanonicalNode = Affine | Relu | Max


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalNetwork:
    """Affine, ReLU and Max nodes in topological order, the last an Affine that produces the scores.

    Attributes:
        input_size: Entries of the flattened input.
        nodes: Node i produces value i + 1.
    """

    input_size: int
    nodes: tuple[CanonicalNode, ...]
    _matrices: dict[tuple[int, int], sparse.csr_array] = field(default_factory=dict, init=False, repr=False)

    @property
    def labels(self) -> int:
        """The number of scores."""
        return self.nodes[-1].size

    @property
    def output(self) -> int:
        """The value that holds the scores."""
        return len(self.nodes)

    def value_size(self, value: int) -> int:
        """Entries of a value."""
        return self.nodes[value - 1].size if value else self.input_size

    @property
    def most_entries(self) -> int:
        """How many entries the matrices of all terms have at most: one for each multiplication of an evaluation."""
        return sum(linear.most_entries for node in self.nodes if isinstance(node, Affine) for linear, _ in node.terms)

    def matrix(self, node: int, term: int) -> sparse.csr_array:
        """The sparse matrix of one term of an Affine node, built once; callers must not change it."""
        key = (node, term)
        if key not in self._matrices:
            affine = self.nodes[node]
            if not isinstance(affine, Affine):
                raise TypeError(f"matrix: node {node} is {type(affine).__name__}, wanted an Affine")
            self._matrices[key] = affine.terms[term][0].matrix()
        return self._matrices[key]

    def nonlinear_inputs(self) -> tuple[int, ...]:
        """The values that some ReLU or Max reads, ascending: where bounds are needed."""
        return tuple(sorted({node.input for node in self.nodes if not isinstance(node, Affine)}))

    def evaluate(self, points: Float[np.ndarray, "batch inputs"]) -> list[Float[np.ndarray, "batch n"]]:
        """Every value at each point in float64, value 0 first; rounded to nearest."""
        values = [np.asarray(points, dtype=np.float64)]
        for index, node in enumerate(self.nodes):
            match node:
                case Affine():
                    total = np.tile(node.bias, (len(values[0]), 1))
                    for term, value in enumerate(node.inputs):
                        total += (self.matrix(index, term) @ values[value].T).T
                    values.append(total)
                case Relu():
                    values.append(np.maximum(values[node.input], 0.0))
                case Max():
                    padded = np.pad(values[node.input], ((0, 0), (0, 1)), constant_values=-np.inf)
                    best = padded[:, node.windows].max(axis=2)
                    values.append(np.maximum(best, 0.0) if node.has_floor else best)
        return values
