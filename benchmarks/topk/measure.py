"""Measures one question, or all labels of an image at once, and says how it went as one record."""

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import aureole
from benchmarks.topk.machine import code_version
from benchmarks.topk.queries import FILES, HARD, Question, load_images, load_network
from benchmarks.topk.results import Record, entry, finite, save_images
from verifier.verify import Outcome

_WARM_UP_SECONDS = 2.0
_WARM_UPS = (0, 6, 9)
"""Entries of the hard list, one a network, that bounds and attack alone leave open: the warm-up gets as far as the search."""
_GRACE_SECONDS = 120.0
_KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class QueryTask:
    """One question for one engine.

    Attributes:
        question: What is asked.
        engine: An engine's name, or "milp:" and a solver's name.
        limit: The time limit in seconds.
        folder: Where counterexamples go.
    """

    question: Question
    engine: str
    limit: float
    folder: Path

    @property
    def patience(self) -> float:
        """The limit and a grace: the deadline is the engine's to keep, this only ends one that hangs."""
        return self.limit + _GRACE_SECONDS

    @property
    def identity(self) -> Record:
        """The fields that name the measurement."""
        q = self.question
        return {
            "kind": "query",
            "network": q.network,
            "image": q.image,
            "label": q.label,
            "k": q.k,
            "epsilon": q.epsilon,
            "stays_in": q.stays_in,
            "engine": self.engine,
            "limit": self.limit,
        }

    @property
    def name(self) -> str:
        """In one line."""
        return f"{self.question.name} {self.engine}"


@dataclass(frozen=True, slots=True)
class LabelsTask:
    """All ten labels of one image for one engine, under one limit; the attributes are those of `Question` and `QueryTask`."""

    network: str
    image: int
    k: int
    epsilon: float
    engine: str
    limit: float
    folder: Path

    @property
    def patience(self) -> float:
        """The limit and a grace."""
        return self.limit + _GRACE_SECONDS

    @property
    def identity(self) -> Record:
        """The fields that name the measurement."""
        fields = ("network", "image", "k", "epsilon", "engine", "limit")
        return {"kind": "labels", **{field: getattr(self, field) for field in fields}}

    @property
    def name(self) -> str:
        """In one line."""
        return f"{self.network.replace(' ', '-')}/i{self.image}/all/k{self.k}/e{self.epsilon:g} {self.engine}"


def prepare(engines: Sequence[str]) -> None:
    """Loads the networks, and asks each engine a hard question of each for two seconds: imports and start-up do not count."""
    import torch

    torch.set_num_threads(1)
    code_version()
    for name in FILES:
        load_network(name)
    load_images()
    # In two seconds "auto" may not get as far as the solver.
    for engine in {**dict.fromkeys(engines), **({"milp": None} if "auto" in engines else {})}:
        name, _, solver = engine.partition(":")
        for index in _WARM_UPS:
            query = HARD[index].question.query()
            aureole.verify(query, timeout=_WARM_UP_SECONDS, engine=name, solver=solver or "auto")


def perform(task: QueryTask | LabelsTask) -> Record:
    """Does the task. The seconds are wall time of the one call that answers, with nothing else in it."""
    before = {
        "code": code_version(),
        "load": round(os.getloadavg()[0], 2),
        "started": time.strftime("%FT%TZ", time.gmtime()),
    }
    record = _ask(task) if isinstance(task, QueryTask) else _ask_labels(task)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KIB_PER_MIB
    # The peak is of the worker so far, so it bounds what this measurement took.
    return {**record, **before, "peak_mib": peak}


def _ask(task: QueryTask) -> Record:
    query = task.question.query()
    engine, _, solver = task.engine.partition(":")
    start = time.perf_counter()
    outcome = aureole.verify(query, timeout=task.limit, engine=engine, solver=solver or "auto")
    seconds = time.perf_counter() - start
    images = _images(task.question, outcome)
    return {"seconds": seconds, **answer(outcome), "images": _save(task, images)}


def _ask_labels(task: LabelsTask) -> Record:
    network, image = load_network(task.network), load_images()[task.image]
    region = aureole.Box.around(image, task.epsilon)
    engine, _, solver = task.engine.partition(":")
    start = time.perf_counter()
    found = aureole.classify_labels(
        network, image, region, task.k, timeout=task.limit, engine=engine, solver=solver or "auto"
    )
    seconds = time.perf_counter() - start
    answers: list[Record] = []
    images: dict[str, np.ndarray] = {}
    for result in found.results:
        sides = {"stays_in": result.stays_in, "stays_out": result.stays_out}
        for side, outcome in sides.items():
            if outcome is not None:
                question = Question(task.network, task.image, result.label, task.k, task.epsilon, side == "stays_in")
                images |= _images(question, outcome)
        answers.append(
            {
                "label": result.label,
                "state": result.state.value,
                "is_in_clean": result.is_in_clean,
                **{side: None if outcome is None else answer(outcome) for side, outcome in sides.items()},
            }
        )
    return {
        "seconds": seconds,
        "unstable_units": found.unstable_units,
        "open": [row["label"] for row in answers if row["state"] == aureole.LabelState.UNDECIDED.value],
        "answers": answers,
        "images": _save(task, images),
    }


def answer(outcome: Outcome) -> Record:
    """A verdict and its statistics. Bounds that are not finite are None.

    "bound" is what the margin never exceeds: claimed with "robust", the best one proved with "unknown". "margin" is the rigorous
    lower bound at the counterexample of "vulnerable".
    """
    statistics = outcome.statistics
    return {
        **_verdict(outcome),
        "unstable_units": statistics.unstable_units,
        "open_forms": statistics.open_forms,
        "open_subsets": statistics.open_subsets,
        "solver": statistics.solver,
        "stages": [
            {"name": stage.name, "seconds": stage.seconds, "bound": finite(stage.upper_bound), "detail": stage.detail}
            for stage in statistics.stages
        ],
    }


def _verdict(outcome: Outcome) -> dict[str, Any]:
    match outcome.verdict:
        case aureole.Robust(certificate):
            trusted = [claim.name for claim in certificate.trusted]
            bound = None if certificate.bound is None else finite(certificate.bound)
            return {"verdict": "robust", "by": certificate.engine, "bound": bound, "trusted": trusted}
        case aureole.Vulnerable(counterexample):
            margin = finite(counterexample.margin_lower)
            return {"verdict": "vulnerable", "by": counterexample.found_by, "bound": None, "margin": margin}
        case aureole.Unknown(reason, best_bound):
            return {"verdict": "unknown", "reason": reason.name, "bound": finite(best_bound)}


def _images(question: Question, outcome: Outcome) -> dict[str, np.ndarray]:
    verdict = outcome.verdict
    return {entry(question): verdict.counterexample.image} if isinstance(verdict, aureole.Vulnerable) else {}


def _save(task: QueryTask | LabelsTask, images: dict[str, np.ndarray]) -> str | None:
    """Writes the counterexamples of one task; returns the file relative to the results file, None without any."""
    return save_images(task.folder, f"{task.name} {task.limit:g}s", images) if images else None
