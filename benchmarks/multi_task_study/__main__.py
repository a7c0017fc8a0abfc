"""Measures multi-task adversarial training with mixed perturbations (docs/multi-task-study.md).

Run from the repository's root:

    python -m benchmarks.multi_task_study run --quick      # a smoke test of a minute or two; its numbers mean nothing
    python -m benchmarks.multi_task_study run              # 57 trainings, about 50 minutes of one core
    python -m benchmarks.multi_task_study run --only "single/*/untargeted/*"
    python -m benchmarks.multi_task_study report --write docs/multi-task-study.md
    python -m benchmarks.multi_task_study plot --out docs/pictures

Each cell is one training and its evaluation; its record is one line of `out/multi-task-study.jsonl`, appended when the cell ends.
What the file holds is not measured again, so a run can be interrupted and resumed; for another version of the code, take another
file. `--results benchmarks/multi_task_study/measured.jsonl` reads the published measurements. One process with one thread.
"""

import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.documents import show
from benchmarks.multi_task_study import measure, plots, records, report
from benchmarks.multi_task_study.cells import FULL, QUICK, all_cells
from benchmarks.topk.machine import describe
from benchmarks.topk.results import appending

app = typer.Typer(add_completion=False, no_args_is_help=True)
RESULTS, QUICK_RESULTS = Path("out/multi-task-study.jsonl"), Path("out/multi-task-study-quick.jsonl")
DIGITS = Path("../shared/data/mnist")

Quick = Annotated[bool, typer.Option(help="The smoke test instead of the study.")]
Results = Annotated[
    Path | None, typer.Option("--results", help="The results file; default out/multi-task-study.jsonl.")
]


@app.command()
def run(
    quick: Quick = False,
    file: Results = None,
    only: Annotated[str, typer.Option(help='Comma-separated patterns of names, such as "single/main/*".')] = "*",
    mnist_dir: Annotated[Path, typer.Option(help="The folder of the MNIST files.")] = DIGITS,
) -> None:
    """Measures what the results file does not hold yet."""
    if not mnist_dir.is_dir():
        print(f"skipped: no MNIST files in {mnist_dir}; name their folder with --mnist-dir (docs/networks.md)")
        raise typer.Exit(0)
    import torch

    torch.set_num_threads(1)
    path = _path(file, quick)
    held = records.read(path)
    patterns = only.split(",")
    cells = [cell for cell in all_cells(QUICK if quick else FULL) if any(fnmatch(cell.name, each) for each in patterns)]
    tasks = records.missing(cells, held)
    print(f"{len(cells)} cells, {len(tasks)} to do", flush=True)
    known = {records.key(record) for record in held}
    with appending(path) as append:
        for record in [describe(), *measure.variances(mnist_dir)]:
            if records.key(record) not in known:
                append(record)
        for number, cell in enumerate(tasks, start=1):
            record = measure.measure_cell(cell, mnist_dir)
            append(record)
            print(f"{number}/{len(tasks)} {cell.name}: {report.in_words(record)}", flush=True)


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
    folder: Annotated[Path, typer.Option("--out", help="The folder for the picture.")] = Path("docs/pictures"),
) -> None:
    """Draws the picture."""
    print(plots.draw(records.of_scale(records.read(_path(file, quick)), QUICK if quick else FULL), folder))


def _path(given: Path | None, quick: bool) -> Path:
    return given if given is not None else QUICK_RESULTS if quick else RESULTS


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    app()
