"""Tiny random networks with ReLU and Max, properties about as hard as can be, and their exact margins by enumeration."""

import numpy as np
from enumeration import exact_margin

from verifier.bounds import BoundMethod, BoundOptions, analyse_region
from verifier.canonical import Affine, CanonicalNetwork, DenseMap, Max, Relu
from verifier.property import Property
from verifier.region import Box


def dense(generator, size, reads, inputs):
    return Affine(
        ((DenseMap(generator.normal(size=(size, inputs)) / np.sqrt(inputs)), reads),), generator.normal(size=size) * 0.3
    )


def tiny_network(seed: int) -> CanonicalNetwork:
    """Alternates kinds: ReLUs then windows, ReLUs twice, windows alone with and without a floor, a skip connection."""
    generator = np.random.default_rng(seed)
    inputs = 2 + seed % 2
    windows = np.array([[0, 1, 2], [2, 3, -1]])
    match seed % 4:
        case 0:
            nodes = (
                dense(generator, 3, 0, inputs),
                Relu(1, 3),
                dense(generator, 4, 2, 3),
                Max(3, windows, bool(seed % 8)),
                dense(generator, 3, 4, 2),
            )
        case 1:
            nodes = (
                dense(generator, 3, 0, inputs),
                Relu(1, 3),
                dense(generator, 3, 2, 3),
                Relu(3, 3),
                dense(generator, 3, 4, 3),
            )
        case 2:
            nodes = (
                dense(generator, 4, 0, inputs),
                Max(1, windows, bool(seed % 8 == 2)),
                dense(generator, 2, 2, 2),
                Relu(3, 2),
                dense(generator, 3, 4, 2),
            )
        case _:
            skip = Affine(
                ((DenseMap(generator.normal(size=(3, 3))), 2), (DenseMap(generator.normal(size=(3, inputs))), 0)),
                np.zeros(3),
            )
            nodes = (dense(generator, 3, 0, inputs), Relu(1, 3), skip, Relu(3, 3), dense(generator, 3, 4, 3))
    return CanonicalNetwork(inputs, nodes)


def tiny_case(seed: int, shift: float = 0.0):
    """A network, its region with plain interval bounds (so that much is left to do), and a property on its scores.

    The property's forms are shifted so that its exact margin is `shift`.
    """
    generator = np.random.default_rng(1000 + seed)
    canonical = tiny_network(seed)
    centre = generator.uniform(0.3, 0.7, canonical.input_size)
    box = Box(centre - 0.3, centre + 0.3)
    region = analyse_region(canonical, box, options=BoundOptions(method=BoundMethod.INTERVAL))
    count = 1 + seed % 2
    coefficients = generator.normal(size=(3, 3))
    plain = Property("tiny", coefficients, np.zeros(3), count)
    exact = exact_margin(canonical, box.lower, box.upper, plain)
    return canonical, region, Property("tiny", coefficients, np.full(3, shift - exact), count)
