"""The checker's own reading of a network: affine steps and maxima over flat vectors, straight from the typed graph.

Nothing is folded or merged, except that a ReLU and the max-pool next to it are one maximum (max(0, z_1, ..., z_n), whichever
comes first). Constants that float64 does not hold exactly come with a radius.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from verifier import network as typed
from verifier.check import interval
from verifier.check.interval import Interval
from verifier.check.maps import Convolution, LinearMap, Matrix, Selection, Vector
from verifier.errors import UnsupportedOpError
from verifier.proof.records import operation_numbers
from verifier.property import Property


@dataclass(frozen=True, slots=True, eq=False)
class AffineStep:
    """The value `output` = sum of maps of earlier values + bias.

    Attributes:
        output: The value produced.
        terms: (map, value read).
        bias: (size,), each within `radius` of the exact one.
        radius: (size,).
        bias_magnitude: (size,), the magnitudes of the constants that make up the bias, added up.
    """

    output: int
    terms: tuple[tuple[LinearMap, int], ...]
    bias: Vector
    radius: Vector
    bias_magnitude: Vector


@dataclass(frozen=True, slots=True, eq=False)
class MaximumStep:
    """Every entry of the value `output` is the largest of its alternatives.

    Alternatives are numbered: the entries of the kernel row by row (a ReLU's is z), then the floor 0 where `has_floor`.

    Attributes:
        output, source: The value produced, and the one read.
        operation: The operation's number (`verifier.proof.records`); of a merged pair the later one's.
        index: int64 (alternatives, windows), entries of the source; -1 for the floor and for kernel entries in the padding.
        present: bool (alternatives, windows): all but the padding.
        has_floor: Whether the last alternative is the floor.
        overlaps: Whether some entry of the source is an alternative of several windows.
    """

    output: int
    source: int
    operation: int
    index: Int[np.ndarray, "alternatives windows"]
    present: Bool[np.ndarray, "alternatives windows"]
    has_floor: bool
    overlaps: bool

    @property
    def windows(self) -> int:
        """How many there are."""
        return int(self.index.shape[1])

    @property
    def everything(self) -> int:
        """All alternatives, as a bit set."""
        return (1 << len(self.index)) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A network as steps; value 0 is the input, step i produces value i + 1.

    Attributes:
        steps: In topological order.
        scores: The value that holds the scores.
        shapes: Of every value.
        sizes: Their entries.
        maxima: By operation number.
        shallow: The values that affine steps alone separate from the input.
    """

    steps: tuple[AffineStep | MaximumStep, ...]
    scores: int
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    maxima: dict[int, MaximumStep]
    shallow: frozenset[int]


def steps_of(network: typed.Network) -> Steps:
    """The network as steps.

    Raises:
        UnsupportedOpError: An operation has no rule, or a window holds nothing but padding.
    """
    builder = _Builder(network)
    with np.errstate(all="ignore"):
        for index in range(len(network.nodes)):
            builder.add(index)
    shallow = {0}
    for step in builder.steps:
        if isinstance(step, AffineStep) and all(value in shallow for _, value in step.terms):
            shallow.add(step.output)
    maxima = {step.operation: step for step in builder.steps if isinstance(step, MaximumStep)}
    sizes = tuple(math.prod(shape) for shape in builder.shapes)
    return Steps(tuple(builder.steps), builder.values[-1], tuple(builder.shapes), sizes, maxima, frozenset(shallow))


def with_forms(steps: Steps, property: Property) -> Steps:
    """The steps with one more, whose value are the property's forms of the scores."""
    forms = len(property.offsets)
    matrix = Matrix(property.coefficients, 1)
    offsets = property.offsets
    output = len(steps.steps) + 1
    step = AffineStep(output, ((matrix, steps.scores),), offsets, np.zeros(forms), np.abs(offsets))
    shallow = steps.shallow | ({output} if steps.scores in steps.shallow else set())
    return replace(
        steps,
        steps=(*steps.steps, step),
        shapes=(*steps.shapes, (forms,)),
        sizes=(*steps.sizes, forms),
        shallow=frozenset(shallow),
    )


class _Builder:
    """The steps so far."""

    def __init__(self, network: typed.Network) -> None:
        self.network = network
        self.steps: list[AffineStep | MaximumStep] = []
        self.shapes = [network.input_shape]
        self.values = [0]
        self.merged = _merged_pairs(network)
        self.operations = operation_numbers(network)

    def add(self, index: int) -> None:
        """Appends the steps of one node and notes the value that holds its result."""
        node = self.network.nodes[index]
        if type(node.op) not in _RULES:
            raise UnsupportedOpError(f"node {node.name!r} ({type(node.op).__name__}) has no rule in the checker")
        if index in self.merged.values():
            self.values.append(_NOWHERE)
        else:
            self.values.append(_RULES[type(node.op)](node.op, _Place(self, index, node)))


_NOWHERE = -1
"""The value of a node that its only reader has taken in."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a rule works: one node of the graph."""

    builder: _Builder
    index: int
    node: typed.Node

    @property
    def size(self) -> int:
        """Entries produced."""
        return math.prod(self.node.shape)

    def read(self, position: int = 0) -> int:
        """The value that holds an input."""
        value = self.builder.values[self.node.inputs[position]]
        if value == _NOWHERE and not isinstance(self.node.op, typed.Reshape):
            raise UnsupportedOpError(f"node {self.node.name!r} reads a value that was merged away")
        return value

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """The shape of an input."""
        return self.builder.network.value_shape(self.node.inputs[position])

    @property
    def taken(self) -> "_Place | None":
        """The node that this one has taken in."""
        earlier = self.builder.merged.get(self.index)
        return None if earlier is None else _Place(self.builder, earlier, self.builder.network.nodes[earlier])

    def affine(self, terms: list[tuple[LinearMap, int]], *biases: Interval | np.ndarray) -> int:
        """Appends an affine step whose bias is the sum of some, each broadcast to the node's shape."""
        exact = [bias if isinstance(bias, Interval) else interval.point(bias) for bias in biases]
        total = exact[0] if len(exact) == 1 else reduce(interval.add, exact, interval.point(np.zeros(1)))
        size = sum((np.maximum(np.abs(bias.lower), np.abs(bias.upper)) for bias in exact), start=np.zeros(1))
        parts = [np.broadcast_to(part, self.node.shape).ravel() for part in (*_centred(total), size)]
        self.builder.shapes.append(self.node.shape)
        self.builder.steps.append(AffineStep(len(self.builder.steps) + 1, tuple(terms), parts[0], parts[1], parts[2]))
        return len(self.builder.steps)

    def scaled(self, factor: Interval | float, source: int) -> tuple[Selection, int]:
        """The term factor * x, the factor broadcast to the node's shape."""
        exact = factor if isinstance(factor, Interval) else interval.point(np.full(1, factor))
        middle, radius = (np.broadcast_to(part, self.node.shape).ravel() for part in _centred(exact))
        return Selection(np.arange(self.size), middle, radius, self.size), source

    def selected(self, index: np.ndarray, position: int = 0) -> tuple[Selection, int]:
        """The term x[index], 0 where the index is -1."""
        flat = index.ravel()
        exact, radius = np.ones(flat.size), np.zeros(flat.size)
        return Selection(flat, exact, radius, math.prod(self.shape(position))), self.read(position)

    def maximum(self, source: int, entries: np.ndarray, *, has_floor: bool) -> int:
        """Appends a maximum over windows whose entries are (kernel entries, windows), -1 in the padding."""
        index = np.concatenate([entries, np.full((1, entries.shape[1]), -1)]) if has_floor else entries
        present = index >= 0
        present[-1] |= has_floor
        if not present.any(axis=0).all():
            raise UnsupportedOpError(f"node {self.node.name!r}: a window holds nothing but padding")
        operation = self.builder.operations[self.index]
        read = index[index >= 0]
        overlaps = len(np.unique(read)) < len(read)
        self.builder.shapes.append(self.node.shape)
        self.builder.steps.append(
            MaximumStep(len(self.builder.steps) + 1, source, operation, index, present, has_floor, overlaps)
        )
        return len(self.builder.steps)


def _merged_pairs(network: typed.Network) -> dict[int, int]:
    """ReLUs and max-pools that take in the max-pool or ReLU whose value they alone read: later node -> earlier node."""
    producer = [-1]
    for index, node in enumerate(network.nodes):
        producer.append(producer[node.inputs[0]] if isinstance(node.op, typed.Reshape) else index)
    computing = [node for node in network.nodes if not isinstance(node.op, typed.Reshape)]
    readers = Counter(producer[value] for node in computing for value in node.inputs)
    readers[producer[-1]] += 1
    partners: dict[type, type] = {typed.MaxPool: typed.Relu, typed.Relu: typed.MaxPool}
    pairs: dict[int, int] = {}
    for index, node in enumerate(network.nodes):
        earlier = producer[node.inputs[0]]
        partner = partners.get(type(node.op))
        if partner is None or earlier < 0 or earlier in pairs or readers[earlier] != 1:
            continue
        if isinstance(network.nodes[earlier].op, partner):
            pairs[index] = earlier
    return pairs


def _centred(value: Interval) -> tuple[np.ndarray, np.ndarray]:
    """A midpoint and a radius that cover the interval."""
    middle = np.where(value.lower == value.upper, value.lower, 0.5 * value.lower + 0.5 * value.upper)
    reach = np.maximum(value.upper - middle, middle - value.lower)
    return middle, np.where(reach == 0.0, 0.0, np.nextafter(reach, np.inf))


def _positions(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


def _plane(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UnsupportedOpError(f"a value has shape {shape}, wanted (channels, height, width)")
    return shape[0], shape[1], shape[2]


def _conv(op: typed.Conv, at: _Place) -> int:
    weight = op.weight.astype(np.float64)
    grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
    linear = Convolution(grouped, _plane(at.shape()), _plane(at.node.shape), op.strides, op.dilations, op.pads)
    return at.affine([(linear, at.read())], op.bias.astype(np.float64)[:, None, None])


def _dense(op: typed.Dense, at: _Place) -> int:
    linear = Matrix(op.weight.astype(np.float64), at.size // len(op.weight))
    return at.affine([(linear, at.read())], op.bias.astype(np.float64))


def _batch_norm(op: typed.BatchNorm, at: _Place) -> int:
    """Computes factor * x + shift - mean * factor, factor = scale / sqrt(variance + epsilon), both enclosed."""
    shape = (-1,) + (1,) * (len(at.node.shape) - 1)
    scale, shift, mean, variance = (
        interval.point(part.reshape(shape)) for part in (op.scale, op.shift, op.mean, op.variance)
    )
    deviation = interval.square_root(interval.add(variance, interval.point(np.array(op.epsilon))))
    factor = interval.divide(scale, deviation)
    moved = interval.subtract(interval.point(np.zeros(1)), interval.multiply(mean, factor))
    return at.affine([at.scaled(factor, at.read())], shift, moved)


def _reciprocal(values: np.ndarray) -> Interval:
    return interval.divide(interval.point(np.ones(1)), interval.point(values))


def _average_pool(op: typed.AveragePool, at: _Place) -> int:
    """Sums by a convolution with ones, divided by the counts in a step of its own."""
    out_shape = _plane(at.node.shape)
    ones = np.ones((out_shape[0], 1, 1, *op.kernel))
    linear = Convolution(ones, _plane(at.shape()), out_shape, op.strides, (1, 1), op.pads)
    counts = np.full(out_shape, float(op.kernel[0] * op.kernel[1]))
    if not op.count_include_pad:
        counts = linear.forward(np.ones((1, math.prod(at.shape()))))[0].reshape(out_shape)
    total = at.affine([(linear, at.read())])
    return at.affine([at.scaled(_reciprocal(counts), total)])


def _relu(_op: typed.Relu | typed.LeakyRelu, at: _Place) -> int:
    pool = at.taken
    if pool is not None:
        return at.maximum(pool.read(), _kernel_entries(pool.node.op, pool), has_floor=True)
    return at.maximum(at.read(), np.arange(at.size)[None, :], has_floor=True)


def _leaky_relu(op: typed.LeakyRelu, at: _Place) -> int:
    """Computes slope * x + (1 - slope) * max(x, 0)."""
    rest = interval.subtract(interval.point(np.ones(1)), interval.point(np.full(1, op.slope)))
    positive = _relu(op, at)
    return at.affine([at.scaled(op.slope, at.read()), at.scaled(rest, positive)])


def _max_pool(op: typed.MaxPool, at: _Place) -> int:
    relu = at.taken
    return at.maximum((relu or at).read(), _kernel_entries(op, at), has_floor=relu is not None)


def _kernel_entries(op: Any, at: _Place) -> np.ndarray:
    """The flat input entry of every kernel entry of every window: (kernel entries, windows), -1 in the padding."""
    _, height, width = _plane(at.node.shape)
    top, left, bottom, right = op.pads
    padded = np.pad(_positions(_plane(at.shape())), ((0, 0), (top, bottom), (left, right)), constant_values=-1)
    rows = []
    for i in range(op.kernel[0]):
        for j in range(op.kernel[1]):
            seen = padded[:, i * op.dilations[0] :: op.strides[0], j * op.dilations[1] :: op.strides[1]]
            rows.append(seen[:, :height, :width].ravel())
    return np.stack(rows)


def _transpose(op: typed.Transpose, at: _Place) -> int:
    return at.affine([at.selected(_positions(at.shape()).transpose(op.permutation))])


def _pad(op: typed.Pad, at: _Place) -> int:
    index = np.pad(_positions(at.shape()), op.amounts, constant_values=-1)
    return at.affine([at.selected(index)], np.where(index >= 0, 0.0, float(op.value)))


def _concat(op: typed.Concat, at: _Place) -> int:
    terms: list[tuple[LinearMap, int]] = []
    for position in range(len(at.node.inputs)):
        blocks = [np.full(at.shape(other), -1) for other in range(len(at.node.inputs))]
        blocks[position] = _positions(at.shape(position))
        terms.append(at.selected(np.concatenate(blocks, axis=op.axis), position))
    return at.affine(terms)


_RULES: dict[type, Callable[[Any, _Place], int]] = {
    typed.Conv: _conv,
    typed.Dense: _dense,
    typed.AddConstant: lambda op, at: at.affine([at.scaled(1.0, at.read())], op.offset),
    typed.MulConstant: lambda op, at: at.affine([at.scaled(interval.point(op.factor), at.read())]),
    typed.DivConstant: lambda op, at: at.affine([at.scaled(_reciprocal(op.divisor), at.read())]),
    typed.BatchNorm: _batch_norm,
    typed.Relu: _relu,
    typed.LeakyRelu: _leaky_relu,
    typed.MaxPool: _max_pool,
    typed.AveragePool: _average_pool,
    typed.Reshape: lambda _op, at: at.read(),
    typed.Transpose: _transpose,
    typed.Concat: _concat,
    typed.Pad: _pad,
    typed.Add: lambda _op, at: at.affine([at.scaled(1.0, at.read(0)), at.scaled(1.0, at.read(1))]),
    typed.Subtract: lambda _op, at: at.affine([at.scaled(1.0, at.read(0)), at.scaled(-1.0, at.read(1))]),
}
