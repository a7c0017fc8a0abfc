"""Tiny convolutional networks with ReLU and pools, in four orders, and queries on them whose exact margin can be enumerated."""

import numpy as np
import onnx
from enumeration import exact_margin
from onnx import TensorProto, helper, numpy_helper

from verifier.lowering import lower
from verifier.network import Network
from verifier.onnx_import import load_network
from verifier.property import keeps_thresholds, stays_in_top_k, stays_out_of_top_k
from verifier.query import Query
from verifier.region import Box

LABELS = 3


def tiny_file(seed, path) -> Network:
    """Conv, ReLU and pool in one of four orders over a 1 x 2 x 4 image, then Gemm; few free pixels, weights of few bits."""
    generator = np.random.default_rng(seed)

    def rounded(*shape, scale=1.0):
        return (np.round(generator.normal(size=shape) * 8 * scale) / 8).astype(np.float32)

    channels = 2
    weights = {"w": rounded(channels, 1, 2, 2), "b": rounded(channels, scale=0.5)}
    conv = helper.make_node("Conv", ["image", "w", "b"], ["c"], kernel_shape=[2, 2], strides=[1, 1])
    pool = {"kernel_shape": [1, 2], "strides": [1, 1]}
    match seed % 4:
        case 0:
            middle = [helper.make_node("Relu", ["c"], ["r"]), helper.make_node("MaxPool", ["r"], ["p"], **pool)]
        case 1:
            middle = [helper.make_node("MaxPool", ["c"], ["r"], **pool), helper.make_node("Relu", ["r"], ["p"])]
        case 2:
            middle = [helper.make_node("MaxPool", ["c"], ["p"], **pool)]
        case _:
            middle = [helper.make_node("Relu", ["c"], ["p"])]
    size = channels * (3 if seed % 4 == 3 else 2)
    weights |= {"h": rounded(3, size), "hb": rounded(3, scale=0.5), "g": rounded(LABELS, 3), "gb": rounded(LABELS)}
    nodes = [
        conv,
        *middle,
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "h", "hb"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "g", "gb"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 2, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", LABELS])],
        initializer=[numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_network(path)


def tiny_query(seed, path) -> Query:
    network, generator = tiny_file(seed, path), np.random.default_rng(seed + 1)
    image = generator.random((1, 2, 4)).astype(np.float32).astype(np.float64)
    widths = np.where(generator.random((1, 2, 4)) < 0.6, generator.choice([0.1, 0.3, 0.8]), 0.0)
    lower_end, upper_end = (
        np.clip(end, 0, 1).astype(np.float32).astype(np.float64) for end in (image - widths, image + widths)
    )
    label = int(generator.integers(LABELS))
    goal = (
        stays_in_top_k(label, 1 + seed % 2, LABELS)
        if seed % 3
        else stays_out_of_top_k(label, 1, LABELS)
        if seed % 2
        else keeps_thresholds([1, -1, 0], [-0.5, 0.5, 0.0])
    )
    return Query(network, Box(lower_end, upper_end), goal)


def exact(query) -> float:
    return exact_margin(lower(query.network), query.region.lower.ravel(), query.region.upper.ravel(), query.property)
