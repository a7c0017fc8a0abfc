"""Runs an attack on many images, a few at a time, and keeps each finished one at once."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

import attacks
from attacks.jpeg import jpeg
from attacks.methods import Variant
from attacks.metrics import (
    Attacked,
    Norm,
    Summary,
    norms,
    rmsd,
    summarise,
)
from aureole.attack_job import Job, norm_of
from aureole.attack_journal import Journal, Row, adversarial_name, clean_name
from verifier.evaluation import evaluate

_ABOVE_ROUNDING = 2.0**-40


def attack_all(job: Job, journal: Journal, on_rows: Callable[[int, str], None]) -> None:
    """Attacks the eligible images that the journal does not hold yet; each batch is kept before the next begins."""
    eligible: list[int] = job.goal.eligible.nonzero()[:, 0].tolist()
    waiting = [row for row in eligible if job.keys[row] not in journal.rows]
    on_rows(len(eligible) - len(waiting), "")
    # One perturbation for all images cannot be found for some of them.
    size = len(eligible) if job.method.is_universal else job.run.batch
    pending = eligible if job.method.is_universal and waiting else waiting
    for start in range(0, len(pending), size):
        rows = pending[start : start + size]
        clean = job.pixels(rows)
        for original, (values, image) in zip(clean, _attack(job, rows, clean), strict=True):
            journal.add(values, image, original)
        on_rows(len(rows), job.images[rows[-1]].name)


def result_rows(job: Job, journal: Journal) -> list[Row]:
    """A row for each image that is finished, or was not eligible, in the order given."""
    rows: list[Row] = []
    for place, key in enumerate(job.keys):
        if key in journal.rows:
            rows.append({**journal.rows[key], "name": job.images[place].name})
        elif not bool(job.goal.eligible[place]):
            rows.append({**_common(job, place), "claim": "none", "eligible": False})
    return rows


def summary_of(job: Job, journal: Journal) -> Summary | None:
    """All metrics of the finished rows; None if there are none.

    How large the changes are was measured when each row was finished, so that no image is read again.
    """
    places = [place for place, key in enumerate(job.keys) if key in journal.rows]
    if not places:
        return None
    rows = [journal.rows[job.keys[place]] for place in places]
    goal = job.goal
    attacked = Attacked(
        {norm: np.array([row[norm.value] for row in rows], dtype=np.float64) for norm in Norm},
        np.array([row["rmsd"] for row in rows], dtype=np.float64),
        np.array([row["clean_scores"] for row in rows]),
        np.array([row["scores"] for row in rows]),
        job.labels[places],
        goal.sign.numpy()[places],
        goal.flip.numpy()[places],
        goal.hold.numpy()[places],
        np.array([row["success"] for row in rows], dtype=np.bool_),
        goal.k,
        goal.threshold,
    )
    return summarise(attacked)


def _attack(job: Job, rows: Sequence[int], pixels: Float[np.ndarray, "rows ..."]) -> list[tuple[Row, np.ndarray]]:
    """The results of some rows and their adversarial images."""
    began = time.monotonic()
    goal, head = job.goal.at(torch.tensor(rows)), job.network.head.value
    result = attacks.run(
        job.target,
        torch.from_numpy(pixels),
        torch.from_numpy(job.labels[list(rows)]),
        method=job.method.name,
        variant=job.variant.value,
        goal=goal,
        norm=norm_of(job.words.norm),
        eps=job.words.epsilon,
        options=job.method_options,
        seed=job.run.seed,
        batch=len(rows),
        device=job.run.device,
        head=None if job.target is job.network else head,
    )
    images, seconds = result.images.numpy(), (time.monotonic() - began) / len(rows)
    clean = result.clean.numpy()
    size = {norm: norms(clean, images, norm) for norm in Norm}
    deviation = rmsd(clean, images)
    # Claims are about the network of the file, whatever the attack went through.
    plain = goal.satisfied(torch.from_numpy(evaluate(job.network, images.astype(np.float64))))
    coded = None
    if job.words.jpeg is not None:
        seen = jpeg(images, job.words.jpeg).astype(np.float64)
        coded = goal.satisfied(torch.from_numpy(evaluate(job.network, seen)))
    finished: list[tuple[Row, np.ndarray]] = []
    for place, row in enumerate(rows):
        is_plain = bool(plain[place])
        norm, bound = result.norm, result.eps
        if norm is None and is_plain:
            # A little above the computed norm, so that the claim holds exactly.
            norm, bound = Norm.L2.value, float(size[Norm.L2][place]) * (1.0 + _ABOVE_ROUNDING)
        values = {
            **_common(job, row),
            "claim": "none" if norm is None else "success" if is_plain else "failure",
            "adversarial": adversarial_name(job.keys[row]),
            "norm": norm,
            "bound": bound,
            "eligible": True,
            "success": bool(result.success[place]),
            "already_met": bool(result.already_met[place]),
            "jpeg_success": None if coded is None else bool(coded[place]),
            "met": int(result.met[place]),
            "margin": float(result.margin[place]),
            **{each.value: float(size[each][place]) for each in Norm},
            "rmsd": float(deviation[place]),
            "iterations": int(result.iterations[place]),
            "seconds": seconds,
            "clean_scores": result.clean_scores[place].tolist(),
            "scores": result.scores[place].tolist(),
        }
        finished.append((values, images[place]))
    return finished


def _common(job: Job, row: int) -> dict[str, Any]:
    """What is known of a row before it is attacked."""
    sign, goal = job.goal.sign[row], job.goal
    attack = job.method.name if job.variant is Variant.FIXED else f"{job.method.name} ({job.variant.value})"
    return {
        "key": job.keys[row],
        "name": job.images[row].name,
        "claim": "none",
        "attack": attack,
        "image": clean_name(job.keys[row]),
        "adversarial": None,
        "on": (sign > 0).nonzero()[:, 0].tolist(),
        "off": (sign < 0).nonzero()[:, 0].tolist(),
        "needed": int(goal.needed[row]),
        "k": goal.k,
        "threshold": goal.threshold if goal.k is None else None,
        "norm": None,
        "bound": None,
        "goal": goal.name,
        "labels": np.flatnonzero(job.labels[row]).tolist(),
    }
