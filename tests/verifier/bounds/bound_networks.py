"""Small random canonical networks for the tests of bounds."""

import numpy as np

from verifier.canonical import Affine, CanonicalNetwork, ConvolutionMap, DenseMap, Max, Relu, SparseMap


def dense(generator: np.random.Generator, size: int, *reads: tuple[int, int]) -> Affine:
    """The sum of dense maps of (value, its size)."""
    terms = tuple((DenseMap(generator.normal(size=(size, n)) / np.sqrt(n)), value) for value, n in reads)
    return Affine(terms, generator.normal(size=size) * 0.3)


def convolution(generator: np.random.Generator, in_shape, channels, kernel, stride, pads, groups=1):
    spans = [(n + pads[i] + pads[i + 2] - kernel) // stride + 1 for i, n in enumerate(in_shape[1:])]
    weight = generator.normal(size=(channels, in_shape[0] // groups, kernel, kernel)) / kernel
    return ConvolutionMap(weight, in_shape, (channels, spans[0], spans[1]), (stride, stride), pads, (1, 1), groups)


def convolved(generator: np.random.Generator, linear: ConvolutionMap, value: int) -> Affine:
    per_channel = generator.normal(size=linear.out_shape[0]) * 0.2
    return Affine(((linear, value),), np.repeat(per_channel, linear.out_shape[1] * linear.out_shape[2]))


def square_windows(shape, side: int) -> np.ndarray:
    channels, height, width = shape
    grid = np.arange(channels * height * width).reshape(channels, height // side, side, width // side, side)
    return grid.transpose(0, 1, 3, 2, 4).reshape(-1, side * side)


def relu_network(seed: int, inputs: int = 4, hidden: int = 6, labels: int = 3) -> CanonicalNetwork:
    """Two hidden layers."""
    generator = np.random.default_rng(seed)
    return CanonicalNetwork(
        inputs,
        (
            dense(generator, hidden, (0, inputs)),
            Relu(1, hidden),
            dense(generator, hidden, (2, hidden)),
            Relu(3, hidden),
            dense(generator, labels, (4, hidden)),
        ),
    )


def deep_network(seed: int, inputs: int = 4, hidden: int = 8, labels: int = 3) -> CanonicalNetwork:
    """Four hidden layers, so that intermediate rows pass several undecided nodes."""
    generator = np.random.default_rng(seed)
    nodes = [dense(generator, hidden, (0, inputs)), Relu(1, hidden)]
    for value in (2, 4, 6):
        nodes += [dense(generator, hidden, (value, hidden)), Relu(value + 1, hidden)]
    return CanonicalNetwork(inputs, (*nodes, dense(generator, labels, (8, hidden))))


def max_network(seed: int, *, has_floor: bool, inputs: int = 4, labels: int = 3) -> CanonicalNetwork:
    """A ReLU layer, windows that overlap and have absent candidates, another ReLU layer."""
    generator = np.random.default_rng(seed)
    windows = np.array([[0, 1, 2], [2, 3, -1], [4, 5, 6], [6, -1, -1]])
    return CanonicalNetwork(
        inputs,
        (
            dense(generator, 5, (0, inputs)),
            Relu(1, 5),
            dense(generator, 7, (2, 5)),
            Max(3, windows, has_floor),
            dense(generator, 4, (4, 4)),
            Relu(5, 4),
            dense(generator, labels, (6, 4)),
        ),
    )


def residual_network(seed: int, inputs: int = 4, labels: int = 3) -> CanonicalNetwork:
    """A skip connection around a ReLU, the input read twice, a sparse identity."""
    generator = np.random.default_rng(seed)
    identity = SparseMap(DenseMap(np.eye(5)).matrix())
    skip = Affine(((identity, 2), (DenseMap(generator.normal(size=(5, 5)) / 2), 4)), np.zeros(5))
    return CanonicalNetwork(
        inputs,
        (
            dense(generator, 5, (0, inputs)),
            Relu(1, 5),
            dense(generator, 5, (2, 5)),
            Relu(3, 5),
            skip,
            Relu(5, 5),
            dense(generator, labels, (6, 5), (0, inputs)),
        ),
    )


def image_network(seed: int, *, pools: bool, labels: int = 4) -> CanonicalNetwork:
    """Two convolutions on an 8 x 8 image, then a pool or ReLU, then a linear layer."""
    generator = np.random.default_rng(seed)
    first = convolution(generator, (1, 8, 8), 3, 3, 1, (1, 1, 1, 1))
    second = convolution(generator, first.out_shape, 4, 3, 2, (1, 1, 1, 1))
    size = second.out_size
    last = Max(3, square_windows(second.out_shape, 2), True) if pools else Relu(3, size)
    return CanonicalNetwork(
        64,
        (
            convolved(generator, first, 0),
            Relu(1, first.out_size),
            convolved(generator, second, 2),
            last,
            dense(generator, labels, (4, last.size)),
        ),
    )


NETWORKS = {
    "relu": relu_network,
    "deep": deep_network,
    "max": lambda seed: max_network(seed, has_floor=False),
    "max with floor": lambda seed: max_network(seed, has_floor=True),
    "residual": residual_network,
    "image": lambda seed: image_network(seed, pools=False),
    "image with pool": lambda seed: image_network(seed, pools=True),
}
