"""The maxima of many small functions with one layer of ReLUs, by one batched branch and bound.

A function here is

    f(t) = direct @ t + sum_u weight_u relu(hidden_u @ t + offset_u)     over t in [-1, 1]^n.

A part of the box fixes the phase of some ReLUs. It is bounded as in beta-CROWN (Wang et al. 2021): ReLUs with weight > 0 by their
chord, others by a slope alpha in [0, 1] that is optimised, fixed ones exactly, their phase a constraint with a multiplier
beta >= 0. The part with the largest bound is halved at the ReLU whose relaxation costs most where the bound is attained.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from verifier.deadline import Deadline

_STEPS, _RATE = 20, 0.3
_LAST_RATE = 0.04
_MOMENTUM, _MEMORY = 0.8, 0.95
_ENTRIES_PER_BATCH = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class ShallowFunctions:
    """Functions as above, padded with zeros to one shape; a padded ReLU has weight 0.

    Attributes:
        direct: float64 (functions, inputs).
        weights: float64 (functions, units).
        hidden: float64 (functions, units, inputs).
        offsets: float64 (functions, units).
        reach: float64 (functions, units), the radius of hidden @ t: its range is offset -+ reach.
    """

    direct: Tensor
    weights: Tensor
    hidden: Tensor
    offsets: Tensor
    reach: Tensor

    @classmethod
    def of(cls, direct: Tensor, weights: Tensor, hidden: Tensor, offsets: Tensor) -> "ShallowFunctions":
        """The functions, with their ranges."""
        return cls(direct, weights, hidden, offsets, hidden.abs().sum(dim=2))


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Parts of boxes, with what bounds them.

    Attributes:
        owner: int64 (parts,), the function.
        phase: int8 (parts, units): 1 active, -1 inactive, 0 not fixed.
        slopes: float64 (parts, units), alpha.
        multipliers: float64 (parts, units), beta.
        bounds: float64 (parts,), upper bounds of the function over the part.
        is_own: bool (parts,): whether slopes and multipliers give the bound here; otherwise they gave it to an ancestor.
        number: int64 (parts,), of the part; counts all parts of a search from 0.
        parent: int64 (parts,), the number of the part that this one is a half of; -1 for a whole box.
        unit: int64 (parts,), the ReLU that halved it; -1 for a whole box.
    """

    owner: Tensor
    phase: Tensor
    slopes: Tensor
    multipliers: Tensor
    bounds: Tensor
    is_own: Tensor
    number: Tensor
    parent: Tensor
    unit: Tensor

    def chosen(self, index: Tensor) -> "Parts":
        """Some of them."""
        return Parts(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def joined(cls, groups: list["Parts"]) -> "Parts":
        """All of several groups."""
        return cls(*(torch.cat([getattr(group, field.name) for group in groups]) for field in fields(cls)))


@dataclass(frozen=True, slots=True, eq=False)
class Maxima:
    """What the search found.

    Attributes:
        upper: float64 (functions,), upper bounds of the maxima, up to rounding.
        attained: float64 (functions,), values attained at points of the box.
        leaves: Parts that cover every box, each bounded by its function's `upper`.
        inner: The parts that were halved.
    """

    upper: Tensor
    attained: Tensor
    leaves: Parts
    inner: Parts


def maximise(
    functions: ShallowFunctions, *, tolerance: float, most_parts: int, deadline: Deadline, steps: int = _STEPS
) -> Maxima:
    """Upper bounds of all maxima, within `tolerance` of the gap that the first bounds leave, where parts and time allow.

    Args:
        functions: The functions.
        tolerance: In (0, 1): a part is left alone once its bound exceeds the best value known by no more than this share of the
            difference between the function's first bound and first value.
        most_parts: Bounded per function on average at most.
        deadline: Checked between batches; the bounds found so far hold at any time.
        steps: Of the parameters of one part; its halves go on from there.

    Soundness: children cover their parent, a parent is dropped only for both of them, and `upper` is the largest bound of a leaf.
    """
    count, units = functions.weights.shape
    batch = max(16, _ENTRIES_PER_BATCH // max(1, functions.hidden[0].numel()))
    first = Parts(
        torch.arange(count),
        torch.zeros((count, units), dtype=torch.int8),
        ((functions.offsets > 0) & (functions.weights < 0)).double(),
        torch.zeros((count, units), dtype=torch.float64),
        torch.full((count,), torch.inf, dtype=torch.float64),
        torch.zeros(count, dtype=torch.bool),
        torch.arange(count),
        torch.full((count,), -1),
        torch.full((count,), -1),
    )
    attained = torch.full((count,), -torch.inf, dtype=torch.float64)
    leaves = Parts.joined(
        [part if deadline.has_expired else _bounded(functions, part, attained, steps) for part in _split(first, batch)]
    )
    allowed = tolerance * (leaves.bounds - attained).clamp(min=0.0) + 1e-9
    bounded = count
    closed: list[Parts] = []
    halved = [leaves.chosen(torch.arange(0))]
    while bounded < most_parts * count and not deadline.has_expired:
        excess = leaves.bounds - (attained + allowed)[leaves.owner]
        is_open = (excess > 0) & _has_choice(functions, leaves)
        closed.append(leaves.chosen(~is_open))
        leaves, excess = leaves.chosen(is_open), excess[is_open]
        if not len(excess):
            break
        relative = excess / allowed[leaves.owner]
        order = relative.argsort(descending=True)
        parents, rest = leaves.chosen(order[: batch // 2]), leaves.chosen(order[batch // 2 :])
        children = _bounded(functions, _halves(functions, parents, bounded), attained, steps)
        bounded += len(children.bounds)
        halved.append(parents)
        leaves = Parts.joined([rest, children])
    leaves = Parts.joined([*closed, leaves])
    upper = torch.full((count,), -torch.inf, dtype=torch.float64).scatter_reduce(0, leaves.owner, leaves.bounds, "amax")
    return Maxima(upper, attained, leaves, Parts.joined(halved))


def _split(parts: Parts, size: int) -> list[Parts]:
    return [parts.chosen(torch.arange(i, min(i + size, len(parts.owner)))) for i in range(0, len(parts.owner), size)]


def _undecided(functions: ShallowFunctions, parts: Parts) -> Tensor:
    """ReLUs (bool (parts, units)) whose phase neither their range nor a split fixes."""
    return (functions.offsets.abs() < functions.reach)[parts.owner] & (parts.phase == 0)


def _has_choice(functions: ShallowFunctions, parts: Parts) -> Tensor:
    return (_undecided(functions, parts) & (functions.weights != 0)[parts.owner]).any(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """A batch of parts ready to be bounded: tensors gathered from their functions, (rows, units) unless said otherwise."""

    direct: Tensor
    hidden: Tensor
    offsets: Tensor
    weights: Tensor
    chord: Tensor
    constant: Tensor
    fixed: Tensor
    is_free: Tensor
    sign: Tensor

    @classmethod
    def of(cls, functions: ShallowFunctions, parts: Parts) -> "_Rows":
        offsets, reach = functions.offsets[parts.owner], functions.reach[parts.owner]
        undecided = _undecided(functions, parts)
        fixed = ((parts.phase > 0) | ((parts.phase == 0) & (offsets > 0))).double()
        lower, upper = offsets - reach, offsets + reach
        chord = torch.where(undecided, upper / torch.where(undecided, upper - lower, 1.0), fixed)
        weights = functions.weights[parts.owner]
        constant = torch.where(undecided & (weights > 0), -weights * chord * lower, 0.0).sum(dim=1)
        return cls(
            functions.direct[parts.owner],
            functions.hidden[parts.owner],
            offsets,
            weights,
            chord,
            constant,
            fixed,
            undecided & (weights < 0),
            parts.phase.double(),
        )

    def walk(self, slopes: Tensor, multipliers: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds (rows,) and the corners (rows, inputs) that attain them."""
        slope = torch.where(self.is_free, slopes, torch.where(self.weights > 0, self.chord, self.fixed))
        on_hidden = torch.addcmul(self.weights * slope, self.sign, multipliers)
        coefficients = torch.baddbmm(self.direct.unsqueeze(1), on_hidden.unsqueeze(1), self.hidden).squeeze(1)
        bounds = self.constant + (on_hidden * self.offsets).sum(dim=1) + coefficients.abs().sum(dim=1)
        return bounds, torch.sign(coefficients)

    def values(self, corners: Tensor) -> Tensor:
        """The ReLUs' inputs (rows, units) at points (rows, inputs)."""
        return torch.baddbmm(self.offsets.unsqueeze(2), self.hidden, corners.unsqueeze(2)).squeeze(2)

    def attained(self, corners: Tensor, z: Tensor) -> Tensor:
        """The functions' true values there."""
        return (self.direct * corners).sum(dim=1) + (self.weights * torch.relu(z)).sum(dim=1)


def _bounded(functions: ShallowFunctions, parts: Parts, attained: Tensor, steps: int) -> Parts:
    """The parts with the least bounds found from their parameters; better values met on the way are written to `attained`."""
    rows = _Rows.of(functions, parts)
    slopes, multipliers = parts.slopes.clone(), parts.multipliers.clone()
    best, kept = parts.bounds.clone(), (slopes, multipliers)
    momenta = [torch.zeros_like(slopes) for _ in range(4)]
    scale = rows.weights.abs().amax(dim=1, keepdim=True)
    for step in range(steps):
        bounds, corners = rows.walk(slopes, multipliers)
        z = rows.values(corners)
        attained.scatter_reduce_(0, parts.owner, rows.attained(corners, z), "amax")
        improves = bounds < best
        best = torch.where(improves, bounds, best)
        better = improves.unsqueeze(1)
        kept = (torch.where(better, slopes, kept[0]), torch.where(better, multipliers, kept[1]))
        if step == steps - 1:
            break
        gradients = (torch.where(rows.is_free, rows.weights * z, 0.0), rows.sign * z)
        moves = []
        for number, gradient in enumerate(gradients):
            mean = momenta[2 * number].mul_(_MOMENTUM).add_(gradient, alpha=1 - _MOMENTUM)
            square = momenta[2 * number + 1].mul_(_MEMORY).addcmul_(gradient, gradient, value=1 - _MEMORY)
            size = (square / (1 - _MEMORY ** (step + 1))).sqrt_().add_(1e-12)
            moves.append(mean / (1 - _MOMENTUM ** (step + 1)) / size * (_RATE * _LAST_RATE ** (step / steps)))
        slopes = (slopes - moves[0]).clamp(min=0.0, max=1.0)
        multipliers = (multipliers - scale * moves[1]).clamp(min=0.0) * rows.sign.abs()
    return replace(parts, slopes=kept[0], multipliers=kept[1], bounds=best, is_own=best < parts.bounds)


def _halves(functions: ShallowFunctions, parents: Parts, first: int) -> Parts:
    """Both phases of the ReLU that costs each parent most where its bound is attained; the parts are numbered from `first`."""
    rows = _Rows.of(functions, parents)
    _, corners = rows.walk(parents.slopes, parents.multipliers)
    z = rows.values(corners)
    plane = torch.where(
        rows.weights > 0,
        rows.chord * (z - functions.offsets[parents.owner] + functions.reach[parents.owner]),
        parents.slopes * z,
    )
    gap = rows.weights * (plane - torch.relu(z))
    can_split = _undecided(functions, parents) & (rows.weights != 0)
    unit = torch.where(can_split, gap, -torch.inf).argmax(dim=1, keepdim=True)
    count = len(parents.owner)
    sides = []
    for side, phase in enumerate((1, -1)):
        sides.append(
            replace(
                parents,
                phase=parents.phase.scatter(1, unit, torch.full_like(unit, phase, dtype=torch.int8)),
                is_own=torch.zeros(count, dtype=torch.bool),
                number=first + side * count + torch.arange(count),
                parent=parents.number,
                unit=unit.squeeze(1),
            )
        )
    return Parts.joined(sides)
