"""Uphill steps from many points at once, towards all members of their count-subsets >= 0."""

import torch
from torch import Tensor

from verifier.search.skeleton import Skeleton

_STEPS = (0.05, 0.2, 0.6)
_SHARPNESS = 8.0


def climb(skeleton: Skeleton, inputs: Tensor, members: Tensor, *, rounds: int) -> Tensor:
    """Points (inputs, batch) no worse than the given ones in the least of their members' forms.

    Each round moves every point along the signs of the gradient of a soft minimum, by a few step lengths relative to the box, and
    keeps the best.

    Args:
        skeleton: The problem.
        inputs: (inputs, batch), inside the box.
        members: int64 (members, batch).
        rounds: How many rounds.
    """
    radius = 0.5 * (skeleton.upper - skeleton.lower)
    best, best_value = inputs, least_form(skeleton, inputs, members)
    for _ in range(rounds):
        direction = torch.sign(_uphill(skeleton, best, members)) * radius
        trials = torch.cat([best + step * direction for step in _STEPS], dim=1)
        trials = torch.clamp(trials, min=skeleton.lower, max=skeleton.upper)
        values = least_form(skeleton, trials, members.repeat(1, len(_STEPS))).reshape(len(_STEPS), -1)
        top, which = values.max(dim=0)
        choice = which * best.shape[1] + torch.arange(best.shape[1], device=best.device)
        improves = top > best_value
        best = torch.where(improves, trials[:, choice], best)
        best_value = torch.where(improves, top, best_value)
    return best


def least_form(skeleton: Skeleton, inputs: Tensor, members: Tensor) -> Tensor:
    """The least of the members' forms at each point, (batch,)."""
    forms, _ = skeleton.values(inputs)
    return forms.gather(0, members).amin(dim=0)


def _uphill(skeleton: Skeleton, inputs: Tensor, members: Tensor) -> Tensor:
    """The gradient (inputs, batch) of a soft minimum of the members' forms, each window following its winner."""
    forms, candidates = skeleton.values(inputs)
    listed = forms.gather(0, members)
    sharpness = _SHARPNESS / (listed.amax(dim=0) - listed.amin(dim=0)).clamp(min=0.1)
    chosen = torch.zeros_like(forms).scatter_add(0, members, torch.softmax(-sharpness * listed, dim=0))
    rows = skeleton.form_products.transpose(chosen)
    for stage, z in zip(reversed(skeleton.stages), reversed(candidates), strict=True):
        outputs = rows[stage.start : stage.start + stage.windows]
        if stage.is_relu:
            on_candidates = torch.where(z > 0, outputs, 0.0)
        else:
            slots = torch.where(stage.alive.unsqueeze(-1), stage.gather(z, -torch.inf), -torch.inf)
            winner = slots.argmax(dim=1, keepdim=True)
            on_candidates = stage.scatter(torch.zeros_like(slots).scatter(1, winner, outputs.unsqueeze(1)))
        rows = rows[: stage.start] + stage.products.transpose(on_candidates)
    return rows
