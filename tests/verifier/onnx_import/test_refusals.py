"""What cannot be imported is an error of one line that names the file and the node."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_strategies import floats, model_bytes, network_files, node

from verifier.errors import AureoleError, ImportedNetworkError, InputError, UnsupportedOpError
from verifier.network import Network
from verifier.onnx_import import load_network, load_network_bytes

RNG = np.random.default_rng(3)
PLANE = (2, 5, 6)
W = {"w": floats(RNG, 4, 3)}


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def refused(data: bytes, kind: type[ImportedNetworkError], *parts: str) -> None:
    with pytest.raises(kind) as caught:
        load_network_bytes(data, "bad.onnx")
    message = str(caught.value)
    assert message.startswith("bad.onnx: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def plane(*nodes: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None, opset: int = 17) -> bytes:
    return model_bytes([*nodes, node("Flatten", "y", "scores")], PLANE, weights, opset=opset)


def row(
    *nodes: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None, opset: int = 17, labels: int = 4
) -> bytes:
    return model_bytes(list(nodes), (labels,), weights, opset=opset)


UNSUPPORTED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "no rule": (plane(node("Erf", "image", "y")), ("'y_node' (Erf, opset 17)", "supported: Add, AveragePool")),
    "no rule for values of the image": (
        plane(node("Slice", "image one two", "y"), weights={"one": ints(0), "two": ints(1)}),
        ("'y_node' (Slice", "values that depend on the image"),
    ),
    "a random constant": (
        row(node("RandomNormal", "", "c", shape=[4]), node("Add", "image c", "scores")),
        ("'c_node' (RandomNormal",),
    ),
    "softmax inside": (
        row(node("Softmax", "image", "p"), node("MatMul", "p w", "scores"), weights=W),
        ("'p_node' (Softmax", "last operation"),
    ),
    "sigmoid inside": (
        plane(node("Sigmoid", "image", "y")),
        ("'y_node' (Sigmoid", "last operation"),
    ),
    "sigmoid twice": (row(node("Sigmoid", "image", "p"), node("Sigmoid", "p", "scores")), ("'p_node' (Sigmoid",)),
    "softmax over the batch": (row(node("Softmax", "image", "scores", axis=0)), ("'scores_node'", "axis 0", "label axis")),
    "constant over image": (row(node("Div", "one image", "scores"), weights={"one": floats(RNG)}), ("piecewise linear",)),
    "product of two values": (row(node("Mul", "image image", "scores")), ("piecewise linear",)),
    "matrix product of two values": (
        plane(node("Transpose", "image", "t", perm=[0, 1, 3, 2]), node("MatMul", "image t", "y")),
        ("input 1 must be a constant",),
    ),
    "weights from the image": (
        plane(node("Conv", "w image", "y"), weights={"w": floats(RNG, 1, 2, 3, 3)}),
        ("input 0 must depend on the image",),
    ),
    "a second output is read": (
        row(node("Dropout", "image", "d mask"), node("Cast", "mask", "scores", to=TensorProto.FLOAT)),
        ("reads 'mask'",),
    ),
    "weights of another type": (
        row(node("Cast", "w", "v", to=TensorProto.DOUBLE), node("Cast", "image", "i", to=TensorProto.DOUBLE),
            node("MatMul", "i v", "d"), node("Cast", "d", "scores", to=TensorProto.FLOAT), weights=W),
        ("casts", "double"),
    ),
    "3-D convolution": (
        model_bytes(
            [node("Conv", "image w", "y"), node("Flatten", "y", "scores")],
            (2, 3, 3, 3),
            {"w": floats(RNG, 2, 2, 1, 1, 1)},
        ),
        ("only 2-D",),
    ),
    "pooling in 1-D": (
        model_bytes([node("MaxPool", "image", "y", kernel_shape=[2]), node("Flatten", "y", "scores")], (2, 6)),
        ("'y_node' (MaxPool",),
    ),
    "dilated average": (
        plane(node("AveragePool", "image", "y", kernel_shape=[2, 2], dilations=[2, 1]), opset=19),
        ("dilations (2, 1)",),
    ),
    "transA": (row(node("Gemm", "image w", "scores", transA=1), weights=W), ("transA",)),
    "training batch norm": (
        plane(
            node("BatchNormalization", "image w w w v", "y a b", training_mode=1),
            weights={"w": floats(RNG, 2), "v": np.ones(2, np.float32)},
            opset=15,
        ),
        ("evaluation mode",),
    ),
    "training dropout": (
        row(node("Dropout", "image r on", "scores"), weights={"r": np.float32(0.5), "on": np.array(True)}),
        ("evaluation mode",),
    ),
    "reflecting pad": (
        plane(node("Pad", "image pads", "y", mode="reflect"), weights={"pads": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
        ("mode 'reflect'",),
    ),
    "negative pad": (
        plane(node("Pad", "image pads", "y"), weights={"pads": ints(0, 0, -1, 0, 0, 0, 0, 0)}),
        ("no negative",),
    ),
    "pad of the batch": (
        plane(node("Pad", "image pads", "y"), weights={"pads": ints(1, 0, 0, 0, 0, 0, 0, 0)}),
        ("batch",),
    ),
    "reshape over the batch": (plane(node("Reshape", "image to", "y"), weights={"to": ints(2, 30)}), ("stay the batch",)),
    "reshape that drops the batch": (
        plane(node("Reshape", "image to", "y"), weights={"to": ints(-1)}),
        ("stay the batch",),
    ),
    "transposed batch": (plane(node("Transpose", "image", "y")), ("leaves the batch first",)),
    "flatten to one row": (plane(node("Flatten", "image", "y", axis=2)), ("stay the batch",)),
    "squeeze without axes": (plane(node("Squeeze", "image", "y")), ("name the axes",)),
    "squeeze of the batch": (plane(node("Squeeze", "image a", "y"), weights={"a": ints(0)}), ("not the batch",)),
    "unsqueeze before the batch": (plane(node("Unsqueeze", "image a", "y"), weights={"a": ints(0)}), ("before the batch",)),
    "concat of batches": (plane(node("Concat", "image image", "y", axis=0)), ("not the batch",)),
    "mean over the batch": (plane(node("ReduceMean", "image", "y", axes=[0, 1])), ("batch axis",)),
    "mean over all": (plane(node("ReduceMean", "image", "y")), ("batch axis",)),
    "residual of other shapes": (
        plane(node("ReduceMean", "image", "m", axes=[3]), node("Add", "image m", "y")),
        ("equal shapes",),
    ),
    "a constant that broadcasts the value": (
        row(node("Add", "image c", "y"), node("Flatten", "y", "scores"), weights={"c": floats(RNG, 3, 4)}),
        ("does not broadcast",),
    ),
    "weights that do not fit": (row(node("MatMul", "image w", "scores"), weights={"w": floats(RNG, 3, 3)}), ("does not fit",)),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_nodes_are_named(case: str) -> None:
    data, parts = UNSUPPORTED[case]
    refused(data, UnsupportedOpError, "node '", *parts)


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = onnx.load_model_from_string(row(node("MatMul", "image w", "scores"), weights=W))
    change(model)
    return bytes(model.SerializeToString())


def make_external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def sparsify(model: onnx.ModelProto) -> None:
    values, indices = numpy_helper.from_array(floats(RNG, 1), "s"), numpy_helper.from_array(ints(0))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def batch_of(size: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size

    return change


def typed(element: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = element

    return change


def second(kind: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        getattr(model.graph, kind).append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1, 4]))

    return change


def poisoned(value: float) -> bytes:
    weights = {"w": np.array([[value, 1.0]] * 4, np.float32)}
    return row(node("MatMul", "image w", "scores"), weights=weights)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an ONNX file"),
    "text": (b"this is no protocol buffer", "not an ONNX file"),
    "cut": (changed(lambda model: None)[:-20], "not an ONNX file"),
    "no opset": (changed(lambda model: model.ClearField("opset_import")), "no opset"),
    "old opset": (changed(lambda model: setattr(model.opset_import[0], "version", 6)), "got opset 6, wanted one of 7"),
    "future opset": (changed(lambda model: setattr(model.opset_import[0], "version", 99)), "got opset 99"),
    "external data": (changed(make_external), "weight 'w' lies in another file"),
    "sparse weights": (changed(sparsify), "sparse"),
    "two inputs": (changed(second("input")), "got 2 inputs (image, other)"),
    "no input": (changed(lambda model: model.graph.ClearField("input")), "got 0 inputs"),
    "two outputs": (changed(second("output")), "got 2 outputs"),
    "fixed batch": (changed(batch_of(8)), "shape (8, 4)"),
    "double": (
        model_bytes([node("Identity", "image", "scores")], (4,), element=TensorProto.DOUBLE),
        "input 'image' is double, wanted a float32",
    ),
    "a type from the future": (changed(typed(99)), "input 'image' is of unknown type 99"),
    "weights of another size": (
        changed(lambda model: model.graph.initializer[0].dims.append(2)),
        "w",
    ),
    "weights of a type from the future": (
        changed(lambda model: setattr(model.graph.initializer[0], "data_type", 99)),
        "w",
    ),
    "unknown height": (
        model_bytes([node("Flatten", "image", "scores")], (1, "height", 4)),
        "shape (?, 1, ?, 4)",
    ),
    "no batch axis": (
        changed(lambda model: model.graph.input[0].type.tensor_type.shape.dim.pop()),
        "wanted (batch, ...)",
    ),
    "undefined name": (row(node("MatMul", "image nothing", "scores")), "not a valid ONNX model"),
    "NaN weights": (poisoned(np.nan), "'w' holds NaN or infinity"),
    "infinite weights": (poisoned(np.inf), "'w' holds NaN or infinity"),
    "division by zero": (row(node("Div", "image z", "scores"), weights={"z": np.zeros(4, np.float32)}), "holds a zero"),
    "negative variance": (
        plane(
            node("BatchNormalization", "image w w w v", "y"),
            weights={"w": floats(RNG, 2), "v": np.array([1.0, -1.0], np.float32)},
        ),
        "not positive",
    ),
    "NaN slope": (row(node("LeakyRelu", "image", "scores", alpha=float("nan"))), "attribute 'alpha' is nan"),
    "overflow": (row(node("MatMul", "image w", "scores"), weights={"w": np.full((4, 2), 3e38, np.float32)}), "not finite"),
    "one label": (row(node("MatMul", "image w", "scores"), weights={"w": floats(RNG, 4, 1)}), "2 labels or more"),
    "scores of a plane": (
        model_bytes([node("Relu", "image", "scores")], PLANE),
        "the scores have shape (1, 2, 5, 6), wanted (batch, labels)",
    ),
    "constant scores": (
        row(node("Constant", "", "scores", value=numpy_helper.from_array(floats(RNG, 1, 4)))),
        "do not depend on the image",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(case: str) -> None:
    data, part = BAD[case]
    refused(data, ImportedNetworkError, part)


def test_custom_domain_is_refused_by_node() -> None:
    custom = helper.make_node("Gelu", ["image"], ["scores"], name="g1", domain="com.microsoft")
    refused(row(custom), UnsupportedOpError, "node 'g1' (Gelu, opset 17)", "com.microsoft")


def test_nameless_nodes_are_named_by_type_and_index() -> None:
    nodes = [helper.make_node("Relu", ["image"], ["r"]), helper.make_node("Erf", ["r"], ["scores"])]
    refused(row(*nodes), UnsupportedOpError, "node 'Erf_1' (Erf")


def test_messages_stay_one_line_whatever_the_names() -> None:
    nodes = [helper.make_node("Erf", ["image"], ["scores"], name="two\nlines")]
    refused(row(*nodes), UnsupportedOpError, r"node 'two\nlines' (Erf")


def test_missing_file_and_folder_are_refused(tmp_path) -> None:
    with pytest.raises(ImportedNetworkError, match="no such file"):
        load_network(tmp_path / "missing.onnx")
    with pytest.raises(ImportedNetworkError, match="cannot be read"):
        load_network(str(tmp_path))


def test_a_file_on_disk_loads(tmp_path) -> None:
    data = row(node("MatMul", "image w", "scores"), weights=W)
    path = tmp_path / "good.onnx"
    path.write_bytes(data)
    network = load_network(path)
    assert network.path == str(path)
    assert network.onnx_bytes == data
    assert issubclass(ImportedNetworkError, InputError)


@given(data=st.data())
@settings(max_examples=60)
def test_damaged_bytes_give_a_network_or_our_error(data) -> None:
    whole = bytearray(data.draw(network_files()))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        network = load_network_bytes(bytes(whole), "damaged.onnx")
    except AureoleError:
        return
    assert isinstance(network, Network)
