"""`aureole grow`: the largest layered neighbourhood found, proved and drawn."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Group

from aureole import api, terminal
from aureole.commands.question import Subject, keeping_contradictions, load_subject
from aureole.counterexample_files import SavedCounterexample, file_stem, save_counterexample
from aureole.exits import ExitCode, UsageError
from aureole.heatmap import HeatmapText, draw_heatmap
from aureole.images import write_file
from aureole.json_parts import network_object, to_text
from aureole.json_report import GROW_SCHEMA, grow_object, image_object
from aureole.layers_file import layers_object
from aureole.options import CutName, RunOptions
from aureole.outside import find_outside
from aureole.questions import as_usage, object_pixels, top_labels
from aureole.text_report import Row, evidence_rows, fields, file_rows, heading, network_text, ranking
from synth.cutting import CutRule
from synth.grow import GrowOptions
from synth.result import GrowResult, GrowStep
from verifier.deadline import Deadline
from verifier.property import stays_in_top_k

OUTSIDE_SECONDS, OUTSIDE_SHARE = 12.0, 0.2


@dataclass(frozen=True, slots=True)
class GrowWords:
    """The options that describe what to grow, as given.

    Attributes:
        target: The label that must survive.
        perturbed: The object (see `questions.object_pixels`).
        k: How many labels count as assigned.
        cut: The cutting weights.
        weights: Comma-separated layer weights, or None for 1 / (1 + d).
        trace: Where to keep the steps.
    """

    target: int
    perturbed: str
    k: int = 2
    cut: CutName = CutName.FIXED
    weights: str | None = None
    trace: Path | None = None


@dataclass(frozen=True, slots=True)
class GrowFiles:
    """What a run wrote."""

    layers: Path
    heatmap: Path
    outside: SavedCounterexample | None


def run(network_name: str, image_name: str, words: GrowWords, options: RunOptions) -> int:
    """Grows, draws and reports; returns the exit code."""
    with terminal.reserved_stdout(options.as_json):
        weights = parse_weights(words.weights)
        subject = load_subject(network_name, image_name)
        with as_usage():
            stays_in_top_k(words.target, words.k, subject.network.labels)
        pixels = object_pixels(words.perturbed, subject.image.astype(np.float64))
        with keeping_contradictions(options.out):
            result = grow_with_progress(subject, pixels, words, weights, options)
        stem = file_stem(subject.short_network_name, subject.short_image_name, "grow", f"label{words.target}")
        files = write_files(subject, words, result, options.out, stem)
    code = ExitCode.ROBUST if result.is_proved else ExitCode.UNDECIDED
    if options.as_json:
        content = {
            "schema": GROW_SCHEMA,
            "exit_code": int(code),
            "network": network_object(subject.network, subject.network_name),
            "image": image_object(subject.image_name, subject.scores, words.k),
            "target": words.target,
            "k": words.k,
            "object": words.perturbed,
            "cut": words.cut.value,
            **grow_object(result, subject.image, files.outside),
            "files": {"layers": str(files.layers), "heatmap": str(files.heatmap)},
        }
        terminal.write_json(to_text(content))
    else:
        print_result(subject, words, result, files)
    return int(code)


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """The comma-separated weights.

    Raises:
        UsageError: Some part is no finite number >= 0.
    """
    if text is None:
        return None
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = (math.nan,)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise UsageError(f"--weights: got {text!r}, wanted numbers >= 0 with commas between them")
    return weights


def grow_with_progress(
    subject: Subject,
    pixels: np.ndarray,
    words: GrowWords,
    weights: tuple[float, ...] | None,
    options: RunOptions,
) -> GrowResult:
    """The grown neighbourhood, with objective, queries and time on stderr while it runs.

    Part of the time is kept for a counterexample just outside, in case growing meets none.
    """
    reserve = min(OUTSIDE_SECONDS, OUTSIDE_SHARE * options.timeout)
    with terminal.progress() as bar:
        total = options.timeout if math.isfinite(options.timeout) else None
        task = bar.add_task("growing", total=total, detail="")

        def on_step(step: GrowStep) -> None:
            detail = f"size {step.best_size:.4f}, {step.queries} queries, last: {step.verdict.value}"
            bar.update(task, completed=step.seconds, detail=detail)

        result = api.grow(
            subject.network,
            subject.image,
            pixels,
            words.target,
            words.k,
            options=GrowOptions(cut=CutRule(words.cut.value), weights=weights),
            timeout=options.timeout - reserve,
            engine=options.engine.value,
            solver=options.solver.value,
            seed=options.seed,
            device=options.device,
            on_step=on_step,
            trace=words.trace,
        )
        bar.update(task, detail="looking for a counterexample just outside")
        return _with_outside(subject, words, result, options.seed, Deadline.after(reserve))


def _with_outside(subject: Subject, words: GrowWords, result: GrowResult, seed: int, deadline: Deadline) -> GrowResult:
    if result.counterexample is not None or not result.is_proved:
        return result
    asked = stays_in_top_k(words.target, words.k, subject.network.labels)
    found = find_outside(subject.network, result.neighbourhood, asked, seed=seed, deadline=deadline)
    if found is None:
        return result
    return replace(result, counterexample=found, counterexample_radii=result.neighbourhood.radii(found.image))


def write_files(subject: Subject, words: GrowWords, result: GrowResult, out: Path, stem: str) -> GrowFiles:
    """Writes the layers file, the heat map and, where there is one, the counterexample outside."""
    layers = out / f"{stem}.layers.json"
    write_file(layers, to_text(layers_object(result.neighbourhood)).encode())
    heatmap = out / f"{stem}.png"
    outside = result.counterexample
    text = heatmap_text(subject, words, result)
    draw_heatmap(result.neighbourhood, heatmap, text, None if outside is None else outside.image)
    saved = None
    if outside is not None:
        name = stays_in_top_k(words.target, words.k, subject.network.labels).name
        saved = save_counterexample(
            outside, out, f"{stem}-outside", network_sha256=subject.network.sha256, property_name=name
        )
    return GrowFiles(layers, heatmap, saved)


def heatmap_text(subject: Subject, words: GrowWords, result: GrowResult) -> HeatmapText:
    """The heat map's titles."""
    proof = "proved" if result.is_proved else "NOT proved"
    outside = result.counterexample
    return HeatmapText(
        heading=f"{subject.short_network_name}: label {words.target} stays in the top {words.k} ({proof})",
        image=f"{subject.image_name}: top {words.k} = {_labels_text(subject.scores, words.k)}, changed object outlined",
        heat=f"epsilon by pixel: weighted size {result.weighted_size:.4f}",
        outside="" if outside is None else f"just outside: top {words.k} = {_labels_text(outside.scores, words.k)}",
    )


def _labels_text(scores: np.ndarray, k: int) -> str:
    return ", ".join(str(label) for label in top_labels(scores, k))


def print_result(subject: Subject, words: GrowWords, result: GrowResult, files: GrowFiles) -> None:
    """The result for people."""
    verdict = result.outcome.verdict
    epsilons = result.neighbourhood.epsilons
    claim = f"label {words.target} stays in the top {words.k} in a layered neighbourhood of {len(epsilons)} layers"
    rows: list[Row] = [
        ("network", network_text(subject.network, subject.network_name)),
        ("image", f"{subject.image_name}, top labels {ranking(subject.scores, words.k)}"),
        ("weighted size", f"{result.weighted_size:.6g}"),
        ("epsilon by layer", ", ".join(f"{epsilon:.4g}" for epsilon in epsilons)),
        ("pixels that may change", f"{result.pixels_above_zero} of {result.neighbourhood.pixels.size}"),
        ("unrestricted layers", ", ".join(str(layer) for layer in result.saturated_layers) or "none"),
        ("stopped because", result.stop.value),
        ("effort", f"{result.queries} queries, {result.seconds:.1f} s"),
        *evidence_rows(verdict, None, words.k),
        *outside_rows(result, files, words.k),
        ("layers file", str(files.layers)),
        ("heat map", str(files.heatmap)),
    ]
    terminal.answers().print(Group(heading(verdict, claim), fields(rows)))


def outside_rows(result: GrowResult, files: GrowFiles, k: int) -> list[Row]:
    """The counterexample outside, if there is one."""
    if result.counterexample is None or files.outside is None:
        return [("just outside", "no counterexample was found")]
    return [
        ("just outside", f"an image with top labels {ranking(result.counterexample.scores, k)}"),
        *file_rows(files.outside),
    ]
