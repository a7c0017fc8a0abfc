"""Projected gradient ascent on the margin of queries, a batch at a time: images that may break them, for the checker to judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import aureole
from verifier.torch_network import TorchNetwork


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try.

    Attributes:
        restarts: From random points of the region; the first start is the image itself.
        steps: Of each start.
        relative_step: A step's length as a share of the region's largest radius.
    """

    restarts: int = 1
    steps: int = 20
    relative_step: float = 0.15


def candidates(
    queries: Sequence[aureole.Query], images: Sequence[np.ndarray], seed: int, effort: Effort | None = None
) -> list[np.ndarray]:
    """For every query, on one network and with properties of one shape, the image of its region with the highest margin met.

    `images` lie in the regions. Margins are float32 sums and no claim; `verifier.check.replay` decides.
    """
    effort = effort or Effort()
    network = TorchNetwork(queries[0].network, dtype=torch.float32)
    lower, upper = (
        torch.from_numpy(np.stack([getattr(query.region, side) for query in queries])).float()
        for side in ("lower", "upper")
    )
    forms = torch.from_numpy(np.stack([query.property.coefficients for query in queries])).float()
    offsets = torch.from_numpy(np.stack([query.property.offsets for query in queries])).float()
    count = queries[0].property.count

    def margins(points: Tensor) -> Tensor:
        values = torch.einsum("bfl,bl->bf", forms, network(points)) + offsets
        return values.topk(count, dim=1).values[:, -1]

    generator = torch.Generator().manual_seed(seed)
    axes = (-1, *[1] * (lower.ndim - 1))
    stride = effort.relative_step * (0.5 * (upper - lower)).flatten(1).amax(dim=1).reshape(axes)
    points = torch.from_numpy(np.stack(images)).float().clamp(lower, upper)
    best, highest = points, torch.full((len(queries),), -torch.inf)
    for start in range(1 + effort.restarts):
        if start:
            points = lower + (upper - lower) * torch.rand(lower.shape, generator=generator)
        for _ in range(effort.steps + 1):
            tracked = points.clone().requires_grad_(True)
            values = margins(tracked)
            (gradient,) = torch.autograd.grad(values.sum(), tracked)
            reached = values.detach()
            best = torch.where((reached > highest).reshape(axes), points, best)
            highest = torch.maximum(highest, reached)
            points = (points + stride * gradient.sign()).clamp(lower, upper)
    found = best.double().numpy()
    return [np.clip(image, query.region.lower, query.region.upper) for image, query in zip(found, queries, strict=True)]
