"""Measures what the papers claim of multi-label attacks, on images of two, three and four digits (docs/attack-study.md).

Run from the repository's root:

    python -m benchmarks.attack_study run --quick                  # a smoke test of two minutes; its numbers mean nothing
    python -m benchmarks.attack_study run                          # trains nine networks, then about 830 cells
    python -m benchmarks.attack_study run --only "top-k/*"         # some of them
    python -m benchmarks.attack_study report                       # the tables
    python -m benchmarks.attack_study report --write docs/attack-study.md
    python -m benchmarks.attack_study plot --out docs/pictures

Each cell is one attack towards one goal on one network; its record is one line of `out/attack-study.jsonl`, appended when the cell
ends. What the file holds is not measured again, so a run can be interrupted and resumed; for another version of the code, take
another file. Networks are trained once and kept beside the file. Every process has one thread; seconds are processor time.
"""

import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.attack_study import measure, plots, records, report
from benchmarks.attack_study.cells import FULL, QUICK, Cell, Scale, all_cells
from benchmarks.attack_study.victims import Places, Training
from benchmarks.documents import show
from benchmarks.topk import workers
from benchmarks.topk.machine import describe
from benchmarks.topk.results import appending

app = typer.Typer(add_completion=False, no_args_is_help=True)
RESULTS, QUICK_RESULTS = Path("out/attack-study.jsonl"), Path("out/attack-study-quick.jsonl")
DIGITS = Path("../shared/data/mnist")

Quick = Annotated[bool, typer.Option(help="The smoke test instead of the study.")]
Results = Annotated[Path | None, typer.Option("--results", help="The results file; default out/attack-study.jsonl.")]


@app.command()
def run(
    quick: Quick = False,
    out: Annotated[Path | None, typer.Option("--out", "--results", help="The results file, appended to.")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated trainings; default all.")] = "",
    only: Annotated[str, typer.Option(help='Comma-separated patterns of names, such as "top-k/quad/*".')] = "",
    mnist_dir: Annotated[Path, typer.Option(help="The folder of the MNIST files.")] = DIGITS,
    jobs: Annotated[int, typer.Option(help="Worker processes, one thread each.")] = 2,
    retry_errors: Annotated[bool, typer.Option(help="Measure again what ended in an error.")] = False,
) -> None:
    """Trains the networks that are missing, then measures the cells that are. Exit code 2: something ended in an error."""
    if not mnist_dir.is_dir():
        print(f"skipped: no MNIST files in {mnist_dir}; name their folder with --mnist-dir (docs/networks.md)")
        raise typer.Exit(0)
    path = _path(out, quick)
    cells = chosen(QUICK if quick else FULL, seeds, only)
    places = Places(path.parent / f"{path.stem}-networks", mnist_dir)
    trainings = list(dict.fromkeys(Training(cell.canvas, cell.seed, cell.steps, places) for cell in cells))
    if measure_all(cells, trainings, places, path, jobs=jobs, retry_errors=retry_errors):
        raise typer.Exit(2)


@app.command("report")
def report_command(
    quick: Quick = False,
    file: Results = None,
    write: Annotated[Path | None, typer.Option(help="A document with markers to put the tables into.")] = None,
) -> None:
    """Prints the tables in Markdown."""
    show(report.render(records.read(_path(file, quick)), QUICK if quick else FULL), write)


@app.command("plot")
def plot_command(
    quick: Quick = False,
    file: Results = None,
    folder: Annotated[Path, typer.Option("--out", help="The folder for the pictures.")] = Path("docs/pictures"),
) -> None:
    """Draws the pictures."""
    own = report.of_scale(records.read(_path(file, quick)), QUICK if quick else FULL)
    for path in plots.draw_all(own, folder):
        print(path)


def chosen(scale: Scale, seeds: str, only: str) -> list[Cell]:
    """The cells of some trainings whose names match a pattern; empty texts choose all.

    Raises:
        typer.BadParameter: A seed is not a number.
    """
    try:
        wanted = {int(seed) for seed in seeds.split(",")} if seeds else set(scale.seeds)
    except ValueError:
        raise typer.BadParameter(f"seeds: got {seeds!r}, wanted numbers such as 0,1") from None
    patterns = only.split(",") if only else ["*"]
    cells = [cell for cell in all_cells(scale) if cell.seed in wanted]
    return [cell for cell in cells if any(fnmatch(cell.name, pattern) for pattern in patterns)]


def measure_all(
    cells: Sequence[Cell],
    trainings: Sequence[Training],
    places: Places,
    path: Path,
    *,
    jobs: int,
    retry_errors: bool,
) -> bool:
    """Does what the file does not hold yet, training by training. Returns whether something ended in an error."""
    held = records.read(path)
    done = records.done(held, retry_errors=retry_errors)
    tasks = [measure.Task(cell, places) for cell in cells if records.key(cell.identity) not in done]
    print(f"{len(cells)} cells, {len(tasks)} to do", flush=True)
    needed = {(task.cell.canvas, task.cell.seed, task.cell.steps) for task in tasks}
    asked = [each for each in trainings if (each.canvas, each.seed, each.steps) in needed]
    has_errors = False
    with appending(path) as append:
        machine = describe()
        if tasks and records.key(machine) not in {records.key(record) for record in held}:
            append(machine)
        for seed in dict.fromkeys(each.seed for each in asked):
            own = [each for each in asked if each.seed == seed]
            has_errors |= _each(own, measure.perform_training, append, jobs)
            has_errors |= _each([task for task in tasks if task.cell.seed == seed], measure.perform, append, jobs)
    return has_errors


def _each(tasks: Sequence[Any], work: Callable[[Any], dict[str, Any]], append: Any, jobs: int) -> bool:
    has_errors = False
    for number, (task, found) in enumerate(
        workers.run_tasks(tasks, work=work, prepare=measure.prepare, jobs=jobs), start=1
    ):
        record = {**task.identity, **found}
        append(record)
        has_errors |= "error" in record
        print(f"{number}/{len(tasks)} {task.name}: {report.in_words(record)}", flush=True)
    return has_errors


def _path(given: Path | None, quick: bool) -> Path:
    return given if given is not None else QUICK_RESULTS if quick else RESULTS


if __name__ == "__main__":
    # Workers inherit it: PyTorch reads it when it is imported.
    os.environ["OMP_NUM_THREADS"] = "1"
    app()
