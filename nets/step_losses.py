"""What one training step minimises: the loss on clean, perturbed or bounded images, of one head or of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nets.certified import ROBUST_LOSSES, difference_uppers, label_indices, small_box
from nets.composer import Canvas
from nets.live_graph import LiveGraph
from nets.losses import LOSSES, Loss, ProjectedGradient, perturb
from nets.mixed_perturbations import PERTURBATIONS
from nets.options import AdversarialTraining, CertifiedTraining, TaskTraining, TrainingOptions
from nets.tasks import TaskNetwork, goals

StepLoss = Callable[[Tensor, Tensor, int], Tensor]
"""Images (batch, 1, height, width), label sets (batch, 10) and the step's number to a scalar with gradients."""


def step_loss(
    network: nn.Sequential | TaskNetwork, options: TrainingOptions, canvas: Canvas, generator: torch.Generator
) -> StepLoss:
    """The loss of a run's steps; random numbers are drawn from `generator`, and by perturbations only."""
    loss = LOSSES[options.loss]
    if isinstance(network, TaskNetwork):
        return TaskLoss(network, loss, options, canvas.digits, generator)
    if isinstance(options.defence, CertifiedTraining):
        return CertifiedLoss(
            network, LiveGraph(network, canvas), loss, options.defence, options.schedule.steps, generator
        )
    return PlainLoss(network, loss, options, generator)


@dataclass(frozen=True, slots=True, eq=False)
class PlainLoss:
    """One head, on the images as they are or, under the L-infinity defence, as PGD leaves them."""

    network: nn.Sequential
    loss: Loss
    options: TrainingOptions
    generator: torch.Generator

    def __call__(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """See `StepLoss`."""
        attack = attack_at(self.options, step)
        if attack is not None:
            images = perturb(self.network, images, targets, attack, self.loss, self.generator)
        return self.loss(self.network(images), targets)


@dataclass(frozen=True, slots=True, eq=False)
class TaskLoss:
    """The sum of all heads' losses, on images perturbed as the options say."""

    network: TaskNetwork
    loss: Loss
    options: TrainingOptions
    digits: int
    generator: torch.Generator

    def __call__(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """See `StepLoss`."""
        tasks = self.options.tasks or TaskTraining(())
        wanted = goals(targets, self.loss, tasks.auxiliaries, self.digits)
        attack = attack_at(self.options, step)
        if attack is not None:
            climbed = wanted.misled(self.generator) if tasks.is_targeted else wanted
            images = PERTURBATIONS[tasks.perturbation](self.network, images, climbed, attack, self.generator)
        return wanted.total(self.network(images))


@dataclass(frozen=True, slots=True, eq=False)
class CertifiedLoss:
    """A mixture of the clean loss and of the loss at upper bounds of all margins; see `CertifiedTraining`."""

    network: nn.Sequential
    live: LiveGraph
    loss: Loss
    defence: CertifiedTraining
    steps: int
    generator: torch.Generator

    def __call__(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """See `StepLoss`."""
        strength, defence = self.defence.strength(step, self.steps), self.defence
        clean_weight = 1 - strength * (1 - defence.clean_weight)
        # A loss that weighs nothing costs as much as any other.
        clean = self.loss(self.network(images), targets) if clean_weight > 0 else images.new_zeros(())
        if strength == 0:
            return clean
        attack = replace(defence.attack, epsilon=strength * defence.attack.epsilon)
        lower, upper = small_box(
            lambda pixels: self.loss(self.network(pixels), targets), images, attack, defence.box_share, self.generator
        )
        labels = label_indices(targets)
        crown_share = (1 - strength) * defence.crown_share
        rivals = defence.rivals if crown_share > 0 else None
        uppers = difference_uppers(self.live.graph(), lower, upper, labels, crown_share, rivals)
        return clean_weight * clean + (1 - clean_weight) * ROBUST_LOSSES[defence.robust_loss](uppers, labels)


def attack_at(options: TrainingOptions, step: int) -> ProjectedGradient | None:
    """The attack under the L-infinity defence at one step; None for other defences and while epsilon is 0."""
    if not isinstance(options.defence, AdversarialTraining):
        return None
    epsilon = options.defence.epsilon(step, options.schedule.steps)
    return replace(options.defence.attack, epsilon=epsilon) if epsilon > 0 else None
