"""Does one task of the study: trains a network, asks about a block of images, or grows one neighbourhood."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

import aureole
from benchmarks.topk.machine import code_version
from benchmarks.topk.results import Record
from benchmarks.training_study.attack import candidates
from benchmarks.training_study.questions import KINDS, Block, K
from benchmarks.training_study.subjects import ARCHITECTURE, SEED, SUBJECTS, Places, images, load
from nets.architectures import architecture
from nets.composer import ComposedImages
from nets.mnist import Split, load_digits
from nets.train_command import train
from nets.training import train_network
from verifier import check
from verifier.evaluation import evaluate
from verifier.network import Network

WRONG, ATTACKED, REFUTED, BOUNDED, SEARCHED, OPEN = "wavbso"
"""What became of an image: wrong as it is; broken by the attack, or by the verifier; proved by bounds, or by a search; open."""

EFFORTS = ("attack", "bounds", "search")
_SEARCHES = {"search", "MILP"}
_WARM_UP_STEPS, _TRIAL_STEPS = 3, 40
_ATTACK_SEED = 1


def prepare() -> None:
    """One thread a process."""
    torch.set_num_threads(1)


@dataclass(frozen=True, slots=True)
class NetworkTask:
    """One network: trained if it is not there, its accuracy, and how long training takes."""

    subject: str
    places: Places
    patience: float = 7200.0

    @property
    def identity(self) -> Record:
        """The fields that name the measurement."""
        return {"kind": "network", "network": self.subject, "steps": SUBJECTS[self.subject].options().schedule.steps}

    @property
    def name(self) -> str:
        """In one line."""
        return f"{self.subject}/training"


@dataclass(frozen=True, slots=True)
class RegionTask:
    """A kind of question about a block of images, at every epsilon of the kind.

    Attributes:
        subject: The network.
        kind: A key of `KINDS`.
        block: The images.
        limit: Seconds for each question to the verifier.
        effort: "attack": the verifier is not asked; "bounds": bounds alone; "search": the complete verifier.
        places: Where files lie.
    """

    subject: str
    kind: str
    block: Block
    limit: float
    effort: str
    places: Places

    @property
    def patience(self) -> float:
        """All limits and a grace."""
        return 600.0 + 10 * self.limit * self.block.count * len(KINDS[self.kind].epsilons)

    @property
    def identity(self) -> Record:
        """The fields that name the measurement."""
        return {
            "kind": self.kind,
            "network": self.subject,
            "first": self.block.first,
            "count": self.block.count,
            "limit": self.limit,
            "effort": self.effort,
        }

    @property
    def name(self) -> str:
        """In one line."""
        return f"{self.subject}/{self.kind}/{self.effort}/{self.block.first}"


@dataclass(frozen=True, slots=True)
class GrowTask:
    """The maximal layered neighbourhood of the first digit in which the second one's label survives."""

    subject: str
    image: int
    limit: float
    places: Places

    @property
    def patience(self) -> float:
        """The limit and a grace."""
        return 600.0 + 10 * self.limit

    @property
    def identity(self) -> Record:
        """The fields that name the measurement."""
        return {"kind": "grown", "network": self.subject, "image": self.image, "limit": self.limit}

    @property
    def name(self) -> str:
        """In one line."""
        return f"{self.subject}/grown/{self.image}"


Task = NetworkTask | RegionTask | GrowTask


def perform(task: Task) -> Record:
    """The measured part of a task's record; "seconds" are processor time."""
    began = time.process_time()
    match task:
        case NetworkTask():
            found = _network(task)
        case RegionTask():
            found = _regions(task)
        case GrowTask():
            found = _grown(task)
    spent = round(time.process_time() - began, 2)
    return {**found, "seconds": spent, "code": code_version(), "load": round(os.getloadavg()[0], 2)}


def _network(task: NetworkTask) -> Record:
    """With "train_seconds", the processor time of all steps, scaled up from a short run if the network was there already."""
    subject, places = SUBJECTS[task.subject], task.places
    clock = _Clock()
    if not subject.is_shipped and not (places.networks / f"{subject.file_stem}.onnx").exists():
        train(
            ARCHITECTURE, subject.defence, SEED, places.digits, places.networks, subject.options(), progress=clock.tick
        )
    else:
        digits = load_digits(Split.TRAINING, places.digits)
        for steps, progress in ((_WARM_UP_STEPS, None), (_TRIAL_STEPS, clock.tick)):
            train_network(architecture(ARCHITECTURE), digits, subject.options(steps=steps), SEED, progress)
    schedule, test = subject.options().schedule, images(places.digits)
    return {
        "clean": float(right(load(subject, places), test).mean()),
        "images": len(test),
        "batch": schedule.batch_size,
        "train_seconds": round(clock.per_step * schedule.steps, 1),
        "is_scaled": clock.steps < schedule.steps // 2,
    }


class _Clock:
    """Processor time by training step, from the first step's end to the last one's."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, float]] = []

    def tick(self, done: int, steps: int, loss: float) -> None:  # noqa: ARG002
        self._marks.append((done, time.process_time()))

    @property
    def steps(self) -> int:
        return self._marks[-1][0] - self._marks[0][0]

    @property
    def per_step(self) -> float:
        return (self._marks[-1][1] - self._marks[0][1]) / self.steps


def right(network: Network, test: ComposedImages) -> np.ndarray:
    """For every image whether its labels are exactly the highest scores; a tie is wrong."""
    scores = np.concatenate([evaluate(network, part) for part in np.array_split(test.images, max(1, len(test) // 100))])
    is_label = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(is_label, test.labels, values=True, axis=1)
    return np.where(is_label, scores, np.inf).min(axis=1) > np.where(is_label, -np.inf, scores).max(axis=1)


def _regions(task: RegionTask) -> Record:
    """With "marks": one letter an image for every epsilon."""
    subject = SUBJECTS[task.subject]
    network, test, kind = load(subject, task.places), images(task.places.digits), KINDS[task.kind]
    clean = [test.images[index].astype(np.float64) for index in task.block.indices]
    asked = [[kind.ask(network, test, index, epsilon) for index in task.block.indices] for epsilon in kind.epsilons]
    marks = np.full((len(kind.epsilons), task.block.count), OPEN)
    for level, queries in enumerate(asked):
        _break(queries, clean, marks[level:], level)
    if task.effort != "attack":
        _verify(asked, clean, marks, task)
    return {"marks": {f"{epsilon:g}": "".join(marks[level]) for level, epsilon in enumerate(kind.epsilons)}}


def _break(queries: Sequence[aureole.Query], clean: Sequence[np.ndarray], marks: np.ndarray, level: int) -> None:
    """Marks the images that are wrong or broken, at this epsilon and, since regions are nested, at all above."""
    rows = [row for row in range(len(queries)) if marks[0, row] == OPEN]
    if level == 0:
        for row in rows:
            if check.replay(queries[row], clean[row], "clean image") is not None:
                marks[:, row] = WRONG
        rows = [row for row in rows if marks[0, row] == OPEN]
    if not rows:
        return
    found = candidates([queries[row] for row in rows], [clean[row] for row in rows], _ATTACK_SEED)
    for row, image in zip(rows, found, strict=True):
        if check.replay(queries[row], image, "PGD") is not None:
            marks[:, row] = ATTACKED


def _verify(
    asked: Sequence[Sequence[aureole.Query]], clean: Sequence[np.ndarray], marks: np.ndarray, task: RegionTask
) -> None:
    """Asks the verifier about what is open, up to the first epsilon at which an image stays open: larger ones are harder."""
    engine = {"bounds": "bounds", "search": "auto"}[task.effort]
    for row in range(task.block.count):
        for level in np.flatnonzero(marks[:, row] == OPEN).tolist():
            outcome = aureole.verify(asked[level][row], timeout=task.limit, engine=engine, start=clean[row])
            match outcome.verdict:
                case aureole.Robust():
                    is_searched = bool({stage.name for stage in outcome.statistics.stages} & _SEARCHES)
                    marks[level, row] = SEARCHED if is_searched else BOUNDED
                case aureole.Vulnerable():
                    # What breaks in a region breaks in every region around it.
                    marks[level:, row] = np.where(marks[level:, row] == OPEN, REFUTED, marks[level:, row])
                    break
                case aureole.Unknown():
                    break


def _grown(task: GrowTask) -> Record:
    """An image whose second label is not in the top 2 has no neighbourhood: all sizes are null."""
    network, test = load(SUBJECTS[task.subject], task.places), images(task.places.digits)
    image, label = test.images[task.image], int(test.labels[task.image][1])
    is_in = bool(np.sum(evaluate(network, image[None])[0] >= evaluate(network, image[None])[0][label]) <= K)
    if not is_in:
        return {"weighted_size": None, "upper_bound": None, "pixels": None}
    grown = aureole.grow(network, image, test.masks[task.image][0], label, K, timeout=task.limit)
    return {
        "weighted_size": grown.weighted_size,
        "upper_bound": grown.upper_bound,
        "pixels": grown.pixels_above_zero,
        "is_proved": grown.is_proved,
    }
