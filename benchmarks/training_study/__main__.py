"""Measures what training methods are worth: accuracy, attacks, proofs, layered neighbourhoods, seconds (docs/training-study.md).

Run from the repository's root:

    python -m benchmarks.training_study run                       # trains what is missing, then measures; resumable
    python -m benchmarks.training_study run --only "sabr/*"       # some networks' tasks, by name
    python -m benchmarks.training_study report --write docs/training-study.md
    python -m benchmarks.training_study plot --out docs/pictures

A task trains one network, asks about a block of images, or grows one neighbourhood; its record is one line of
`out/training-study.jsonl`, appended when it ends. What the file holds is not measured again, so a run can be interrupted and
resumed; for another version of the code, take another file. Trained networks are kept beside the file. Seconds are processor time.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.documents import show
from benchmarks.topk import workers
from benchmarks.topk.machine import describe
from benchmarks.topk.results import appending
from benchmarks.training_study import measure, plots, records, report
from benchmarks.training_study.questions import KINDS, blocks
from benchmarks.training_study.subjects import SUBJECTS, Places

app = typer.Typer(add_completion=False, no_args_is_help=True)
RESULTS, DIGITS = Path("out/training-study.jsonl"), Path("../shared/data/mnist")
BLOCK, LIMIT, GROW_LIMIT = 25, 2.0, 10.0

Results = Annotated[Path, typer.Option("--results", "--out", help="The results file.")]


@app.command()
def run(
    out: Results = RESULTS,
    only: Annotated[str, typer.Option(help='Comma-separated patterns of task names, such as "sabr/*".')] = "*",
    images: Annotated[int, typer.Option(min=1, help="Test images attacked as a whole.")] = 500,
    verified: Annotated[int, typer.Option(min=0, help="How many of them are bounded.")] = 500,
    searched: Annotated[int, typer.Option(min=0, help="How many of them are searched.")] = 25,
    objects: Annotated[int, typer.Option(min=0, help="Test images bounded while one digit changes.")] = 25,
    grown: Annotated[int, typer.Option(min=0, help="Test images with a neighbourhood grown.")] = 5,
    mnist_dir: Annotated[Path, typer.Option(help="The folder of the MNIST files.")] = DIGITS,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes, one thread each.")] = 1,
    retry_errors: Annotated[bool, typer.Option(help="Measure again what ended in an error.")] = False,
) -> None:
    """Does what the file does not hold yet. Exit code 2: something ended in an error."""
    if not mnist_dir.is_dir():
        print(f"skipped: no MNIST files in {mnist_dir}; name their folder with --mnist-dir (docs/networks.md)")
        raise typer.Exit(0)
    places = Places(out.parent / f"{out.stem}-networks", mnist_dir)
    stages = plan(places, Numbers(images, verified, searched, objects, grown))
    patterns = only.split(",")
    held = records.read(out)
    done = records.done(held, retry_errors=retry_errors)
    has_errors = False
    with appending(out) as append:
        machine = describe()
        if records.key(machine) not in {records.key(record) for record in held}:
            append(machine)
        for stage in stages:
            tasks = [task for task in stage if any(fnmatch(task.name, each) for each in patterns)]
            tasks = [task for task in tasks if records.key(task.identity) not in done]
            finished = workers.run_tasks(tasks, work=measure.perform, prepare=measure.prepare, jobs=jobs)
            for number, (task, found) in enumerate(finished, start=1):
                append({**task.identity, **found})
                has_errors |= "error" in found
                print(f"{number}/{len(tasks)} {task.name}: {report.in_words(found)}", flush=True)
    if has_errors:
        raise typer.Exit(2)


@dataclass(frozen=True, slots=True)
class Numbers:
    """How many images each part of the study looks at, always the first ones; the options of `run`."""

    images: int
    verified: int
    searched: int
    objects: int
    grown: int


def plan(places: Places, numbers: Numbers) -> Iterator[list[measure.Task]]:
    """Every task, in stages: networks, attacks, bounds and searches, changes of one digit, neighbourhoods."""
    whole, other = KINDS
    yield [measure.NetworkTask(name, places) for name in SUBJECTS]
    parts = (
        (whole, "attack", numbers.images),
        (whole, "search", numbers.searched),
        (other, "bounds", numbers.objects),
        (whole, "bounds", numbers.verified),
    )
    for kind, effort, count in parts:
        yield [
            measure.RegionTask(name, kind, block, LIMIT, effort, places)
            for block in blocks(count, BLOCK)
            if not (effort == "bounds" and kind == whole and block.first < numbers.searched)
            for name in SUBJECTS
        ]
    yield [measure.GrowTask(name, image, GROW_LIMIT, places) for image in range(numbers.grown) for name in SUBJECTS]


@app.command("report")
def report_command(
    file: Results = RESULTS,
    write: Annotated[Path | None, typer.Option(help="A document with markers to put the tables into.")] = None,
) -> None:
    """Prints the tables in Markdown."""
    show(report.render(records.read(file)), write)


@app.command("plot")
def plot_command(
    file: Annotated[Path, typer.Option("--results", help="The results file.")] = RESULTS,
    folder: Annotated[Path, typer.Option("--out", help="The folder for the pictures.")] = Path("docs/pictures"),
) -> None:
    """Draws the pictures."""
    for path in plots.draw_all(records.read(file), folder):
        print(path)


if __name__ == "__main__":
    # Workers inherit it: PyTorch reads it when it is imported.
    os.environ["OMP_NUM_THREADS"] = "1"
    app()
