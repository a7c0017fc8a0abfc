"""The exact margin of a small canonical network over a box: one linear program per pattern of winners and count-subset."""

from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog

from verifier.canonical import Affine, Relu


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
