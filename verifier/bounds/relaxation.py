"""Linear relaxations of ReLU and of window maxima: a table from node type to windows, and one relaxation for all of them.

A ReLU is the maximum of a window of one candidate and 0 (the floor). For a window of candidates z_i in [l_i, u_i], independent of
each other, and the floor as a further candidate with l = u = 0:

- Let L = max_i l_i. A candidate with u_i <= L, other than one that attains L, never wins and is dropped; with a single survivor
  the maximum is that candidate. A window with more survivors is *undecided*.
- Below: max(z) >= sum_i w_i z_i for any w on the simplex (a convex combination never exceeds the maximum).
- Above: for any T >= L, max(z) <= T + sum_i (z_i - T)^+, and on [l_i, u_i] the convex function (z - T)^+, 0 at l_i, lies below its
  chord (u_i - T)^+ (z - l_i) / (u_i - l_i). So

      max(z) <= T + sum_i (u_i - T)^+ / (u_i - l_i) (z_i - l_i).

  The least of these planes over T in [L, U], U = max u_i, is the concave envelope of the maximum over the box, by the bound of
  Meilijson and Nadas (1979) on the expected maximum of variables with given marginals: no concave upper bound is tighter.

Both families are sound for any parameters in range, so w and T can be optimised per row. A ReLU with l < 0 < u gets w = alpha and,
at T = 0, the chord u (z - l) / (u - l).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.canonical import Max, Relu


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The candidates of every maximum of a node.

    Attributes:
        index: int64 (size, width), into the node's input; absent candidates point one past its end.
        has_floor: Whether 0 is a candidate of every window.
        is_identity: Whether window i is candidate i alone (a ReLU), so that no gathering is needed.
    """

    index: Tensor
    has_floor: bool
    is_identity: bool

    def gather(self, values: Tensor, absent: float) -> Tensor:
        """(..., input) -> (..., size, width), absent candidates filled."""
        if self.is_identity:
            return values.unsqueeze(-1)
        filler = values.new_full((*values.shape[:-1], 1), absent)
        return torch.cat([values, filler], dim=-1)[..., self.index]

    def scatter(self, coefficients: Tensor, input_size: int) -> Tensor:
        """(..., size, width) -> (..., input): the sum per input entry; the transpose of `gather`."""
        if self.is_identity:
            return coefficients.squeeze(-1)
        flat = coefficients.flatten(-2)
        total = flat.new_zeros((*flat.shape[:-1], input_size + 1))
        return total.index_add(-1, self.index.flatten(), flat)[..., :-1]


def _relu_windows(node: Relu, input_size: int, device: torch.device) -> Windows:
    del input_size
    return Windows(torch.arange(node.size, device=device).unsqueeze(1), has_floor=True, is_identity=True)


def _max_windows(node: Max, input_size: int, device: torch.device) -> Windows:
    index = torch.tensor(node.windows, dtype=torch.int64, device=device)
    return Windows(torch.where(index < 0, input_size, index), node.has_floor, is_identity=False)


WINDOWS: dict[type, Callable[..., Windows]] = {Relu: _relu_windows, Max: _max_windows}


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """The planes around every maximum of a node, over a batch of regions.

    Attributes:
        windows: The candidates.
        lower, upper: (batch, size, width), the candidates' bounds; -inf where absent.
        alive: bool (batch, size, width): candidates that can win.
        floor_alive: bool (batch, size): windows in which 0 can win.
        least, most: (batch, size): L and U of the module's text.
    """

    windows: Windows
    lower: Tensor
    upper: Tensor
    alive: Tensor
    floor_alive: Tensor
    least: Tensor
    most: Tensor

    def with_row_axis(self) -> "Relaxation":
        """The same planes, (batch, 1, ...): ready to broadcast against parameters that differ by row."""
        parts = (self.lower, self.upper, self.alive, self.floor_alive, self.least, self.most)
        return Relaxation(self.windows, *(part.unsqueeze(1) for part in parts))

    def chosen(self, index: Tensor) -> "Relaxation":
        """The planes of some windows of the node, by index."""
        parts = (self.lower, self.upper, self.alive, self.floor_alive, self.least, self.most)
        return Relaxation(self.windows, *(part.index_select(1, index) for part in parts))

    @property
    def undecided(self) -> Tensor:
        """Windows (bool (batch, size)) with more than one candidate that can win."""
        return self.alive.sum(-1) + self.floor_alive.long() > 1

    def plane_above(self, fraction: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes (..., size, width) and constants (..., size) of the upper plane at T = L + fraction (U - L).

        Args:
            fraction: (..., size) in [0, 1], broadcastable with (batch, size).
        """
        threshold = (self.least + fraction * (self.most - self.least)).unsqueeze(-1)
        width = self.upper - self.lower
        is_open = self.alive & (width > 0)
        safe_width = torch.where(is_open, width, 1.0)
        safe_lower = torch.where(is_open, self.lower, 0.0)
        excess = torch.relu(torch.where(is_open, self.upper, 0.0) - threshold) * is_open
        slopes = excess / safe_width
        return slopes, threshold.squeeze(-1) - (slopes * safe_lower).sum(-1)

    def first_fraction(self) -> Tensor:
        """(batch, size): T at the second largest upper bound, or L if that is larger.

        At the centre of the box every T from the third to the second largest upper bound gives the least plane; at the second
        largest only one candidate has a slope, and for a ReLU the plane is its chord.
        """
        tops = torch.where(self.alive, self.upper, -torch.inf)
        if self.windows.has_floor:
            tops = torch.cat([tops, tops.new_zeros((*tops.shape[:-1], 1))], dim=-1)
        if tops.shape[-1] < 2:
            return torch.zeros_like(self.least)
        second = torch.maximum(tops.topk(2, dim=-1).values[..., 1], self.least)
        reach = self.most - self.least
        return torch.where(reach > 0, (second - self.least) / torch.where(reach > 0, reach, 1.0), 0.0)

    def first_weights(self, *, by_lower: bool = False) -> Tensor:
        """(batch, size, width): all weight on the candidate with the best midpoint, or the best lower bound.

        What is missing to 1 lies on the floor. For a ReLU the midpoint rule is CROWN's adaptive slope: 1 iff u > -l.
        """
        if self.windows.is_identity:
            prefers_floor = self.floor_alive.unsqueeze(-1) & (by_lower | (self.lower + self.upper <= 0))
            return (self.alive & ~prefers_floor).to(self.lower.dtype)
        safe = torch.where(self.alive, self.lower if by_lower else self.lower + self.upper, -torch.inf)
        best, choice = safe.max(dim=-1)
        chosen = torch.zeros_like(safe).scatter(-1, choice.unsqueeze(-1), 1.0)
        takes_floor = self.floor_alive & (best <= 0)
        return torch.where(takes_floor.unsqueeze(-1) | ~self.alive, 0.0, chosen)

    def project_weights(self, weights: Tensor) -> Tensor:
        """The nearest weights on the simplex of the candidates that can win (the floor, if it can, taking up slack)."""
        if self.windows.is_identity:
            free = weights.clamp(0.0, 1.0)
            return torch.where(self.alive, torch.where(self.floor_alive.unsqueeze(-1), free, 1.0), 0.0)
        alive = self.alive.expand_as(weights)
        capped = torch.where(alive, weights, 0.0).clamp(min=0.0)
        needs_projection = ~self.floor_alive | (capped.sum(-1) > 1.0)
        return torch.where(needs_projection.unsqueeze(-1), project_to_simplex(weights, alive), capped)


def project_to_simplex(weights: Tensor, alive: Tensor) -> Tensor:
    """The Euclidean projection onto the simplex over the last axis, dead entries at 0 (Held, Wolfe and Crowder 1974).

    Where nothing is alive the result is 0.
    """
    ranked = torch.where(alive, weights, -torch.inf).sort(dim=-1, descending=True).values
    is_real = torch.isfinite(ranked)
    cumulated = torch.where(is_real, ranked, 0.0).cumsum(-1) - 1.0
    counts = torch.arange(1, weights.shape[-1] + 1, device=weights.device, dtype=weights.dtype)
    is_support = is_real & (ranked * counts > cumulated)
    support = is_support.sum(-1, keepdim=True).clamp(min=1)
    shift = cumulated.gather(-1, support - 1) / support
    return torch.where(alive, (weights - shift).clamp(min=0.0), 0.0)


def relax(windows: Windows, lower: Tensor, upper: Tensor) -> Relaxation:
    """The relaxation of a node whose input lies in [lower, upper], (batch, input) each; differentiable in both."""
    if windows.is_identity:
        return _relax_relu(windows, lower, upper)
    candidate_lower = windows.gather(lower, -torch.inf)
    candidate_upper = windows.gather(upper, -torch.inf)
    least, winner = candidate_lower.max(dim=-1)
    most = candidate_upper.max(dim=-1).values
    floor_alive = torch.zeros_like(least, dtype=torch.bool)
    attains = torch.zeros_like(candidate_lower, dtype=torch.bool).scatter(-1, winner.unsqueeze(-1), True)
    if windows.has_floor:
        # Where the floor ties with the best lower bound, that candidate is >= 0 everywhere: the floor is the one dropped.
        floor_alive = least < 0
        least, most = torch.relu(least), torch.relu(most)
        attains = attains & ~floor_alive.unsqueeze(-1)
    alive = (candidate_upper > least.unsqueeze(-1)) | attains
    return Relaxation(windows, candidate_lower, candidate_upper, alive, floor_alive, least, most)


def _relax_relu(windows: Windows, lower: Tensor, upper: Tensor) -> Relaxation:
    """The general rule, written out for one candidate and the floor: reductions over an axis of length 1 are slow."""
    floor_alive = lower < 0
    alive = (upper > 0) | ~floor_alive
    return Relaxation(
        windows,
        lower.unsqueeze(-1),
        upper.unsqueeze(-1),
        alive.unsqueeze(-1),
        floor_alive,
        least=torch.relu(lower),
        most=torch.relu(upper),
    )
