"""The smallest l2 step that meets linear constraints: min |r|^2 subject to A r >= b, batched."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_TOLERANCE, _RIDGE = 1e-11, 1e-11
_ELASTIC, _MET = 1e-2, 1e-4
_PATIENCE, _PIVOTS = 3, 20
_CLIPPINGS = 4


def least_squares_step(
    matrix: Float[Tensor, "rows constraints pixels"],
    bound: Float[Tensor, "rows constraints"],
    active: Bool[Tensor, "rows constraints"],
    lower: Float[Tensor, "rows pixels"],
    upper: Float[Tensor, "rows pixels"],
) -> Float[Tensor, "rows pixels"]:
    """The r with |r| least, subject to (matrix r)_i >= bound_i for active i, lower <= r <= upper.

    Without the box it is the exact projection of 0: r = matrix^T u, u the non-negative least-squares multipliers. Pixels that
    leave the box are set to its bound and the others solved again, a few times. Rows whose constraints are still not met get
    the clipped minimum of |r|^2 + |violation|^2 / 0.01 instead, constraints scaled to length 1: a step in their direction that
    depends continuously on them.
    """
    free = torch.ones_like(lower, dtype=torch.bool)
    step = torch.zeros_like(lower)
    for _ in range(_CLIPPINGS):
        fixed = torch.where(free, 0.0, step)
        rest = bound - (matrix @ fixed[:, :, None])[:, :, 0]
        open_part = matrix * free[:, None, :]
        multipliers = nonnegative_multipliers(open_part @ open_part.transpose(1, 2), rest, active).to(step.dtype)
        step = torch.where(free, (open_part.transpose(1, 2) @ multipliers[:, :, None])[:, :, 0], step)
        is_outside = (step < lower) | (step > upper)
        step = torch.minimum(torch.maximum(step, lower), upper)
        if not bool((is_outside & free).any()):
            break
        free = free & ~is_outside
    short = (bound - (matrix @ step[:, :, None])[:, :, 0]).masked_fill(~active, -torch.inf)
    is_met = (short <= _MET * (1.0 + bound.abs())).all(dim=1)
    return torch.where(is_met[:, None], step, _elastic(matrix, bound, active).clamp(lower, upper))


def _elastic(
    matrix: Float[Tensor, "rows constraints pixels"],
    bound: Float[Tensor, "rows constraints"],
    active: Bool[Tensor, "rows constraints"],
) -> Float[Tensor, "rows pixels"]:
    multipliers = nonnegative_multipliers(matrix @ matrix.transpose(1, 2), bound, active, _ELASTIC).to(matrix.dtype)
    return (matrix.transpose(1, 2) @ multipliers[:, :, None])[:, :, 0]


def nonnegative_multipliers(
    gram: Float[Tensor, "rows n n"],
    bound: Float[Tensor, "rows n"],
    active: Bool[Tensor, "rows n"],
    ridge: float = _RIDGE,
) -> Float[Tensor, "rows n"]:
    """The u >= 0 with u^T gram u / 2 - bound^T u least, u = 0 where not active, in float64.

    Block principal pivoting (Kim and Park 2011), all rows at once: guess which multipliers are positive, solve, exchange
    those of the wrong sign; where that does not help three times, exchange one at a time, which cannot cycle. Constraints
    are scaled to a diagonal of 1, to which `ridge` is added, so that dependent or contradictory ones do no harm.
    """
    gram, bound = gram.double(), bound.double()
    size = gram.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    usable = active & (size > 0)
    scale = torch.where(usable, size, 1.0)
    count = bound.shape[1]
    eye = torch.eye(count, dtype=torch.float64, device=bound.device)
    matrix = gram / (scale[:, :, None] * scale[:, None, :]) + ridge * eye
    target = torch.where(usable, bound / scale, 0.0)
    positive = torch.zeros_like(usable)
    fewest = torch.full((len(bound),), count + 1, device=bound.device)
    patience = torch.full_like(fewest, _PATIENCE)
    found = torch.zeros_like(bound)
    places = torch.arange(count, device=bound.device)
    for _ in range(_PIVOTS * (count + 1)):
        kept = positive[:, :, None] & positive[:, None, :]
        system = torch.where(kept, matrix, eye)
        solved = torch.linalg.solve_ex(system, torch.where(positive, target, 0.0)[:, :, None]).result
        found = torch.nan_to_num(solved[:, :, 0])
        slope = (matrix @ found[:, :, None])[:, :, 0] - target
        is_wrong = usable & torch.where(positive, found < -_TOLERANCE, slope < -_TOLERANCE)
        wrong = is_wrong.sum(dim=1)
        if not bool(is_wrong.any()):
            break
        is_better = wrong < fewest
        fewest = torch.where(is_better, wrong, fewest)
        patience = torch.where(is_better, _PATIENCE, patience - 1)
        last = torch.where(is_wrong, places, -1).amax(dim=1, keepdim=True)
        exchanged = torch.where((patience >= 0)[:, None], is_wrong, is_wrong & (places == last))
        positive = positive ^ exchanged
    return torch.where(usable, found.clamp(min=0.0) / scale, 0.0)
