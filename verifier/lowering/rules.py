"""One rule per typed operation: which canonical nodes compute it. Straightforward on purpose; `fusion` makes the result small."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from verifier import network as typed
from verifier.canonical import Affine, CanonicalNode, ConvolutionMap, DenseMap, LinearMap, Max, Relu
from verifier.errors import UnsupportedOpError
from verifier.lowering.maps import diagonal_map, identity_map, read_only, selection_map, sparse_map
from verifier.lowering.windows import window_indices


@dataclass(slots=True)
class Builder:
    """The canonical nodes so far; node i produces value i + 1, value 0 is the input."""

    nodes: list[CanonicalNode] = field(default_factory=list)

    def add(self, node: CanonicalNode) -> int:
        """Appends a node and returns the value it produces."""
        self.nodes.append(node)
        return len(self.nodes)

    def affine(self, terms: list[tuple[LinearMap, int]], bias: np.ndarray) -> int:
        """Appends an affine node."""
        return self.add(Affine(tuple(terms), read_only(np.array(bias, dtype=np.float64).ravel())))


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A typed node (at position `index`) with the canonical values it reads and the typed shapes around it."""

    index: int
    name: str
    inputs: tuple[int, ...]
    in_shapes: tuple[tuple[int, ...], ...]
    out_shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Entries produced."""
        return int(np.prod(self.out_shape))


def _shape3(step: Step, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UnsupportedOpError(f"node {step.name!r}: works on shape {shape}, wanted (channels, height, width)")
    return shape[0], shape[1], shape[2]


def _conv(op: typed.Conv, step: Step, builder: Builder) -> int:
    out_shape = _shape3(step, step.out_shape)
    linear = ConvolutionMap(
        weight=read_only(op.weight.astype(np.float64)),
        in_shape=_shape3(step, step.in_shapes[0]),
        out_shape=out_shape,
        strides=op.strides,
        pads=op.pads,
        dilations=op.dilations,
        groups=op.groups,
    )
    bias = np.repeat(op.bias.astype(np.float64), out_shape[1] * out_shape[2])
    return builder.affine([(linear, step.inputs[0])], bias)


def _dense(op: typed.Dense, step: Step, builder: Builder) -> int:
    weight = op.weight.astype(np.float64)
    rows = step.size // len(weight)
    linear: LinearMap = DenseMap(read_only(weight))
    if rows > 1:
        linear = sparse_map(sparse.kron(sparse.eye_array(rows), sparse.csr_array(weight), format="csr"))
    return builder.affine([(linear, step.inputs[0])], np.tile(op.bias.astype(np.float64), rows))


def _scaled(step: Step, builder: Builder, factor: np.ndarray, offset: np.ndarray) -> int:
    """The value factor * x + offset, both broadcast to the value's shape."""
    factors = np.broadcast_to(factor, step.out_shape).ravel().astype(np.float64)
    return builder.affine([(diagonal_map(factors), step.inputs[0])], np.broadcast_to(offset, step.out_shape))


def _add_constant(op: typed.AddConstant, step: Step, builder: Builder) -> int:
    return _scaled(step, builder, np.ones(()), op.offset.astype(np.float64))


def _mul_constant(op: typed.MulConstant, step: Step, builder: Builder) -> int:
    return _scaled(step, builder, op.factor.astype(np.float64), np.zeros(()))


def _div_constant(op: typed.DivConstant, step: Step, builder: Builder) -> int:
    return _scaled(step, builder, 1.0 / op.divisor.astype(np.float64), np.zeros(()))


def _batch_norm(op: typed.BatchNorm, step: Step, builder: Builder) -> int:
    factor = op.scale.astype(np.float64) / np.sqrt(op.variance.astype(np.float64) + op.epsilon)
    offset = op.shift.astype(np.float64) - op.mean.astype(np.float64) * factor
    channelwise = (-1,) + (1,) * (len(step.out_shape) - 1)
    return _scaled(step, builder, factor.reshape(channelwise), offset.reshape(channelwise))


def _relu(_op: typed.Relu, step: Step, builder: Builder) -> int:
    return builder.add(Relu(step.inputs[0], step.size, step.index))


def _leaky_relu(op: typed.LeakyRelu, step: Step, builder: Builder) -> int:
    """Computes slope * x + (1 - slope) * max(x, 0)."""
    positive = builder.add(Relu(step.inputs[0], step.size, step.index))
    terms: list[tuple[LinearMap, int]] = [
        (identity_map(step.size, op.slope), step.inputs[0]),
        (identity_map(step.size, 1.0 - op.slope), positive),
    ]
    return builder.affine(terms, np.zeros(step.size))


def _max_pool(op: typed.MaxPool, step: Step, builder: Builder) -> int:
    windows = window_indices(
        _shape3(step, step.in_shapes[0]),
        _shape3(step, step.out_shape),
        kernel=op.kernel,
        strides=op.strides,
        pads=op.pads,
        dilations=op.dilations,
    )
    if (windows < 0).all(axis=1).any():
        raise UnsupportedOpError(f"node {step.name!r} (MaxPool): a window lies entirely in the padding")
    windows.setflags(write=False)
    return builder.add(Max(step.inputs[0], windows, has_floor=False, origin=step.index))


def _average_pool(op: typed.AveragePool, step: Step, builder: Builder) -> int:
    in_shape = _shape3(step, step.in_shapes[0])
    windows = window_indices(
        in_shape, _shape3(step, step.out_shape), kernel=op.kernel, strides=op.strides, pads=op.pads
    )
    is_inside = windows >= 0
    counts = np.full(len(windows), windows.shape[1]) if op.count_include_pad else is_inside.sum(axis=1)
    if (counts == 0).any():
        raise UnsupportedOpError(f"node {step.name!r} (AveragePool): a window lies entirely in the padding")
    rows = np.nonzero(is_inside)[0]
    shape = (len(windows), int(np.prod(in_shape)))
    entries = sparse.coo_array((1.0 / counts[rows], (rows, windows[is_inside])), shape=shape)
    return builder.affine([(sparse_map(entries), step.inputs[0])], np.zeros(step.size))


def _reshape(_op: typed.Reshape, step: Step, _builder: Builder) -> int:
    return step.inputs[0]


def _positions(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape)


def _transpose(op: typed.Transpose, step: Step, builder: Builder) -> int:
    sources = _positions(step.in_shapes[0]).transpose(op.permutation).ravel()
    return builder.affine([(selection_map(sources, step.size), step.inputs[0])], np.zeros(step.size))


def _concat(op: typed.Concat, step: Step, builder: Builder) -> int:
    terms: list[tuple[LinearMap, int]] = []
    for position, (value, shape) in enumerate(zip(step.inputs, step.in_shapes, strict=True)):
        blocks = [np.full(other, -1) for other in step.in_shapes]
        blocks[position] = _positions(shape)
        sources = np.concatenate(blocks, axis=op.axis).ravel()
        terms.append((selection_map(sources, int(np.prod(shape))), value))
    return builder.affine(terms, np.zeros(step.size))


def _pad(op: typed.Pad, step: Step, builder: Builder) -> int:
    if not np.isfinite(op.value):
        raise UnsupportedOpError(f"node {step.name!r} (Pad): pads with {op.value}, wanted a finite number")
    shape = step.in_shapes[0]
    sources = np.pad(_positions(shape), op.amounts, constant_values=-1).ravel()
    bias = np.where(sources >= 0, 0.0, float(op.value))
    return builder.affine([(selection_map(sources, int(np.prod(shape))), step.inputs[0])], bias)


def _add(_op: typed.Add, step: Step, builder: Builder) -> int:
    return builder.affine([(identity_map(step.size), value) for value in step.inputs], np.zeros(step.size))


def _subtract(_op: typed.Subtract, step: Step, builder: Builder) -> int:
    first, second = step.inputs
    terms: list[tuple[LinearMap, int]] = [(identity_map(step.size), first), (identity_map(step.size, -1.0), second)]
    return builder.affine(terms, np.zeros(step.size))


RULES: dict[type, Callable[..., int]] = {
    typed.Conv: _conv,
    typed.Dense: _dense,
    typed.AddConstant: _add_constant,
    typed.MulConstant: _mul_constant,
    typed.DivConstant: _div_constant,
    typed.BatchNorm: _batch_norm,
    typed.Relu: _relu,
    typed.LeakyRelu: _leaky_relu,
    typed.MaxPool: _max_pool,
    typed.AveragePool: _average_pool,
    typed.Reshape: _reshape,
    typed.Transpose: _transpose,
    typed.Concat: _concat,
    typed.Pad: _pad,
    typed.Add: _add,
    typed.Subtract: _subtract,
}
