"""One ONNX node as its rule sees it, and the graph under construction that rules append to."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

from verifier.errors import ImportedNetworkError, UnsupportedOpError
from verifier.network import Node, Op, Reshape


@dataclass(frozen=True, slots=True)
class Traced:
    """A value that depends on the image.

    Attributes:
        value: Its index in the network.
        shape: Without the batch axis.
    """

    value: int
    shape: tuple[int, ...]


Known = Traced | np.ndarray


@dataclass(slots=True)
class GraphBuilder:
    """The nodes translated so far; used while one file is imported, and by nobody else."""

    nodes: list[Node] = field(default_factory=list)

    def append(self, name: str, op: Op, inputs: tuple[int, ...], shape: tuple[int, ...]) -> Traced:
        """The value that a new node produces."""
        self.nodes.append(Node(name, op, inputs, shape))
        return Traced(len(self.nodes), shape)


def frozen32(array: np.ndarray) -> Float32[np.ndarray, "..."]:
    """A read-only C-ordered float32 copy."""
    copy: np.ndarray = np.array(array, dtype=np.float32, order="C", copy=True)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One ONNX node with its inputs looked up.

    Attributes:
        name: The node's name, or its type and index.
        op_type: Its ONNX type.
        opset: Of the file.
        path: The file, for messages.
        attributes: By name; tensors are protocol buffers, floats are the doubles of the file's float32.
        input_names: As in the file; "" where an optional input is left out.
        inputs: What these names stand for; None where left out.
        graph: Where translated nodes go.
    """

    name: str
    op_type: str
    opset: int
    path: str
    attributes: Mapping[str, Any]
    input_names: tuple[str, ...]
    inputs: tuple[Known | None, ...]
    graph: GraphBuilder

    @property
    def title(self) -> str:
        """How messages name this node."""
        return f"{self.path}: node {self.name!r} ({self.op_type}, opset {self.opset})"

    def unsupported(self, reason: str) -> UnsupportedOpError:
        """An error that names this node and says why it does not fit."""
        return UnsupportedOpError(f"{self.title}: {reason}")

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        return tuple(int(entry) for entry in self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """A float attribute: the double equal to its float32, the default rounded likewise.

        Raises:
            ImportedNetworkError: It is NaN or infinite.
        """
        value = float(self.attributes.get(name, float(np.float32(default))))
        if not math.isfinite(value):
            raise ImportedNetworkError(f"{self.title}: attribute '{name}' is {value}, wanted a finite number")
        return value

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def has_input(self, index: int) -> bool:
        """Whether the optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def traced(self, index: int) -> Traced:
        """An input that depends on the image.

        Raises:
            UnsupportedOpError: It is a constant, or left out.
        """
        known = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(known, Traced):
            raise self.unsupported(f"input {index} must depend on the image, here it is a constant or left out")
        return known

    def constant(self, index: int) -> np.ndarray:
        """An input that is a constant of any type.

        Raises:
            UnsupportedOpError: It depends on the image, or is left out.
        """
        known = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(known, np.ndarray):
            raise self.unsupported(f"input {index} must be a constant, here it depends on the image or is left out")
        return known

    def weight(self, index: int) -> Float32[np.ndarray, "..."]:
        """A constant float32 input, read-only.

        Raises:
            UnsupportedOpError: It depends on the image or has another type.
            ImportedNetworkError: It holds NaN or infinity.
        """
        array = self.constant(index)
        if array.dtype != np.float32:
            raise self.unsupported(f"{self.input_names[index]!r} is {array.dtype}, wanted float32 weights")
        if not np.isfinite(array).all():
            raise ImportedNetworkError(
                f"{self.title}: {self.input_names[index]!r} holds NaN or infinity, wanted finite weights"
            )
        return frozen32(array)

    def axes(self, index: int, since: int, default: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The `axes` of this node: an attribute before opset `since`, input `index` from then on."""
        if self.opset < since:
            return self.integers("axes", ()) if "axes" in self.attributes else default
        if not self.has_input(index):
            return default
        return tuple(int(axis) for axis in self.constant(index).reshape(-1))

    def emit(self, op: Op, inputs: tuple[Traced, ...], shape: tuple[int, ...]) -> Traced:
        """The value of a new network node that carries this node's name."""
        return self.graph.append(self.name, op, tuple(known.value for known in inputs), shape)

    def reshape(self, known: Traced, full_shape: tuple[int, ...]) -> Traced:
        """The same entries under another shape, given with its batch axis.

        Raises:
            UnsupportedOpError: The shape's first axis is not one image, or it holds another number of entries.
        """
        if not full_shape or full_shape[0] != 1 or math.prod(full_shape) != math.prod(known.shape):
            raise self.unsupported(
                f"turns one image's {(1, *known.shape)} into {full_shape}; the first axis must stay the batch"
            )
        shape = full_shape[1:]
        return known if shape == known.shape else self.emit(Reshape(shape), (known,), shape)

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis of a value with `rank` axes (the batch included), from 0.

        Raises:
            UnsupportedOpError: Out of range.
        """
        if not -rank <= axis < rank:
            raise self.unsupported(f"axis {axis} is out of range for {rank} axes")
        return axis % rank


Rule = Callable[[Call], Known]
