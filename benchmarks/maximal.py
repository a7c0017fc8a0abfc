"""Maximal layered neighbourhoods: our loop against the published method and simpler ones, on shipped images and three defences.

    python benchmarks/maximal.py run    --out out/maximal.jsonl     # defences x cutting weights x methods x 20 images
    python benchmarks/maximal.py bands  --out out/maximal.jsonl     # size and upper bound against time, for 4, 8 and all bands
    python benchmarks/maximal.py report --out out/maximal.jsonl     # the tables, in Markdown
    python benchmarks/maximal.py plot   --out out/maximal.jsonl     # pictures beside it: convergence, and epsilons side by side

Every finished run is one line of JSON, written and synchronised at once; what the file already holds is not run again, and a last
line that was cut off is dropped. Runs differ in method only: image, object, target, network, verifier, attack and time are
the same. The first digit is the perturbed object, the second one's label the target, k = 2.
"""

import json
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import aureole
from attacks.margin import MarginAttack
from aureole.convergence_picture import Convergence, ConvergencePoint, draw_convergence
from aureole.heatmap import HeatPanel, draw_heatmaps
from nets import shipped
from synth import baselines
from synth.bands import parse_bands
from synth.cutting import CutRule
from synth.goals import labels_survive
from synth.grow import GrowOptions, grow, grow_zones
from synth.published import PublishedOptions, published
from synth.result import GrowResult
from synth.zones import Zones
from verifier.deadline import Deadline
from verifier.errors import AureoleError

NETWORKS = ("strided3-none", "strided3-l0", "strided3-linf")
CUTS = ("fixed", "sensitivity")
K = 2
OURS, PUBLISHED = "ours", "published"
METHODS: dict[str, Callable[..., GrowResult]] = {
    OURS: grow,
    PUBLISHED: published,
    "marvel": partial(published, method=PublishedOptions(cuts=0)),
    "uniform": baselines.uniform,
}
WITHOUT_CUTS = ("marvel", "uniform")
"""Methods that never cut: they run once, under the first cutting weights' name."""

BANDS = {"4": "0,1-3,4-9,10-", "8": "0,1,2,3-4,5-7,8-12,13-20,21-", "all": None}
MEDIANS = ("weighted_size", "pixels_above_zero", "seconds", "gap")
FIELDS = ("kind", "network", "image", "method", "cut", "limit")
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Case:
    """One run; `method` is a method's name, or a number of bands."""

    kind: str
    network: str
    image: int
    method: str
    cut: str
    limit: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two runs the same."""
        return tuple(getattr(self, field) for field in FIELDS)


def measure(case: Case) -> dict[str, Any]:
    """One line of the results file; an error is a result, so that a long measurement goes on."""
    import torch

    torch.set_num_threads(1)
    record: dict[str, Any] = asdict(case)
    try:
        return record | outcome(answer(case))
    except AureoleError as error:
        return record | {"error": f"{type(error).__name__}: {error}"}


def answer(case: Case) -> GrowResult:
    """Grows one neighbourhood."""
    network, images = aureole.load_network(case.network), shipped.images()
    image, pixels, target = images.images[case.image], images.masks[case.image][0], int(images.labels[case.image][1])
    engines: dict[str, Any] = {"falsifier": MarginAttack(seed=0), "deadline": Deadline.after(case.limit)}
    options = GrowOptions(cut=CutRule(case.cut), max_queries=100_000)
    if case.kind == "grow":
        return METHODS[case.method](network, image, pixels, target, K, options=options, **engines)
    text = BANDS[case.method]
    zones = Zones.of_objects(image.astype(np.float64), [pixels], bands=None if text is None else parse_bands(text))
    return grow_zones(network, zones, labels_survive([target], K, network.labels), options=options, **engines)


def outcome(result: GrowResult) -> dict[str, Any]:
    """What is kept of a result."""
    return {
        "weighted_size": result.weighted_size,
        "upper_bound": result.upper_bound,
        "gap": result.gap,
        "pixels_above_zero": result.pixels_above_zero,
        "saturated": len(result.saturated_layers),
        "undecided": len(result.undecided_layers),
        "is_proved": result.is_proved,
        "is_maximal": result.is_maximal,
        "stop": result.stop.name,
        "gap_stop": result.gap_stop and result.gap_stop.name,
        "seconds": result.seconds,
        "queries": asdict(result.counts),
        "epsilons": [float(epsilon) for epsilon in result.neighbourhood.epsilons],
        "sizes": [[round(step.seconds, 2), step.counts.complete, step.best_size] for step in result.steps],
        "bounds": [
            [round(point.seconds, 2), point.size, point.upper_bound, point.counts.complete]
            for point in result.gap_history
        ],
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far, without a last line that was cut off."""
    lines = path.read_text().split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]


def repair(path: Path) -> None:
    """Removes a last line that was cut off, so that the next one starts on its own."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def run_all(cases: Iterable[Case], out: Path, jobs: int) -> None:
    """Runs what is missing, `jobs` at a time, one torch thread each."""
    out.parent.mkdir(parents=True, exist_ok=True)
    repair(out)
    done = {tuple(record[field] for field in FIELDS) for record in read(out)}
    missing = [case for case in cases if case.key not in done]
    with ProcessPoolExecutor(jobs) as pool, out.open("a") as results:
        for number, future in enumerate(as_completed(pool.submit(measure, case) for case in missing), 1):
            record = future.result()
            results.write(json.dumps(record) + "\n")
            results.flush()
            os.fsync(results.fileno())
            shown = record.get("error") or f"size {record['weighted_size']:.4f} in {record['seconds']:.1f} s"
            name = " ".join(str(record[field]) for field in ("network", "image", "method", "cut"))
            print(f"{number}/{len(missing)} {name}: {shown}", flush=True)


def cases_of(networks: list[str], methods: list[str], cuts: list[str], images: int, limit: float) -> Iterator[Case]:
    """Image by image, so that an interrupted measurement compares whole images."""
    for image in range(images):
        for network in networks:
            for method in methods:
                for cut in cuts[:1] if method in WITHOUT_CUTS else cuts:
                    yield Case("grow", network, image, method, cut, limit)


EVERY_NETWORK, EVERY_METHOD, EVERY_CUT = ",".join(NETWORKS), ",".join(METHODS), ",".join(CUTS)
Names = Annotated[str, typer.Option(help="Comma-separated names.")]
Out = Annotated[Path, typer.Option(help="The results file, JSON Lines, appended to.")]


@app.command()
def run(
    out: Out = Path("out/maximal.jsonl"),
    networks: Names = EVERY_NETWORK,
    methods: Names = EVERY_METHOD,
    cuts: Names = EVERY_CUT,
    images: int = 20,
    limit: float = 300.0,
    jobs: int = 1,
) -> None:
    """Measures every method."""
    run_all(cases_of(networks.split(","), methods.split(","), cuts.split(","), images, limit), out, jobs)


@app.command()
def bands(
    out: Out = Path("out/maximal.jsonl"),
    networks: Names = EVERY_NETWORK,
    images: int = 3,
    limit: float = 300.0,
    jobs: int = 1,
) -> None:
    """Measures how the gap closes with 4, 8 and all bands."""
    run_all(
        (
            Case("bands", network, image, name, CUTS[0], limit)
            for image in range(images)
            for network in networks.split(",")
            for name in BANDS
        ),
        out,
        jobs,
    )


def groups(records: list[dict[str, Any]], *fields: str) -> Iterator[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    """Records that agree in the given fields, in order of first appearance."""
    table: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        table[tuple(record[field] for field in fields)].append(record)
    yield from table.items()


def table_rows(records: list[dict[str, Any]]) -> Iterator[str]:
    """One line per network, method and cutting weights: medians over images."""
    yield "| network | method | cut | images | size | pixels > 0 | complete | bounds | attacks | seconds | maximal | gap |"
    yield "|---" * 12 + "|"
    for (network, method, cut), rows in groups(records, "network", "method", "cut"):
        middle = {name: statistics.median(row[name] for row in rows) for name in MEDIANS}
        asked = {
            kind: statistics.median(row["queries"][kind] for row in rows) for kind in ("complete", "bounds", "attack")
        }
        maximal = sum(row["is_maximal"] for row in rows)
        yield (
            f"| {network} | {method} | {'-' if method in WITHOUT_CUTS else cut} | {len(rows)} | {middle['weighted_size']:.4f} |"
            f" {middle['pixels_above_zero']:g} | {asked['complete']:g} | {asked['bounds']:g} | {asked['attack']:g} |"
            f" {middle['seconds']:.0f} | {maximal}/{len(rows)} | {middle['gap']:.0%} |"
        )


def comparison(records: list[dict[str, Any]]) -> Iterator[str]:
    """Ours against the published method on the same image, network and cutting weights: medians of the ratios."""
    pairs = [
        {row["method"]: row for row in rows if row["method"] in (OURS, PUBLISHED)}
        for _, rows in groups(records, "network", "image", "cut", "limit")
    ]
    both = [pair for pair in pairs if len(pair) == 2]
    if both:
        sizes = [pair[OURS]["weighted_size"] / max(pair[PUBLISHED]["weighted_size"], 1e-12) for pair in both]
        queries = [pair[PUBLISHED]["queries"]["complete"] / max(pair[OURS]["queries"]["complete"], 1) for pair in both]
        yield (
            f"Ours against published, medians over {len(both)} runs: {statistics.median(sizes):.2f} x the weighted size,"
            f" {statistics.median(queries):.1f} x fewer complete queries."
        )


def defences(records: list[dict[str, Any]]) -> Iterator[str]:
    """On how many images each network's neighbourhood, by our loop, is the largest."""
    own = [row for row in records if row["method"] == OURS]
    wins: dict[str, int] = defaultdict(int)
    whole = [rows for _, rows in groups(own, "image", "cut") if len({row["network"] for row in rows}) == len(NETWORKS)]
    for rows in whole:
        wins[max(rows, key=lambda row: row["weighted_size"])["network"]] += 1
    if whole:
        counted = ", ".join(f"{name} {wins[name]}" for name in NETWORKS)
        yield f"Largest neighbourhood by network, of {len(whole)} images and cutting weights: {counted}."


@app.command()
def report(out: Out = Path("out/maximal.jsonl")) -> None:
    """Prints the tables in Markdown."""
    records = read(out)
    failed = [record for record in records if "error" in record]
    good = [record for record in records if "error" not in record and record["kind"] == "grow"]
    for lines in (table_rows(good), comparison(good), defences(good)):
        print("\n".join(lines), end="\n\n")
    if failed:
        print(f"{len(failed)} runs ended with an error: {sorted({record['error'] for record in failed})}")


def convergences(records: list[dict[str, Any]]) -> dict[str, list[Convergence]]:
    """Runs with bands by network and image. Records of older runs did not count the queries of bounds."""
    panels: dict[str, list[Convergence]] = defaultdict(list)
    for row in records:
        sizes = tuple(ConvergencePoint(seconds, queries, size) for seconds, queries, size in row["sizes"])
        bounds = tuple(
            ConvergencePoint(point[0], point[3] if len(point) > 3 else None, point[2]) for point in row["bounds"]
        )
        panels[f"{row['network']}, image {row['image']}"].append(Convergence(f"{row['method']} bands", sizes, bounds))
    return panels


def heat_rows(records: list[dict[str, Any]], images: int) -> list[list[HeatPanel]]:
    """Our neighbourhoods: one row per image and cutting weights, one column per network."""
    own = {(row["image"], row["cut"], row["network"]): row for row in records if row["method"] == OURS}
    chosen = sorted({image for image, _, _ in own})[:images]
    return [
        [heat_panel(own.get((image, cut, name)), name, image, cut) for name in NETWORKS]
        for image in chosen
        for cut in CUTS
        if any((image, cut, name) in own for name in NETWORKS)
    ]


def heat_panel(row: dict[str, Any] | None, network: str, image: int, cut: str) -> HeatPanel:
    """One panel; an empty one where the run is missing."""
    title = f"{network}, image {image}, {cut}"
    if row is None:
        return HeatPanel(f"{title}\nnot measured", None)
    shipped_images = shipped.images()
    centre = shipped_images.images[image].astype(np.float64)
    zones = Zones.of_layers(centre, shipped_images.masks[image][0])
    proof = "" if row["is_proved"] else ", NOT proved"
    return HeatPanel(f"{title}\nsize {row['weighted_size']:.3g}{proof}", zones.neighbourhood(np.array(row["epsilons"])))


@app.command()
def plot(out: Out = Path("out/maximal.jsonl"), images: int = 3) -> None:
    """Draws what was measured: convergence with bands; epsilons of the first images, by network and cutting weights."""
    good = [record for record in read(out) if "error" not in record]
    panels = convergences([record for record in good if record["kind"] == "bands"])
    rows = heat_rows([record for record in good if record["kind"] == "grow"], images)
    if not panels and not rows:
        raise typer.BadParameter(f"{out} holds no finished runs; run the command run or bands first")
    if panels:
        path = out.with_name(f"{out.stem}-convergence.png")
        draw_convergence(panels, path, "Proved size and proved upper bound, by number of bands")
        print(path)
    if rows:
        path = out.with_name(f"{out.stem}-epsilons.png")
        draw_heatmaps(rows, path, "Epsilon by pixel: three defences, fixed and sensitivity cutting weights")
        print(path)


if __name__ == "__main__":
    app()
