"""Planes around every undecided window of a batch of subproblems, and the walk through them, there and back.

The bound of a row, for any parameters in range, is the maximum over the box of

    sum_m c_m form_m + sum over windows, d in D of beta_d (y - z_d)

with every output y replaced, going backwards, by a plane over its candidates: from above where the coefficient on y is positive,
from below elsewhere (`verifier.bounds.relaxation` derives the planes). Each beta_d multiplies something >= 0 in the subproblem, so
the value bounds the least of the forms there from above: the Lagrangian of the splits (Wang et al. 2021, beta-CROWN, for ReLUs).

The gradient needs no tape: with x* the corner that attains the maximum, it is that of the plane network's value at x*, whose
adjoints are the coefficients of the walk back. One walk forwards gives the other factors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.search.skeleton import Stage


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One stage's parameters (or their gradients): views into the batch's parameter matrix.

    Attributes:
        weights: (windows, slots, batch), of the planes below; for ReLUs (windows, batch), of z alone.
        fractions: (windows, batch), of the planes above; empty for ReLUs.
        multipliers: (windows, slots, batch), of the dropped alternatives; for ReLUs (windows, batch).
    """

    weights: Tensor
    fractions: Tensor
    multipliers: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ReluPlanes:
    """Planes of ReLUs.

    Attributes:
        free: bool (windows, batch): undecided.
        below: (windows, batch), the slope where decided.
        above, constant: (windows, batch), the upper plane.
        sign: (windows, batch): 1 where z >= 0 is a split's constraint, -1 where z <= 0 is, else 0.
        infeasible: bool (batch,): the splits contradict the bounds.
    """

    free: Tensor
    below: Tensor
    above: Tensor
    constant: Tensor
    sign: Tensor
    infeasible: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor, alive: Tensor, dropped: Tensor, slack: float) -> "ReluPlanes":
        """Planes from candidates' bounds (candidates, batch) and the sets A and D."""
        is_active = ~alive[:, 1] | ((lower >= 0) & alive[:, 0])
        is_inactive = ~alive[:, 0] | ((upper <= 0) & alive[:, 1] & ~is_active)
        free = ~is_active & ~is_inactive
        below = is_active.to(lower.dtype)
        slope = torch.where(free, upper / torch.where(free, upper - lower, 1.0), below)
        constant = torch.where(free, -slope * lower, 0.0)
        sign = dropped[:, 1].to(lower.dtype) - dropped[:, 0].to(lower.dtype)
        infeasible = ((dropped[:, 1] & (upper < -slack)) | (dropped[:, 0] & (lower > slack))).any(dim=0)
        return cls(free, below, slope, constant, sign, infeasible)

    @property
    def undecided(self) -> Tensor:
        """Windows (bool (windows, batch)) with more than one alternative left."""
        return self.free

    def selected(self, rows: Tensor) -> "ReluPlanes":
        """Some of the batch."""
        parts = (self.free, self.below, self.above, self.constant, self.sign, self.infeasible)
        return ReluPlanes(*(part.index_select(-1, rows) for part in parts))

    def backward(self, stage: Stage, coefficients: Tensor, held: Held) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients on the candidates, constants (batch,), and the coefficients on the outputs that chose the planes."""
        del stage
        slope = torch.where(coefficients > 0, self.above, torch.where(self.free, held.weights, self.below))
        constants = (torch.relu(coefficients) * self.constant).sum(dim=0)
        return torch.addcmul(coefficients * slope, self.sign, held.multipliers), constants, coefficients

    def forward(self, stage: Stage, z: Tensor, coefficients: Tensor, held: Held) -> Tensor:
        """The planes' values (windows, batch) at candidates z, from the side that the coefficients choose."""
        del stage
        below = torch.where(self.free, held.weights, self.below) * z
        return torch.where(coefficients > 0, torch.addcmul(self.constant, self.above, z), below)

    def gradient(self, stage: Stage, z: Tensor, y: Tensor, coefficients: Tensor, held: Held, out: Held) -> None:
        """Writes the bound's derivatives, given the plane network's values z and y."""
        del stage, y, held
        out.weights.copy_(torch.where(self.free & (coefficients <= 0), coefficients * z, 0.0))
        torch.mul(self.sign, z, out=out.multipliers)

    def maxima(self, stage: Stage, z: Tensor) -> Tensor:
        """The outputs (windows, batch) that the subproblem ascribes to candidates z: the largest alternative in A."""
        del stage
        return torch.where(self.free, torch.relu(z), self.below * z)

    def first(self, held: Held) -> None:
        """Writes CROWN's parameters."""
        held.weights.copy_((self.above > 0.5).to(self.above.dtype))
        held.multipliers.zero_()

    def project(self, held: Held) -> None:
        """Moves the parameters into their range."""
        held.weights.clamp_(min=0.0, max=1.0)
        held.multipliers.clamp_(min=0.0).mul_(self.sign.abs())

    def tangent(self, gradient: Held) -> None:
        """Nothing: no ReLU parameters are tied together."""


@dataclass(frozen=True, slots=True, eq=False)
class MaxPlanes:
    """Planes of windows with several alternatives, slots laid out as in `Stage`.

    Attributes:
        lower, upper: (windows, slots, batch), bounds; upper is -inf outside A, lower 0.
        inverse_width: (windows, slots, batch), 1 / (upper - lower) in A where that is positive, else 0.
        alive, dropped: bool (windows, slots, batch): A (less what bounds exclude) and D.
        least, reach: (windows, batch): L, and U - L.
        infeasible: bool (batch,): the splits contradict the bounds.
    """

    lower: Tensor
    upper: Tensor
    inverse_width: Tensor
    alive: Tensor
    dropped: Tensor
    least: Tensor
    reach: Tensor
    infeasible: Tensor

    @classmethod
    def of(
        cls, stage: Stage, lower: Tensor, upper: Tensor, alive: Tensor, dropped: Tensor, slack: float
    ) -> "MaxPlanes":
        """Planes from candidates' bounds (candidates, batch) and the sets A and D."""
        low, high = stage.gather(lower, -torch.inf), stage.gather(upper, -torch.inf)
        # y is at least every lower bound, those of dropped alternatives included.
        forced = torch.where(alive | dropped, low, -torch.inf).amax(dim=1)
        tops = torch.where(alive, high, -torch.inf)
        most = tops.amax(dim=1)
        infeasible = (most < forced - slack).any(dim=0)
        kept = alive & ((high >= forced.unsqueeze(1)) | (tops >= most.unsqueeze(1)))
        least = torch.where(kept, low, -torch.inf).amax(dim=1)
        width = torch.where(kept, high - low, 0.0)
        inverse = torch.where(width > 0, 1.0 / torch.where(width > 0, width, 1.0), 0.0)
        high = torch.where(kept, high, -torch.inf)
        low = torch.where(kept, low, 0.0)
        # With one alternative left the plane at T = L is that alternative itself; no other is wanted.
        reach = torch.where(kept.sum(dim=1) > 1, (most - least).clamp(min=0.0), 0.0)
        return cls(low, high, inverse, kept, dropped, least, reach, infeasible)

    @property
    def undecided(self) -> Tensor:
        """Windows (bool (windows, batch)) with more than one alternative left."""
        return self.alive.sum(dim=1) > 1

    def selected(self, rows: Tensor) -> "MaxPlanes":
        """Some of the batch."""
        parts = (
            *(self.lower, self.upper, self.inverse_width, self.alive),
            *(self.dropped, self.least, self.reach, self.infeasible),
        )
        return MaxPlanes(*(part.index_select(-1, rows) for part in parts))

    def _above(self, held: Held) -> tuple[Tensor, Tensor]:
        """Slopes (windows, slots, batch) and constants (windows, batch) of the upper planes."""
        threshold = torch.addcmul(self.least, held.fractions, self.reach)
        slopes = torch.relu(self.upper - threshold.unsqueeze(1)) * self.inverse_width
        return slopes, threshold - (slopes * self.lower).sum(dim=1)

    def backward(self, stage: Stage, coefficients: Tensor, held: Held) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients on the candidates, constants (batch,), and the coefficients on the outputs that chose the planes."""
        total = coefficients + held.multipliers.sum(dim=1)
        slopes, constants = self._above(held)
        chosen = torch.where((total > 0).unsqueeze(1), slopes, held.weights)
        slots = torch.addcmul(-held.multipliers, total.unsqueeze(1), chosen)
        return stage.scatter(slots), (torch.relu(total) * constants).sum(dim=0), total

    def forward(self, stage: Stage, z: Tensor, coefficients: Tensor, held: Held) -> Tensor:
        """The planes' values (windows, batch) at candidates z, from the side that the coefficients choose."""
        slopes, constants = self._above(held)
        rises = coefficients > 0
        chosen = torch.where(rises.unsqueeze(1), slopes, held.weights)
        return (chosen * stage.gather(z, 0.0)).sum(dim=1) + torch.where(rises, constants, 0.0)

    def gradient(self, stage: Stage, z: Tensor, y: Tensor, coefficients: Tensor, held: Held, out: Held) -> None:
        """Writes the bound's derivatives, given the plane network's values z and y."""
        slots = stage.gather(z, 0.0)
        rises = coefficients > 0
        falls = (~rises).unsqueeze(1) & self.alive
        out.weights.copy_(torch.where(falls, coefficients.unsqueeze(1) * slots, 0.0))
        threshold = torch.addcmul(self.least, held.fractions, self.reach).unsqueeze(1)
        share = torch.where(self.upper > threshold, (slots - self.lower) * self.inverse_width, 0.0).sum(dim=1)
        out.fractions.copy_(torch.where(rises, coefficients * (1.0 - share) * self.reach, 0.0))
        out.multipliers.copy_(torch.where(self.dropped, y.unsqueeze(1) - slots, 0.0))

    def maxima(self, stage: Stage, z: Tensor) -> Tensor:
        """The outputs (windows, batch) that the subproblem ascribes to candidates z: the largest alternative in A."""
        return torch.where(self.alive, stage.gather(z, 0.0), -torch.inf).amax(dim=1)

    def first(self, held: Held) -> None:
        """Writes CROWN's parameters: the best midpoint below, the second largest upper bound above."""
        score = torch.where(self.alive, self.lower + self.upper, -torch.inf)
        best = score.argmax(dim=1, keepdim=True)
        held.weights.zero_().scatter_(1, best, 1.0)
        second = self.upper.topk(2, dim=1).values[:, 1] if self.upper.shape[1] > 1 else self.least
        ratio = (torch.maximum(second, self.least) - self.least) / torch.where(self.reach > 0, self.reach, 1.0)
        held.fractions.copy_(ratio)
        held.multipliers.zero_()

    def project(self, held: Held) -> None:
        """Moves the parameters into their range."""
        held.weights.copy_(onto_simplex(held.weights, self.alive, dim=1))
        held.fractions.clamp_(min=0.0, max=1.0)
        held.multipliers.clamp_(min=0.0).mul_(self.dropped)

    def tangent(self, gradient: Held) -> None:
        """Removes from the weights' gradient what the projection would take back."""
        centre_on(gradient.weights, self.alive, dim=1)


Planes = ReluPlanes | MaxPlanes


def centre_on(gradient: Tensor, alive: Tensor, dim: int) -> None:
    """Subtracts the mean over live entries, in place, and puts 0 elsewhere."""
    count = alive.sum(dim=dim, keepdim=True).clamp(min=1)
    mean = torch.where(alive, gradient, 0.0).sum(dim=dim, keepdim=True) / count
    gradient.sub_(mean).mul_(alive)


def onto_simplex(weights: Tensor, alive: Tensor, dim: int) -> Tensor:
    """The nearest point of the simplex over the live entries along a dimension; 0 elsewhere."""
    ranked = torch.where(alive, weights, -torch.inf).sort(dim=dim, descending=True).values
    is_real = torch.isfinite(ranked)
    sums = torch.where(is_real, ranked, 0.0).cumsum(dim) - 1.0
    shape = [1] * weights.ndim
    shape[dim] = -1
    counts = torch.arange(1, weights.shape[dim] + 1, device=weights.device, dtype=weights.dtype).reshape(shape)
    support = (is_real & (ranked * counts > sums)).sum(dim=dim, keepdim=True).clamp(min=1)
    shift = sums.gather(dim, support - 1) / support
    return torch.where(alive, (weights - shift).clamp(min=0.0), 0.0)
