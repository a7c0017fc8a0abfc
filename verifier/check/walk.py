"""The walk back: from rows over a value to an upper bound over boxes of inputs, with all rounding accounted for.

Invariant, for every row and at every point of its part of the region: the quantity to be bounded is at most

    sum over pending values v of (r_v @ v) + sum(constants) + error.

The r_v are floats and exact by definition; each step may replace them by any others as long as the difference goes into `error`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int

from verifier.check.coefficients import Coefficients
from verifier.check.knowledge import Bounds, Knowledge, alternatives
from verifier.check.maps import INFLATION, Rows, Vector
from verifier.check.parameters import Chosen
from verifier.check.planes import Planes, planes_of
from verifier.check.steps import AffineStep, MaximumStep
from verifier.rounding import UNIT_ROUNDOFF, gamma, inner_product_error, up


@dataclass(frozen=True, slots=True, eq=False)
class RegionPlanes:
    """A maximum's default planes over the whole region, batch 1.

    Attributes:
        planes: The planes.
        noise: (windows,): r on the output, replaced by fl(r * slope) on the alternatives, loses at most |r| @ noise.
    """

    planes: Planes
    noise: Vector

    @classmethod
    def of(cls, step: MaximumStep, knowledge: Knowledge) -> "RegionPlanes":
        """The planes from the bounds known."""
        source = knowledge.lower[step.source][None], knowledge.upper[step.source][None]
        planes = planes_of(*alternatives(step, source), step.present[:, None, :])
        reach = np.where(step.index >= 0, knowledge.magnitude[step.source][step.index], 0.0)
        steepest = np.maximum(planes.above, planes.below)[:, 0]
        count = len(step.index) + 2
        noise = gamma(count) * (steepest * reach).sum(axis=0)
        noise += gamma(len(noise) + 2) * np.abs(planes.constant[0])
        return cls(planes, noise * INFLATION)


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Upper bounds, and the planes over the input that give them.

    Attributes:
        bounds: (rows,), rounded upwards; not finite where something overflowed.
        coefficients: Of inputs, exact.
        inputs: How many there are.
    """

    bounds: Vector
    coefficients: Coefficients
    inputs: int

    @property
    def slopes(self) -> Rows:
        """(rows, inputs): slopes @ x + (bounds - max over the box of slopes @ x) is an upper bound at every x, too."""
        return self.coefficients.full(self.inputs)


@dataclass(slots=True)
class _State:
    """The invariant's parts."""

    knowledge: Knowledge
    pending: dict[int, Coefficients]
    error: Vector
    constants: list[Vector] = field(default_factory=list)

    def add(self, value: int, rows: Coefficients) -> None:
        """Adds coefficients on a value."""
        if value not in self.pending:
            self.pending[value] = rows
            return
        total = self.pending[value].plus(rows)
        magnitude = self.knowledge.magnitude[value][total.index]
        self.error += 2.0 * UNIT_ROUNDOFF * (np.abs(total.values) @ magnitude)
        self.pending[value] = total


def bound_rows(
    knowledge: Knowledge,
    planes: Mapping[int, RegionPlanes],
    value: int,
    rows: Coefficients,
    constants: Vector,
    *,
    box: Bounds,
    chosen: Mapping[int, Chosen] = MappingProxyType({}),
    shallow: Mapping[int, Bounds] = MappingProxyType({}),
) -> tuple[Bounded, Bool[np.ndarray, " batch"]]:
    """Upper bounds of rows @ value + constants over a box of inputs each, and which rows' parts are seen to be empty.

    Args:
        knowledge: Of the region.
        planes: By operation, the region's planes; of every maximum before the value.
        value: The value that the rows read.
        rows: Of that value, exact.
        constants: (batch,), exact.
        box: (batch or 1, inputs) twice, inside the region's.
        chosen: By operation, the windows whose planes differ from the region's, batch as the rows.
        shallow: By value, bounds (batch, size) over the boxes that are better than the region's.
    """
    batch = len(rows.values)
    state = _State(knowledge, {value: rows}, np.full(batch, knowledge.underflow), [constants])
    is_empty = np.zeros(batch, dtype=np.bool_)
    nothing = Coefficients(np.zeros(0, dtype=np.int64), np.zeros((batch, 0)))
    with np.errstate(all="ignore"):
        for step in reversed(knowledge.steps.steps[:value]):
            current = state.pending.pop(step.output, None)
            if isinstance(step, AffineStep):
                if current is not None:
                    _through_affine(step, current, state)
                continue
            here = chosen.get(step.operation)
            own = None
            if here is not None and len(here.windows):
                own = _planes_here(step, here, knowledge, shallow)
                is_empty |= own.is_empty.any(axis=1)
            if current is not None or own is not None:
                _through_maximum(
                    step, nothing if current is None else current, planes[step.operation], here, own, state
                )
        left = state.pending.get(0, nothing)
        slopes, (lower, upper) = left.values, (end[:, left.index] for end in box)
        state.constants.append(np.where(slopes > 0.0, slopes * upper, slopes * lower).sum(axis=1))
        state.error += gamma(slopes.shape[1] + 2) * (np.abs(slopes) @ knowledge.magnitude[0][left.index])
        parts = np.stack(state.constants)
        rounding = inner_product_error(np.abs(parts).sum(axis=0), len(parts))
        bounds = up(up(parts.sum(axis=0) + rounding) + up(state.error * INFLATION))
    return Bounded(bounds, left, knowledge.steps.sizes[0]), is_empty


def _planes_here(step: MaximumStep, chosen: Chosen, knowledge: Knowledge, shallow: Mapping[int, Bounds]) -> Planes:
    region = knowledge.lower[step.source][None], knowledge.upper[step.source][None]
    lower, upper = (np.broadcast_to(end, chosen.alive.shape) for end in alternatives(step, region, chosen.windows))
    if step.source in shallow:
        own = alternatives(step, shallow[step.source], chosen.windows)
        lower, upper = np.where(chosen.is_own, own[0], lower), np.where(chosen.is_own, own[1], upper)
    return planes_of(lower, upper, chosen.alive, weights=chosen.weights, fractions=chosen.fractions)


def _through_affine(step: AffineStep, rows: Coefficients, state: _State) -> None:
    noise = state.knowledge.noise[step.output]
    if noise is None:
        raise TypeError(f"step {step.output} has no noise")
    state.error += np.abs(rows.values) @ noise[rows.index]
    state.constants.append(rows.values @ step.bias[rows.index])
    for linear, source in step.terms:
        state.add(source, linear.backward_at(rows))


def _through_maximum(
    step: MaximumStep,
    rows: Coefficients,
    region: RegionPlanes,
    chosen: Chosen | None,
    own: Planes | None,
    state: _State,
) -> None:
    """Replaces coefficients on the outputs by coefficients on the alternatives; most windows have the region's planes."""
    found: list[_Share] = []
    if chosen is not None and own is not None:
        rows = rows.with_entries(chosen.windows)
        at = rows.places(chosen.windows)
        found += _through_chosen(step, rows.values[:, at], chosen, own, state)
        rest = rows.values.copy()
        rest[:, at] = 0.0
        rows = Coefficients(rows.entries, rest)
    here = np.flatnonzero((rows.values != 0.0).any(axis=0))
    used = here if rows.entries is None else rows.entries[here]
    values = rows.values[:, here]
    planes, rises = region.planes, values > 0.0
    state.error += np.abs(values) @ region.noise[used]
    state.constants.append(np.where(rises, values, 0.0) @ planes.constant[0, used])
    for index, above, below in zip(
        step.index[:, used], planes.above[:, 0, used], planes.below[:, 0, used], strict=True
    ):
        found.append((index, values * np.where(rises, above, below)))
    state.add(step.source, _gathered(step, found, len(values), state.knowledge.steps.sizes[step.source]))


_Share = tuple[Int[np.ndarray, "_"], Float[np.ndarray, "_ _"]]
"""The entries of one alternative of some windows, and coefficients on them."""


def _through_chosen(step: MaximumStep, rows: Rows, chosen: Chosen, planes: Planes, state: _State) -> list[_Share]:
    """Adds multiplier * (y - z) >= 0 for every multiplier, then replaces y by its planes."""
    index, count = step.index[:, chosen.windows], len(step.index)
    multipliers, total = chosen.multipliers, rows
    if multipliers.any():
        total = rows + multipliers.sum(axis=0)
        lost = np.where(multipliers.any(axis=0), np.abs(rows) + multipliers.sum(axis=0), 0.0)
        state.error += gamma(count + 3) * (lost @ state.knowledge.magnitude[step.output][chosen.windows])
    rises = total > 0.0
    constant = np.where(rises, total * planes.constant, 0.0)
    state.constants.append(constant.sum(axis=1))
    state.error += gamma(len(chosen.windows) + 3) * np.abs(constant).sum(axis=1)
    products = total * np.where(rises, planes.above, planes.below)
    size = np.abs(products) + multipliers
    products = products - multipliers
    reach = np.where(index >= 0, state.knowledge.magnitude[step.source][index], 0.0)
    state.error += gamma(count + 3) * np.einsum("abw,aw->b", size, reach)
    return list(zip(index, products, strict=True))


def _gathered(step: MaximumStep, found: list[_Share], batch: int, size: int) -> Coefficients:
    """The shares added up by entry; -1 stands for the floor, whose value is 0, and for padding.

    One alternative of different windows is a different entry each, so no entry comes twice in a share.
    """
    real = [(index[index >= 0], values[:, index >= 0]) for index, values in found if values.any()]
    if 2 * sum(len(index) for index, _ in real) > size:
        result = Coefficients(None, np.zeros((batch, size)))
    else:
        touched = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(index for index, _ in real)]))
        result = Coefficients(touched, np.zeros((batch, len(touched))))
    for index, values in real:
        at = result.places(index)
        if step.overlaps:
            result.values[:, at] += values
        else:
            result.values[:, at] = values
    return result
