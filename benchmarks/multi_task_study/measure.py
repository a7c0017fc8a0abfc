"""Trains the network of a cell and measures it; distances between the classes of MNIST."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import attacks
from attacks.goals import Goal, Rule, rivals
from benchmarks.multi_task_study.cells import IMAGES_AN_EPOCH, PROBLEMS, UNDEFENDED, Cell
from benchmarks.topk.machine import code_version
from benchmarks.topk.results import finite
from nets.architectures import architecture
from nets.composer import ComposedImages, compose
from nets.losses import ProjectedGradient, ranking_loss, softmax_cross_entropy
from nets.measure import task_measures
from nets.mnist import Digits, Split, load_digits
from nets.options import AdversarialTraining, Schedule, TaskTraining, TrainingOptions
from nets.task_metrics import inter_class_variance
from nets.tasks import TaskNetwork
from nets.training import multi_hot, train_heads

Record = dict[str, Any]
BATCH, WEIGHT_DECAY, RAMP = 128, 1e-3, 0.3
EVALUATION_STEPS, EVALUATION_STEP = 20, 0.1
CW: Mapping[str, object] = {"searches": 5, "iterations": 60}
VARIANCE_OF = (6_000, 10_000)
_IMAGES_SEED, _ATTACK_SEED = 7_919, 11


def options_of(cell: Cell) -> TrainingOptions:
    """The training of a cell: no augmentation, cross-entropy for every task, epsilon rising over the first 30%."""
    problem = PROBLEMS[cell.problem]
    is_defended = cell.perturbation != UNDEFENDED
    steps = max(1, round(cell.epochs * IMAGES_AN_EPOCH / BATCH))
    tasks = TaskTraining(cell.auxiliaries, cell.perturbation if is_defended else "STA", cell.is_targeted)
    return TrainingOptions(
        Schedule(steps, BATCH, problem.learning_rate, WEIGHT_DECAY),
        loss="softmax" if problem.canvas.digits == 1 else "ranking",
        defence=AdversarialTraining(problem.training, clean_share=0.0, ramp_share=RAMP) if is_defended else None,
        tasks=tasks,
    )


def measure_cell(cell: Cell, digits: Path) -> Record:
    """Trains and evaluates; seconds are processor time of this process."""
    problem, options = PROBLEMS[cell.problem], options_of(cell)
    training = load_digits(Split.TRAINING, digits)
    begin = time.process_time()
    network = train_heads(architecture(problem.architecture), training, options, cell.seed)
    trained = time.process_time()
    if not isinstance(network, TaskNetwork):
        raise TypeError(f"training: got {type(network).__name__}, wanted a network with heads")
    images = compose(load_digits(Split.TEST, digits), problem.canvas, cell.images, np.random.default_rng(_IMAGES_SEED))
    attack = ProjectedGradient(problem.epsilon, EVALUATION_STEPS, EVALUATION_STEP)
    loss = softmax_cross_entropy if problem.canvas.digits == 1 else ranking_loss
    found = task_measures(network, images, cell.auxiliaries, attack, torch.Generator().manual_seed(_ATTACK_SEED), loss)
    return {
        **cell.identity,
        "clean": list(found.clean),
        "untargeted": list(found.attacked),
        "targeted": found.targeted,
        "angles": [finite(angle) for angle in found.angle_deviations],
        **carlini_wagner(network.task(0), images, cell.cw_images, problem.epsilon, CW),
        "seconds_per_epoch": (trained - begin) / cell.epochs,
        "seconds": time.process_time() - begin,
        "code": code_version(),
    }


def carlini_wagner(
    network: torch.nn.Module,
    images: ComposedImages,
    count: int,
    epsilon: float,
    options: Mapping[str, object],
) -> Record:
    """ML-CW towards losing the weakest label of the first images: accuracy inside the ball, and the median l2 norm without one.

    `cw_accuracy` counts images whose label set is exact and stays so; `cw_l2` is None where nothing was found.
    """
    pixels = torch.from_numpy(images.images[:count].copy())
    labels = multi_hot(torch.from_numpy(images.labels[:count].copy()))
    with torch.no_grad():
        goal = weakest_label_out(labels.bool(), network(pixels).double())
    if not bool(goal.eligible.any()):
        return {"cw_accuracy": 0.0, "cw_l2": None}
    inside = attacks.run(network, pixels, labels, method="ml-cw", goal=goal, norm="linf", eps=epsilon, options=options)
    free = attacks.run(network, pixels, labels, method="ml-cw", goal=goal, options=options)
    sizes = free.l2[free.success]
    return {
        "cw_accuracy": float((goal.eligible & ~inside.success).double().mean()),
        "cw_success": int(free.success.sum()),
        "cw_eligible": int(goal.eligible.sum()),
        "cw_l2": float(sizes.median()) if len(sizes) else None,
    }


def weakest_label_out(labels: Tensor, scores: Tensor) -> Goal:
    """The true label with the lowest score leaves the top n of n labels; eligible where all are strictly in.

    With one label an image this is the untargeted goal of Carlini and Wagner (2017).
    """
    count = int(labels.sum(dim=1).max())
    weakest = scores.masked_fill(~labels, torch.inf).argmin(dim=1, keepdim=True)
    target = torch.zeros_like(labels).scatter(1, weakest, True)
    is_in = (target & (scores > rivals(scores, count))).any(dim=1)
    sign = torch.where(target, -1, 0)
    held = torch.zeros_like(labels)
    needed = target.sum(dim=1)
    return Goal("weakest-label-out", Rule.TOP_K, labels, sign, needed, is_in, target, held, "every label in", count)


def variances(digits: Path) -> list[Record]:
    """The inter-class variance of the first 6,000 and of all 10,000 training digits at hand, pixels in [0, 1]."""
    held = load_digits(Split.TRAINING, digits)
    return [_variance(held, count) for count in VARIANCE_OF if count <= len(held.labels)]


def _variance(held: Digits, count: int) -> Record:
    pixels = torch.tensor(held.images[:count]).to(torch.float32) / 255
    return {"digits": count, "variance": inter_class_variance(pixels, torch.tensor(held.labels[:count]))}
