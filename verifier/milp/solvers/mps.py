"""Models as MPS text, every number with all its digits, for solvers that are programs of their own."""

import numpy as np

from verifier.milp.model import MilpModel


def mps_text(model: MilpModel) -> str:
    """The model as free-format MPS, as a minimisation of the negated objective, columns named C0, C1, ... and rows R0, ...

    The offset is left out. Integer columns are declared by bounds within marker lines.
    """
    lines = ["NAME model", "ROWS", " N OBJ"]
    kinds = [_row_kind(low, high) for low, high in zip(model.row_lower, model.row_upper, strict=True)]
    lines += [f" {kind} R{row}" for row, kind in enumerate(kinds)]
    lines += ["COLUMNS", *_columns(model), "RHS"]
    for row, kind in enumerate(kinds):
        side = model.row_lower[row] if kind == "G" else model.row_upper[row]
        if kind != "N" and side != 0:
            lines.append(f" RHS R{row} {float(side)!r}")
    lines.append("RANGES")
    for row, kind in enumerate(kinds):
        if kind == "L" and np.isfinite(model.row_lower[row]):
            lines.append(f" RNG R{row} {float(model.row_upper[row] - model.row_lower[row])!r}")
    lines.append("BOUNDS")
    for column, (low, high) in enumerate(zip(model.column_lower, model.column_upper, strict=True)):
        lines += [f" LO BND C{column} {float(low)!r}", f" UP BND C{column} {float(high)!r}"]
    return "\n".join([*lines, "ENDATA", ""])


def _row_kind(lower: float, upper: float) -> str:
    if lower == upper:
        return "E"
    if np.isfinite(upper):
        return "L"
    return "G" if np.isfinite(lower) else "N"


def _columns(model: MilpModel) -> list[str]:
    by_column = model.rows.tocsc()
    lines, inside = [], False
    for column in range(len(model.objective)):
        if bool(model.is_integer[column]) != inside:
            inside = not inside
            lines.append(f" M{column} 'MARKER' '{'INTORG' if inside else 'INTEND'}'")
        lines.append(f" C{column} OBJ {float(-model.objective[column])!r}")
        span = slice(by_column.indptr[column], by_column.indptr[column + 1])
        lines += [
            f" C{column} R{row} {float(value)!r}"
            for row, value in zip(by_column.indices[span], by_column.data[span], strict=True)
        ]
    return [*lines, " MEND 'MARKER' 'INTEND'"] if inside else lines
