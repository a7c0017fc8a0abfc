"""Every operation, alone in a file, against ONNX Runtime."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_strategies import Weights, floats, model_bytes, node, runtime_outputs

from verifier.evaluation import apply_head, evaluate
from verifier.network import Network
from verifier.onnx_import import NEWEST_OPSET, OLDEST_OPSET, SUPPORTED_OPS, load_network_bytes

PLANE = (2, 5, 6)


def check(
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...] = PLANE,
    weights: Weights | None = None,
    opset: int = 17,
    batch: int | str | None = "batch",
) -> Network:
    """The imported network, after comparing it with ONNX Runtime on images beyond [0, 1] too; 'y' is flattened to scores."""
    if not any("scores" in entry.output for entry in nodes):
        nodes = [*nodes, node("Flatten", "y", "scores")]
    data = model_bytes(nodes, shape, weights, opset=opset, batch=batch)
    network = load_network_bytes(data, "test.onnx")
    images = np.random.default_rng(1).uniform(-1.0, 2.0, (5, *shape)).astype(np.float32)
    expected = runtime_outputs(data, images)
    actual = apply_head(network.head, evaluate(network, images))
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
    return network


RNG = np.random.default_rng(7)
CHANNEL = {name: floats(RNG, 2) for name in ("scale", "shift", "mean")} | {"variance": np.array([0.3, 2.0], np.float32)}
SIX = numpy_helper.from_array(floats(RNG, 6))
NORMALISE = "image scale shift mean variance"


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


# Operation -> cases: (nodes, input shape, weights, opsets).
CASES: dict[str, list[tuple[list[onnx.NodeProto], tuple[int, ...], dict[str, np.ndarray], tuple[int, ...]]]] = {
    "Conv": [
        ([node("Conv", "image w", "y")], PLANE, {"w": floats(RNG, 3, 2, 2, 3)}, (OLDEST_OPSET, 11, 22, NEWEST_OPSET))
    ],
    "Gemm": [
        ([node("Gemm", "image w b", "y", alpha=a, beta=b, transB=t)], (4,), {"w": w, "b": c}, (7, 11, 13))
        for a in (1.0, 0.5, 0.3)
        for b in (1.0, -2.0, 0.7, 0.0)
        for t, w in ((0, floats(RNG, 4, 3)), (1, floats(RNG, 3, 4)))
        for c in (floats(RNG, 3), floats(RNG, 1, 3), floats(RNG, 1), floats(RNG))
    ]
    + [([node("Gemm", "image w", "y", alpha=0.3)], (4,), {"w": floats(RNG, 4, 3)}, (11,))],
    "MatMul": [
        ([node("MatMul", "image w", "y")], (4,), {"w": floats(RNG, 4, 3)}, (9, 13)),
        ([node("MatMul", "image w", "y")], PLANE, {"w": floats(RNG, 6, 3)}, (13,)),
        ([node("MatMul", "image w", "y")], PLANE, {"w": floats(RNG, 1, 1, 6, 3)}, (13,)),
        ([node("MatMul", "w image", "y")], PLANE, {"w": floats(RNG, 3, 5)}, (13,)),
    ],
    "Add": [
        ([node("Add", inputs, "y")], PLANE, {"c": constant}, (7, 13, 14))
        for inputs in ("image c", "c image")
        for constant in (floats(RNG), floats(RNG, 2, 1, 1), floats(RNG, 1, 2, 5, 6), floats(RNG, 6))
    ]
    + [([node("Relu", "image", "r"), node("Add", "image r", "y")], PLANE, {}, (13,))]
    + [([node("Add", "image image", "y")], PLANE, {}, (13,))],
    "Sub": [
        ([node("Sub", inputs, "y")], PLANE, {"c": constant}, (7, 14))
        for inputs in ("image c", "c image")
        for constant in (floats(RNG, 2, 1, 1), np.array(0.25, np.float32))
    ]
    + [([node("Relu", "image", "r"), node("Sub", "image r", "y")], PLANE, {}, (13,))],
    "Mul": [
        ([node("Mul", inputs, "y")], PLANE, {"c": floats(RNG, 5, 1)}, (7, 14)) for inputs in ("image c", "c image")
    ],
    "Div": [([node("Div", "image c", "y")], PLANE, {"c": floats(RNG, 1, 2, 1, 1)}, (7, 14))],
    "Neg": [([node("Neg", "image", "y")], PLANE, {}, (7, 13))],
    "BatchNormalization": [
        ([node("BatchNormalization", NORMALISE, "y", epsilon=1e-3)], PLANE, CHANNEL, (7, 9, 14, 15)),
        ([node("BatchNormalization", NORMALISE, "y", momentum=0.8)], (2,), CHANNEL, (9, 15)),
    ],
    "Relu": [([node("Relu", "image", "y")], PLANE, {}, (7, 13, 14))],
    "LeakyRelu": [
        ([node("LeakyRelu", "image", "y", **kw)], PLANE, {}, (7, 16)) for kw in ({}, {"alpha": 0.3}, {"alpha": -1.5})
    ],
    "MaxPool": [([node("MaxPool", "image", "y", kernel_shape=[2, 3])], PLANE, {}, (7, 8, 10, 11, 12, 22))],
    "AveragePool": [([node("AveragePool", "image", "y", kernel_shape=[2, 3])], PLANE, {}, (7, 10, 11, 19, 22))],
    "GlobalAveragePool": [([node("GlobalAveragePool", "image", "y")], PLANE, {}, (7, 22))],
    "ReduceMean": [
        ([node("ReduceMean", "image", "y", axes=axes, keepdims=keep)], PLANE, {}, (7, 11, 13))
        for keep in (0, 1)
        for axes in ([2, 3], [-1, -2], [3], [2], [1, 3])
    ]
    + [
        ([node("ReduceMean", "image axes", "y", keepdims=keep)], PLANE, {"axes": ints(*axes)}, (18, NEWEST_OPSET))
        for keep in (0, 1)
        for axes in ((2, 3), (-1,), (1,))
        if axes != (1,) or keep
    ]
    + [([node("ReduceMean", "image", "y", noop_with_empty_axes=1)], PLANE, {}, (18,))],
    "Flatten": [([node("Flatten", "image", "scores", **kw)], PLANE, {}, (7, 9, 11, 13, 21)) for kw in ({}, {"axis": 1})]
    + [([node("Flatten", "image", "scores", axis=-3)], PLANE, {}, (11,))]
    + [([node("Flatten", "image", "scores", axis=3)], (1, 1, 6), {}, (11,))],
    "Reshape": [
        ([node("Reshape", "image to", "y")], PLANE, {"to": ints(*to)}, (7, 13, 14))
        for to in ((1, 60), (-1, 60), (0, 60), (0, -1), (1, -1), (0, 0, 30), (1, 2, 1, -1), (-1, 5, 12))
    ]
    + [
        ([node("Reshape", "image to", "y", allowzero=1)], PLANE, {"to": ints(*to)}, (14, 19))
        for to in ((-1, 60), (1, 2, 30))
    ],
    "Transpose": [
        ([node("Transpose", "image", "y", perm=perm)], PLANE, {}, (7, 13, 21)) for perm in ([0, 2, 3, 1], [0, 1, 2, 3])
    ],
    "Squeeze": [
        ([node("Squeeze", "image", "y", axes=[1, -1])], (1, 5, 1), {}, (7, 11)),
        ([node("Squeeze", "image axes", "y")], (1, 5, 1), {"axes": ints(-1)}, (13, 21)),
    ],
    "Unsqueeze": [
        ([node("Unsqueeze", "image", "y", axes=[1, 3])], (5, 2), {}, (7, 11)),
        ([node("Unsqueeze", "image axes", "y")], (5, 2), {"axes": ints(-1, 2)}, (13, 21)),
    ],
    "Concat": [
        ([node("Relu", "image", "r"), node("Concat", "image r image", "y", axis=axis)], PLANE, {}, (7, 11, 13))
        for axis in (1, 2, 3)
    ]
    + [([node("Relu", "image", "r"), node("Concat", "r image", "y", axis=-1)], PLANE, {}, (11,))],
    "Pad": [
        ([node("Pad", "image", "y", pads=[0, 1, 0, 2, 0, 0, 3, 1], **kw)], PLANE, {}, (7, 10))
        for kw in ({}, {"value": 0.3})
    ]
    + [
        (
            [node("Pad", "image pads value", "y")],
            PLANE,
            {"pads": ints(0, 1, 0, 2, 0, 0, 3, 1), "value": floats(RNG)},
            (11, 13, 18),
        )
    ]
    + [
        ([node("Pad", "image pads - axes", "y")], PLANE, {"pads": ints(1, 2, 0, 1), "axes": ints(-1, 1)}, (18, 21)),
        ([node("Pad", "image pads", "y")], PLANE, {"pads": ints(*[0] * 8)}, (13,)),
    ],
    "Identity": [([node("Identity", "image", "r"), node("Identity", "r", "y")], PLANE, {}, (7, 14, 16))],
    "Dropout": [
        ([node("Dropout", "image", "y")], PLANE, {}, (7, 10, 12, 13, 22)),
        (
            [node("Dropout", "image ratio off", "y mask")],
            PLANE,
            {"ratio": floats(RNG) * 0, "off": np.array(False)},
            (12, 13),
        ),
    ],
    "Constant": [
        ([node("Constant", "", "c", value=SIX), node("Add", "image c", "y")], PLANE, {}, (7, 9, 12)),
        ([node("Constant", "", "c", value_float=0.3), node("Mul", "image c", "y")], PLANE, {}, (12, 13)),
        ([node("Constant", "", "c", value_ints=[0, 60]), node("Reshape", "image c", "y")], PLANE, {}, (13,)),
    ],
    "Cast": [
        ([node("Cast", "image", "y", to=TensorProto.FLOAT)], PLANE, {}, (7, 9, 13, 19)),
        (
            [node("Cast", "half", "c", to=TensorProto.FLOAT), node("Mul", "c image", "y")],
            PLANE,
            {"half": np.float64(0.5)},
            (9, 13),
        ),
    ],
    "Shape": [
        (
            [
                node("Shape", "image", "sizes"),
                node("Slice", "sizes zero one", "first"),
                node("Concat", "first rest", "to", axis=0),
                node("Reshape", "image to", "y"),
            ],
            PLANE,
            {"zero": ints(0), "one": ints(1), "rest": ints(-1)},
            (10, 13),
        ),
        (
            [
                node("Shape", "image", "first", start=0, end=-2),
                node("Concat", "first rest", "to", axis=0),
                node("Reshape", "image to", "y"),
            ],
            PLANE,
            {"rest": ints(-1)},
            (15,),
        ),
    ],
    "Softmax": [([node("Softmax", "image", "scores", **kw)], (4,), {}, (7, 11, 13)) for kw in ({}, {"axis": 1})],
    "LogSoftmax": [([node("LogSoftmax", "image", "scores", **kw)], (4,), {}, (7, 11, 13)) for kw in ({}, {"axis": 1})],
    "Sigmoid": [([node("Sigmoid", "image", "scores")], (4,), {}, (7, 13))],
}


@pytest.mark.parametrize("op_type", SUPPORTED_OPS)
def test_agrees_with_onnx_runtime(op_type: str) -> None:
    for nodes, shape, weights, opsets in CASES[op_type]:
        for opset in opsets:
            check(nodes, shape, weights, opset)


def test_every_operation_the_design_names_is_supported() -> None:
    named = [
        "Conv",
        "Gemm",
        "MatMul",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "BatchNormalization",
        "Relu",
        "LeakyRelu",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Flatten",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "Pad",
        "Identity",
        "Dropout",
        "Constant",
        "Cast",
        "Softmax",
        "LogSoftmax",
        "Sigmoid",
    ]
    assert set(named) <= set(SUPPORTED_OPS)
    assert set(CASES) == set(SUPPORTED_OPS)


PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
AUTO_PADS = st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])


@given(data=st.data(), groups=st.integers(1, 2), kernel=PAIR, strides=PAIR, dilations=PAIR, auto_pad=AUTO_PADS)
@settings(max_examples=80)
def test_conv_agrees_with_onnx_runtime(data, groups, kernel, strides, dilations, auto_pad) -> None:
    channels, outputs = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    shape = (channels, 8, 9)
    attributes = {"strides": strides, "dilations": dilations, "group": groups, "auto_pad": auto_pad}
    if auto_pad.startswith("SAME"):
        attributes["dilations"] = (1, 1)  # ONNX Runtime has no automatic padding for others.
    if auto_pad == "NOTSET":
        attributes["pads"] = data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
    if data.draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    weights = {"w": floats(RNG, outputs, channels // groups, *kernel), "b": floats(RNG, outputs)}
    inputs = "image w b" if data.draw(st.booleans()) else "image w"
    check([node("Conv", inputs, "y", **attributes)], shape, weights)


@given(
    data=st.data(),
    kernel=PAIR,
    strides=PAIR,
    size=st.tuples(st.integers(4, 8), st.integers(4, 8)),
    ceil_mode=st.integers(0, 1),
    auto_pad=AUTO_PADS,
)
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@settings(max_examples=80)
def test_pooling_agrees_with_onnx_runtime(op_type, data, kernel, strides, size, ceil_mode, auto_pad) -> None:
    attributes = {"kernel_shape": kernel, "strides": strides, "ceil_mode": ceil_mode, "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        attributes["pads"] = [data.draw(st.integers(0, kernel[axis % 2] - 1)) for axis in range(4)]
        if op_type == "MaxPool" and kernel != (3, 3):
            attributes["dilations"] = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    elif auto_pad.startswith("SAME"):
        # ONNX Runtime refuses the negative pads that strides beyond the kernel would ask for.
        attributes["strides"] = tuple(min(pair) for pair in zip(strides, kernel, strict=True))
    if op_type == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    check([node(op_type, "image", "y", **attributes)], (2, *size), opset=data.draw(st.sampled_from([10, 17, 22])))


def test_every_supported_opset_imports_one_convolutional_network() -> None:
    weights = {"w": floats(RNG, 3, 2, 3, 3), "v": floats(RNG, 36, 4)}
    nodes = [
        node("Conv", "image w", "c"),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("MatMul", "f v", "scores"),
    ]
    for opset in range(OLDEST_OPSET, NEWEST_OPSET + 1):
        check(nodes, PLANE, weights, opset)


@pytest.mark.parametrize("batch", [1, None, "N"])
def test_the_batch_axis_may_be_one_unknown_or_named(batch) -> None:
    assert check([node("Flatten", "image", "scores")], PLANE, batch=batch).input_shape == PLANE


def test_old_exporters_padding_chain_is_folded() -> None:
    # What torch's TorchScript exporter writes for F.pad(x, (1, 2, 0, 1)) at opset 11 to 17.
    nodes = [
        node("Constant", "", "amounts", value=numpy_helper.from_array(ints(1, 2, 0, 1))),
        node("Constant", "", "missing", value=numpy_helper.from_array(ints(4))),
        node("ConstantOfShape", "missing", "zeros", value=numpy_helper.from_array(ints(0))),
        node("Concat", "amounts zeros", "flat", axis=0),
        node("Reshape", "flat pairs", "matrix"),
        node("Slice", "matrix minus_one lowest zero minus_one", "backwards"),
        node("Transpose", "backwards", "turned", perm=[1, 0]),
        node("Reshape", "turned all", "listed"),
        node("Cast", "listed", "pads", to=TensorProto.INT64),
        node("Pad", "image pads", "y", mode="constant"),
    ]
    weights = {
        "pairs": ints(-1, 2),
        "minus_one": ints(-1),
        "lowest": ints(-(2**63) + 1),
        "zero": ints(0),
        "all": ints(-1),
    }
    network = check(nodes, PLANE, weights, opset=11)
    assert [type(entry.op).__name__ for entry in network.nodes] == ["Pad", "Reshape"]
    assert network.nodes[0].shape == (2, 6, 9)


def test_shape_gather_concat_chain_is_folded() -> None:
    nodes = [
        node("Shape", "image", "sizes"),
        node("Gather", "sizes zero", "batch", axis=0),
        node("Unsqueeze", "batch", "batch1", axes=[0]),
        node("Concat", "batch1 rest", "to", axis=0),
        node("Reshape", "image to", "scores"),
    ]
    network = check(nodes, PLANE, {"zero": np.int64(0), "rest": ints(-1)}, opset=11)
    assert [type(entry.op).__name__ for entry in network.nodes] == ["Reshape"]


def test_weights_made_from_constants_are_folded() -> None:
    nodes = [node("Transpose", "w", "v"), node("Mul", "v two", "u"), node("MatMul", "image u", "y")]
    weights = {"w": floats(RNG, 3, 4), "two": np.float32(2)}
    network = check(nodes, (4,), weights)
    np.testing.assert_array_equal(network.nodes[0].op.weight, 2 * weights["w"])


def test_weights_are_kept_exactly_and_read_only() -> None:
    weights = {"w": floats(RNG, 3, 2, 3, 3), "b": floats(RNG, 3)}
    op = check([node("Conv", "image w b", "y")], PLANE, weights).nodes[0].op
    np.testing.assert_array_equal(op.weight, weights["w"])
    np.testing.assert_array_equal(op.bias, weights["b"])
    assert op.weight.dtype == op.bias.dtype == np.float32
    for array in (op.weight, op.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_gemm_factors_are_exact() -> None:
    # alpha 0.3 is no power of two: the weights stay as they are, the factor and the two parts of beta C follow.
    weights = {"w": floats(RNG, 4, 3), "b": floats(RNG, 3)}
    network = check([node("Gemm", "image w b", "scores", alpha=0.3, beta=0.7)], (4,), weights)
    dense, factor, *offsets = (entry.op for entry in network.nodes)
    np.testing.assert_array_equal(dense.weight, weights["w"].T)
    assert factor.factor == np.float32(0.3)
    exact = np.float64(np.float32(0.7)) * weights["b"].astype(np.float64)
    np.testing.assert_array_equal(sum(entry.offset.astype(np.float64) for entry in offsets), exact)


def test_a_node_nothing_depends_on_is_ignored() -> None:
    nodes = [node("Erf", "image", "unused"), node("Flatten", "image", "scores")]
    assert len(check(nodes).nodes) == 1


def test_a_weight_listed_as_an_input_is_a_weight() -> None:
    data = model_bytes([node("Gemm", "image w", "scores")], (4,), {"w": floats(RNG, 4, 3)})
    model = onnx.load_model_from_string(data)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    assert load_network_bytes(model.SerializeToString(), "old.onnx").input_shape == (4,)


def test_a_network_that_is_only_a_head_has_a_node() -> None:
    network = check([node("Softmax", "image", "scores")], (4,))
    assert network.labels == 4
    assert len(network.nodes) == 1
