"""Tiny canonical networks, their interval bounds, and the margin's supremum by brute force over activation patterns."""

from itertools import combinations, product

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from verifier.bounds.results import NodeBounds, RegionBounds
from verifier.canonical import Affine, CanonicalNetwork, DenseMap, Max, Relu
from verifier.milp.model import MilpModel
from verifier.property import Property


def dense(weight, value, bias):
    return Affine(((DenseMap(np.asarray(weight, dtype=float)), value),), np.asarray(bias, dtype=float))


def relu_network(rng, inputs=3, hidden=(4,), labels=3):
    """Affine, ReLU, ..., affine."""
    nodes, size, value = [], inputs, 0
    for width in hidden:
        nodes += [dense(rng.normal(size=(width, size)), value, rng.normal(size=width) * 0.3)]
        nodes += [Relu(len(nodes), width)]
        size, value = width, len(nodes)
    nodes.append(dense(rng.normal(size=(labels, size)), value, rng.normal(size=labels) * 0.3))
    return CanonicalNetwork(inputs, tuple(nodes))


def max_network(rng, inputs=3, labels=3, has_floor=True):
    """Affine, two windows of three and two candidates (plus 0 with a floor), a ReLU pair, affine."""
    windows = np.array([[0, 1, 2], [3, 4, -1]])
    nodes = (
        dense(rng.normal(size=(5, inputs)), 0, rng.normal(size=5) * 0.3),
        Max(1, windows, has_floor),
        dense(rng.normal(size=(2, 2)), 2, rng.normal(size=2) * 0.3),
        Relu(3, 2),
        dense(rng.normal(size=(labels, 2)), 4, rng.normal(size=labels) * 0.3),
    )
    return CanonicalNetwork(inputs, nodes)


def region_of(canonical, lower, upper):
    """Bounds by interval arithmetic."""
    lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    lows, highs = [lower], [upper]
    for index, node in enumerate(canonical.nodes):
        match node:
            case Affine():
                low, high = node.bias.copy(), node.bias.copy()
                for term, value in enumerate(node.inputs):
                    weight = canonical.matrix(index, term).toarray()
                    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
                    low += positive @ lows[value] + negative @ highs[value]
                    high += positive @ highs[value] + negative @ lows[value]
            case Relu():
                low, high = np.maximum(lows[node.input], 0), np.maximum(highs[node.input], 0)
            case Max():
                floor = 0.0 if node.has_floor else -np.inf
                low, high = (
                    np.maximum(
                        np.pad(side[node.input], (0, 1), constant_values=-np.inf)[node.windows].max(axis=1), floor
                    )
                    for side in (lows, highs)
                )
        lows.append(low)
        highs.append(high)
    keys = (*canonical.nonlinear_inputs(), canonical.output)
    bounds = NodeBounds({key: lows[key] for key in keys}, {key: highs[key] for key in keys})
    return RegionBounds(canonical, lower, upper, bounds, 0)


def brute_force_supremum(canonical, lower, upper, prop: Property) -> float:
    """The supremum of the margin: one linear program per choice of winners and count-subset of forms."""
    best = -np.inf
    for choice in product(*(range(alternatives) for alternatives in _alternatives(canonical))):
        scores, rows, sides = _linear_piece(canonical, choice)
        matrix = prop.coefficients @ scores[0]
        constant = prop.coefficients @ scores[1] + prop.offsets
        if not _is_feasible(rows, sides, lower, upper):
            continue
        for subset in combinations(range(len(prop.offsets)), prop.count):
            best = max(best, _max_min(matrix[list(subset)], constant[list(subset)], rows, sides, lower, upper))
    return best


def _alternatives(canonical):
    for node in canonical.nodes:
        if isinstance(node, Relu):
            yield from [2] * node.size
        elif isinstance(node, Max):
            yield from ((window >= 0).sum() + node.has_floor for window in node.windows)


def _linear_piece(canonical, choice):
    """Scores as (matrix, constant) and the rows @ x <= sides under which the chosen winners win."""
    choice = iter(choice)
    values = [(np.eye(canonical.input_size), np.zeros(canonical.input_size))]
    rows, sides = [], []
    for index, node in enumerate(canonical.nodes):
        if isinstance(node, Affine):
            matrix, constant = np.zeros((node.size, canonical.input_size)), node.bias.copy()
            for term, value in enumerate(node.inputs):
                weight = canonical.matrix(index, term).toarray()
                matrix, constant = matrix + weight @ values[value][0], constant + weight @ values[value][1]
            values.append((matrix, constant))
            continue
        z, c = values[node.input]
        windows = [[i] for i in range(node.size)] if isinstance(node, Relu) else [w[w >= 0] for w in node.windows]
        has_floor = isinstance(node, Relu) or node.has_floor
        matrix, constant = np.zeros((node.size, z.shape[1])), np.zeros(node.size)
        for position, window in enumerate(windows):
            options = [(z[i], c[i]) for i in window] + ([(np.zeros(z.shape[1]), 0.0)] if has_floor else [])
            winner = options[next(choice)]
            matrix[position], constant[position] = winner
            for other in options:
                rows.append(other[0] - winner[0])
                sides.append(winner[1] - other[1])
        values.append((matrix, constant))
    return values[-1], np.array(rows), np.array(sides)


def _is_feasible(rows, sides, lower, upper) -> bool:
    if ((np.maximum(rows, 0) @ lower + np.minimum(rows, 0) @ upper) > sides + 1e-9).any():
        return False
    box = list(zip(lower, upper, strict=True))
    return linprog(np.zeros(len(lower)), A_ub=rows, b_ub=sides, bounds=box, method="highs").status == 0


def _max_min(matrix, constant, rows, sides, lower, upper) -> float:
    """max over x of min_i (matrix x + constant)_i subject to rows x <= sides and the box, -inf if infeasible."""
    width = len(lower)
    above = np.hstack([-matrix, np.ones((len(matrix), 1))])
    below = np.hstack([rows, np.zeros((len(rows), 1))])
    answer = linprog(
        np.concatenate([np.zeros(width), [-1.0]]),
        A_ub=np.vstack([above, below]),
        b_ub=np.concatenate([constant, sides]),
        bounds=[*zip(lower, upper, strict=True), (None, None)],
        method="highs",
    )
    return -answer.fun if answer.status == 0 else -np.inf


def sampled_margins(canonical, lower, upper, prop, rng, count=2000):
    points = rng.uniform(lower, upper, size=(count, len(lower)))
    return points, prop.margin(canonical.evaluate(points)[-1])


def shifted(prop: Property, amount: float) -> Property:
    """The same forms, all larger by `amount`."""
    return Property(prop.name, prop.coefficients, prop.offsets + amount, prop.count)


def random_program(rng, columns=6, rows=5, integers=0):
    """A boxed program that contains a known point, with rows of every kind."""
    matrix = rng.normal(size=(rows, columns)) * (rng.random(size=(rows, columns)) < 0.7)
    point = rng.integers(0, 2, size=columns).astype(float)
    value = matrix @ point
    kind = rng.integers(0, 4, size=rows)
    slack = rng.uniform(0, 1, size=(2, rows))
    lower = np.where(kind == 0, -np.inf, value - slack[0] * (kind != 3))
    upper = np.where(kind == 1, np.inf, value + slack[1] * (kind != 3))
    is_integer = np.arange(columns) < integers
    return MilpModel(
        sparse.csr_array(matrix),
        lower,
        upper,
        np.where(is_integer, 0.0, -1.0),
        np.where(is_integer, 1.0, 2.0),
        is_integer,
        rng.normal(size=columns),
        float(rng.normal()),
        tuple(f"c{i}" for i in range(columns)),
        tuple(f"r{i}" for i in range(rows)),
    )


def random_property(rng, count: int, labels=3, forms=3) -> Property:
    """Differences of scores with offsets."""
    pairs = [(0, 1), (1, 2), (2, 0)][:forms]
    rows = np.zeros((forms, labels))
    for row, (plus, minus) in enumerate(pairs):
        rows[row, plus], rows[row, minus] = 1.0, -1.0
    return Property("some forms", rows, rng.normal(size=forms), count)
