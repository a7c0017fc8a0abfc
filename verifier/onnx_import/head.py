"""The trailing softmax, log-softmax or sigmoid of a file."""

from dataclasses import dataclass

import onnx

from verifier.errors import UnsupportedOpError
from verifier.network import Head
from verifier.onnx_import.rules import HEADS
from verifier.onnx_import.source import Source, node_title


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Where the scores are in the file.

    Attributes:
        head: What is applied to them.
        scores: The name of the value before the head.
        axis: Over which axis the head goes; None for a head without axis.
        title: The head's node, for messages.
    """

    head: Head
    scores: str
    axis: int | None
    title: str


def find_tail(source: Source) -> Tail:
    """The scores and the head of a file: the output's own operation, looking through Identity."""
    producers = {name: pair for pair in enumerate(source.model.graph.node) for name in pair[1].output}
    name = source.output_name
    while name in producers and producers[name][1].op_type == "Identity":
        name = producers[name][1].input[0]
    if name not in producers or producers[name][1].op_type not in HEADS:
        return Tail(Head.NONE, name, None, "")
    index, node = producers[name]
    return Tail(HEADS[node.op_type], node.input[0], _axis(node, source.opset), node_title(node, index, source.opset))


def _axis(node: onnx.NodeProto, opset: int) -> int | None:
    if node.op_type == "Sigmoid":
        return None
    stated = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return int(stated[0]) if stated else (1 if opset < 13 else -1)


def check_axis(source: Source, tail: Tail) -> None:
    """Refuses a head that does not go over the labels of a (batch, labels) value.

    Raises:
        UnsupportedOpError: Its axis is the batch.
    """
    if tail.axis not in (None, 1, -1):
        raise UnsupportedOpError(f"{source.path}: {tail.title}: axis {tail.axis}, wanted the label axis 1")
