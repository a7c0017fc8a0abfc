"""The networks under attack and the images they are attacked on; trained once, kept in a folder, never committed."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks import make_goal
from attacks.goals import Goal, GoalOptions
from benchmarks.attack_study.cells import Cell
from nets.architectures import CLASSES, Architecture, build, strided3
from nets.composer import DOUBLE_MNIST, TRIPLE_MNIST, Canvas, compose
from nets.losses import set_margins
from nets.mnist import Split, load_digits
from nets.options import Schedule, TrainingOptions
from nets.training import multi_hot, train_network
from verifier.errors import InputError

CANVASES = {"double": DOUBLE_MNIST, "triple": TRIPLE_MNIST, "quad": Canvas(64, 128, 4), "six": Canvas(64, 192, 6)}
POOL = 600
_BATCH, _RATE, _DECAY = 128, 1e-2, 0.05
_IMAGES_SEED = 4093


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie: trained networks, and the MNIST files."""

    networks: Path
    digits: Path


@dataclass(frozen=True, slots=True)
class Training:
    """One network to train: a sigmoid head on a small convolutional network.

    Attributes:
        canvas: A key of `CANVASES`.
        seed: Of weights and training images.
        steps: Of the training.
        places: Where the network is kept.
    """

    canvas: str
    seed: int
    steps: int
    places: Places

    @property
    def path(self) -> Path:
        """The file of the trained weights."""
        return self.places.networks / f"{self.canvas}-seed{self.seed}-{self.steps}.pt"

    @property
    def identity(self) -> dict[str, Any]:
        """As it lies in the results file."""
        return {"network": self.canvas, "seed": self.seed, "steps": self.steps}

    @property
    def name(self) -> str:
        """For people."""
        return f"network {self.canvas}, training {self.seed}, {self.steps} steps"

    @property
    def patience(self) -> float:
        """Seconds after which a training counts as hung."""
        return 1800.0


def architecture(canvas_name: str) -> Architecture:
    """Three strided convolutions and one dense layer, for any canvas."""
    canvas = CANVASES[canvas_name]
    height, width = (_after(side) for side in (canvas.height, canvas.width))
    weights = 8 * 16 + 8 + 16 * 8 * 16 + 16 + 32 * 16 * 16 + 32 + 32 * height * width * CLASSES + CLASSES
    layers = functools.partial(strided3, height * width)
    return Architecture(f"study-{canvas_name}", "three strided convolutions, dense", weights, layers, canvas)


def _after(side: int) -> int:
    for stride in (2, 4, 2):
        side = (side + 2 - 4) // stride + 1
    return side


def train(training: Training) -> dict[str, Any]:
    """Trains and keeps a network; a record of its quality on test images."""
    digits = load_digits(Split.TRAINING, training.places.digits)
    options = TrainingOptions(Schedule(training.steps, _BATCH, learning_rate=_RATE, weight_decay=_DECAY), loss="bce")
    network = train_network(architecture(training.canvas), digits, options, training.seed)
    training.path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = training.path.with_suffix(".partial")
    torch.save(network.state_dict(), unfinished)
    unfinished.replace(training.path)
    return quality(training)


def quality(training: Training) -> dict[str, Any]:
    """How well a kept network does on the pool: all labels on their side of the threshold, and all ranked first."""
    subject = load_subject(training)
    right = ((subject.scores > 0) == subject.labels).all(dim=1)
    ranked = set_margins(subject.scores, subject.labels.float()) > 0
    weights = sum(each.numel() for each in subject.network.parameters())
    return {
        **training.identity,
        "weights": weights,
        "labels_right": float(right.double().mean()),
        "ranked_first": float(ranked.double().mean()),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network with the pool of test images it is attacked on.

    Attributes:
        network: Images (n, 1, height, width) to logits (n, 10).
        images: The pool, float32.
        labels: bool (n, 10).
        scores: Clean logits in float64.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    scores: Tensor


@functools.cache
def load_subject(training: Training) -> Subject:
    """The network and its pool; both are the same in every process.

    Raises:
        InputError: The network is not trained yet.
    """
    if not training.path.exists():
        raise InputError(f"{training.path}: not there; train it first (python -m benchmarks.attack_study run does)")
    network = build(architecture(training.canvas), torch.Generator())
    network.load_state_dict(torch.load(training.path, weights_only=True))
    network.requires_grad_(False).eval()
    digits = load_digits(Split.TEST, training.places.digits)
    generator = np.random.default_rng([_IMAGES_SEED, training.seed])
    composed = compose(digits, CANVASES[training.canvas], POOL, generator)
    images = torch.from_numpy(composed.images.copy())
    labels = multi_hot(torch.from_numpy(composed.labels.copy())).bool()
    doubled = build(architecture(training.canvas), torch.Generator()).double()
    doubled.load_state_dict(network.state_dict())
    with torch.no_grad():
        scores = torch.cat([doubled(part.double()) for part in images.split(100)])
    return Subject(network, images, labels, scores)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The images of a cell, with one goal each that makes sense for every one of them."""

    images: Tensor
    labels: Tensor
    goal: Goal


def scene(subject: Subject, cell: Cell, count: int) -> Scene:
    """The first `count` images of the pool that are eligible for the cell's goal; the same for every attack.

    Raises:
        InputError: None is.
    """
    options: dict[str, Any] = dict(cell.goal_options)
    goal = make_goal(cell.goal, subject.labels, subject.scores, GoalOptions(**options), seed=cell.seed)
    rows = goal.eligible.nonzero()[:count, 0]
    if not len(rows):
        raise InputError(f"goal {goal.name}: no eligible image in the pool; wanted: {goal.requirement}")
    return Scene(subject.images[rows], subject.labels[rows], goal.at(rows))
