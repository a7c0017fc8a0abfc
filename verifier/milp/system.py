"""Affine expressions over model columns, and the rows that tie the columns together: what an encoding is made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from verifier.milp.model import ColumnVector, RowVector

Entries = Float[np.ndarray, " entries"]

# Solvers drop coefficients around here, or lose digits to them. Dropping one ourselves widens its row by what it could add.
TINY_COEFFICIENT = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Expressions:
    """A vector of affine expressions: coefficients @ columns + constants.

    Attributes:
        coefficients: float64 (entries, columns known when it was made); later columns have coefficient 0.
        constants: float64 (entries,).
    """

    coefficients: sparse.csr_array
    constants: Entries

    def over(self, columns: int) -> sparse.csr_array:
        """The coefficients as a matrix of `columns` columns."""
        matrix = self.coefficients
        return sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns))

    def is_constant(self) -> Bool[np.ndarray, " entries"]:
        """Which entries have no coefficient left."""
        return np.asarray(np.diff(self.coefficients.indptr) == 0)

    def interval(self, column_lower: ColumnVector, column_upper: ColumnVector) -> tuple[Entries, Entries]:
        """The range of every entry over the column box, by interval arithmetic rounded to nearest."""
        width = self.coefficients.shape[1]
        positive, negative = self.coefficients.maximum(0.0), self.coefficients.minimum(0.0)
        low, high = column_lower[:width], column_upper[:width]
        return (
            positive @ low + negative @ high + self.constants,
            positive @ high + negative @ low + self.constants,
        )


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """Boxed columns, the rows between them, and who brought them: every unit owns its columns and its rows.

    Attributes:
        rows: CSR float64 (rows, columns).
        row_lower, row_upper: float64 (rows,).
        column_lower, column_upper: float64 (columns,), finite.
        is_integer: bool (columns,).
        owner: int64 (columns,), the unit a column belongs to, -1 for input columns.
        unit_rows: int64 (units + 1,): unit u owns rows unit_rows[u] to unit_rows[u + 1] - 1.
        column_names, row_names: One word each.
    """

    rows: sparse.csr_array
    row_lower: RowVector
    row_upper: RowVector
    column_lower: ColumnVector
    column_upper: ColumnVector
    is_integer: Bool[np.ndarray, " columns"]
    owner: Int[np.ndarray, " columns"]
    unit_rows: Int[np.ndarray, " units_and_one"]
    column_names: tuple[str, ...]
    row_names: tuple[str, ...]

    @property
    def columns(self) -> int:
        """The number of columns."""
        return len(self.column_lower)

    def closure(self, columns: Int[np.ndarray, " some"]) -> tuple[Int[np.ndarray, " cols"], Int[np.ndarray, " rs"]]:
        """The columns that the given ones depend on, through the rows of their units, and those rows; both ascending."""
        seen = np.zeros(self.columns, dtype=np.bool_)
        done = np.zeros(len(self.unit_rows) - 1, dtype=np.bool_)
        seen[columns] = True
        fresh = np.asarray(columns)
        while True:
            units = np.unique(self.owner[fresh])
            units = units[units >= 0]
            units = units[~done[units]]
            if not len(units):
                break
            done[units] = True
            reached = np.unique(self.rows[self._rows_of(units)].indices)
            fresh = reached[~seen[reached]]
            seen[fresh] = True
        return np.flatnonzero(seen), self._rows_of(np.flatnonzero(done))

    def _rows_of(self, units: Int[np.ndarray, " some"]) -> Int[np.ndarray, " rs"]:
        if not len(units):
            return np.zeros(0, dtype=np.int64)
        return np.concatenate([np.arange(self.unit_rows[u], self.unit_rows[u + 1]) for u in units])


def without_tiny(
    rows: sparse.csr_array, lower: RowVector, upper: RowVector, reach: ColumnVector
) -> tuple[sparse.csr_array, RowVector, RowVector]:
    """The rows without coefficients below `TINY_COEFFICIENT`, their bounds widened by all that these could add.

    Args:
        rows: (m, n).
        lower: float64 (m,), -inf allowed.
        upper: float64 (m,), inf allowed.
        reach: float64 (n,), the largest absolute value of every column.
    """
    is_tiny = np.abs(rows.data) < TINY_COEFFICIENT
    if not is_tiny.any():
        return rows, lower, upper
    dropped = sparse.csr_array((np.where(is_tiny, np.abs(rows.data), 0.0), rows.indices, rows.indptr), shape=rows.shape)
    slack = 2.0 * (dropped @ reach)
    kept = sparse.csr_array((np.where(is_tiny, 0.0, rows.data), rows.indices, rows.indptr), shape=rows.shape, copy=True)
    kept.eliminate_zeros()
    return kept, lower - slack, upper + slack
