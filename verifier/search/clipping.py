"""Boxes made smaller by constraints that the search holds anyway (after Clip-and-Verify, Zhou et al. 2025), and bounds over them.

A constraint a @ x + b >= 0 whose largest value over the box, M, is >= 0 leaves little room where M is small: at a point that
satisfies it, input i lies within M / |a_i| of the end of its range that the constraint favours, all other inputs at their best.
Two kinds of constraints cost nothing: the phases of split ReLUs that read inputs alone, and, for a row of the search, its own
plane, which is >= 0 at every violation.
"""

import torch
from torch import Tensor

from verifier.search.domain import Domain
from verifier.search.skeleton import Skeleton, Stage


def clipped_by_planes(
    slopes: Tensor, bounds: Tensor, lower: Tensor, upper: Tensor, slack: float
) -> tuple[Tensor, Tensor]:
    """The part of each box that can hold points where its plane is >= 0, as a box, (inputs, batch) each.

    Args:
        slopes: (inputs, batch), of the planes.
        bounds: (batch,), their maxima over the boxes; a box whose maximum is < 0 keeps only the corner that attains it.
        lower: (inputs, batch or 1), of the boxes.
        upper: The same.
        slack: Added to the maxima, for rounding.
    """
    room = (bounds + slack).clamp(min=0.0) / slopes.abs().clamp(min=torch.finfo(slopes.dtype).tiny)
    low = torch.where(slopes > 0, torch.maximum(lower, upper - room), lower)
    high = torch.where(slopes < 0, torch.minimum(upper, lower + room), upper)
    return low, torch.maximum(low, high)


def clipped_by_phases(skeleton: Skeleton, domain: Domain) -> tuple[Tensor, Tensor]:
    """The part of the region's box that can satisfy the phases of split ReLUs over inputs alone, as boxes.

    (inputs, batch), or (inputs, 1) where there is no such phase.
    """
    lower, upper = skeleton.lower, skeleton.upper
    for stage, dropped in zip(skeleton.stages, domain.dropped, strict=True):
        if stage.is_relu and stage.magnitudes is not None and bool(dropped.any()):
            lower, upper = _clipped_by_stage(skeleton, stage, dropped, lower, upper)
    return lower, upper


def _clipped_by_stage(
    skeleton: Skeleton, stage: Stage, dropped: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """Each split (window, row) is one constraint sign * z >= 0; a row may have several on one input: the tightest counts."""
    batch = dropped.shape[2]
    sign = dropped[:, 1].to(lower.dtype) - dropped[:, 0].to(lower.dtype)
    windows, rows = (dropped[:, 0] | dropped[:, 1]).nonzero(as_tuple=True)
    most = torch.where(sign > 0, stage.upper, -stage.lower)[windows, rows]
    room = (most + 1e-9 * skeleton.scale).clamp(min=0.0)
    starts = torch.from_numpy(stage.matrix.indptr.astype("int64")).to(windows.device)
    counts = starts[windows + 1] - starts[windows]
    owner = torch.repeat_interleave(torch.arange(len(windows), device=windows.device), counts)
    first = torch.repeat_interleave(starts[windows] - (counts.cumsum(0) - counts), counts)
    place = first + torch.arange(len(owner), device=windows.device)
    inputs = torch.from_numpy(stage.matrix.indices.astype("int64")).to(windows.device)[place]
    entries = torch.from_numpy(stage.matrix.data).to(lower)[place] * sign[windows, rows][owner]
    reach = room[owner] / entries.abs().clamp(min=torch.finfo(lower.dtype).tiny)
    at = inputs * batch + rows[owner]
    low, high = (side.expand(-1, batch).reshape(-1).clone() for side in (lower, upper))
    box_low, box_high = skeleton.lower[inputs, 0], skeleton.upper[inputs, 0]
    rises = entries > 0
    low.scatter_reduce_(0, at[rises], (box_high - reach)[rises], "amax")
    high.scatter_reduce_(0, at[~rises], (box_low + reach)[~rises], "amin")
    low, high = low.reshape(-1, batch), high.reshape(-1, batch)
    return low, torch.maximum(low, high)


def candidate_bounds(stage: Stage, lower: Tensor, upper: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """Bounds (candidates, batch or 1) of a stage's candidates over boxes: exact where they read inputs alone, else the region's."""
    if stage.magnitudes is None or lower.shape[1] == 1:
        return stage.lower, stage.upper
    inputs = len(lower)
    centre = (
        stage.products.forward(_padded(0.5 * (lower + upper), stage.start))
        if stage.start > inputs
        else (stage.products.forward(0.5 * (lower + upper)))
    )
    centre = centre + stage.constants
    radius = stage.magnitudes.forward(0.5 * (upper - lower)) + slack
    low, high = torch.maximum(stage.lower, centre - radius), torch.minimum(stage.upper, centre + radius)
    return torch.minimum(low, high), torch.maximum(low, high)


def _padded(inputs: Tensor, columns: int) -> Tensor:
    return torch.cat([inputs, inputs.new_zeros((columns - len(inputs), inputs.shape[1]))])
