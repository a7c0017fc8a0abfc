"""Does one cell: attacks its images and writes down what became of each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import attacks
from attacks import AttackResult
from attacks.ball import Ball
from attacks.face import judge
from attacks.goals import Rule
from attacks.jpeg import Purified, jpeg
from attacks.metrics import (
    average_precision_at_k,
    hamming,
    kendall_tau_b,
    ndcg_at_k,
    precision_at_k,
    ranking_targets,
    top_k_accuracy,
)
from attacks.problem import Problem
from attacks.victim import prepare as prepare_victim
from benchmarks.attack_study import ablation
from benchmarks.attack_study.cells import ABLATION, QUALITIES, Cell
from benchmarks.attack_study.victims import Places, Scene, Subject, Training, load_subject, quality, scene, train
from benchmarks.topk.machine import code_version
from verifier.deadline import Deadline

Record = dict[str, Any]
_BATCH = 64
_HELD_OUT = 2
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Task:
    """A cell, and where its network lies."""

    cell: Cell
    places: Places

    @property
    def identity(self) -> Record:
        """Of the cell."""
        return self.cell.identity

    @property
    def name(self) -> str:
        """Of the cell."""
        return self.cell.name

    @property
    def patience(self) -> float:
        """Seconds after which a cell counts as hung."""
        return 1800.0


def prepare() -> None:
    """One thread a process."""
    torch.set_num_threads(1)


def perform_training(training: Training) -> Record:
    """Trains a network where it is not there yet; a record of its quality."""
    return quality(training) if training.path.exists() else train(training)


def perform(task: Task) -> Record:
    """The measured part of a cell's record. Every list has one entry an image, in the order of the cell's images."""
    cell = task.cell
    subject = load_subject(Training(cell.canvas, cell.seed, cell.steps, task.places))
    began = time.process_time()
    found = _universal(subject, cell) if cell.claim == "universal" else _attack(subject, cell)
    return {**found, "seconds": round(time.process_time() - began, 2), "code": code_version()}


def _attack(subject: Subject, cell: Cell) -> Record:
    at = scene(subject, cell, cell.images)
    network = subject.network if cell.through is None else Purified(subject.network, cell.through)
    if cell.method == ABLATION:
        result = ablated(subject, at, cell.variant, cell.seed)
    else:
        result = attacks.run(
            network,
            at.images,
            at.labels,
            method=cell.method,
            variant=cell.variant,
            goal=at.goal,
            norm=cell.norm,
            eps=cell.eps,
            options=dict(cell.options),
            seed=cell.seed,
            batch=_BATCH,
            head="sigmoid",
        )
    found = _outcome(result)
    if at.goal.rule is Rule.TOP_K:
        found |= _ranking(result)
    elif cell.claim == "ranks":
        found |= _labels(result)
    if cell.claim == "jpeg" and cell.through is None:
        found["coded"] = {str(each): _bits(_after_jpeg(subject, result, each)) for each in QUALITIES}
    return found


def ablated(subject: Subject, at: Scene, parts: str, seed: int) -> AttackResult:
    """MLA-LP as released with some of its parts put right, judged like every attack."""
    victim = prepare_victim(subject.network, tuple(at.images.shape[1:]), torch.device("cpu"), "sigmoid")
    flat = at.images.reshape(len(at.images), -1)
    problem = Problem(
        model=victim.search,
        goal=at.goal,
        ball=Ball.around(flat, None, None),
        eps=None,
        generators=tuple(torch.Generator().manual_seed(seed) for _ in flat),
        deadline=Deadline(),
        shape=tuple(at.images.shape[1:]),
    )
    outcome = ablation.search(problem, ablation.PARTS[parts])
    images = problem.ball.float32(outcome.points)
    judged = judge(victim, at.goal, flat, images, victim.scores(flat, _BATCH), _BATCH)
    return replace(judged, images=images.reshape(at.images.shape), clean=at.images, method=ABLATION, variant=parts)


def _outcome(result: AttackResult) -> Record:
    return {
        "rows": len(result.success),
        "success": _bits(result.success),
        "already_met": int(result.already_met.sum()),
        "met": result.met.tolist(),
        "l2": _numbers(result.l2),
        "linf": _numbers(result.linf),
        **{name: _numbers(values) for name, values in result.reported.items()},
    }


def _ranking(result: AttackResult) -> Record:
    """By how much each metric of the top k drops: before minus after."""
    k, labels = result.goal.k or 1, result.goal.labels.numpy()
    metrics = {"TkAcc": top_k_accuracy, "P": precision_at_k, "AP": average_precision_at_k, "NDCG": ndcg_at_k}
    before, after = result.clean_scores.numpy(), result.scores.numpy()
    drops = {name: metric(before, labels, k) - metric(after, labels, k) for name, metric in metrics.items()}
    return {"drops": {name: _numbers(values) for name, values in drops.items()}}


def _labels(result: AttackResult) -> Record:
    """How near each image came to the labels that it should get (Song et al. 2018)."""
    goal = result.goal
    scores, sign, is_on = result.scores.numpy(), goal.sign.numpy(), (result.scores > goal.threshold).numpy()
    targets = ranking_targets(goal.labels.numpy(), goal.flip.numpy(), goal.hold.numpy())
    return {
        "hamming_flip": _numbers(hamming(is_on, sign, goal.flip.numpy())),
        "hamming_hold": _numbers(hamming(is_on, sign, goal.hold.numpy())),
        "tau": _numbers(kendall_tau_b(scores, targets)),
    }


def _after_jpeg(subject: Subject, result: AttackResult, jpeg_quality: int) -> Tensor:
    """Which images still meet their goal once they were coded."""
    coded = torch.from_numpy(jpeg(result.images.numpy(), jpeg_quality))
    victim = prepare_victim(subject.network, tuple(coded.shape[1:]), torch.device("cpu"), "sigmoid")
    return result.goal.satisfied(victim.scores(coded.reshape(len(coded), -1), _BATCH))


def _universal(subject: Subject, cell: Cell) -> Record:
    """The share of images that one perturbation fools: of those it was found on, and of others."""
    at = scene(subject, cell, (1 + _HELD_OUT) * cell.images)
    own = slice(0, min(cell.images, len(at.images)))
    others = slice(own.stop, len(at.images))
    result = attacks.run(
        subject.network,
        at.images[own],
        at.labels[own],
        method=cell.method,
        variant=cell.variant,
        goal=at.goal.at(torch.arange(own.stop)),
        norm=cell.norm,
        eps=cell.eps,
        options=dict(cell.options),
        seed=cell.seed,
        head="sigmoid",
    )
    if result.shared is None:
        raise RuntimeError(f"{cell.method}: wanted one shared perturbation, got none")
    moved = (at.images[others] + result.shared).clamp(0.0, 1.0)
    victim = prepare_victim(subject.network, tuple(moved.shape[1:]), torch.device("cpu"), "sigmoid")
    held_out = at.goal.at(torch.arange(others.start, others.stop))
    fooled = held_out.satisfied(victim.scores(moved.reshape(len(moved), -1), _BATCH))
    size = float(torch.linalg.vector_norm(result.shared.double()))
    return {
        "rows": own.stop,
        "success": _bits(result.success),
        "held_out": _bits(fooled),
        "shared_l2": float(f"{size:.{_DIGITS}g}"),
    }


def _bits(marks: Tensor) -> str:
    return "".join("1" if mark else "0" for mark in marks.tolist())


def _numbers(values: Tensor | np.ndarray) -> list[float | None]:
    """Five digits of each number, None for what JSON cannot say."""
    shown: Sequence[float] = values.tolist()
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in shown]
