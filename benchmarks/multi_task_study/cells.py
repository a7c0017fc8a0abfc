"""What is measured: one training each, its choices a cell; and two sizes of the study."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nets.composer import DOUBLE_MNIST, SINGLE_MNIST, Canvas
from nets.losses import ProjectedGradient

IMAGES_AN_EPOCH = 10_000
AUXILIARIES: tuple[tuple[str, ...], ...] = ((), ("odd",), ("odd", "prime"))
PERTURBATIONS = ("STA", "MTA", "MP")
UNDEFENDED = "none"


@dataclass(frozen=True, slots=True)
class Problem:
    """Images, network and attack of one part of the study.

    Attributes:
        canvas: How many digits on how large an image.
        architecture: A key of `nets.architectures.ARCHITECTURES`.
        epsilon: The L-infinity radius of training and evaluation.
        training: PGD in training.
        learning_rate: The highest rate.
    """

    canvas: Canvas
    architecture: str
    epsilon: float
    training: ProjectedGradient
    learning_rate: float


PROBLEMS = {
    "single": Problem(SINGLE_MNIST, "digit28", 0.1, ProjectedGradient(0.1, 5, 0.4), 5e-3),
    "double": Problem(DOUBLE_MNIST, "wide150k", 0.03, ProjectedGradient(0.03, 2, 0.75), 6e-3),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One training and its evaluation.

    Attributes:
        problem: A key of `PROBLEMS`.
        auxiliaries: Keys of `nets.tasks.TASKS`.
        perturbation: A key of `nets.mixed_perturbations.PERTURBATIONS`, or `UNDEFENDED` for training on clean images.
        is_targeted: Whether training perturbations are targeted.
        seed: Of weights, images and perturbations in training.
        epochs: Of 10,000 images each.
        images: Test images that PGD attacks.
        cw_images: Test images that ML-CW attacks.
    """

    problem: str
    auxiliaries: tuple[str, ...]
    perturbation: str
    is_targeted: bool
    seed: int
    epochs: float
    images: int
    cw_images: int

    @property
    def identity(self) -> dict[str, Any]:
        """As it lies in the results file."""
        return {**asdict(self), "auxiliaries": list(self.auxiliaries)}

    @property
    def name(self) -> str:
        """For people, and for choosing cells by pattern."""
        aim = "targeted" if self.is_targeted else "untargeted"
        return "/".join([self.problem, "+".join(("main", *self.auxiliaries)), self.perturbation, aim, str(self.seed)])


@dataclass(frozen=True, slots=True)
class Scale:
    """A size of the study.

    Attributes:
        seeds: Trainings of every choice.
        epochs: By problem.
        images, cw_images: As in `Cell`.
    """

    seeds: tuple[int, ...]
    epochs: Mapping[str, float]
    images: int
    cw_images: int


FULL = Scale((0, 1, 2), {"single": 5, "double": 10}, 2_000, 100)
QUICK = Scale((0, 1), {"single": 0.3, "double": 0.05}, 50, 5)


def all_cells(scale: Scale) -> list[Cell]:
    """Every cell, the trainings of one seed together, so that a study cut short has whole seeds."""
    cells = []
    for seed in scale.seeds:
        cells.append(_cell(scale, "single", (), UNDEFENDED, False, seed))
        for is_targeted in (False, True):
            cells += [_cell(scale, "single", *choice, is_targeted, seed) for choice in _choices(AUXILIARIES)]
    choices = _choices((AUXILIARIES[0], AUXILIARIES[-1]))
    return cells + [_cell(scale, "double", *choice, False, seed) for seed in scale.seeds for choice in choices]


def _choices(sets: tuple[tuple[str, ...], ...]) -> list[tuple[tuple[str, ...], str]]:
    """Without auxiliary tasks all perturbations are PGD on the main task, so STA stands for all."""
    return [(names, perturbation) for names in sets for perturbation in (PERTURBATIONS if names else ("STA",))]


def _cell(
    scale: Scale, problem: str, auxiliaries: tuple[str, ...], perturbation: str, is_targeted: bool, seed: int
) -> Cell:
    epochs = scale.epochs[problem]
    return Cell(problem, auxiliaries, perturbation, is_targeted, seed, epochs, scale.images, scale.cw_images)
