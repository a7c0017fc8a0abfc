"""Random small networks with every typed operation, and single-operation ones, for property tests."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from verifier.network import (
    Add,
    AddConstant,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DivConstant,
    Head,
    LeakyRelu,
    MaxPool,
    MulConstant,
    Network,
    Node,
    Op,
    Pad,
    Relu,
    Reshape,
    Subtract,
    Transpose,
)


class NetworkBuilder:
    """Appends typed nodes; values are numbered as in `Network`."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = input_shape
        self.nodes: list[Node] = []

    def shape(self, value: int) -> tuple[int, ...]:
        return self.nodes[value - 1].shape if value else self.input_shape

    def add(self, op: Op, *inputs: int) -> int:
        shapes = [self.shape(value) for value in inputs]
        self.nodes.append(Node(f"{type(op).__name__}{len(self.nodes)}", op, inputs, out_shape(op, shapes)))
        return len(self.nodes)

    def network(self, head: Head = Head.NONE, onnx_bytes: bytes = b"") -> Network:
        sha256 = hashlib.sha256(onnx_bytes).hexdigest()
        return Network(self.input_shape, tuple(self.nodes), head, onnx_bytes, sha256, "random.onnx")


def chain(input_shape: tuple[int, ...], *ops: Op, head: Head = Head.NONE) -> Network:
    """Operations one after the other."""
    builder = NetworkBuilder(input_shape)
    for op in ops:
        builder.add(op, len(builder.nodes))
    return builder.network(head)


def _spatial(size: int, kernel: int, stride: int, pads: int, dilation: int = 1) -> int:
    return (size + pads - (kernel - 1) * dilation - 1) // stride + 1


def out_shape(op: Op, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape an operation produces."""
    first = shapes[0]
    match op:
        case Conv() | MaxPool() | AveragePool():
            kernel = op.weight.shape[2:] if isinstance(op, Conv) else op.kernel
            dilations = (1, 1) if isinstance(op, AveragePool) else op.dilations
            channels = len(op.weight) if isinstance(op, Conv) else first[0]
            top, left, bottom, right = op.pads
            height = _spatial(first[1], kernel[0], op.strides[0], top + bottom, dilations[0])
            width = _spatial(first[2], kernel[1], op.strides[1], left + right, dilations[1])
            return (channels, height, width)
        case Dense():
            return (*first[:-1], len(op.weight))
        case Reshape():
            return op.shape
        case Transpose():
            return tuple(first[axis] for axis in op.permutation)
        case Concat():
            joined = list(first)
            joined[op.axis] = sum(shape[op.axis] for shape in shapes)
            return tuple(joined)
        case Pad():
            return tuple(size + sum(amount) for size, amount in zip(first, op.amounts, strict=True))
        case _:
            return first


def constants(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """float32 numbers, some of them exactly zero and some with few bits, so that ties occur."""
    values = generator.normal(size=shape)
    coarse = np.round(values * 4) / 4
    return np.where(generator.random(size=shape) < 0.3, coarse, values).astype(np.float32)


def conv(generator: np.random.Generator, in_shape: tuple[int, ...]) -> Conv:
    channels, height, width = in_shape
    groups = int(generator.choice([g for g in (1, 2, 3) if channels % g == 0]))
    dilations = tuple(int(d) for d in generator.integers(1, 3, 2))
    kernel = tuple(int(k) for k in generator.integers(1, 4, 2))
    pads = tuple(int(p) for p in generator.integers(0, 3, 4))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if spans[0] > height + pads[0] + pads[2] or spans[1] > width + pads[1] + pads[3]:
        kernel = (1, 1)
    out = groups * int(generator.integers(1, 3))
    weight = constants(generator, out, channels // groups, *kernel)
    strides = tuple(int(s) for s in generator.integers(1, 3, 2))
    return Conv(weight, constants(generator, out), strides, pads, dilations, groups)


def max_pool(generator: np.random.Generator, in_shape: tuple[int, ...]) -> MaxPool:
    kernel = tuple(min(int(k), size) for k, size in zip(generator.integers(1, 4, 2), in_shape[1:], strict=True))
    dilations = tuple(
        1 if k > (size + 1) // 2 else int(generator.integers(1, 3))
        for k, size in zip(kernel, in_shape[1:], strict=True)
    )
    # Padding smaller than the undilated kernel and than the image leaves an entry of the image in every window.
    top, left = (int(generator.integers(0, k)) if d == 1 else 0 for k, d in zip(kernel, dilations, strict=True))
    bottom, right = (int(generator.integers(0, k)) if d == 1 else 0 for k, d in zip(kernel, dilations, strict=True))
    strides = tuple(int(s) for s in generator.integers(1, 3, 2))
    return MaxPool(kernel, strides, (top, left, bottom, right), dilations)


def average_pool(generator: np.random.Generator, in_shape: tuple[int, ...]) -> AveragePool:
    pool = max_pool(generator, in_shape)
    pads = tuple(min(pad, pool.kernel[i % 2] - 1) for i, pad in enumerate(pool.pads))
    return AveragePool(pool.kernel, pool.strides, pads, bool(generator.integers(2)))


def batch_norm(generator: np.random.Generator, in_shape: tuple[int, ...]) -> BatchNorm:
    channels = in_shape[0]
    variance = generator.uniform(0.05, 4.0, channels).astype(np.float32)
    scale, shift, mean = (constants(generator, channels) for _ in range(3))
    return BatchNorm(scale, shift, mean, variance, float(np.float32(1e-5)))


def _broadcast_shape(generator: np.random.Generator, in_shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size if generator.integers(2) else 1 for size in in_shape)


def add_constant(generator: np.random.Generator, in_shape: tuple[int, ...]) -> AddConstant:
    return AddConstant(constants(generator, *_broadcast_shape(generator, in_shape)))


def mul_constant(generator: np.random.Generator, in_shape: tuple[int, ...]) -> MulConstant:
    return MulConstant(constants(generator, *_broadcast_shape(generator, in_shape)))


def div_constant(generator: np.random.Generator, in_shape: tuple[int, ...]) -> DivConstant:
    shape = _broadcast_shape(generator, in_shape)
    signs = generator.choice([-1.0, 1.0], size=shape)
    return DivConstant((generator.uniform(0.3, 3.0, shape) * signs).astype(np.float32))


def pad(generator: np.random.Generator, in_shape: tuple[int, ...]) -> Pad:
    value = float(generator.choice(np.float32([0.0, 0.0, -0.7, 1.5])))
    return Pad(tuple((int(a), int(b)) for a, b in generator.integers(0, 2, (len(in_shape), 2))), value)


def transpose(generator: np.random.Generator, in_shape: tuple[int, ...]) -> Transpose:
    return Transpose(tuple(int(axis) for axis in generator.permutation(len(in_shape))))


def leaky_relu(generator: np.random.Generator, in_shape: tuple[int, ...]) -> LeakyRelu:
    return LeakyRelu(float(generator.choice(np.float32([0.0, 0.01, 0.5, 1.0, 1.25, -0.3]))))


def dense(generator: np.random.Generator, in_shape: tuple[int, ...], out: int = 3) -> Dense:
    return Dense(constants(generator, out, in_shape[-1]), constants(generator, out))


UNARY: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Op]] = {
    "conv": conv,
    "dense": dense,
    "add_constant": add_constant,
    "mul_constant": mul_constant,
    "div_constant": div_constant,
    "batch_norm": batch_norm,
    "relu": lambda generator, in_shape: Relu(),
    "leaky_relu": leaky_relu,
    "max_pool": max_pool,
    "average_pool": average_pool,
    "transpose": transpose,
    "pad": pad,
}


def random_network(seed: int, blocks: int = 5) -> Network:
    """A random graph on (channels, height, width) values with skips, ended by flatten and (mostly) a dense layer."""
    generator = np.random.default_rng(seed)
    builder = NetworkBuilder(
        (int(generator.integers(1, 4)), int(generator.integers(3, 6)), int(generator.integers(3, 6)))
    )
    value = 0
    names = list(UNARY)
    for _ in range(blocks):
        kind = generator.choice([*names, "conv", "relu", "relu", "relu-pool", "add", "subtract", "concat", "reshape"])
        value = _grow(builder, value, str(kind), generator)
        if np.prod(builder.shape(value)) > 250 or min(builder.shape(value)[1:]) < 2:
            break
    value = builder.add(Reshape((int(np.prod(builder.shape(value))),)), value)
    if generator.random() < 0.8 or builder.shape(value)[0] < 2:
        value = builder.add(dense(generator, builder.shape(value), out=4), value)
    if generator.random() < 0.2:
        builder.add(Relu(), value)
    return builder.network()


def _grow(builder: NetworkBuilder, value: int, kind: str, generator: np.random.Generator) -> int:
    shape = builder.shape(value)
    earlier = [v for v in range(len(builder.nodes) + 1) if builder.shape(v) == shape]
    other = int(generator.choice(earlier))
    match kind:
        case "add":
            return builder.add(Add(), value, other)
        case "subtract":
            return builder.add(Subtract(), other, value)
        case "concat":
            return builder.add(Concat(int(generator.integers(0, 3))), *generator.permutation([value, other]).tolist())
        case "reshape":
            return builder.add(Reshape((shape[0], shape[2], shape[1])), value)
        case "relu-pool":
            ops = [Relu(), max_pool(generator, shape)]
            if generator.integers(2):
                ops.reverse()
            for op in ops:
                value = builder.add(op, value)
            return value
        case _:
            return builder.add(UNARY[kind](generator, shape), value)


# Networks are built from a seed inside the test: run-time type checks use `random`, which strategies may not.
SEEDS = st.integers(0, 2**31)


def images(network: Network, count: int, seed: int = 0) -> np.ndarray:
    """float64 images in [0, 1], some entries at the ends."""
    generator = np.random.default_rng(seed)
    points = generator.random((count, *network.input_shape))
    return np.where(generator.random(points.shape) < 0.2, np.round(points), points)
