"""The networks of the study: the shipped ones of one architecture, and others that its `run` command trains."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

import aureole
from nets import shipped
from nets.composer import DOUBLE_MNIST, ComposedImages, compose
from nets.mnist import Split, load_digits
from nets.options import AdversarialTraining, TrainingOptions
from nets.recipes import DefenceName, recipe, run_name, with_pieces
from nets.train_command import MEASURED_IMAGES, MEASURED_SEED
from verifier.errors import InputError
from verifier.network import Network

ARCHITECTURE, SEED = "strided3", 1
STEPS, BATCH = 1_500, 128
"""Of every network that the study trains."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One network: an architecture's recipe for a defence, with pieces in place of the recipe's.

    Attributes:
        name: In tables and records.
        summary: What it learns from, in some words.
        defence: Of the recipe.
        loss: In place of the recipe's; None keeps it.
        head: A key of `nets.recipes.HEADS`.
        epsilon: The radius of its PGD images in place of the recipe's; None keeps it.
        is_shipped: Whether it comes with the package; others are trained with the study's numbers of steps and images.
    """

    name: str
    summary: str
    defence: DefenceName
    loss: str | None = None
    head: str = "linear"
    epsilon: float | None = None
    is_shipped: bool = False

    def options(self, steps: int | None = None) -> TrainingOptions:
        """What it is trained with, or the same with another number of steps."""
        options = with_pieces(recipe(ARCHITECTURE, self.defence), loss=self.loss, head=self.head)
        if self.epsilon is not None and isinstance(options.defence, AdversarialTraining):
            attack = replace(options.defence.attack, epsilon=self.epsilon)
            options = replace(options, defence=replace(options.defence, attack=attack))
        schedule = options.schedule if self.is_shipped else replace(options.schedule, steps=STEPS, batch_size=BATCH)
        return replace(options, schedule=replace(schedule, steps=steps or schedule.steps))

    @property
    def file_stem(self) -> str:
        """Of the ONNX file."""
        return run_name(ARCHITECTURE, self.defence, self.options())


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("none", "ranking loss", "none", is_shipped=True),
        Subject("l0", "ranking loss, images with black rectangles", "l0", is_shipped=True),
        Subject("linf", "ranking loss on PGD images", "linf", is_shipped=True),
        Subject("sabr", "interval bounds on small boxes around PGD images", "sabr", is_shipped=True),
        Subject("ibp", "interval bounds", "ibp"),
        Subject("crown-ibp", "CROWN bounds, then interval bounds", "crown-ibp"),
        Subject("linf-0.05", "ranking loss on PGD images, radius 0.05", "linf", epsilon=0.05),
        Subject("bce", "binary cross-entropy", "none", loss="bce"),
        Subject("softmax", "softmax cross-entropy", "none", loss="softmax"),
        Subject("ml-liw", "instance-wise and label-wise ranking", "none", loss="ml-liw"),
        Subject("ml-gcn", "ranking loss, graph head", "none", head="ml-gcn"),
    )
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie: networks that the study trains, and the MNIST files."""

    networks: Path
    digits: Path


@cache
def load(subject: Subject, places: Places) -> Network:
    """The network, as the verifier reads its file.

    Raises:
        InputError: It is not trained yet.
    """
    if subject.is_shipped:
        return aureole.load_network(shipped.network_path(subject.file_stem))
    path = places.networks / f"{subject.file_stem}.onnx"
    if not path.exists():
        raise InputError(f"{path}: not there; train it first (python -m benchmarks.training_study run does)")
    return aureole.load_network(path)


@cache
def images(digits: Path) -> ComposedImages:
    """The images on which the manifest's accuracies were measured: test digits, never trained on."""
    generator = np.random.default_rng(MEASURED_SEED)
    return compose(load_digits(Split.TEST, digits), DOUBLE_MNIST, MEASURED_IMAGES, generator)
