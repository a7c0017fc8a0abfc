"""Small fully connected ReLU networks with their ONNX bytes, and the exact maximum of a margin over a box."""

import hashlib
from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linprog

from verifier.network import Dense, Head, Network, Node, Relu, Reshape
from verifier.property import Property
from verifier.region import Box

Layer = tuple[np.ndarray, np.ndarray]


def onnx_file(layers: Sequence[Layer], input_shape: tuple[int, ...]) -> bytes:
    """Flatten, then Gemm, Relu, Gemm, ..., Gemm."""
    nodes = [helper.make_node("Flatten", ["image"], ["flat"], axis=1)]
    constants, value = [], "flat"
    for index, (weight, bias) in enumerate(layers):
        constants += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [f"z{index}"], transB=1))
        value = f"z{index}"
        if index < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"r{index}"]))
            value = f"r{index}"
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *input_shape])]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, len(layers[-1][1])])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def dense_network(layers: Sequence[tuple[object, object]], input_shape: tuple[int, ...] | None = None) -> Network:
    """The network of `onnx_file`, typed by hand; `layers` are (weight, bias) as nested lists or arrays."""
    exact = [(np.array(weight, np.float32, ndmin=2), np.array(bias, np.float32)) for weight, bias in layers]
    size = exact[0][0].shape[1]
    shape = (1, 1, size) if input_shape is None else input_shape
    nodes = [Node("flatten", Reshape((size,)), (0,), (size,))]
    for index, (weight, bias) in enumerate(exact):
        nodes.append(Node(f"gemm{index}", Dense(weight, bias), (len(nodes),), (len(bias),)))
        if index < len(exact) - 1:
            nodes.append(Node(f"relu{index}", Relu(), (len(nodes),), (len(bias),)))
    content = onnx_file(exact, shape)
    return Network(shape, tuple(nodes), Head.NONE, content, hashlib.sha256(content).hexdigest(), "tiny.onnx")


def linear_network(weight: object, bias: object) -> Network:
    """Scores = weight @ pixels + bias."""
    return dense_network([(weight, bias)])


def random_dense_network(seed: int, inputs: int = 3, hidden: int = 4, labels: int = 4) -> Network:
    """One hidden layer, weights of few bits, so that ties can occur."""
    generator = np.random.default_rng(seed)

    def layer(out: int, into: int) -> Layer:
        return np.round(generator.normal(size=(out, into)) * 4) / 4, np.round(generator.normal(size=out) * 4) / 8

    return dense_network([layer(hidden, inputs), layer(labels, hidden)])


def random_box(network: Network, seed: int) -> Box:
    """A box around a float32 image, with differing widths, some of them zero."""
    generator = np.random.default_rng(seed)
    image = generator.random(network.input_shape).astype(np.float32).astype(np.float64)
    widths = generator.choice([0.0, 0.05, 0.2, 0.5], size=network.input_shape, p=[0.1, 0.3, 0.3, 0.3])
    lower, upper = np.clip(image - widths, 0, 1), np.clip(image + widths, 0, 1)
    return Box(lower.astype(np.float32).astype(np.float64), upper.astype(np.float32).astype(np.float64))


def exact_supremum(network: Network, goal: Property, box: Box) -> float:
    """The largest margin over the box for one hidden layer or none: an LP per activation pattern and count-subset."""
    dense = [node.op for node in network.nodes if isinstance(node.op, Dense)]
    last = dense[-1]
    bounds = np.stack([box.lower.ravel(), box.upper.ravel()], axis=1)
    best = -np.inf
    hidden = dense[0] if len(dense) == 2 else None
    for pattern in product((0.0, 1.0), repeat=0 if hidden is None else len(hidden.bias)):
        if hidden is None:
            weight, bias, sides = last.weight.astype(float), last.bias.astype(float), None
        else:
            on = np.array(pattern)
            weight = last.weight @ (on[:, None] * hidden.weight.astype(float))
            bias = last.weight @ (on * hidden.bias.astype(float)) + last.bias
            # z >= 0 where on, z <= 0 where off.
            sides = ((1 - 2 * on)[:, None] * hidden.weight, -(1 - 2 * on) * hidden.bias)
        forms = goal.coefficients @ weight
        offsets = goal.coefficients @ bias + goal.offsets
        for subset in combinations(range(len(offsets)), goal.count):
            rows = list(subset)
            # max s subject to s <= form_i for i in the subset.
            a = np.hstack([-forms[rows], np.ones((len(rows), 1))])
            b = offsets[rows]
            if sides is not None:
                a = np.vstack([a, np.hstack([sides[0], np.zeros((len(sides[1]), 1))])])
                b = np.concatenate([b, sides[1]])
            cost = np.zeros(len(bounds) + 1)
            cost[-1] = -1.0
            answer = linprog(cost, A_ub=a, b_ub=b, bounds=[*bounds.tolist(), (None, None)])
            if answer.status == 0:
                best = max(best, -answer.fun)
    return best
