"""The second check of a results file: every "robust" is attacked hard, every "vulnerable" is replayed."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attacks.margin import MarginAttack, MarginAttackOptions
from benchmarks.topk.machine import code_version
from benchmarks.topk.queries import FILES, Question, load_images, load_network
from benchmarks.topk.results import Claim, Record, claims, entry, finite, question_of, save_images
from verifier.check import margin_lower_bound, replay
from verifier.deadline import Deadline

_ROWS, _ROUNDS_A_CALL = 256, 8
_MAX_SUBSETS = 126
"""Every subset of up to 5 of 9 forms gets rows of its own."""
_KEPT, _ENCLOSED = 32, 4
_SECONDS_A_START = 1.0


@dataclass(frozen=True, slots=True)
class AttackTask:
    """One question to attack.

    Attributes:
        question: What was claimed to be robust.
        restarts: Climbs, at least.
        steps: Gradient steps of each.
        device: The torch device.
        folder: Where a counterexample goes, if one is found.
    """

    question: Question
    restarts: int
    steps: int
    device: str
    folder: Path

    @property
    def patience(self) -> float:
        """Generous: attacks end by their number of steps."""
        return 600.0 + _SECONDS_A_START * self.restarts

    @property
    def identity(self) -> Record:
        """The fields that name the measurement."""
        fields = ("network", "image", "label", "k", "epsilon", "stays_in")
        asked = {field: getattr(self.question, field) for field in fields}
        return {"kind": "attack", **asked, "restarts": self.restarts, "steps": self.steps}

    @property
    def name(self) -> str:
        """In one line."""
        return f"{self.question.name} attack"


ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""For the workers: glibc gives large arrays back to the system after each step, which takes a third of an attack's time."""


def robust_claims(records: Iterable[Record]) -> dict[Question, list[Claim]]:
    """Every question that somebody claims to be robust, with who does."""
    found: dict[Question, list[Claim]] = {}
    for record in records:
        for claim in claims(record):
            if claim.verdict == "robust":
                found.setdefault(claim.question, []).append(claim)
    return found


def prepare() -> None:
    """Loads what every attack needs."""
    import torch

    torch.set_num_threads(1)
    code_version()
    for name in FILES:
        load_network(name)
    load_images()


def attack(task: AttackTask) -> Record:
    """Attacks one question with at least `restarts` climbs.

    They are spent in calls of `MarginAttack`, rounds of some hundred climbs each: every climb has smoothing of its own, a quarter
    starts from a random corner of the region, the others from the best points so far; the best tiles of what they reach are put
    together. Each call goes on from the best images of the one before, with another seed.

    "margin" is the largest rigorous lower bound of the margin over the best images of all calls. At 0 or more it disproves the
    claim ("violated") whether or not ONNX Runtime's float32 agrees ("replayed"), and the attack ends.

    Raises:
        RuntimeError: The attack returned no image inside the region.
    """
    query, clean = task.question.query(), load_images()[task.question.image][None].astype(np.float64)
    rounds = math.ceil(task.restarts / _ROWS)
    before = {"device": _device(task.device), "code": code_version(), "load": round(os.getloadavg()[0], 2)}
    start = time.perf_counter()
    known, margin, violation, made = clean, -math.inf, None, 0
    while made < rounds and violation is None:
        options = MarginAttackOptions(
            steps=task.steps,
            restarts=min(_ROUNDS_A_CALL, rounds - made),
            rows=_ROWS,
            max_subsets=_MAX_SUBSETS,
            keep=_KEPT,
            device=task.device,
        )
        found = MarginAttack(options, seed=made)(query, starts=known, deadline=Deadline())
        images = [image for image in found if query.region.contains(image)]
        known = np.stack(images).astype(np.float64) if images else clean
        # The best in float32 come first; more than the first few say nothing new.
        for image in images[:_ENCLOSED]:
            reached = margin_lower_bound(query.network, query.property, image)
            margin = max(margin, reached)
            violation = image if reached >= 0 else violation
        made += min(_ROUNDS_A_CALL, rounds - made)
    if margin == -math.inf:
        # Nothing was attacked, which must not pass for a claim that withstood an attack.
        raise RuntimeError("the attack returned no image inside the region")
    return {
        **before,
        "seconds": time.perf_counter() - start,
        "restarts_done": made * _ROWS,
        "margin": finite(margin),
        "violated": violation is not None,
        "replayed": violation is not None and replay(query, violation, "recheck") is not None,
        "images": None if violation is None else save_images(task.folder, task.name, {entry(task.question): violation}),
    }


def _device(name: str) -> str:
    import torch

    return torch.cuda.get_device_name(name) if name.startswith("cuda") else name


def contradicted(record: Record, claimed: Iterable[Claim]) -> Iterator[str]:
    """What a finished attack disproves, in words: the verdict by a violation, a bound by an image above it."""
    if "error" in record:
        return
    question, margin = question_of(record), record["margin"]
    for claim in claimed:
        if record["violated"]:
            yield f"{question.name}: {claim.source} says robust, the attack's image {record['images']} has margin {margin!r}"
        elif claim.bound is not None and margin is not None and margin > claim.bound:
            yield f"{question.name}: {claim.source} bounds the margin by {claim.bound!r}, the attack reaches {margin!r}"


def failed_replays(records: Iterable[Record], results: Path) -> Iterator[tuple[Claim, str | None]]:
    """Every "vulnerable" claim, with why its image does not replay; None where it does."""
    for record in records:
        for claim in claims(record):
            if claim.verdict == "vulnerable":
                yield claim, _why_not(claim, results)


def _why_not(claim: Claim, results: Path) -> str | None:
    path = None if claim.images is None else results.parent / claim.images
    if path is None or not path.is_file():
        return f"{claim.question.name}: {claim.source} says vulnerable, but its image {claim.images} is missing"
    with np.load(path) as archive:
        if claim.entry not in archive:
            return f"{claim.question.name}: {claim.source} says vulnerable, but {claim.images} has no {claim.entry!r}"
        image = archive[claim.entry]
    if replay(claim.question.query(), image, "recheck") is None:
        return f"{claim.question.name}: {claim.source} says vulnerable, but its image does not replay"
    return None
