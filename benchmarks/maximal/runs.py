"""The runs: every method on every image, one line of JSON each, written and synchronised at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import aureole
from attacks.margin import MarginAttack
from benchmarks import records
from benchmarks.records import MACHINE
from benchmarks.topk.machine import code_version, describe
from benchmarks.topk.results import appending
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

BANDS: dict[str, str | None] = {"4": "0,1-3,4-9,10-", "8": "0,1,2,3-4,5-7,8-12,13-20,21-", "all": None}
FIELDS = ("kind", "network", "image", "method", "cut", "limit")


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
    record: dict[str, Any] = asdict(case) | {"code": code_version()}
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
        "epsilons": [round(float(epsilon), 6) for epsilon in result.neighbourhood.epsilons],
        "sizes": [[round(step.seconds, 2), step.counts.complete, step.best_size] for step in result.steps],
        "bounds": [
            [round(point.seconds, 2), point.size, point.upper_bound, point.counts.complete]
            for point in result.gap_history
        ],
    }


def key(record: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two lines the same measurement.

    Raises:
        KeyError: A line of no known kind.
    """
    return tuple(record[field] for field in (MACHINE if "cpu" in record else FIELDS))


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far, each measurement once (see `benchmarks.records`)."""
    return records.read(path, key)


def repair(path: Path) -> None:
    """Removes a last line that was cut off, so that the next one starts on its own."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def run_all(cases: Iterable[Case], out: Path, jobs: int) -> None:
    """Runs what is missing, `jobs` at a time, one torch thread each."""
    repair(out)
    held = {key(record) for record in read(out)}
    missing = [case for case in cases if case.key not in held]
    with ProcessPoolExecutor(jobs) as pool, appending(out) as append:
        machine = describe()
        if missing and key(machine) not in held:
            append(machine)
        for number, future in enumerate(as_completed(pool.submit(measure, case) for case in missing), 1):
            record = future.result()
            append(record)
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
