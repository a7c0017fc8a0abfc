"""Interval bounds of every value, batched over regions and differentiable in the region."""

from collections.abc import Mapping

import torch
from torch import Tensor

from verifier.bounds.graph import TorchGraph
from verifier.bounds.relaxation import relax
from verifier.canonical import Affine

Interval = tuple[Tensor, Tensor]


def interval_step(graph: TorchGraph, index: int, known: Mapping[int, Interval]) -> Interval:
    """The interval (batch, size) of node `index`'s value from intervals of the values it reads.

    Affine: W c + b -+ |W| r with c and r the centre and radius, so an interval of width 0 stays one. ReLU and Max are monotone.
    """
    node = graph.canonical.nodes[index]
    if not isinstance(node, Affine):
        relaxation = relax(graph.windows[index], *known[node.input])
        return relaxation.least, relaxation.most
    batch = len(known[0][0])
    centre = graph.biases[index].expand(batch, -1)
    radius = torch.zeros_like(centre)
    for rules, value in zip(graph.maps[index], node.inputs, strict=True):
        lower, upper = known[value]
        centre = centre + rules.forward(0.5 * (lower + upper))
        radius = radius + rules.forward_absolute(0.5 * (upper - lower))
    return centre - radius, centre + radius


def interval_bounds(graph: TorchGraph, lower: Tensor, upper: Tensor) -> dict[int, Interval]:
    """Intervals of every value, by value index, over the boxes [lower, upper], (batch, inputs) each.

    Soundness: each holds for all points of its box, up to rounding to nearest.
    """
    known: dict[int, Interval] = {0: (lower, upper)}
    for index in range(len(graph.canonical.nodes)):
        known[index + 1] = interval_step(graph, index, known)
    return known


def intersect(first: Interval, second: Interval) -> Interval:
    """The intersection; where rounding made the two miss each other, the gap between them."""
    lower, upper = torch.maximum(first[0], second[0]), torch.minimum(first[1], second[1])
    return torch.minimum(lower, upper), torch.maximum(lower, upper)
