"""Tiny random networks with ReLU and Max, properties about as hard as can be, and their exact margins by enumeration."""

from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog

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


def exact_margin(canonical, lower, upper, goal) -> float:
    """The maximum over the box of the count-th largest form: one linear program per pattern of winners and subset."""
    best = -np.inf
    bounds = [*zip(lower, upper, strict=True), (None, None)]
    cost = np.zeros(canonical.input_size + 1)
    cost[-1] = -1.0
    for matrix, offset, left, right in _pieces(canonical, lower, upper):
        forms, constants = goal.coefficients @ matrix, goal.coefficients @ offset + goal.offsets
        for subset in map(list, combinations(range(len(constants)), goal.count)):
            rows = np.hstack([-forms[subset], np.ones((goal.count, 1))])
            rows = np.vstack([rows, np.hstack([left, np.zeros((len(left), 1))])])
            found = linprog(cost, A_ub=rows, b_ub=np.concatenate([constants[subset], right]), bounds=bounds)
            if found.status == 0:
                best = max(best, -found.fun)
    return best


def _pieces(canonical, lower, upper):
    size = canonical.input_size
    start = {0: (np.eye(size), np.zeros(size))}
    pieces = [(start, np.zeros((0, size)), np.zeros(0))]
    for index, node in enumerate(canonical.nodes):
        grown = []
        for values, left, right in pieces:
            if isinstance(node, Affine):
                parts = [(canonical.matrix(index, t).toarray(), v) for t, v in enumerate(node.inputs)]
                matrix = sum(linear @ values[v][0] for linear, v in parts)
                offset = node.bias + sum(linear @ values[v][1] for linear, v in parts)
                grown.append(({**values, index + 1: (matrix, offset)}, left, right))
                continue
            matrix, offset = (np.concatenate([part, 0 * part[:1]]) for part in values[node.input])
            has_floor = isinstance(node, Relu) or node.has_floor
            windows = np.arange(node.size)[:, None] if isinstance(node, Relu) else node.windows
            zero = len(matrix) - 1
            options = [[i for i in row if i >= 0] + [zero] * has_floor for row in windows]
            for winners in product(*options):
                rows = [
                    (matrix[other] - matrix[winner], offset[winner] - offset[other])
                    for winner, candidates in zip(winners, options, strict=True)
                    for other in candidates
                    if other != winner
                ]
                g, h = np.array([row for row, _ in rows]), np.array([limit for _, limit in rows])
                if (np.minimum(g * lower, g * upper).sum(axis=1) > h).any():
                    continue
                chosen = matrix[list(winners)], offset[list(winners)]
                grown.append(({**values, index + 1: chosen}, np.vstack([left, g]), np.concatenate([right, h])))
        pieces = grown
    return [(*values[canonical.output], left, right) for values, left, right in pieces]
