"""The results file: JSON Lines, appended to and resumed. One line is one record; `kind` says what was measured."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from benchmarks import records
from benchmarks.records import MACHINE, Record
from benchmarks.topk.queries import Question

_PLAIN = str.maketrans("/ :", "___")

KEYS = {
    "query": ("network", "image", "label", "k", "epsilon", "stays_in", "engine", "limit"),
    "labels": ("network", "image", "k", "epsilon", "engine", "limit"),
    "certificate": ("network", "image", "label", "k", "epsilon", "stays_in", "engine", "limit", "float32"),
    "attack": ("network", "image", "label", "k", "epsilon", "stays_in", "restarts", "steps"),
    "machine": MACHINE,
}
"""What makes two records of a kind the same measurement."""


@runtime_checkable
class Sink(Protocol):
    """Takes records one by one."""

    def __call__(self, record: Record) -> None:
        """Keeps the record."""


def key(record: Record) -> tuple[Any, ...]:
    """What makes two records the same measurement."""
    kind = record["kind"]
    return (kind, *(record[field] for field in KEYS[kind]))


def read(path: Path) -> list[Record]:
    """The records of a file, each measurement once (see `benchmarks.records`)."""
    return records.read(path, key)


def done(held: Iterable[Record], *, retry_errors: bool = False) -> set[tuple[Any, ...]]:
    """The keys that need not be measured again; with `retry_errors` those that ended in an error are."""
    return records.done(held, key, retry_errors=retry_errors)


@contextmanager
def appending(path: Path) -> Iterator[Sink]:
    """A sink that writes each record as one line at the end of the file, at once.

    Half a line that a killed run left is closed first, so that it spoils no record after it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        if is_torn:
            file.write("\n")

        def write(record: Record) -> None:
            file.write(json.dumps(record, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

        yield write


def finite(number: float | None) -> float | None:
    """The number, or None for one that JSON cannot say."""
    return number if number is not None and math.isfinite(number) else None


def save_images(folder: Path, name: str, images: Mapping[str, np.ndarray]) -> str:
    """Writes images into one file of the folder; returns its path relative to the folder that holds the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.translate(_PLAIN)}.npz"
    arrays: dict[str, Any] = dict(images)
    np.savez_compressed(file, **arrays)
    return f"{folder.name}/{file.name}"


@dataclass(frozen=True, slots=True)
class Claim:
    """What some engine said about one question.

    Attributes:
        question: The question.
        verdict: "robust" or "vulnerable".
        bound: What the margin never exceeds, claimed with "robust"; None if only its sign was shown.
        source: The engine, and whether it answered alone or all labels at once.
        images: The file that holds the counterexample, relative to the results file; None with "robust".
        entry: The counterexample's name in that file.
    """

    question: Question
    verdict: str
    bound: float | None
    source: str
    images: str | None = None
    entry: str = ""


def question_of(record: Record) -> Question:
    """The question of a record of kind "query", "certificate" or "attack"."""
    return Question(*(record[field] for field in ("network", "image", "label", "k", "epsilon", "stays_in")))


def claims(record: Record) -> list[Claim]:
    """Every "robust" and "vulnerable" that a record of kind "query" or "labels" holds, and the "robust" of kind "certificate"."""
    if "error" in record:
        return []
    if record["kind"] == "query":
        return _claims(question_of(record), record, record["engine"], record["images"])
    if record["kind"] == "certificate" and record["verdict"] == "robust":
        return _claims(question_of(record), record, f"{record['engine']}, certified", None)
    if record["kind"] != "labels":
        return []
    found = []
    for answer in record["answers"]:
        for side in ("stays_in", "stays_out"):
            question = Question(
                record["network"], record["image"], answer["label"], record["k"], record["epsilon"], side == "stays_in"
            )
            if answer[side] is not None:
                found += _claims(question, answer[side], f"{record['engine']}, all labels", record["images"])
    return found


def _claims(question: Question, answer: Record, source: str, images: str | None) -> list[Claim]:
    match answer["verdict"]:
        case "robust":
            return [Claim(question, "robust", answer["bound"], source)]
        case "vulnerable":
            return [Claim(question, "vulnerable", None, source, images, entry(question))]
        case _:
            return []


def entry(question: Question) -> str:
    """The name of a question's counterexample in its file."""
    return f"{'in' if question.stays_in else 'out'}_{question.label}"


def contradictions(records: Iterable[Record]) -> list[str]:
    """Questions that one record proves and another disproves, in words."""
    sources: dict[Question, dict[str, str]] = {}
    for record in records:
        for claim in claims(record):
            sources.setdefault(claim.question, {}).setdefault(claim.verdict, claim.source)
    return [
        f"{question.name}: robust says {said['robust']}, vulnerable says {said['vulnerable']}"
        for question, said in sources.items()
        if len(said) == 2
    ]
