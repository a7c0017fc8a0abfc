"""Trains one network from a seed: images composed on the fly, one loss, one of three defences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.architectures import CLASSES, Architecture, build
from nets.augmentation import Augmentation, Rectangles, augment_digits, paste_rectangles
from nets.composer import Canvas, draw_layout, paste
from nets.losses import LOSSES, ProjectedGradient, perturb
from nets.mnist import Digits, Split
from verifier.errors import InputError

_WARM_UP: Final = 0.05
_UNCHANGED: Final = Augmentation()


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast. The rate rises over the first 5% of the steps, then falls along a cosine to 0.

    Attributes:
        steps: batches seen.
        batch_size: images a batch.
        learning_rate: the highest rate of AdamW.
        weight_decay: its decoupled weight decay; small weights are easier to certify.
    """

    steps: int
    batch_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        """Refuse values that do not describe a run."""
        if self.steps < 1 or self.batch_size < 1:
            raise InputError(f"{self}: wanted steps and batch_size of 1 or more")
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise InputError(f"{self}: wanted learning_rate above 0 and weight_decay 0 or more")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ..., steps - 1."""
        warm_up = max(1, round(_WARM_UP * self.steps))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        progress = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, slots=True)
class AdversarialTraining:
    """The L-infinity defence: learn from images that PGD made worse (Madry et al. 2018).

    Attributes:
        attack: the attack at full strength.
        clean_share: share of the steps, at the start, that see clean images only.
        ramp_share: share of the steps after that in which epsilon rises linearly from 0.
    """

    attack: ProjectedGradient = field(default_factory=lambda: ProjectedGradient(0.03, 4, 0.4))
    clean_share: float = 0.2
    ramp_share: float = 0.3

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1]."""
        if not (min(self.clean_share, self.ramp_share) >= 0 and self.clean_share + self.ramp_share <= 1):
            raise InputError(f"{self}: wanted shares of 0 or more with a sum of at most 1")

    def epsilon(self, step: int, steps: int) -> float:
        """The radius at one step of a run of `steps`."""
        begin, ramp = self.clean_share * steps, self.ramp_share * steps
        if step < begin:
            return 0.0
        return self.attack.epsilon * min(1.0, (step - begin + 1) / (ramp + 1))


Defence = Rectangles | AdversarialTraining | None


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Every choice of a run except the network, the digits and the seed.

    Attributes:
        schedule: length and rates.
        loss: a key of `nets.losses.LOSSES`.
        augmentation: changes of single digits.
        defence: `Rectangles` (L0), `AdversarialTraining` (L-infinity) or None.
        clearance: the change of a blank background under which the first layer's units should keep their phase;
            0 asks for nothing. See `background_penalty`; above 0, biases are free of weight decay.
    """

    schedule: Schedule
    loss: str = "ranking"
    augmentation: Augmentation = _UNCHANGED
    defence: Defence = None
    clearance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an unknown loss or a negative clearance."""
        if not self.clearance >= 0:
            raise InputError(f"clearance {self.clearance}: wanted 0 or more")
        if self.loss not in LOSSES:
            raise InputError(f"loss {self.loss!r}: unknown; wanted one of {', '.join(LOSSES)}")


Progress = Callable[[int, int, float], None]
"""Called after each step with the steps done, the steps in all and the loss of that batch."""


def train_network(
    architecture: Architecture,
    digits: Digits,
    options: TrainingOptions,
    seed: int,
    progress: Progress | None = None,
) -> nn.Sequential:
    """A trained network, in evaluation mode, with gradients off.

    The same arguments give bitwise the same weights on one machine with one number of threads. No global
    generator is read or advanced.

    Raises:
        InputError: `digits` are test digits, the seed is negative, or training diverged.
    """
    if digits.split is not Split.TRAINING:
        raise InputError("train_network: got test digits; wanted training digits, tests must stay unseen")
    if seed < 0:
        raise InputError(f"train_network: seed {seed}; wanted 0 or more")
    images_source, torch_source = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    network = build(architecture, torch_source)
    schedule = options.schedule
    optimizer = _optimizer(network, options)
    loss_of = LOSSES[options.loss]
    for step in range(schedule.steps):
        images, targets = draw_batch(digits, architecture.canvas, options, images_source)
        images = _attacked(network, images, targets, options, step, torch_source)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = loss_of(network(images), targets)
        if options.clearance > 0:
            loss = loss + background_penalty(network, options.clearance)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"training diverged: loss {value} at step {step}; lower the learning rate ({schedule.learning_rate})"
            )
        if progress is not None:
            progress(step + 1, schedule.steps, value)
    return network.requires_grad_(False).eval()


def background_penalty(network: nn.Module, clearance: float) -> Tensor:
    """The sum over the first convolution's channels of max(0, clearance * |weights|_1 - |bias|).

    On a blank image a unit of that layer sees its bias, and a change of every pixel by at most epsilon moves it by at most
    epsilon * |weights|_1: where the penalty is 0, no change up to `clearance` flips the unit. Most of a digit image is blank, and
    units that hover around 0 there are what makes a network hard to verify (ReLU stability, Xiao et al. 2019, made closed-form
    for a blank background).

    Raises:
        InputError: the network has no convolution with a bias.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            reach = clearance * layer.weight.abs().sum(dim=(1, 2, 3))
            return torch.relu(reach - layer.bias.abs()).sum()
    raise InputError("clearance: the network has no convolution with a bias; wanted one, or clearance 0")


def _optimizer(network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    schedule = options.schedule
    parameters = list(network.parameters())
    if options.clearance == 0:
        return torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    groups: list[dict[str, Any]] = [
        {"params": [value for value in parameters if value.ndim > 1]},
        {"params": [value for value in parameters if value.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)


def draw_batch(
    digits: Digits, canvas: Canvas, options: TrainingOptions, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One batch: images float32 (batch, 1, height, width) in [0, 1], targets float32 (batch, 10) of 0 and 1."""
    layout = draw_layout(digits.labels, canvas, options.schedule.batch_size, generator)
    pixels = augment_digits(digits.images[layout.indices], options.augmentation, generator)
    images = paste(pixels, layout, canvas)
    if isinstance(options.defence, Rectangles):
        images = paste_rectangles(images, options.defence, generator)
    labels = torch.from_numpy(digits.labels[layout.indices].astype(np.int64))
    return torch.from_numpy(images).unsqueeze(1).to(torch.float32).div_(255), multi_hot(labels)


def multi_hot(labels: Tensor) -> Tensor:
    """Label sets (batch, n) as float32 (batch, 10): 1 for a label, 0 for others."""
    return functional.one_hot(labels, CLASSES).sum(dim=1).to(torch.float32)


def _attacked(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    options: TrainingOptions,
    step: int,
    generator: torch.Generator,
) -> Tensor:
    """The images the network learns from at this step: perturbed under the L-infinity defence."""
    defence = options.defence
    if not isinstance(defence, AdversarialTraining):
        return images
    epsilon = defence.epsilon(step, options.schedule.steps)
    if epsilon == 0:
        return images
    attack = replace(defence.attack, epsilon=epsilon)
    return perturb(network, images, targets, attack, LOSSES[options.loss], generator)
