"""From bytes to a checked ONNX model with one float32 image input and one float32 output."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from verifier.errors import ImportedNetworkError, UnsupportedOpError
from verifier.runtime import first_line

OLDEST_OPSET, NEWEST_OPSET = 7, 26
_DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A parsed file whose outline fits: no external data, no custom domain, one input, one output, a known opset.

    Attributes:
        model: The protocol buffer; nobody changes it.
        path: For messages.
        opset: Of the default domain.
        input_name: The image.
        input_shape: Its shape without the batch axis.
        output_name: The scores.
    """

    model: onnx.ModelProto
    path: str
    opset: int
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        ImportedNetworkError: It does not exist, is no file, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImportedNetworkError(f"{path}: no such file; give the path of an ONNX file") from error
    except OSError as error:
        raise ImportedNetworkError(f"{path}: cannot be read: {error.strerror or error}") from error


def node_title(node: onnx.NodeProto, index: int, opset: int) -> str:
    """How messages name a node: its name (or type and index), its type and the opset."""
    return f"node {node_name(node, index)!r} ({node.op_type}, opset {opset})"


def node_name(node: onnx.NodeProto, index: int) -> str:
    """The node's name, or its type and index where the file gives none."""
    return node.name or f"{node.op_type}_{index}"


def parse(data: bytes, path: str) -> Source:
    """The model in `data`, its outline checked; ops are not looked at yet, except for their domain.

    Raises:
        ImportedNetworkError: Not an ONNX model; external data; an opset outside the supported range; several inputs or
            outputs, not float32, an unknown shape, or a batch axis fixed at more than one.
        UnsupportedOpError: A node of a custom domain.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError; the package ships no types
        raise ImportedNetworkError(f"{path}: not an ONNX file, or a damaged one: {first_line(error)}") from error
    if not model.graph.output or not model.opset_import:
        raise ImportedNetworkError(f"{path}: not an ONNX file, or a damaged one: it has no output or no opset")
    _check_names(model, path)
    opset = _opset(model, path)
    _check_domains(model, path, opset)
    _check_data(model, path)
    input_name, input_shape = _image_input(model.graph, path)
    return Source(model, path, opset, input_name, input_shape, _score_output(model.graph, path))


def check_model(source: Source) -> None:
    """Refuses what ONNX's own checker refuses: unsorted graphs, undefined names, malformed attributes.

    Raises:
        ImportedNetworkError: With the checker's first line.
    """
    try:
        onnx.checker.check_model(source.model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ImportedNetworkError(f"{source.path}: not a valid ONNX model: {first_line(error)}") from error


def type_name(element: int) -> str:
    """An ONNX element type in words, such as 'double'; its number where ONNX gives it no name."""
    names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    return str(names.get(element, f"of unknown type {element}"))


def _opset(model: onnx.ModelProto, path: str) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in _DEFAULT_DOMAINS]
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        got = ", ".join(map(str, versions)) or "none"
        raise ImportedNetworkError(
            f"{path}: got opset {got}, wanted one of {OLDEST_OPSET} to {NEWEST_OPSET}; "
            "convert it with onnx.version_converter or export it again"
        )
    return int(versions[0])


def _check_names(model: onnx.ModelProto, path: str) -> None:
    """Refuses names that are not UTF-8: protobuf hands these over as bytes, which no message or lookup expects."""
    graph = model.graph
    tensors = (*graph.input, *graph.output, *graph.initializer)
    names = [entry.domain for entry in model.opset_import] + [tensor.name for tensor in tensors]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
    broken = [name for name in names if not isinstance(name, str)]
    if broken:
        raise ImportedNetworkError(f"{path}: not an ONNX file, or a damaged one: the name {broken[0]!r} is not UTF-8")


def _check_domains(model: onnx.ModelProto, path: str, opset: int) -> None:
    for index, node in enumerate(model.graph.node):
        if node.domain not in _DEFAULT_DOMAINS:
            raise UnsupportedOpError(
                f"{path}: {node_title(node, index, opset)} belongs to the domain {node.domain!r}; "
                "only standard ONNX operations are supported"
            )


def _check_data(model: onnx.ModelProto, path: str) -> None:
    if model.graph.sparse_initializer:
        raise ImportedNetworkError(f"{path}: sparse initializers are not supported; store the weights densely")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ImportedNetworkError(
                f"{path}: weight {tensor.name!r} lies in another file; save the network as one file "
                "(onnx.save(onnx.load(path), new_path), or torch.onnx.export(..., external_data=False))"
            )


def _tensor_type(value: onnx.ValueInfoProto, what: str, path: str) -> onnx.TypeProto.Tensor:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type != onnx.TensorProto.FLOAT:
        raise ImportedNetworkError(
            f"{path}: {what} {value.name!r} is {type_name(tensor.elem_type)}, wanted a float32 tensor (ONNX 'float')"
        )
    return tensor


def _image_input(graph: onnx.GraphProto, path: str) -> tuple[str, tuple[int, ...]]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name)[1:-1] for value in inputs) or "none"
        raise ImportedNetworkError(f"{path}: got {len(inputs)} inputs ({names}), wanted one, the image")
    tensor = _tensor_type(inputs[0], "input", path)
    if not tensor.HasField("shape"):
        raise ImportedNetworkError(
            f"{path}: input {inputs[0].name!r} has no shape, wanted (batch, ...) with fixed sizes"
        )
    sizes = [axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim]
    text = ", ".join("?" if size is None else str(size) for size in sizes)
    if len(sizes) < 2 or sizes[0] not in (None, 1) or any(size is None or size < 1 for size in sizes[1:]):
        raise ImportedNetworkError(
            f"{path}: input {inputs[0].name!r} has shape ({text}), wanted (batch, ...) where batch is 1 or dynamic "
            "and all other sizes are fixed"
        )
    return inputs[0].name, tuple(int(size) for size in sizes[1:] if size is not None)


def _score_output(graph: onnx.GraphProto, path: str) -> str:
    if len(graph.output) != 1:
        names = ", ".join(repr(value.name)[1:-1] for value in graph.output)
        raise ImportedNetworkError(f"{path}: got {len(graph.output)} outputs ({names}), wanted one, the scores")
    _tensor_type(graph.output[0], "output", path)
    return graph.output[0].name
