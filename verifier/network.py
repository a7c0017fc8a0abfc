"""A network: an immutable, topologically ordered graph of typed operations, float32 weights kept exactly.

Value 0 is the input image; node i produces value i + 1. Shapes never include the batch axis. Nodes know their operation and
the values they read, nothing else: analyses return new values beside the graph.
"""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float32

Array32 = Float32[np.ndarray, "..."]
Window = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Conv:
    """A 2-D convolution as ONNX defines it. Pads are (top, left, bottom, right)."""

    weight: Float32[np.ndarray, "out in_per_group kh kw"]
    bias: Float32[np.ndarray, " out"]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: int


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """y = weight @ x + bias on the last axis (Gemm, or MatMul by a constant with a zero bias)."""

    weight: Float32[np.ndarray, "out in"]
    bias: Float32[np.ndarray, " out"]


@dataclass(frozen=True, slots=True, eq=False)
class AddConstant:
    """y = x + offset, the offset broadcast to x's shape."""

    offset: Array32


@dataclass(frozen=True, slots=True, eq=False)
class MulConstant:
    """y = x * factor, the factor broadcast to x's shape."""

    factor: Array32


@dataclass(frozen=True, slots=True, eq=False)
class DivConstant:
    """y = x / divisor, the divisor (no zero in it) broadcast to x's shape."""

    divisor: Array32


@dataclass(frozen=True, slots=True, eq=False)
class BatchNorm:
    """Inference-mode batch normalisation over axis 0: scale (x - mean) / sqrt(variance + epsilon) + shift."""

    scale: Float32[np.ndarray, " channels"]
    shift: Float32[np.ndarray, " channels"]
    mean: Float32[np.ndarray, " channels"]
    variance: Float32[np.ndarray, " channels"]
    epsilon: float


@dataclass(frozen=True, slots=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class LeakyRelu:
    """x where x >= 0, slope * x elsewhere; the slope is the float32 of the file."""

    slope: float


@dataclass(frozen=True, slots=True)
class MaxPool:
    """The maximum of each window; padding never wins. Pads are (top, left, bottom, right), already resolved for ceil_mode."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AveragePool:
    """The mean of each window, over its entries inside the image or, with count_include_pad, over the padded ones too."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    count_include_pad: bool


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same entries in C order under another shape (Flatten, Reshape, Squeeze, Unsqueeze)."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transpose:
    """Axes permuted; axis 0 is the first after the batch axis."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """Values joined along an axis (not the batch axis)."""

    axis: int


@dataclass(frozen=True, slots=True)
class Pad:
    """Constant padding: (before, after) per axis; negative amounts are not allowed."""

    amounts: tuple[tuple[int, int], ...]
    value: float


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two values of one shape (a residual connection)."""


@dataclass(frozen=True, slots=True)
class Subtract:
    """The first value minus the second, of one shape."""


Op = (
    Conv
    | Dense
    | AddConstant
    | MulConstant
    | DivConstant
    | BatchNorm
    | Relu
    | LeakyRelu
    | MaxPool
    | AveragePool
    | Reshape
    | Transpose
    | Concat
    | Pad
    | Add
    | Subtract
)


class Head(Enum):
    """What the file applies to the scores after the last typed operation."""

    NONE = "none"
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log-softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation of the graph.

    Attributes:
        name: The ONNX node's name (or its type and index), for messages.
        op: The operation with its constants.
        inputs: The values read, each smaller than this node's own value index.
        shape: The shape of the value produced, without the batch axis.
    """

    name: str
    op: Op
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network as read from an ONNX file.

    The scores are the last node's value, one per label: logits, before `head`.

    Attributes:
        input_shape: (channels, height, width), or another shape without the batch axis.
        nodes: In topological order; the last has shape (labels,).
        head: The trailing activation of the file, not part of `nodes`.
        onnx_bytes: The file, for replays in ONNX Runtime.
        sha256: Of those bytes, in hexadecimal.
        path: Where the file was read from, for messages.
    """

    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    head: Head
    onnx_bytes: bytes
    sha256: str
    path: str

    @property
    def labels(self) -> int:
        """The number of labels C."""
        return int(self.nodes[-1].shape[0])

    @property
    def entries(self) -> int:
        """The numbers in all values of one image, the image included: a measure of the work that one image makes."""
        return sum(math.prod(self.value_shape(value)) for value in range(len(self.nodes) + 1))

    def last_reads(self) -> tuple[tuple[int, ...], ...]:
        """For each node the values that it is the last to read: a walk lets them go there and needs little memory."""
        last = {value: index for index, node in enumerate(self.nodes) for value in node.inputs}
        return tuple(
            tuple(value for value in set(node.inputs) if last[value] == index) for index, node in enumerate(self.nodes)
        )

    def value_shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value: 0 is the input, i + 1 is node i's."""
        return self.nodes[value - 1].shape if value else self.input_shape
