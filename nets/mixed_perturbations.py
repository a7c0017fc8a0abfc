"""Perturbations for multi-task adversarial training: of the main task, of all tasks, and mixed (Hyun, Park 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from nets.losses import ProjectedGradient, ascend, perturb
from nets.tasks import Goals, TaskNetwork

Perturbation = Callable[[TaskNetwork, Tensor, Goals, ProjectedGradient, torch.Generator], Tensor]
"""Images of the same shape, within the attack's ball around the given ones and within [0, 1]."""

_LEAST_MAIN_WEIGHT: Final = 0.5


def single_task(
    network: TaskNetwork, images: Tensor, goals: Goals, attack: ProjectedGradient, generator: torch.Generator
) -> Tensor:
    """STA: PGD on the main task."""
    return task_perturbed(network, images, goals, attack, generator, 0)


def multi_task(
    network: TaskNetwork, images: Tensor, goals: Goals, attack: ProjectedGradient, generator: torch.Generator
) -> Tensor:
    """MTA: PGD on the sum of all tasks' losses, the main task's among them."""
    return ascend(lambda pixels: goals.total(network(pixels)), images, attack, generator)


def mixed(
    network: TaskNetwork, images: Tensor, goals: Goals, attack: ProjectedGradient, generator: torch.Generator
) -> Tensor:
    """MP: images + sum_m a_m eta_m, eta_m from PGD on task m, a drawn for every image by `mixing_weights`.

    A convex combination of points of the ball and of [0, 1], so a point of both.
    """
    tasks = range(len(goals.losses))
    found = torch.stack([task_perturbed(network, images, goals, attack, generator, task) for task in tasks])
    weights = mixing_weights(len(goals.losses), len(images), generator).to(images.dtype)
    mean = torch.einsum("tb,tb...->b...", weights, found)
    # Rounding may leave the ball that the combination stays in.
    return torch.clamp(mean, found.amin(dim=0), found.amax(dim=0))


def task_perturbed(
    network: TaskNetwork,
    images: Tensor,
    goals: Goals,
    attack: ProjectedGradient,
    generator: torch.Generator,
    task: int,
) -> Tensor:
    """PGD on one task."""
    return perturb(network.task(task), images, goals.targets[task], attack, goals.losses[task], generator)


def mixing_weights(tasks: int, count: int, generator: torch.Generator) -> Tensor:
    """Random weights (tasks, count), each column on the simplex.

    The main task's is uniform in [0.5, 1), the rest is split among the others uniformly (Dirichlet with parameters 1); without
    others the main task's is 1.
    """
    if tasks == 1:
        return torch.ones(1, count)
    main = _LEAST_MAIN_WEIGHT + (1 - _LEAST_MAIN_WEIGHT) * torch.rand(1, count, generator=generator)
    # 1 - u lies in (0, 1], so the exponential variables are finite; their shares of the sum are Dirichlet.
    drawn = -torch.log(1 - torch.rand(tasks - 1, count, generator=generator)) + torch.finfo(torch.float32).tiny
    return torch.cat([main, (1 - main) * drawn / drawn.sum(dim=0, keepdim=True)])


PERTURBATIONS: Final[dict[str, Perturbation]] = {"STA": single_task, "MTA": multi_task, "MP": mixed}
