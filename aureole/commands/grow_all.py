"""`aureole grow-all`: every ordered pair of objects of every image, one neighbourhood each; an interrupted run goes on."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from aureole import api, terminal
from aureole.commands.grow import GrowWords, grow_question, grow_with_progress, report, write_files
from aureole.commands.question import Subject, keeping_contradictions
from aureole.counterexample_files import file_stem
from aureole.exits import ExitCode, OutputError
from aureole.image_sets import read_images
from aureole.options import RunOptions
from aureole.questions import object_pixels
from synth.matching import match_labels
from verifier.errors import InputError
from verifier.evaluation import evaluate

RESULTS = "grow-all.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """One question: may object `perturbed` of this image change while the label of another survives?"""

    subject: Subject
    words: GrowWords
    perturbed: int

    @property
    def key(self) -> str:
        """What makes two questions the same: network, image and words."""
        parts = (self.subject.network.sha256, self.subject.image.tobytes().hex(), repr(replace(self.words, trace=None)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def run(network_name: str, references: Sequence[str], words: GrowWords, options: RunOptions) -> int:
    """Grows what is missing, appends each result to a file at once, and shows all; returns the exit code.

    `words` gives the objects; its targets are ignored: each object's label is matched to it (`synth.matching`).
    """
    network = api.load_network(network_name)
    path = options.out / RESULTS
    done = read_results(path)
    shown: list[dict[str, Any]] = []
    for image in read_images(references, network.input_shape):
        scores = evaluate(network, image.pixels[None].astype(np.float64))[0]
        subject = Subject(network_name, network, image.name, image.pixels, scores)
        try:
            pairs = list(pairs_of(subject, words))
        except InputError as error:
            shown.append({"image": image.name, "error": str(error)})
            continue
        for pair in pairs:
            if pair.key not in done:
                done[pair.key] = answer(pair, options)
                append_result(path, {"key": pair.key, **done[pair.key]})
            shown.append(done[pair.key])
    terminal.answers().print(results_table(shown))
    proved = [row["report"]["is_proved"] for row in shown if "report" in row]
    return int(ExitCode.ROBUST if proved and all(proved) and len(proved) == len(shown) else ExitCode.UNDECIDED)


def pairs_of(subject: Subject, words: GrowWords) -> Iterator[Pair]:
    """Every ordered pair of different objects: the first is perturbed, the label of the second must survive.

    Raises:
        InputError: The image has no such objects.
    """
    image = subject.image.astype(np.float64)
    labels = match_labels(subject.network, image, [object_pixels(name, image) for name in words.objects])
    for perturbed, kept in permutations(range(len(words.objects)), 2):
        yield Pair(subject, replace(words, targets=(labels[kept],), objects=(words.objects[perturbed],)), perturbed)


def answer(pair: Pair, options: RunOptions) -> dict[str, Any]:
    """One pair's report, or why there is none."""
    subject, words = pair.subject, pair.words
    head = {"image": subject.image_name, "perturbed": pair.perturbed, "target": words.targets[0]}
    stem = file_stem(
        subject.short_network_name, subject.short_image_name, "grow", f"object{pair.perturbed}-label{words.targets[0]}"
    )
    trace = options.out / "traces" / f"{stem}-{pair.key[:12]}.jsonl"
    try:
        trace.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{trace.parent}: {error.strerror}; give another --out") from error
    try:
        with keeping_contradictions(options.out):
            result = grow_with_progress(subject, grow_question(subject, words), options, trace)
    except InputError as error:
        return head | {"error": str(error)}
    files = write_files(subject, words, result, options.out, stem)
    code = ExitCode.ROBUST if result.is_proved else ExitCode.UNDECIDED
    return head | {"report": report(subject, words, result, files, code)}


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The results of earlier runs by key; a last line that was cut off is removed from the file.

    Raises:
        InputError: Some other line is no result.
        OutputError: The file cannot be read or written.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        if complete != content:
            path.write_bytes(complete)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; give another --out") from error
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            record = json.loads(line)
            found[record.pop("key")] = record
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: line {number} is no result of grow-all; move the file away") from error
    return found


def append_result(path: Path, record: dict[str, Any]) -> None:
    """Adds one line and waits until it is on the disk.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; give another --out") from error


def results_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One row a pair: how far the object may change before the label is lost."""
    table = Table(box=None)
    for name in ("image", "perturbed object", "label kept", "weighted size", "upper bound", "gap", "maximal"):
        table.add_column(name)
    for row in rows:
        pair = (row["image"], str(row.get("perturbed", "")), str(row.get("target", "")))
        if "error" in row:
            table.add_row(*pair, row["error"])
            continue
        found = row["report"]
        numbers = (f"{found['weighted_size']:.5g}", f"{found['upper_bound']:.5g}", f"{found['gap']:.0%}")
        table.add_row(*pair, *numbers, "yes" if found["is_maximal"] else "not shown")
    return table
