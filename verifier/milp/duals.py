"""A bound on a linear program from any multipliers: what the LP solver says its optimum is need not be believed."""

import numpy as np
from scipy import sparse

from verifier.milp.model import ColumnVector, RowVector
from verifier.rounding import inner_product_error, up


def dual_bound(
    rows: sparse.csr_array,
    row_bounds: tuple[RowVector, RowVector],
    column_bounds: tuple[ColumnVector, ColumnVector],
    objective: ColumnVector,
    multipliers: RowVector,
) -> float:
    """An upper bound of max objective @ x over the linear program, whatever the multipliers.

    For any y: objective @ x = (objective - rows.T @ y) @ x + y @ (rows @ x). The first part is at most its maximum over the
    column box, the second at most sum_i max(y_i row_lower_i, y_i row_upper_i). A multiplier whose sign points at an infinite
    side is replaced by 0, which is also a multiplier (Neumaier and Shcherbina 2004). Optimal y makes the bound tight.

    Soundness: `multipliers` may come from anywhere. Every rounding error is bounded and added; the result bounds the
    program whose entries are exactly the doubles handed over.

    Args:
        rows: (m, n).
        row_bounds: float64 (m,) twice; -inf and inf allowed.
        column_bounds: float64 (n,) twice, finite.
        objective: float64 (n,).
        multipliers: float64 (m,), positive at rows that push the maximum down through their upper side.
    """
    y = np.where(np.isfinite(multipliers), multipliers, 0.0)
    chosen = np.where(y > 0, row_bounds[1], row_bounds[0])
    y = np.where(np.isfinite(chosen), y, 0.0)
    chosen = np.where(y == 0, 0.0, chosen)

    transposed = rows.T.tocsr()
    terms = int(np.diff(transposed.indptr).max(initial=0)) + 1
    reduced = objective - transposed @ y
    magnitude = np.abs(objective) + abs(transposed) @ np.abs(y)
    radius = inner_product_error(magnitude, terms)

    lower, upper = column_bounds
    best = np.where(reduced > 0, upper, lower)
    largest = np.maximum(np.abs(lower), np.abs(upper))
    products = np.concatenate([reduced * best, y * chosen, radius * largest])
    total = np.array([products.sum()])
    error = inner_product_error(np.array([np.abs(products).sum()]), 2 * len(products) + 2)
    return float(up(up(total + error) + error)[0])
