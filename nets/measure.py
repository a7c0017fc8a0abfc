"""Measures trained networks: exact top-k set accuracy, on clean images and under attack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from nets.composer import ComposedImages
from nets.losses import ProjectedGradient, perturb, ranking_loss, set_margins
from nets.training import multi_hot

_BATCH: Final = 500


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


def _batches(images: ComposedImages) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(images), _BATCH):
        chosen = slice(start, start + _BATCH)
        # The arrays are read-only and torch wants writable memory, hence the copies.
        yield (
            torch.from_numpy(images.images[chosen].copy()),
            multi_hot(torch.from_numpy(images.labels[chosen].copy())),
        )
