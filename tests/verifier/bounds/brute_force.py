"""The exact maximum of a margin over a box, by enumerating which candidate wins every window."""

from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog

from verifier.canonical import Affine, CanonicalNetwork, Relu
from verifier.property import Property


def affine_pieces(canonical: CanonicalNetwork):
    """(scores' matrix, scores' offset, constraints G, h with G x <= h) of every combination of winners."""
    start = {0: (np.eye(canonical.input_size), np.zeros(canonical.input_size))}
    pieces = [(start, [], [])]
    for index, node in enumerate(canonical.nodes):
        grown = []
        for values, left, right in pieces:
            if isinstance(node, Affine):
                matrix, offset = np.zeros((node.size, canonical.input_size)), node.bias.copy()
                for term, value in enumerate(node.inputs):
                    linear = canonical.matrix(index, term).toarray()
                    matrix += linear @ values[value][0]
                    offset += linear @ values[value][1]
                grown.append(({**values, index + 1: (matrix, offset)}, left, right))
                continue
            matrix, offset = values[node.input]
            is_relu = isinstance(node, Relu)
            windows = np.arange(node.size)[:, None] if is_relu else node.windows
            options = [[i for i in row if i >= 0] + ([-1] if is_relu or node.has_floor else []) for row in windows]
            for winners in product(*options):
                rows, constants = np.zeros((node.size, canonical.input_size)), np.zeros(node.size)
                g, h = list(left), list(right)
                for window, (winner, candidates) in enumerate(zip(winners, options, strict=True)):
                    best = (matrix[winner], offset[winner]) if winner >= 0 else (0 * matrix[0], 0.0)
                    rows[window], constants[window] = best
                    for other in candidates:
                        if other == winner:
                            continue
                        rival = (matrix[other], offset[other]) if other >= 0 else (0 * matrix[0], 0.0)
                        g.append(rival[0] - best[0])
                        h.append(best[1] - rival[1])
                grown.append(({**values, index + 1: (rows, constants)}, g, h))
        pieces = grown
    return [(*values[canonical.output], np.array(g), np.array(h)) for values, g, h in pieces]


def exact_margin(canonical: CanonicalNetwork, lower: np.ndarray, upper: np.ndarray, goal: Property) -> float:
    """The maximum over the box of the count-th largest form."""
    best = -np.inf
    bounds = [*zip(lower, upper, strict=True), (None, None)]
    cost = np.zeros(canonical.input_size + 1)
    cost[-1] = -1.0
    for matrix, offset, g, h in affine_pieces(canonical):
        forms, constants = goal.coefficients @ matrix, goal.coefficients @ offset + goal.offsets
        for subset in combinations(range(len(constants)), goal.count):
            rows = np.hstack([-forms[list(subset)], np.ones((goal.count, 1))])
            rows = np.vstack([rows, np.hstack([g, np.zeros((len(g), 1))])]) if len(g) else rows
            limits = np.concatenate([constants[list(subset)], h])
            found = linprog(cost, A_ub=rows, b_ub=limits, bounds=bounds)
            if found.status == 0:
                best = max(best, -found.fun)
    return best
