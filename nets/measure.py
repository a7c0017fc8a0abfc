"""Measures trained networks: exact top-k set accuracy, on clean images and under attack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from nets.certified import difference_uppers, label_indices, top_k_margin_uppers
from nets.composer import Canvas, ComposedImages
from nets.live_graph import LiveGraph
from nets.losses import ProjectedGradient, perturb, ranking_loss, set_margins
from nets.training import multi_hot

_BATCH: Final = 500
_BOUNDED_BATCH: Final = 50


def exact_set_accuracy(network: nn.Module, images: ComposedImages) -> float:
    """The share of images whose n labels are exactly the n highest scores; a tie counts as wrong."""
    right = 0
    with torch.no_grad():
        for pixels, targets in _batches(images):
            right += int((set_margins(network(pixels), targets) > 0).sum())
    return right / len(images)


def attacked_accuracy(
    network: nn.Module, images: ComposedImages, attack: ProjectedGradient, generator: torch.Generator
) -> float:
    """The share of images whose label set is exact before and after the attack; an upper bound on robustness."""
    right = 0
    for pixels, targets in _batches(images):
        perturbed = perturb(network, pixels, targets, attack, ranking_loss, generator)
        with torch.no_grad():
            survives = (set_margins(network(pixels), targets) > 0) & (set_margins(network(perturbed), targets) > 0)
        right += int(survives.sum())
    return right / len(images)


def certified_share(network: nn.Sequential, images: ComposedImages, epsilon: float, crown_share: float = 1.0) -> float:
    """The share of images whose n labels all stay in the top n when every pixel changes by at most epsilon, by CROWN-IBP.

    With `crown_share` 0 by interval bounds. A fast estimate in float32, from below but for rounding; `aureole verify` proves more
    images, and proves them.
    """
    graph, certified = LiveGraph(network, canvas_of(images)).graph(), 0
    with torch.no_grad():
        for pixels, targets in _batches(images, _BOUNDED_BATCH):
            lower, upper = ((pixels + sign * epsilon).clamp(0, 1).flatten(1) for sign in (-1, 1))
            labels = label_indices(targets)
            uppers = difference_uppers(graph, lower, upper, labels, crown_share)
            certified += int((top_k_margin_uppers(uppers, labels.shape[1]) < 0).all(dim=1).sum())
    return certified / len(images)


def canvas_of(images: ComposedImages) -> Canvas:
    """The canvas the images were composed on."""
    height, width = images.images.shape[2:]
    return Canvas(height, width, images.labels.shape[1])


def _batches(images: ComposedImages, size: int = _BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        # The arrays are read-only and torch wants writable memory, hence the copies.
        yield (
            torch.from_numpy(images.images[chosen].copy()),
            multi_hot(torch.from_numpy(images.labels[chosen].copy())),
        )
