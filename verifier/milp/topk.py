"""Top-k objectives over an encoding: the count-th largest form in one model, or one model per count-subset of forms.

Both maximise s. The margin of a property is its count-th largest form, which is the largest over count-subsets S of the least
form in S.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from verifier.bounds.results import NodeBounds
from verifier.deadline import Deadline
from verifier.milp.encoding import Encoding
from verifier.milp.model import MilpModel
from verifier.milp.solvers.highs import LinearAnswer, LinearProgram
from verifier.milp.system import Expressions, without_tiny
from verifier.property import Property

# Switching rows leaves a basis that is feasible in neither sense: above this size starting afresh is faster, up to 50 times.
_HOT_START_ROWS = 1000

FormVector = Float[np.ndarray, " forms"]


@dataclass(frozen=True, slots=True, eq=False)
class Forms:
    """A property's forms over an encoding.

    Attributes:
        encoding: The network.
        expressions: One per form.
        lower, upper: float64 (forms,), bounds of the forms over the region.
    """

    encoding: Encoding
    expressions: Expressions
    lower: FormVector
    upper: FormVector


def forms_of(encoding: Encoding, prop: Property) -> Forms:
    """The forms of a property, bounded by the score bounds and by interval arithmetic over the columns."""
    scores = encoding.scores
    weights = sparse.csr_array(prop.coefficients)
    coefficients = sparse.csr_array(weights @ scores.coefficients)
    coefficients.sum_duplicates()
    coefficients.eliminate_zeros()
    expressions = Expressions(coefficients, prop.coefficients @ scores.constants + prop.offsets)
    low, high = expressions.interval(encoding.system.column_lower, encoding.system.column_upper)
    output_low, output_high = form_interval(encoding.node_bounds, encoding.output, prop)
    pad = 1e-9 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
    return Forms(encoding, expressions, np.maximum(low, output_low) - pad, np.minimum(high, output_high) + pad)


def form_interval(bounds: NodeBounds, output: int, prop: Property) -> tuple[FormVector, FormVector]:
    """Bounds of the forms from the bounds of the scores, value `output`; infinite where there are none."""
    if output not in bounds.lower:
        infinite = np.full(len(prop.offsets), np.inf)
        return -infinite, infinite
    low, high = bounds.lower[output], bounds.upper[output]
    positive, negative = np.maximum(prop.coefficients, 0.0), np.minimum(prop.coefficients, 0.0)
    return positive @ low + negative @ high + prop.offsets, positive @ high + negative @ low + prop.offsets


@dataclass(frozen=True, slots=True, eq=False)
class TopKModel:
    """A model whose objective is s, over some columns of an encoding.

    Attributes:
        model: What a solver gets.
        columns: int64, the encoding's columns that the model's first columns are, ascending.
        encoding: The encoding.
    """

    model: MilpModel
    columns: Int[np.ndarray, " kept"]
    encoding: Encoding

    def point(self, solution: Float[np.ndarray, " n"]) -> Float[np.ndarray, " inputs"]:
        """The input a solution describes."""
        return self.encoding.point(self.columns, solution)


def subset_model(forms: Forms, subset: Sequence[int], least: float) -> TopKModel:
    """Maximise s subject to s <= form_i for i in the subset and s >= least.

    Infeasible iff at no point of the region all forms of the subset reach `least`.
    """
    members = list(subset)
    top = max(float(forms.upper[members].min()), least) + 1.0
    return _assemble(forms, members, (least, top), np.zeros(len(members)), chosen=0)


def single_model(forms: Forms, members: Sequence[int], count: int, least: float) -> TopKModel:
    """Maximise s subject to s <= form_i + M_i (1 - z_i), sum z = count over the members, z binary, and s >= least.

    Infeasible iff at no point of the region `count` of the members reach `least`. M_i is the largest s minus the least form i.
    """
    chosen = list(members)
    top = max(float(np.sort(forms.upper[chosen])[-count]), least) + 1.0
    big = np.maximum(top - forms.lower[chosen], 0.0) if count < len(chosen) else np.zeros(len(chosen))
    return _assemble(forms, chosen, (least, top), big, chosen=count if count < len(chosen) else 0)


def _assemble(
    forms: Forms, members: list[int], s_bounds: tuple[float, float], big: Float[np.ndarray, " m"], *, chosen: int
) -> TopKModel:
    """Columns: those the members depend on, s, then one z per member where `chosen` of them count."""
    system = forms.encoding.system
    coefficients = forms.expressions.over(system.columns)[members]
    kept, rows = system.closure(np.unique(coefficients.indices))
    reach = np.maximum(np.abs(system.column_lower), np.abs(system.column_upper))
    infinite = np.full(len(members), np.inf)
    body, side, _ = without_tiny(coefficients, -forms.expressions.constants[members] - big, infinite, reach)
    below_s = sparse.csr_array(np.full((len(members), 1), -1.0))
    blocks = [body[:, kept], below_s]
    width = 1
    if chosen:  # form_i - s - M_i z_i >= -constant - M_i
        blocks.append(sparse.csr_array(np.diag(-big)))
        width += len(members)
    form_rows = sparse.hstack(blocks, format="csr")
    encoded = sparse.hstack([system.rows[rows][:, kept], sparse.csr_array((len(rows), width))], format="csr")
    stack = [encoded, form_rows]
    row_lower, row_upper = [system.row_lower[rows], side], [system.row_upper[rows], infinite]
    row_names = [*(system.row_names[row] for row in rows), *(f"form{i}" for i in members)]
    if chosen:
        choice = np.concatenate([np.zeros(len(kept) + 1), np.ones(len(members))])
        stack.append(sparse.csr_array(choice[None]))
        row_lower.append(np.array([float(chosen)]))
        row_upper.append(np.array([float(chosen)]))
        row_names.append("count")
    extra = width - 1
    model = MilpModel(
        sparse.csr_array(sparse.vstack(stack)),
        np.concatenate(row_lower),
        np.concatenate(row_upper),
        np.concatenate([system.column_lower[kept], [s_bounds[0]], np.zeros(extra)]),
        np.concatenate([system.column_upper[kept], [s_bounds[1]], np.ones(extra)]),
        np.concatenate([system.is_integer[kept], [False], np.ones(extra, dtype=np.bool_)]).astype(np.bool_),
        np.concatenate([np.zeros(len(kept)), [1.0], np.zeros(extra)]),
        0.0,
        (*(system.column_names[c] for c in kept), "s", *(f"z{i}" for i in members[:extra])),
        tuple(row_names),
    )
    return TopKModel(model, kept, forms.encoding)


class SubsetPrograms:
    """The linear relaxations of many subset models in one program, hot-started from one to the next while it is small.

    Args:
        forms: Over a relaxed encoding.
        members: Every form that occurs in a subset.
    """

    def __init__(self, forms: Forms, members: Sequence[int]) -> None:
        self._members = sorted(members)
        least = float(forms.lower[self._members].min()) - 1.0
        top = float(forms.upper[self._members].max()) + 1.0
        self._model = _assemble(forms, self._members, (least, top), np.zeros(len(self._members)), chosen=0)
        self._program = LinearProgram(self._model.model)
        self._first_row = self._model.model.rows.shape[0] - len(self._members)

    def maximise(self, subset: Sequence[int], deadline: Deadline) -> tuple[float, Float[np.ndarray, " inputs"] | None]:
        """An upper bound of the least form in the subset over the relaxation, and an input where it is attained."""
        is_on: Bool[np.ndarray, " members"] = np.isin(self._members, list(subset))
        lower = self._model.model.row_lower
        for position, on in enumerate(is_on):
            row = self._first_row + position
            self._program.set_row_lower(row, float(lower[row]) if on else -np.inf)
        if self._model.model.rows.shape[0] > _HOT_START_ROWS:
            self._program.forget_basis()
        answer: LinearAnswer = self._program.maximise(self._model.model.objective, deadline)
        return answer.bound, None if answer.point is None else self._model.point(answer.point)
