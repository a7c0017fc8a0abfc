"""One encoding for ReLU and Max: y = max(floor, z_1, ..., z_n), exactly with binaries, or relaxed to its concave envelope."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

Entries = Float[np.ndarray, " entries"]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """y_w = max(floor_w, the candidates z_i of window w) for every window of one node.

    Attributes:
        candidates: int64 (windows, width), entries of the value read; -1 fills.
        floors: float64 (windows,), -inf where there is none: 0 for a ReLU, and every constant candidate.
    """

    candidates: Int[np.ndarray, "windows width"]
    floors: Float[np.ndarray, " windows"]


def reduce_windows(windows: Windows, lower: Entries, upper: Entries) -> Windows:
    """The same maxima without the alternatives that never exceed another one's lower bound.

    What remains: one alternative (the window is decided: a floor alone, or one candidate), or several (undecided). A
    candidate with upper bound <= the largest lower bound L is dropped, the one that attains L (or the floor) kept.
    """
    is_real = windows.candidates >= 0
    low = np.where(is_real, lower[windows.candidates], -np.inf)
    high = np.where(is_real, upper[windows.candidates], -np.inf)
    best = low.argmax(axis=1)
    best_low = low[np.arange(len(low)), best]
    has_floor = windows.floors >= best_low
    threshold = np.maximum(windows.floors, best_low)
    keep = high > threshold[:, None]
    keep[np.arange(len(low)), best] |= ~has_floor
    return Windows(np.where(keep & is_real, windows.candidates, -1), np.where(has_floor, windows.floors, -np.inf))


def alternatives(windows: Windows) -> Int[np.ndarray, " windows"]:
    """How many alternatives each window has; 1 means decided."""
    return np.asarray((windows.candidates >= 0).sum(axis=1) + np.isfinite(windows.floors))


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One undecided maximum.

    Attributes:
        candidates: Entries of the value read.
        lower, upper: float64, their bounds, lower < upper strictly.
        floor: A constant alternative, or -inf.
    """

    candidates: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    floor: float

    @property
    def least(self) -> float:
        """A lower bound of the maximum."""
        return max(self.floor, *self.lower)

    @property
    def greatest(self) -> float:
        """An upper bound of the maximum."""
        return max(self.floor, *self.upper)


@dataclass(slots=True)
class RowBlock:
    """Rows under construction: coefficients on entries z of the value read, coefficients on columns, bounds, names."""

    entry_terms: list[tuple[int, int, float]] = field(default_factory=list)
    column_terms: list[tuple[int, int, float]] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        *,
        entries: list[tuple[int, float]],
        columns: list[tuple[int, float]],
        lower: float = -np.inf,
        upper: float = np.inf,
    ) -> None:
        """Appends lower <= sum entries z + sum columns x <= upper."""
        row = len(self.lower)
        self.entry_terms.extend((row, entry, value) for entry, value in entries)
        self.column_terms.extend((row, column, value) for column, value in columns)
        self.lower.append(lower)
        self.upper.append(upper)
        self.names.append(name)

    def over(
        self, coefficients: sparse.csr_array, constants: Entries
    ) -> tuple[sparse.csr_array, Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """The rows over columns alone, with z = coefficients @ x + constants put in."""
        height, (entries, columns) = len(self.lower), coefficients.shape
        on_entries = _matrix(self.entry_terms, (height, entries))
        on_columns = _matrix(self.column_terms, (height, columns))
        shift = on_entries @ constants
        rows = sparse.csr_array(on_entries @ coefficients + on_columns)
        return rows, np.array(self.lower) - shift, np.array(self.upper) - shift


def _matrix(terms: list[tuple[int, int, float]], shape: tuple[int, int]) -> sparse.csr_array:
    rows = np.array([row for row, _, _ in terms], dtype=np.int64)
    columns = np.array([column for _, column, _ in terms], dtype=np.int64)
    values = np.array([value for _, _, value in terms], dtype=np.float64)
    return sparse.csr_array((values, (rows, columns)), shape=shape)


def binaries_needed(window: Window) -> int:
    """Binaries of the exact encoding: one for two alternatives, otherwise one each."""
    count = len(window.candidates) + np.isfinite(window.floor)
    return 1 if count == 2 else int(count)


def add_exact(block: RowBlock, window: Window, *, y: int, binaries: list[int], name: str) -> None:
    """Rows that make column y the maximum, given integer binaries (Tjeng et al. 2019, eq. 4 and A.2, the floor an alternative).

    y >= every alternative; y <= z_i + (U_i - l_i)(1 - b_i) with U_i the largest upper bound among the other alternatives; sum
    b = 1, where with two alternatives b_2 = 1 - b_1. Where b_i = 0 another alternative attains the maximum, so
    y - z_i <= U_i - l_i holds.
    """
    _add_lower(block, window, y, name)
    spans = list(zip(window.candidates, window.lower, window.upper, strict=True))
    options: list[tuple[int | None, float, float]] = [(entry, low, high) for entry, low, high in spans]
    if np.isfinite(window.floor):
        options.append((None, window.floor, window.floor))
    for index, (entry, low, _) in enumerate(options):
        big = max(high for other, (_, _, high) in enumerate(options) if other != index) - low
        selected = (1.0, binaries[index], big) if index < len(binaries) else (0.0, binaries[0], -big)
        constant, column, weight = selected
        if entry is None:  # y <= floor + big (1 - selected)
            block.add(
                f"{name}_top{index}", entries=[], columns=[(y, 1.0), (column, weight)], upper=constant * big + low
            )
        else:
            columns = [(y, 1.0), (column, weight)]
            block.add(f"{name}_top{index}", entries=[(entry, -1.0)], columns=columns, upper=constant * big)
    if len(binaries) > 1:
        block.add(f"{name}_one", entries=[], columns=[(b, 1.0) for b in binaries], lower=1.0, upper=1.0)


def add_relaxed(block: RowBlock, window: Window, *, y: int, name: str) -> None:
    """Rows that keep column y above every alternative and below the concave envelope of the maximum over the box of z."""
    _add_lower(block, window, y, name)
    add_envelope(block, window, y=y, name=name)


def add_envelope(block: RowBlock, window: Window, *, y: int, name: str) -> None:
    """Y <= T + sum over i with u_i > T of (u_i - T)(z_i - l_i)/(u_i - l_i), for every breakpoint T.

    For any T >= every l_i: max z <= T + sum_i max(z_i - T, 0), and each term lies below its chord. The right-hand side is
    piecewise linear in T with breakpoints u_i, so the least over T is the concave envelope. One candidate with floor 0 gives
    the triangle of a ReLU.
    """
    points = {window.least} | {high for high in window.upper if window.least < high < window.greatest}
    for index, point in enumerate(sorted(points)):
        entries, constant = [], point
        for entry, low, high in zip(window.candidates, window.lower, window.upper, strict=True):
            if high > point:
                slope = (high - point) / (high - low)
                entries.append((entry, -slope))
                constant -= slope * low
        block.add(f"{name}_env{index}", entries=entries, columns=[(y, 1.0)], upper=constant)


def _add_lower(block: RowBlock, window: Window, y: int, name: str) -> None:
    for index, entry in enumerate(window.candidates):
        block.add(f"{name}_low{index}", entries=[(entry, -1.0)], columns=[(y, 1.0)], lower=0.0)


def stable_selection(
    windows: Windows, decided: Bool[np.ndarray, " windows"], entries: int
) -> tuple[sparse.csr_array, Float[np.ndarray, " windows"]]:
    """For decided windows, the matrix that picks the one candidate left (a zero row for a floor) and the floors to add."""
    has_candidate = decided & (windows.candidates >= 0).any(axis=1)
    rows = np.flatnonzero(has_candidate)
    picked = windows.candidates[rows].max(axis=1) if len(rows) else np.zeros(0, dtype=np.int64)
    matrix = sparse.csr_array((np.ones(len(rows)), (rows, picked)), shape=(len(decided), entries))
    return matrix, np.where(decided & np.isfinite(windows.floors), windows.floors, 0.0)
