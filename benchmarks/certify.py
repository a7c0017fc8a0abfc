"""Measures verification on the shipped networks and, where present, the published ones.

    python benchmarks/certify.py labels  --out out/benchmark.jsonl   # share of labels decided, seconds, by engine and solver
    python benchmarks/certify.py report  --out out/benchmark.jsonl   # a table of PERFORMANCE.md

Every run is one line of JSON, appended when it ends; what the file already holds is not run again, so a measurement can be
interrupted and resumed. `labels` classifies all labels of one image at once under one time limit; a label counts as decided
if it is always in, always out, or can be both.
"""

import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import aureole
from nets import shipped
from verifier.errors import AureoleError

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"
EPSILONS = (0.001, 0.002, 0.005, 0.01, 0.02)
ENGINES = ("auto", "bounds", "auto-lirpa", "milp:highs", "milp:cbc", "milp:gurobi", "milp:scip", "search")
K = 2
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Case:
    """One measurement: what runs, on which image of which network."""

    kind: str
    network: str
    image: int
    engine: str
    epsilon: float | None
    limit: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two measurements the same."""
        return (self.kind, self.network, self.image, self.engine, self.epsilon, self.limit)


def network_names() -> list[str]:
    """The shipped networks, then the published ones if they are there."""
    published = sorted(PUBLISHED.glob("*.onnx")) if PUBLISHED.is_dir() else []
    return [*shipped.names(), *(f"published:{path.stem.split('_')[1]}" for path in published)]


def load(name: str) -> tuple[aureole.Network, np.ndarray]:
    """A network with its images."""
    if name.startswith("published:"):
        path = next(PUBLISHED.glob(f"*_{name.removeprefix('published:')}_*.onnx"))
        archive = np.load(PUBLISHED / "dmnist-images.npz")
        return aureole.load_network(path), archive["images"].astype(np.float32) / np.float32(255)
    return aureole.load_network(shipped.network_path(name)), shipped.images().images


def measure_labels(case: Case) -> dict[str, Any]:
    """Classifies one image's labels under one time limit."""
    network, images = load(case.network)
    image = images[case.image]
    engine, _, solver = case.engine.partition(":")
    start = time.perf_counter()
    answer = aureole.classify_labels(
        network,
        image,
        aureole.Box.around(image, case.epsilon or 0.0),
        k=K,
        engine=engine,
        solver=solver or "auto",
        timeout=case.limit,
    )
    states = [result.state.name for result in answer.results]
    return {"seconds": time.perf_counter() - start, "states": states, "unstable_units": answer.unstable_units}


def run_case(case: Case) -> dict[str, Any]:
    """One line of the results file; an error is a result, so that a long measurement goes on."""
    import torch

    torch.set_num_threads(1)
    record: dict[str, Any] = dict(
        zip(("kind", "network", "image", "engine", "epsilon", "limit"), case.key, strict=True)
    )
    try:
        record |= measure_labels(case)
    except AureoleError as error:
        record["error"] = f"{type(error).__name__}: {error}"
    return record


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_all(cases: list[Case], out: Path, jobs: int) -> None:
    """Runs what is missing, `jobs` at a time, one torch thread each."""
    done = {tuple(r[f] for f in ("kind", "network", "image", "engine", "epsilon", "limit")) for r in read(out)}
    missing = [case for case in cases if case.key not in done]
    out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs) as pool, out.open("a") as results:
        for number, future in enumerate(as_completed(pool.submit(run_case, case) for case in missing), 1):
            record = future.result()
            results.write(json.dumps(record) + "\n")
            results.flush()
            shown = record.get("error") or f"{record['seconds']:.1f} s"
            print(
                f"{number}/{len(missing)} {record['network']} {record['engine']} {record['epsilon']}: {shown}",
                flush=True,
            )


Names = Annotated[str, typer.Option(help="Comma-separated names; empty means all.")]
Out = Annotated[Path, typer.Option(help="The results file, JSON Lines, appended to.")]


@app.command()
def labels(
    out: Out = Path("out/benchmark.jsonl"),
    networks: Names = "",
    engines: Names = "auto",
    epsilons: Names = "",
    images: int = 2,
    limit: float = 60.0,
    jobs: int = 2,
) -> None:
    """Measures the share of labels decided."""
    chosen = networks.split(",") if networks else network_names()
    sizes = [float(e) for e in epsilons.split(",")] if epsilons else list(EPSILONS)
    cases = [
        Case("labels", network, image, engine, epsilon, limit)
        for network in chosen
        for engine in (engines.split(",") if engines else ENGINES)
        for epsilon in sizes
        for image in range(images)
    ]
    run_all(cases, out, jobs)


def groups(records: list[dict[str, Any]], *fields: str) -> Iterator[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    """Records that agree in the given fields, in order of first appearance."""
    table: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        table[tuple(record[field] for field in fields)].append(record)
    yield from table.items()


def label_cell(records: list[dict[str, Any]]) -> str:
    """Share of labels decided and median seconds an image."""
    good = [record for record in records if "error" not in record]
    if not good:
        return records[0]["error"].partition(":")[0] if records else ""
    states = [state for record in good for state in record["states"]]
    share = sum(state != "UNDECIDED" for state in states) / len(states)
    return f"{share:.0%} in {statistics.median(record['seconds'] for record in good):.2g} s"


@app.command()
def report(out: Out = Path("out/benchmark.jsonl")) -> None:
    """Prints the tables in Markdown."""
    records = read(out)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    measured = [record for record in records if record["kind"] == "labels"]
    sizes = sorted({record["epsilon"] for record in measured})
    if measured:
        print("| network | engine | images | " + " | ".join(f"{size:g}" for size in sizes) + " |")
        print("|---" * (3 + len(sizes)) + "|")
    for (network, engine), rows in groups(measured, "network", "engine"):
        cells = [label_cell([row for row in rows if row["epsilon"] == size]) for size in sizes]
        print(f"| {network} | {engine} | {len({row['image'] for row in rows})} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    app()
