"""`aureole grow`: the largest layered neighbourhood found, proved and drawn."""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Group

from aureole import api, terminal
from aureole.commands.question import Subject, keeping_contradictions, load_subject
from aureole.counterexample_files import SavedCounterexample, file_stem, save_counterexample
from aureole.exits import ExitCode, UsageError
from aureole.heatmap import HeatmapText, draw_heatmap
from aureole.images import write_file
from aureole.influence_report import limit_object
from aureole.json_parts import network_object, to_text
from aureole.json_report import GROW_SCHEMA, grow_object, image_object
from aureole.layers_file import layers_object
from aureole.limit_picture import draw_limits
from aureole.options import CutName, RunOptions, SidesName
from aureole.panels import check_channels
from aureole.questions import as_usage, object_pixels, top_labels
from aureole.text_report import Row, evidence_rows, fields, file_rows, heading, network_text, ranking
from synth.bands import parse_bands
from synth.cutting import CutRule
from synth.goals import labels_survive
from synth.grow import GrowOptions
from synth.influence import limits_of
from synth.result import GrowResult, GrowStep
from synth.size import SizeKind
from synth.zones import Sides, Zones
from verifier.property import Property

AREA, VOLUME = "area", "volume"
"""An epsilon counts with the share of the image's entries that it is for: itself, or its logarithm (`synth.size`)."""


@dataclass(frozen=True, slots=True)
class GrowWords:
    """The options that describe what to grow, as given.

    Attributes:
        targets: The labels that must survive, all of them.
        objects: The perturbed objects (see `questions.object_pixels`), each with its own layers.
        k: How many labels count as assigned.
        cut: The cutting weights.
        weights: Comma-separated numbers, "area", "volume", or None for 1 / (1 + d).
        trace: Where to keep the steps.
        fixed: Pixels that may not change, written like an object, such as the target's own; None for none.
        bands: Layers that share an epsilon, such as "0,1,2-4,5-"; None for one a layer.
        sides: Which way pixels may change.
        step: The step by which no layer shall be able to grow.
        corners: How many corners are asked about to narrow the gap.
    """

    targets: tuple[int, ...]
    objects: tuple[str, ...]
    k: int = 2
    cut: CutName = CutName.FIXED
    weights: str | None = None
    trace: Path | None = None
    fixed: str | None = None
    bands: str | None = None
    sides: SidesName = SidesName.BOTH
    step: float = 1.0 / 255.0
    corners: int = 1000

    @property
    def size_kind(self) -> SizeKind:
        """How an epsilon counts."""
        return SizeKind.VOLUME if self.weights == VOLUME else SizeKind.LINEAR

    @property
    def claim(self) -> str:
        """What must hold, in words."""
        labels = ", ".join(map(str, self.targets))
        return f"label{'s' * (len(self.targets) > 1)} {labels} stay{'s' * (len(self.targets) == 1)} in the top {self.k}"


@dataclass(frozen=True, slots=True)
class GrowQuestion:
    """What is grown: the zones, the goals that must hold, and how."""

    zones: Zones
    goals: tuple[Property, ...]
    options: GrowOptions = field(default_factory=GrowOptions)


@dataclass(frozen=True, slots=True)
class GrowFiles:
    """What a run wrote; `evidence` holds the counterexamples of single layers, `limits` shows them; None where there are none."""

    layers: Path
    heatmap: Path
    evidence: Path | None
    limits: Path | None
    outside: SavedCounterexample | None


def run(network_name: str, image_name: str, words: GrowWords, options: RunOptions) -> int:
    """Grows, draws and reports; returns the exit code."""
    with terminal.reserved_stdout(options.as_json):
        parse_weights(words.weights)
        subject = load_subject(network_name, image_name)
        question = grow_question(subject, words)
        with keeping_contradictions(options.out):
            result = grow_with_progress(subject, question, options, words.trace)
        labels = "-".join(str(target) for target in words.targets)
        stem = file_stem(subject.short_network_name, subject.short_image_name, "grow", f"label{labels}")
        files = write_files(subject, words, result, options.out, stem)
    code = ExitCode.ROBUST if result.is_proved else ExitCode.UNDECIDED
    if options.as_json:
        terminal.write_json(to_text(report(subject, words, result, files, code)))
    else:
        print_result(subject, words, result, files)
    return int(code)


def report(
    subject: Subject, words: GrowWords, result: GrowResult, files: GrowFiles, code: ExitCode
) -> dict[str, object]:
    """The result as one JSON object (docs/json.md)."""
    return {
        "schema": GROW_SCHEMA,
        "exit_code": int(code),
        "network": network_object(subject.network, subject.network_name),
        "image": image_object(subject.image_name, subject.scores, words.k),
        "targets": list(words.targets),
        "k": words.k,
        "objects": list(words.objects),
        "cut": words.cut.value,
        **grow_object(result, subject.image, files.outside),
        "limits": [limit_object(limit) for limit in limits_of(result)],
        "files": {
            "layers": str(files.layers),
            "heatmap": str(files.heatmap),
            "evidence": files.evidence and str(files.evidence),
            "limits": files.limits and str(files.limits),
        },
    }


def grow_question(subject: Subject, words: GrowWords) -> GrowQuestion:
    """The zones, goals and options that the words describe.

    Raises:
        UsageError: A label, k, band, weight, step or number of corners is out of range or not of its form.
        MissingFileError, InputError: A mask is missing or unusable.
    """
    image = subject.image.astype(np.float64)
    # Before the work: what cannot be drawn would end it after hours.
    check_channels(image)
    with as_usage():
        goals = labels_survive(words.targets, words.k, subject.network.labels)
        bands = None if words.bands is None else parse_bands(words.bands)
    objects = [object_pixels(reference, image) for reference in words.objects]
    fixed = None if words.fixed is None else object_pixels(words.fixed, image)
    zones = Zones.of_objects(image, objects, keep=fixed, bands=bands, sides=Sides(words.sides.value))
    weights = parse_weights(words.weights)
    if words.weights == AREA:
        weights = tuple(float(share) for share in zones.shares)
    with as_usage():
        options = GrowOptions(
            cut=CutRule(words.cut.value),
            weights=weights,
            size=words.size_kind,
            step=words.step,
            corners=words.corners,
        )
    return GrowQuestion(zones, goals, options)


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """The comma-separated weights; None where they are not given as numbers.

    Raises:
        UsageError: Some part is no finite number >= 0.
    """
    if text is None or text in (AREA, VOLUME):
        return None
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = (math.nan,)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise UsageError(f"--weights: got {text!r}, wanted numbers >= 0 with commas between them, {AREA} or {VOLUME}")
    return weights


def grow_with_progress(
    subject: Subject, question: GrowQuestion, options: RunOptions, trace: Path | None = None
) -> GrowResult:
    """The grown neighbourhood, with objective, queries and time on stderr while it runs."""
    with terminal.progress() as bar:
        total = options.timeout if math.isfinite(options.timeout) else None
        task = bar.add_task("growing", total=total, detail="")

        def on_step(step: GrowStep) -> None:
            detail = f"size {step.best_size:.4f}, {step.queries} queries, last: {step.verdict.value}"
            bar.update(task, completed=step.seconds, detail=detail)

        return api.grow_zones(
            subject.network,
            question.zones,
            question.goals,
            options=question.options,
            timeout=options.timeout,
            engine=options.engine.value,
            solver=options.solver.value,
            seed=options.seed,
            device=options.device,
            on_step=on_step,
            trace=trace,
        )


def write_files(subject: Subject, words: GrowWords, result: GrowResult, out: Path, stem: str) -> GrowFiles:
    """Writes the layers file, the heat map and, where there are some, the counterexamples and a picture of them."""
    layers = out / f"{stem}.layers.json"
    write_file(layers, to_text(layers_object(result.neighbourhood)).encode())
    heatmap = out / f"{stem}.png"
    outside = result.counterexample
    text = heatmap_text(subject, words, result)
    draw_heatmap(result.neighbourhood, heatmap, text, None if outside is None else outside.image)
    saved = None
    if outside is not None:
        saved = save_counterexample(
            outside, out, f"{stem}-outside", network_sha256=subject.network.sha256, property_name=words.claim
        )
    evidence = write_evidence(result, out / f"{stem}.evidence.npz")
    return GrowFiles(layers, heatmap, evidence, _draw_limits(subject, words, result, out / f"{stem}-limits.png"), saved)


def _draw_limits(subject: Subject, words: GrowWords, result: GrowResult, path: Path) -> Path | None:
    limits = limits_of(result)
    if not limits:
        return None
    title = f"{subject.short_network_name}, {subject.short_image_name}: what ends '{words.claim}'"
    draw_limits(result.neighbourhood, limits, path, title, subject.network, words.k)
    return path


def write_evidence(result: GrowResult, path: Path) -> Path | None:
    """Writes the counterexamples of single layers: `layers`, their numbers, and `images`, one float32 image each."""
    found = [(layer, one.image) for layer, one in enumerate(result.evidence) if one is not None]
    if not found:
        return None
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, layers=np.array([layer for layer, _ in found]), images=np.stack([image for _, image in found])
    )
    write_file(path, buffer.getvalue())
    return path


def heatmap_text(subject: Subject, words: GrowWords, result: GrowResult) -> HeatmapText:
    """The heat map's titles."""
    proof = "proved" if result.is_proved else "NOT proved"
    outside = result.counterexample
    return HeatmapText(
        heading=f"{subject.short_network_name}: {words.claim} ({proof})",
        image=f"{subject.image_name}: top {words.k} = {_labels_text(subject.scores, words.k)}, changed object outlined",
        heat=f"epsilon by pixel: {result.objective.kind.title} {result.weighted_size:.4f}",
        outside="" if outside is None else f"just outside: top {words.k} = {_labels_text(outside.scores, words.k)}",
    )


def _labels_text(scores: np.ndarray, k: int) -> str:
    return ", ".join(str(label) for label in top_labels(scores, k))


def print_result(subject: Subject, words: GrowWords, result: GrowResult, files: GrowFiles) -> None:
    """The result for people."""
    verdict = result.outcome.verdict
    epsilons = result.neighbourhood.epsilons
    claim = f"{words.claim} in a neighbourhood of {len(epsilons)} layers"
    rows: list[Row] = [
        ("network", network_text(subject.network, subject.network_name)),
        ("image", f"{subject.image_name}, top labels {ranking(subject.scores, words.k)}"),
        *size_rows(result),
        ("epsilon by layer", ", ".join(f"{epsilon:.4g}" for epsilon in epsilons)),
        ("pixels that may change", f"{result.pixels_above_zero} of {result.neighbourhood.pixels.size}"),
        ("unrestricted layers", ", ".join(str(layer) for layer in result.saturated_layers) or "none"),
        *maximality_rows(result),
        ("stopped because", result.stop.value),
        ("effort", effort_text(result)),
        *evidence_rows(verdict, None, words.k),
        *outside_rows(result, files, words.k),
        ("layers file", str(files.layers)),
        ("heat map", str(files.heatmap)),
    ]
    if files.evidence is not None:
        rows.append(("evidence file", str(files.evidence)))
    if files.limits is not None:
        rows.append(("limits", f"{files.limits}: the image that stops each layer"))
    terminal.answers().print(Group(heading(verdict, claim), fields(rows)))


def size_rows(result: GrowResult) -> list[Row]:
    """The size, the proved upper bound of any robust neighbourhood's, and the gap between them."""
    return [
        (result.objective.kind.title, f"{result.weighted_size:.6g}"),
        ("upper bound", f"{result.upper_bound:.6g}, from {len(result.cuts)} counterexamples"),
        ("gap", f"{result.gap:.1%}" + ("" if result.gap_stop is None else f": {result.gap_stop.value}")),
    ]


def maximality_rows(result: GrowResult) -> list[Row]:
    """Whether no layer can grow by a step, and which layers are open."""
    if not result.is_proved:
        return []
    if result.is_maximal:
        return [("maximal", f"yes: every layer enlarged by {result.step:.4g} alone contains a counterexample")]
    layers = ", ".join(result.names[layer] for layer in result.undecided_layers)
    return [("maximal", f"not shown: enlarging these by {result.step:.4g} is undecided: {layers}")]


def effort_text(result: GrowResult) -> str:
    """Queries by kind, and time."""
    counts = result.counts
    return (
        f"{counts.complete} complete queries, {counts.bounds} by bounds alone, {counts.attack} attacks,"
        f" {counts.gradient} gradients, {result.seconds:.1f} s"
    )


def outside_rows(result: GrowResult, files: GrowFiles, k: int) -> list[Row]:
    """The counterexample outside, if there is one."""
    if result.counterexample is None or files.outside is None:
        return [("just outside", "no counterexample was found")]
    return [
        ("just outside", f"an image with top labels {ranking(result.counterexample.scores, k)}"),
        *file_rows(files.outside),
    ]
