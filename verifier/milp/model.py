"""One neutral sparse encoding of a mixed-integer linear program, which every solver adapter reads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from verifier.errors import InputError

RowVector = Float[np.ndarray, " rows"]
ColumnVector = Float[np.ndarray, " columns"]


@dataclass(frozen=True, slots=True, eq=False)
class MilpModel:
    """Maximise objective @ x + offset subject to row_lower <= rows @ x <= row_upper and column_lower <= x <= column_upper.

    Every column is boxed by finite bounds, so that weak duality gives a bound from any multipliers; a row may be infinite on
    one side. An interval crossed by rounding makes some solvers reject a model and others accept it silently, so it is
    refused here.

    Attributes:
        rows: CSR, float64 (rows, columns), indices sorted, no duplicates.
        row_lower, row_upper: float64 (rows,), -inf and inf allowed.
        column_lower, column_upper: float64 (columns,), finite.
        is_integer: bool (columns,).
        objective: float64 (columns,).
        offset: Added to the objective.
        column_names: One word each, distinct: "x17" is input entry 17, "y3_5" and "b3_5_0" belong to entry 5 of node 3.
        row_names: One word each, distinct.

    Raises:
        InputError: Shapes differ, a number is NaN, a column is not boxed, or an interval is empty.
    """

    rows: sparse.csr_array
    row_lower: RowVector
    row_upper: RowVector
    column_lower: ColumnVector
    column_upper: ColumnVector
    is_integer: Bool[np.ndarray, " columns"]
    objective: ColumnVector
    offset: float
    column_names: tuple[str, ...]
    row_names: tuple[str, ...]

    def __post_init__(self) -> None:
        rows = sparse.csr_array(self.rows, copy=True).astype(np.float64)
        rows.sum_duplicates()
        object.__setattr__(self, "rows", rows)
        for name in ("row_lower", "row_upper", "column_lower", "column_upper", "objective"):
            object.__setattr__(self, name, _read_only(np.array(getattr(self, name), dtype=np.float64)))
        object.__setattr__(self, "is_integer", _read_only(np.array(self.is_integer, dtype=np.bool_)))
        for array in (rows.data, rows.indices, rows.indptr):
            array.setflags(write=False)
        self._check_shapes()
        self._check_numbers()

    def _check_shapes(self) -> None:
        height, width = self.rows.shape
        heights = (len(self.row_lower), len(self.row_upper), len(self.row_names))
        widths = (
            len(self.column_lower),
            len(self.column_upper),
            len(self.is_integer),
            len(self.objective),
            len(self.column_names),
        )
        if set(heights) != {height} or set(widths) != {width}:
            raise InputError(f"model: rows are {height} x {width}, got row arrays {heights} and column arrays {widths}")

    def _check_numbers(self) -> None:
        if not (np.isfinite(self.column_lower).all() and np.isfinite(self.column_upper).all()):
            raise InputError("model: a column has no finite bound, wanted every column boxed")
        if not (np.isfinite(self.rows.data).all() and np.isfinite(self.objective).all() and np.isfinite(self.offset)):
            raise InputError("model: a coefficient is NaN or infinite")
        if not ((self.row_lower <= self.row_upper).all() and (self.column_lower <= self.column_upper).all()):
            raise InputError(
                "model: an interval is empty or NaN, wanted lower <= upper; pad bounds before encoding them"
            )

    @property
    def binaries(self) -> int:
        """The number of integer columns."""
        return int(self.is_integer.sum())

    @property
    def size(self) -> str:
        """Columns, integers and rows in words, for messages."""
        return f"{self.rows.shape[1]} variables, {self.binaries} binaries, {self.rows.shape[0]} rows"


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
