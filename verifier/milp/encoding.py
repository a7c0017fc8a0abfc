"""The exact mixed-integer encoding of a network over a box, and its linear relaxation, as columns, rows and score expressions.

Stable units are substituted and constants folded, so columns exist only for inputs that can change and for undecided ReLUs
and windows, binaries only in the exact form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from verifier.bounds.results import NodeBounds
from verifier.canonical import Affine, CanonicalNetwork, Max, Relu
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.milp.system import Entries, Expressions, System, without_tiny
from verifier.milp.windows import (
    RowBlock,
    Window,
    Windows,
    add_envelope,
    add_exact,
    add_relaxed,
    alternatives,
    binaries_needed,
    reduce_windows,
    stable_selection,
)

PADDING = 1e-7
"""Bounds of undecided units are widened by this, relative to max(1, |bound|), before they become big-M constants.

It covers their float64 rounding, and keeps lower < upper with something a solver can see in between.
"""

CROSSING = 1e-6
"""Bounds that cross by more than this, relative to max(1, |bound|), contradict each other; less is rounding."""


class Form(Enum):
    """How an undecided maximum is written."""

    EXACT = "binaries and big-M"
    RELAXED = "the concave envelope, no binaries"


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """A network over a box as boxed columns, rows, and the scores as expressions over the columns.

    Soundness: every input of the box extends to a feasible assignment of the columns whose score expressions are its
    scores. In the exact form the converse holds too: a feasible assignment's inputs have these scores. Both up to the
    float64 rounding of the coefficients and of the bounds handed in.

    Attributes:
        form: Exact or relaxed.
        system: The columns (inputs first) and rows.
        scores: One expression per label.
        input_entries: int64 (input columns,), the input entry each of the first columns stands for.
        base: float64 (inputs,), the fixed entries; the middle of the box elsewhere.
        box: float64 (inputs,) twice.
        node_bounds: The bounds it was built from, tightened ones included.
        output: The value that holds the scores.
        undecided: Undecided ReLUs and windows.
    """

    form: Form
    system: System
    scores: Expressions
    input_entries: Int[np.ndarray, " input_columns"]
    base: Float[np.ndarray, " inputs"]
    box: tuple[Float[np.ndarray, " inputs"], Float[np.ndarray, " inputs"]]
    node_bounds: NodeBounds
    output: int
    undecided: int

    def point(
        self, columns: Int[np.ndarray, " some"], solution: Float[np.ndarray, " some_and_more"]
    ) -> Float[np.ndarray, " inputs"]:
        """The input that a solution of a model over the given columns of the system describes, clipped into the box."""
        point = self.base.copy()
        is_input = columns < len(self.input_entries)
        point[self.input_entries[columns[is_input]]] = solution[: len(columns)][is_input]
        return np.clip(point, *self.box)


Tighten = Callable[[System, int, Expressions, Int[np.ndarray, " some"], Entries, Entries], tuple[Entries, Entries]]
"""(system so far, value index, the value, entries, lower, upper) -> lower, upper with the given entries' bounds tightened."""


def encode(
    canonical: CanonicalNetwork,
    box: tuple[np.ndarray, np.ndarray],
    node_bounds: NodeBounds,
    form: Form,
    *,
    tighten: Tighten | None = None,
    deadline: Deadline,
) -> Encoding | None:
    """The encoding, or None if the deadline passed before it was complete.

    Args:
        canonical: The network.
        box: Flat lower and upper input bounds, finite.
        node_bounds: Bounds of every value that a ReLU or Max reads.
        form: Exact or relaxed.
        tighten: Called before each node's units are encoded, with the units that are undecided.
        deadline: Checked between nodes.

    Raises:
        ContradictionError: Bounds of a unit cross by more than rounding.
    """
    builder = _Builder(box, form)
    values = [builder.inputs()]
    lower, upper = dict(node_bounds.lower), dict(node_bounds.upper)
    for index, node in enumerate(canonical.nodes):
        if deadline.has_expired:
            return None
        if isinstance(node, Affine):
            values.append(_affine(canonical, index, node, values, builder.columns))
            continue
        value = node.input
        low, high = _intersected(values[value], lower[value], upper[value], f"value {value}")
        windows = _windows(node, values[value])
        if tighten is not None:
            low, high = _tightened(builder, (value, values[value]), windows, (low, high), tighten)
        lower[value], upper[value] = low, high
        values.append(builder.maxima(index, values[value], windows, low, high))
    return Encoding(
        form,
        builder.system(),
        values[-1],
        builder.input_entries,
        builder.base,
        builder.box,
        NodeBounds(lower, upper),
        canonical.output,
        builder.undecided,
    )


def _affine(
    canonical: CanonicalNetwork, index: int, node: Affine, values: list[Expressions], columns: int
) -> Expressions:
    coefficients = sparse.csr_array((node.size, columns))
    constants = node.bias.copy()
    for term, value in enumerate(node.inputs):
        matrix = canonical.matrix(index, term)
        coefficients = coefficients + matrix @ values[value].over(columns)
        constants = constants + matrix @ values[value].constants
    coefficients = sparse.csr_array(coefficients)
    coefficients.sum_duplicates()
    coefficients.eliminate_zeros()
    return Expressions(coefficients, constants)


def _intersected(values: Expressions, lower: Entries, upper: Entries, where: str) -> tuple[Entries, Entries]:
    """The bounds with constants put in and crossings by rounding undone."""
    is_constant = values.is_constant()
    low = np.where(is_constant, values.constants, lower)
    high = np.where(is_constant, values.constants, upper)
    excess = low - high
    if (excess > CROSSING * np.maximum(1.0, np.abs(low))).any():
        raise ContradictionError(
            f"{where}: a lower bound exceeds the upper bound by {excess.max():g}, wanted lower <= upper; two bounds disagree"
        )
    return np.minimum(low, high), np.maximum(low, high)


def _windows(node: Relu | Max, values: Expressions) -> Windows:
    """The node's windows, constant candidates moved into the floor."""
    if isinstance(node, Relu):
        candidates, has_floor = np.arange(node.size, dtype=np.int64)[:, None], True
    else:
        candidates, has_floor = node.windows, node.has_floor
    is_real = candidates >= 0
    is_constant = values.is_constant()[candidates] & is_real
    fixed = np.where(is_constant, values.constants[candidates], -np.inf).max(axis=1)
    floors = np.maximum(fixed, 0.0) if has_floor else fixed
    return Windows(np.where(is_real & ~is_constant, candidates, -1), floors)


def _tightened(
    builder: "_Builder",
    read: tuple[int, Expressions],
    windows: Windows,
    bounds: tuple[Entries, Entries],
    tighten: Tighten,
) -> tuple[Entries, Entries]:
    value, values = read
    reduced = reduce_windows(windows, *bounds)
    open_windows = reduced.candidates[alternatives(reduced) > 1]
    entries = np.unique(open_windows[open_windows >= 0])
    if not len(entries):
        return bounds
    low, high = tighten(builder.system(), value, values, entries, *bounds)
    return _intersected(values, np.maximum(low, bounds[0]), np.minimum(high, bounds[1]), f"value {value}")


class _Builder:
    """Collects columns and rows node by node."""

    def __init__(self, box: tuple[np.ndarray, np.ndarray], form: Form) -> None:
        lower, upper = (np.asarray(bound, dtype=np.float64) for bound in box)
        self.box = (lower, upper)
        self.form = form
        self.base = np.where(lower == upper, lower, np.clip(0.5 * (lower + upper), lower, upper))
        self.input_entries = np.flatnonzero(lower < upper)
        self.undecided = 0
        self._column_lower = list(lower[self.input_entries])
        self._column_upper = list(upper[self.input_entries])
        self._is_integer = [False] * len(self.input_entries)
        self._owner = [-1] * len(self.input_entries)
        self._column_names = [f"x{entry}" for entry in self.input_entries]
        self._blocks: list[sparse.csr_array] = []
        self._row_lower: list[np.ndarray] = []
        self._row_upper: list[np.ndarray] = []
        self._row_names: list[str] = []
        self._unit_rows = [0]

    @property
    def columns(self) -> int:
        return len(self._column_lower)

    def inputs(self) -> Expressions:
        shape = (len(self.base), self.columns)
        places = (self.input_entries, np.arange(self.columns))
        constants = self.base.copy()
        constants[self.input_entries] = 0.0
        return Expressions(sparse.csr_array((np.ones(self.columns), places), shape=shape), constants)

    def maxima(self, node: int, values: Expressions, windows: Windows, lower: Entries, upper: Entries) -> Expressions:
        """The node's value; rows and columns for its undecided windows are added."""
        reduced = reduce_windows(windows, lower, upper)
        is_decided = alternatives(reduced) == 1
        selection, floors = stable_selection(reduced, is_decided, len(lower))
        open_windows = np.flatnonzero(~is_decided)
        columns = np.zeros(len(open_windows), dtype=np.int64)
        block = RowBlock()
        start = len(self._row_names)
        for position, entry in enumerate(open_windows):
            window = _padded(reduced, int(entry), lower, upper)
            columns[position] = self._add_unit(block, window, f"{node}_{entry}")
            self._unit_rows.append(start + len(block.lower))
        self._append(block, values)
        self.undecided += len(open_windows)
        size = (len(is_decided), self.columns)
        fresh = sparse.csr_array((np.ones(len(columns)), (open_windows, columns)), shape=size)
        kept = sparse.csr_array(selection @ values.over(self.columns) + fresh)
        return Expressions(kept, selection @ values.constants + floors)

    def _add_unit(self, block: RowBlock, window: Window, name: str) -> int:
        unit = len(self._unit_rows) - 1
        y = self._add_column(window.least, window.greatest, f"y{name}", unit, is_integer=False)
        if self.form is Form.RELAXED:
            add_relaxed(block, window, y=y, name=f"r{name}")
            return y
        count = binaries_needed(window)
        binaries = [self._add_column(0.0, 1.0, f"b{name}_{i}", unit, is_integer=True) for i in range(count)]
        add_exact(block, window, y=y, binaries=binaries, name=f"r{name}")
        if len(window.candidates) > 1:
            add_envelope(block, window, y=y, name=f"r{name}")
        return y

    def _add_column(self, lower: float, upper: float, name: str, unit: int, *, is_integer: bool) -> int:
        self._column_lower.append(lower)
        self._column_upper.append(upper)
        self._is_integer.append(is_integer)
        self._owner.append(unit)
        self._column_names.append(name)
        return len(self._column_lower) - 1

    def _append(self, block: RowBlock, values: Expressions) -> None:
        if not block.lower:
            return
        rows, lower, upper = block.over(values.over(self.columns), values.constants)
        reach = np.maximum(np.abs(self._column_lower), np.abs(self._column_upper))
        rows, lower, upper = without_tiny(rows, lower, upper, reach)
        self._blocks.append(rows)
        self._row_lower.append(lower)
        self._row_upper.append(upper)
        self._row_names.extend(block.names)

    def system(self) -> System:
        """Everything so far."""
        width = self.columns
        blocks = [sparse.csr_array((b.data, b.indices, b.indptr), shape=(b.shape[0], width)) for b in self._blocks]
        rows = sparse.csr_array(sparse.vstack(blocks)) if blocks else sparse.csr_array((0, width))
        return System(
            rows,
            np.concatenate([np.zeros(0), *self._row_lower]),
            np.concatenate([np.zeros(0), *self._row_upper]),
            np.array(self._column_lower, dtype=np.float64),
            np.array(self._column_upper, dtype=np.float64),
            np.array(self._is_integer, dtype=np.bool_),
            np.array(self._owner, dtype=np.int64),
            np.array(self._unit_rows, dtype=np.int64),
            tuple(self._column_names),
            tuple(self._row_names),
        )


def _padded(windows: Windows, entry: int, lower: Entries, upper: Entries) -> Window:
    candidates = windows.candidates[entry]
    kept = candidates[candidates >= 0]
    low, high = lower[kept], upper[kept]
    low = low - PADDING * np.maximum(1.0, np.abs(low))
    high = high + PADDING * np.maximum(1.0, np.abs(high))
    floor = float(windows.floors[entry])
    return Window(tuple(kept.tolist()), tuple(low.tolist()), tuple(high.tolist()), floor)
