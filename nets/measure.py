"""Measures trained networks: exact top-k set accuracy, on clean images and under attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from nets.certified import difference_uppers, label_indices, top_k_margin_uppers
from nets.composer import Canvas, ComposedImages
from nets.live_graph import LiveGraph
from nets.losses import Loss, ProjectedGradient, perturb, ranking_loss, set_margins
from nets.mixed_perturbations import task_perturbed
from nets.task_metrics import angle_deviation
from nets.tasks import TaskNetwork, goals, wrong_targets
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


@dataclass(frozen=True, slots=True)
class TaskMeasures:
    """How a network with several heads does, one entry a task, the main task first (Hyun, Park 2024).

    Attributes:
        clean: The share of images that the task's head answers rightly; a tie counts as wrong.
        attacked: The share that it answers rightly before and after PGD on that task.
        targeted: The share of images whose main answer is right before and after PGD towards another label set, drawn at random.
        angle_deviations: The standard deviation, over images, of the angle in degrees between the main task's perturbation and each
            auxiliary task's; NaN where an image was never changed.
    """

    clean: tuple[float, ...]
    attacked: tuple[float, ...]
    targeted: float
    angle_deviations: tuple[float, ...]


def task_measures(
    network: TaskNetwork,
    images: ComposedImages,
    auxiliaries: Sequence[str],
    attack: ProjectedGradient,
    generator: torch.Generator,
    loss: Loss = ranking_loss,
) -> TaskMeasures:
    """The measures on these images; `auxiliaries` and `loss`, the main task's, are those of the training."""
    heads = 1 + len(auxiliaries)
    clean, attacked, targeted = [0] * heads, [0] * heads, 0
    changes: list[list[Tensor]] = [[] for _ in range(heads)]
    for pixels, main in _batches(images):
        wanted = goals(main, loss, auxiliaries, images.labels.shape[1])
        right = [_is_right(scores, wanted.targets[task]) for task, scores in enumerate(_scores(network, pixels))]
        for task, kept in enumerate(right):
            perturbed = task_perturbed(network, pixels, wanted, attack, generator, task)
            changes[task].append(perturbed - pixels)
            clean[task] += int(kept.sum())
            attacked[task] += int((kept & _is_right(_scores(network, perturbed)[task], wanted.targets[task])).sum())
        aim = wrong_targets(main, generator)
        led = perturb(network.task(0), pixels, aim, attack, loss, generator, is_targeted=True)
        targeted += int((right[0] & _is_right(_scores(network, led)[0], main)).sum())
    joined = [torch.cat(parts) for parts in changes]
    return TaskMeasures(
        tuple(count / len(images) for count in clean),
        tuple(count / len(images) for count in attacked),
        targeted / len(images),
        tuple(angle_deviation(joined[0], other) for other in joined[1:]),
    )


def _scores(network: TaskNetwork, pixels: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return network(pixels)


def _is_right(scores: Tensor, targets: Tensor) -> Tensor:
    return set_margins(scores, targets) > 0


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
