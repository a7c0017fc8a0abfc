"""ONNX file to network: the walk over the nodes that the scores depend on."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from verifier.errors import ImportedNetworkError, UnsupportedOpError
from verifier.network import Network, Reshape
from verifier.onnx_import.call import Call, GraphBuilder, Known, Traced
from verifier.onnx_import.constants import FOLDABLE_OPS, fold
from verifier.onnx_import.head import Tail, check_axis, find_tail
from verifier.onnx_import.replay import check_replay
from verifier.onnx_import.rules import HEADS, RULES, SUPPORTED_OPS, translate
from verifier.onnx_import.source import Source, check_model, node_name, node_title, parse, read_bytes
from verifier.runtime import first_line


def load_network(path: str | Path) -> Network:
    """The network in an ONNX file, its evaluation compared with ONNX Runtime's.

    Args:
        path: The file; one float32 input (batch, ...) and one float32 output (batch, labels).

    Raises:
        ImportedNetworkError: The file is missing, damaged, or not such a network.
        UnsupportedOpError: A node has no exact counterpart; the message names it.
        ReplayMismatchError: Our evaluation and ONNX Runtime's disagree beyond float32 rounding.
    """
    return load_network_bytes(read_bytes(Path(path)), str(path))


def load_network_bytes(data: bytes, name: str) -> Network:
    """The network in the bytes of an ONNX file; `name` stands for the path in messages. Raises as `load_network` does."""
    source = parse(data, name)
    tail = find_tail(source)
    _refuse_unknown_ops(source, tail)
    check_model(source)
    graph = GraphBuilder()
    scores = _walk(source, tail, graph)
    check_axis(source, tail)
    if not isinstance(scores, Traced):
        raise ImportedNetworkError(f"{name}: the scores {tail.scores!r} do not depend on the image")
    if len(scores.shape) != 1 or scores.shape[0] < 2:
        raise ImportedNetworkError(
            f"{name}: the scores have shape {(1, *scores.shape)}, wanted (batch, labels) with 2 labels or more"
        )
    if not graph.nodes:
        graph.append("scores", Reshape(scores.shape), (0,), scores.shape)
    sha256 = hashlib.sha256(data).hexdigest()
    network = Network(source.input_shape, tuple(graph.nodes), tail.head, data, sha256, name)
    check_replay(network, source, tail)
    return network


def _needed(source: Source, tail: Tail) -> dict[int, onnx.NodeProto]:
    """The nodes that the scores depend on, by index, in the file's order."""
    wanted, needed = {tail.scores}, {}
    for index, node in reversed(list(enumerate(source.model.graph.node))):
        if wanted & set(node.output):
            needed[index] = node
            wanted |= set(node.input)
    return dict(reversed(needed.items()))


def _refuse_unknown_ops(source: Source, tail: Tail) -> None:
    """Refuses types that neither a rule nor the folding of constants knows, before any other work."""
    for index, node in _needed(source, tail).items():
        if node.op_type not in RULES and node.op_type not in HEADS and node.op_type not in FOLDABLE_OPS:
            raise UnsupportedOpError(
                f"{source.path}: {node_title(node, index, source.opset)} is not supported; supported: {', '.join(SUPPORTED_OPS)}"
            )


def _walk(source: Source, tail: Tail, graph: GraphBuilder) -> Known:
    known: dict[str, Known] = {tensor.name: _array(source, tensor) for tensor in source.model.graph.initializer}
    known[source.input_name] = Traced(0, source.input_shape)
    for index, node in _needed(source, tail).items():
        inputs = tuple(_look_up(source, known, node, index, name) for name in node.input)
        known.update(_outputs(source, graph, node, index, inputs))
    if tail.scores not in known:
        raise ImportedNetworkError(f"{source.path}: no node produces the scores {tail.scores!r}")
    return known[tail.scores]


def _array(source: Source, tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, KeyError, TypeError) as error:
        raise ImportedNetworkError(f"{source.path}: weight {tensor.name!r} is damaged: {first_line(error)}") from error


def _look_up(source: Source, known: Mapping[str, Known], node: onnx.NodeProto, index: int, name: str) -> Known | None:
    if not name:
        return None
    if name not in known:
        raise UnsupportedOpError(
            f"{source.path}: {node_title(node, index, source.opset)} reads {name!r}, a second output that is not supported"
        )
    return known[name]


def _outputs(
    source: Source, graph: GraphBuilder, node: onnx.NodeProto, index: int, inputs: tuple[Known | None, ...]
) -> dict[str, Known]:
    """What the node produces, by name: folded if all its inputs are constants, translated otherwise (its first output)."""
    title = f"{source.path}: {node_title(node, index, source.opset)}"
    arrays = [entry for entry in inputs if isinstance(entry, np.ndarray)]
    if not any(isinstance(entry, Traced) for entry in inputs):
        if node.op_type not in FOLDABLE_OPS:
            raise UnsupportedOpError(f"{title}: not supported on constants only")
        try:
            results = fold(node, source.opset, arrays)
        except Exception as error:  # the reference implementation raises many kinds
            raise UnsupportedOpError(f"{title}: its constants cannot be folded: {first_line(error)}") from error
        return dict(zip(node.output, results, strict=True))
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    name = node_name(node, index)
    call = Call(name, node.op_type, source.opset, source.path, attributes, tuple(node.input), inputs, graph)
    return {node.output[0]: translate(call)}
