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
from aureole.images import write_file
from aureole.influence_picture import draw_influence
from aureole.influence_report import INFLUENCE_SCHEMA, influence_from_report, influence_object
from aureole.json_parts import network_object, to_text
from aureole.json_report import image_object
from aureole.options import RunOptions
from aureole.questions import object_pixels
from synth.influence import Failure, Influence, InfluenceMap
from synth.matching import match_labels
from synth.size import SizeKind
from verifier.errors import InputError
from verifier.evaluation import evaluate

RESULTS = "grow-all.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """One question: may object `perturbed` of this image change while the label of another survives?"""

    subject: Subject
    words: GrowWords
    perturbed: int
    kept: int
    objects: tuple[np.ndarray, ...]

    @property
    def key(self) -> str:
        """What makes two questions the same: network, image, words and the perturbed object's pixels."""
        subject = self.subject
        mask = self.objects[self.perturbed].tobytes().hex()
        parts = (subject.network.sha256, subject.image.tobytes().hex(), repr(replace(self.words, trace=None)), mask)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def run(network_name: str, references: Sequence[str], words: GrowWords, options: RunOptions) -> int:
    """Grows what is missing, appends each result to a file at once, and shows all; returns the exit code.

    `words` gives the objects; its targets are ignored: each object's label is matched to it (`synth.matching`).
    """
    network = api.load_network(network_name)
    path = options.out / RESULTS
    done = read_results(path)
    shown: list[dict[str, Any]] = []
    maps: list[Path] = []
    images = read_images(references, network.input_shape)
    for image, stem in zip(images, stems_of(network_name, [image.name for image in images]), strict=True):
        pixels = image.pixels
        scores = evaluate(network, pixels[None].astype(np.float64))[0]
        subject = Subject(network_name, network, image.name, pixels, scores)
        try:
            pairs = list(pairs_of(subject, words))
        except InputError as error:
            shown.append({"image": image.name, "error": str(error)})
            continue
        for pair in pairs:
            if pair.key not in done:
                done[pair.key] = answer(pair, stem, options)
                append_result(path, {"key": pair.key, **done[pair.key]})
            shown.append(done[pair.key])
        if pairs:
            maps.append(write_influence(pairs, [done[pair.key] for pair in pairs], words, options.out / stem))
    terminal.answers().print(results_table(shown))
    for written in maps:
        terminal.answers().print(f"influence map: {written} and {written.with_suffix('.json').name}", soft_wrap=True)
    proved = [row["report"]["is_proved"] for row in shown if "report" in row]
    return int(ExitCode.ROBUST if proved and all(proved) and len(proved) == len(shown) else ExitCode.UNDECIDED)


def pairs_of(subject: Subject, words: GrowWords) -> Iterator[Pair]:
    """Every ordered pair of different objects: the first is perturbed, the label of the second must survive.

    Raises:
        InputError: The image has no such objects.
    """
    image = subject.image.astype(np.float64)
    objects = tuple(object_pixels(name, image) for name in words.objects)
    labels = match_labels(subject.network, image, objects)
    for perturbed, kept in permutations(range(len(objects)), 2):
        own = replace(words, targets=(labels[kept],), objects=(words.objects[perturbed],))
        yield Pair(subject, own, perturbed, kept, objects)


def stems_of(network: str, images: Sequence[str]) -> list[str]:
    """How the files of each image begin: network and image, and a piece of the image's full name where several share that."""
    short = [file_stem(Path(network).stem, Path(image).stem) for image in images]
    marks = [hashlib.sha256(image.encode()).hexdigest()[:8] for image in images]
    return [stem if short.count(stem) == 1 else f"{stem}-{mark}" for stem, mark in zip(short, marks, strict=True)]


def answer(pair: Pair, stem: str, options: RunOptions) -> dict[str, Any]:
    """One pair's report, or why there is none."""
    subject, words = pair.subject, pair.words
    head = {"image": subject.image_name, "perturbed": pair.perturbed, "target": words.targets[0]}
    stem = f"{stem}-grow-object{pair.perturbed}-label{words.targets[0]}"
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


def write_influence(pairs: Sequence[Pair], records: Sequence[dict[str, Any]], words: GrowWords, stem: Path) -> Path:
    """Writes the influence map of one image as a picture, which is returned, and as JSON beside it.

    Args:
        pairs: All ordered pairs of the image.
        records: Their results.
        words: What was asked, with all objects.
        stem: How both files begin.
    """
    subject = pairs[0].subject
    found: list[Influence] = []
    failures: list[Failure] = []
    files: dict[tuple[int, int], dict[str, str | None]] = {}
    labels = {pair.kept: pair.words.targets[0] for pair in pairs}
    for pair, record in zip(pairs, records, strict=True):
        place = (pair.perturbed, pair.kept)
        try:
            found.append(_influence(pair, record, place))
            files[place] = record["report"]["files"]
        except InputError as error:
            failures.append(Failure(*place, str(error)))
    image = subject.image.astype(np.float64)
    objects = pairs[0].objects
    influence = InfluenceMap(
        image, objects, tuple(labels[kept] for kept in range(len(objects))), tuple(found), tuple(failures)
    )
    picture = stem.with_name(f"{stem.name}-influence.png")
    draw_influence(
        influence,
        picture,
        f"{subject.short_network_name}, {subject.short_image_name}: how far one object may change before another's label is lost"
        + (f"\nsizes: {words.size_kind.title}" if words.size_kind is not SizeKind.LINEAR else ""),
    )
    content = {
        "schema": INFLUENCE_SCHEMA,
        "network": network_object(subject.network, subject.network_name),
        "image": image_object(subject.image_name, subject.scores, words.k),
        "k": words.k,
        "objects": list(words.objects),
        "size_kind": words.size_kind.value,
        **influence_object(influence, files, picture),
    }
    write_file(picture.with_suffix(".json"), to_text(content).encode())
    return picture


def _influence(pair: Pair, record: dict[str, Any], place: tuple[int, int]) -> Influence:
    if "error" in record:
        raise InputError(record["error"])
    question = grow_question(pair.subject, pair.words)
    return influence_from_report(record["report"], place, question.zones, pair.subject.network, question.goals)


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
