"""ONNX files for tests: built from nodes and weights, and drawn at random by hypothesis.

The strategy yields bytes: import them in the test, not in the strategy, because run-time type checks draw random numbers, which
hypothesis does not allow while it generates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Weights = Mapping[str, np.ndarray]


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node named after its output; inputs are separated by spaces, '-' leaves one out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, output.split(), name=f"{output.split(maxsplit=1)[0]}_node", **attributes)


def model_bytes(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int],
    weights: Weights | None = None,
    *,
    opset: int = 17,
    batch: int | str | None = "batch",
    output: str = "scores",
    element: int = TensorProto.FLOAT,
) -> bytes:
    """A file with the input 'image' (batch, *shape) and one output; arrays in `weights` become initializers."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    image = helper.make_tensor_value_info("image", element, [batch, *shape])
    scores = helper.make_tensor_value_info(output, element, [batch, None])
    graph = helper.make_graph(list(nodes), "test", [image], [scores], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def runtime_outputs(data: bytes, images: np.ndarray) -> np.ndarray:
    """What ONNX Runtime answers, one image at a time; independent of `verifier.runtime`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def floats(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Float32 numbers, normally distributed."""
    return generator.standard_normal(shape).astype(np.float32)


@st.composite
def network_files(draw: st.DrawFn, *, has_pooling: bool = True, has_residual: bool = True) -> bytes:
    """Random small convolutional classifiers: at most two blocks on at most 2 x 6 x 6 pixels, then one or two dense layers."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="weights"))
    shape = (draw(st.integers(1, 2)), draw(st.integers(4, 6)), draw(st.integers(4, 6)))
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    value, (channels, height, width) = "image", shape
    blocks = ["conv", "normalise", "leaky"] + ["maxpool", "averagepool"] * has_pooling + ["residual"] * has_residual
    for step, block in enumerate(draw(st.lists(st.sampled_from(blocks), max_size=2), label="blocks")):
        name = f"{block}{step}"
        match block:
            case "conv":
                weights[f"{name}.w"], weights[f"{name}.b"] = floats(generator, 2, channels, 2, 2), floats(generator, 2)
                nodes.append(node("Conv", f"{value} {name}.w {name}.b", f"{name}.pre"))
                nodes.append(node("Relu", f"{name}.pre", name))
                channels, height, width = 2, height - 1, width - 1
            case "normalise":
                for part in ("scale", "shift", "mean"):
                    weights[f"{name}.{part}"] = floats(generator, channels)
                weights[f"{name}.variance"] = generator.uniform(0.5, 2.0, channels).astype(np.float32)
                parts = " ".join(f"{name}.{part}" for part in ("scale", "shift", "mean", "variance"))
                nodes.append(node("BatchNormalization", f"{value} {parts}", name))
            case "leaky":
                nodes.append(node("LeakyRelu", value, name, alpha=draw(st.sampled_from([0.01, 0.3]))))
            case "residual":
                weights[f"{name}.w"] = floats(generator, channels, channels, 1, 1)
                nodes.append(node("Conv", f"{value} {name}.w", f"{name}.pre"))
                nodes.append(node("Relu", f"{name}.pre", f"{name}.post"))
                nodes.append(node("Add", f"{name}.post {value}", name))
            case _:
                operation = "MaxPool" if block == "maxpool" else "AveragePool"
                nodes.append(node(operation, value, name, kernel_shape=[2, 2], strides=[1, 2]))
                height, width = height - 1, (width - 2) // 2 + 1
        value = name
    nodes.append(node("Flatten", value, "flat"))
    value, size = "flat", channels * height * width
    if draw(st.booleans(), label="hidden layer"):
        weights["hidden.w"], weights["hidden.b"] = floats(generator, 3, size), floats(generator, 3)
        nodes.append(node("Gemm", f"{value} hidden.w hidden.b", "hidden.pre", transB=1))
        nodes.append(node("Relu", "hidden.pre", "hidden"))
        value, size = "hidden", 3
    labels = draw(st.integers(2, 4), label="labels")
    weights["last.w"], weights["last.b"] = floats(generator, size, labels), floats(generator, labels)
    nodes.append(node("Gemm", f"{value} last.w last.b", "scores"))
    return model_bytes(nodes, shape, weights)
