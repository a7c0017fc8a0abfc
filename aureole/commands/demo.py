"""`aureole demo`: the main job, end to end, on a real image and a shipped network."""

import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from aureole import api, terminal
from aureole.commands.grow import (
    GrowFiles,
    GrowWords,
    effort_text,
    grow_question,
    grow_with_progress,
    outside_rows,
    size_rows,
    write_files,
)
from aureole.commands.labels import classify_with_progress, outcomes_of
from aureole.commands.question import Subject, keeping_contradictions, load_subject
from aureole.json_report import verdict_code
from aureole.options import RegionWords, RunOptions, check_folder
from aureole.questions import build_region, top_labels
from aureole.text_report import (
    Row,
    evidence_rows,
    fields,
    heading,
    labels_table,
    network_text,
    outcome_report,
    ranking,
    trusted_texts,
)
from synth.result import GrowResult
from verifier.labels import LabelClassification, LabelState
from verifier.property import stays_in_top_k
from verifier.query import Query
from verifier.verdict import Robust
from verifier.verify import Outcome

NETWORK = "strided3-linf"
IMAGE = 58
K = 2
EPSILON = 0.025
PERTURBED_DIGIT = 1
# The three limits leave the whole demo well below two minutes on two cores.
LABELS_SECONDS = 30.0
GROW_SECONDS = 55.0
RECHECK_SECONDS = 15.0


def run(*, is_quick: bool, out: Path) -> int:
    """Runs the demo, or its first step; returns the exit code of what it proved last."""
    check_folder(out)
    console, started = terminal.answers(), time.monotonic()
    with keeping_contradictions(out):
        subject = load_subject(NETWORK, f"shipped:{IMAGE}")
        outcome = _first_query(console, subject)
        if is_quick:
            return int(verdict_code(outcome.verdict))
        classification = _classify(console, subject)
        target, result, files = _grow(console, subject, out)
        recheck = _verify_again(console, subject, target, result)
    _summarise(console, classification, target, files, recheck)
    console.print(f"\nThe whole demo took {time.monotonic() - started:.0f} s.")
    return int(verdict_code(recheck.verdict))


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Rule(Text(text, "bold"), align="left", style="dim"))


def _first_query(console: Console, subject: Subject) -> Outcome:
    _title(console, f"1. One query: does the strongest label survive every change of {EPSILON:g} a pixel?")
    label = top_labels(subject.scores, K)[0]
    region = build_region(subject.image.astype(np.float64), RegionWords(epsilon=EPSILON))
    query = Query(subject.network, region.box, stays_in_top_k(label, K, subject.network.labels))
    outcome = api.verify(query, timeout=LABELS_SECONDS, start=subject.image)
    about: list[Row] = [
        ("network", network_text(subject.network, subject.network_name)),
        ("image", f"{subject.image_name}, top labels {ranking(subject.scores, K)}"),
        ("region", region.text),
    ]
    console.print(outcome_report(outcome, query.property.name, about, None, K))
    return outcome


def _classify(console: Console, subject: Subject) -> LabelClassification:
    _title(console, f"2. Every label at once: what can happen when every pixel may change by {EPSILON:g}?")
    region = build_region(subject.image.astype(np.float64), RegionWords(epsilon=EPSILON))
    classification = classify_with_progress(subject, region, K, RunOptions(timeout=LABELS_SECONDS))
    console.print(labels_table(classification, subject.scores))
    console.print(f"{classification.seconds:.1f} s")
    return classification


def _grow(console: Console, subject: Subject, out: Path) -> tuple[int, GrowResult, GrowFiles]:
    reference = f"{subject.image_name}:{PERTURBED_DIGIT}"
    target = _other_label()
    _title(console, f"3. How far may the other digit change, layer by layer, before label {target} is lost?")
    words = GrowWords((target,), (reference,), K)
    result = grow_with_progress(subject, grow_question(subject, words), RunOptions(timeout=GROW_SECONDS))
    files = write_files(subject, words, result, out, "heatmap")
    epsilons = result.neighbourhood.epsilons
    rows: list[Row] = [
        *size_rows(result),
        ("epsilon", f"{epsilons[0]:.4g} on the digit, {epsilons.min():.4g} to {epsilons.max():.4g} over all layers"),
        ("pixels that may change", f"{result.pixels_above_zero} of {result.neighbourhood.pixels.size}"),
        ("stopped because", result.stop.value),
        ("effort", effort_text(result)),
        *outside_rows(result, files, K),
        ("heat map", str(files.heatmap)),
        ("layers file", str(files.layers)),
    ]
    console.print(fields(rows))
    return target, result, files


def _other_label() -> int:
    from nets import shipped

    return int(shipped.images().labels[IMAGE][1 - PERTURBED_DIGIT])


def _verify_again(console: Console, subject: Subject, target: int, result: GrowResult) -> Outcome:
    _title(console, "4. The grown neighbourhood, verified once more from scratch")
    query = Query(subject.network, result.neighbourhood.box(), stays_in_top_k(target, K, subject.network.labels))
    outcome = api.verify(query, timeout=RECHECK_SECONDS, start=subject.image)
    console.print(heading(outcome.verdict, query.property.name), fields(evidence_rows(outcome.verdict, None, K)))
    return outcome


def _summarise(
    console: Console,
    classification: LabelClassification,
    target: int,
    files: GrowFiles,
    recheck: Outcome,
) -> None:
    _title(console, "What was shown")
    by_state = {
        state: [str(label.label) for label in classification.results if label.state is state] for state in LabelState
    }
    rows: list[Row] = [
        ("proved in", ", ".join(by_state[LabelState.ALWAYS_IN]) or "no label"),
        ("proved out", ", ".join(by_state[LabelState.ALWAYS_OUT]) or "no label"),
        ("attackable", ", ".join(by_state[LabelState.BOTH]) or "no label"),
        ("undecided", ", ".join(by_state[LabelState.UNDECIDED]) or "no label"),
        ("engines", ", ".join(_engines(classification, recheck)) or "none proved anything"),
    ]
    survives = "proved" if isinstance(recheck.verdict, Robust) else "not proved"
    rows.append(("neighbourhood", f"label {target} survives in all of it: {survives}; see {files.heatmap}"))
    trusted = trusted_texts([*outcomes_of(classification), recheck])
    rows.extend(("taken on trust", text) for text in trusted)
    rows.append(("not on trust", "counterexamples: each was replayed rigorously and in ONNX Runtime"))
    console.print(fields(rows))


def _engines(classification: LabelClassification, recheck: Outcome) -> list[str]:
    verdicts = [outcome.verdict for outcome in [*outcomes_of(classification), recheck]]
    return list(dict.fromkeys(verdict.certificate.engine for verdict in verdicts if isinstance(verdict, Robust)))
