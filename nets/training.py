"""Trains one network from a seed: images composed on the fly, and one small loop over pluggable pieces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.architectures import CLASSES, Architecture, build
from nets.augmentation import Rectangles, augment_digits, paste_rectangles
from nets.checkpoints import Checkpoints, RunState
from nets.composer import Canvas, draw_layout, paste
from nets.label_graph import folded, with_graph_head
from nets.mnist import Digits, Split
from nets.options import TrainingOptions
from nets.step_losses import step_loss
from nets.tasks import TaskNetwork, with_auxiliary_heads
from verifier.errors import InputError

_GRAPH_IMAGES: Final = 10_000
_GRAPH_STREAM: Final = 1

Progress = Callable[[int, int, float], None]
"""Called after each step with the steps done, the steps in all and the loss of that batch."""


def train_network(
    architecture: Architecture,
    digits: Digits,
    options: TrainingOptions,
    seed: int,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> nn.Sequential:
    """A trained network, in evaluation mode, with gradients off: the main head alone, a graph head folded.

    As `train_heads`, without what only training needs.
    """
    network = train_heads(architecture, digits, options, seed, progress, checkpoints)
    main = network.task(0) if isinstance(network, TaskNetwork) else network
    return folded(main).requires_grad_(False).eval()


def train_heads(
    architecture: Architecture,
    digits: Digits,
    options: TrainingOptions,
    seed: int,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> nn.Sequential | TaskNetwork:
    """A trained network with all its heads, in evaluation mode, with gradients off; a `TaskNetwork` if the options name tasks.

    With `checkpoints` the run is saved as it goes, and goes on from what is saved, to the same weights.

    The same arguments give bitwise the same weights on one machine with one number of threads. No global
    generator is read or advanced.

    Raises:
        InputError: `digits` are test digits, the seed is negative, or training diverged.
    """
    if digits.split is not Split.TRAINING:
        raise InputError("training: got test digits; wanted training digits, tests must stay unseen")
    if seed < 0:
        raise InputError(f"training: seed {seed}; wanted 0 or more")
    images_source, torch_source = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    network = _with_heads(build(architecture, torch_source), architecture.canvas, digits, options, seed, torch_source)
    schedule = options.schedule
    optimizer = _optimizer(network, options)
    loss_of = step_loss(network, options, architecture.canvas, torch_source)
    state = RunState(network, optimizer, images_source, torch_source)
    path = checkpoints.path(architecture.name, digits, options, seed) if checkpoints else None
    for step in range(state.restore(path) if path else 0, schedule.steps):
        images, targets = draw_batch(digits, architecture.canvas, options, images_source)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = loss_of(images, targets, step)
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
        if checkpoints and path and (step + 1) % checkpoints.every == 0:
            state.save(path, step + 1)
        if progress is not None:
            progress(step + 1, schedule.steps, value)
    return network.requires_grad_(False).eval()


def _with_heads(
    network: nn.Sequential,
    canvas: Canvas,
    digits: Digits,
    options: TrainingOptions,
    seed: int,
    generator: torch.Generator,
) -> nn.Sequential | TaskNetwork:
    """The network with the heads that the options ask for; without any, the network itself and nothing is drawn."""
    if options.graph is not None:
        layout = draw_layout(digits.labels, canvas, _GRAPH_IMAGES, np.random.default_rng([seed, _GRAPH_STREAM]))
        targets = multi_hot(torch.from_numpy(digits.labels[layout.indices].astype(np.int64)))
        network = with_graph_head(network, targets, options.graph, generator)
    if options.tasks is None:
        return network
    return with_auxiliary_heads(network, options.tasks.auxiliaries, canvas.digits, generator)


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
