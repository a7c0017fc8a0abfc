"""Measures top-k verification on the three published Double-MNIST networks, against the engines without branch and bound.

Run from the repository's root:

    python -m benchmarks.topk run --set hard                  # the ten questions that a peer's plain bounds leave open
    python -m benchmarks.topk run --set grid                  # 3 networks x 10 images x 2 labels x 4 epsilons, every engine
    python -m benchmarks.topk certificates --set grid         # seconds to solve, to certify and to check, and bytes
    python -m benchmarks.topk labels                          # all ten labels of an image at once, k = 2 and 3
    python -m benchmarks.topk scaling                         # how time grows with epsilon and with k
    python -m benchmarks.topk recheck                         # attacks every "robust", replays every "vulnerable"
    python -m benchmarks.topk report                          # the tables of PERFORMANCE.md
    python -m benchmarks.topk plot --out docs/pictures        # the pictures

Each measurement is one line of `out/topk.jsonl`, appended when it ends; `--out FILE` names another file to the commands that
measure, `--results FILE` to the others. What the file holds is not measured again, so a run can be interrupted and resumed; for
another version of the code, take another file. Counterexamples lie in a folder beside it. The networks are read from
`../shared/data/published`; without them every measurement is skipped.

Seconds are wall time of the one call to `aureole.verify` or `aureole.classify_labels`. Every worker process has one thread, loads
the networks once, and warms each engine up, so that imports do not count.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from benchmarks.topk import measure, plots, queries, recheck, report, results, workers
from benchmarks.topk.certificates import CertificateTask, certify, rejected
from benchmarks.topk.machine import describe
from benchmarks.topk.measure import LabelsTask, QueryTask
from benchmarks.topk.recheck import AttackTask

T = TypeVar("T", QueryTask | LabelsTask, AttackTask, CertificateTask)

app = typer.Typer(add_completion=False, no_args_is_help=True)

ENGINES = "auto,search,milp,bounds,auto-lirpa"

Out = Annotated[Path, typer.Option("--out", "--results", help="The results file, JSON Lines, appended to.")]
Results = Annotated[Path, typer.Option("--results", help="The results file, JSON Lines.")]
Engines = Annotated[str, typer.Option(help="Comma-separated; also milp:highs and the like.")]
Only = Annotated[str, typer.Option(help='Comma-separated patterns of names, such as "381*/i0/l2/*e0.005".')]
Limit = Annotated[float, typer.Option(help="Seconds a measurement may take.")]
Jobs = Annotated[int, typer.Option(help="Worker processes, one thread each.")]
Retry = Annotated[bool, typer.Option(help="Measure again what ended in an error.")]
RESULTS = Path("out/topk.jsonl")


@app.command()
def run(
    set_: Annotated[str, typer.Option("--set", help="hard or grid.")] = "hard",
    engines: Engines = ENGINES,
    limit: Limit = 100.0,
    jobs: Jobs = 2,
    out: Out = RESULTS,
    only: Only = "",
    retry_errors: Retry = False,
) -> None:
    """Measures single questions."""
    _need_published()
    _measure_questions(_questions(set_), engines, limit, jobs, out, only, retry_errors)


@app.command()
def certificates(
    set_: Annotated[str, typer.Option("--set", help="hard or grid.")] = "hard",
    engines: Engines = "auto",
    float32: Annotated[bool, typer.Option("--float32", help="Proofs must cover float32 inference too.")] = False,
    limit: Limit = 100.0,
    jobs: Jobs = 2,
    out: Out = RESULTS,
    only: Only = "",
    retry_errors: Retry = False,
) -> None:
    """Solves, certifies and checks single questions. Exit code 1: the checker rejects a certificate."""
    _need_published()
    chosen = queries.chosen(_questions(set_), _patterns(only))
    tasks = [CertificateTask(question, engine, limit, float32) for engine in engines.split(",") for question in chosen]
    _measure(tasks, certify, partial(measure.prepare, engines.split(",")), jobs, out, retry_errors)
    wrong = list(rejected(results.read(out)))
    for line in wrong:
        print(f"REJECTED {line}")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def labels(
    ks: Annotated[str, typer.Option(help="Comma-separated.")] = "2,3",
    eps: Annotated[str, typer.Option(help="Comma-separated.")] = "0.01",
    images: int = queries.IMAGES,
    engines: Engines = "auto",
    limit: Limit = 100.0,
    jobs: Jobs = 2,
    out: Out = RESULTS,
    only: Only = "",
    retry_errors: Retry = False,
) -> None:
    """Measures all ten labels of an image at once, under one limit for the ten."""
    _need_published()
    tasks = [
        LabelsTask(network, image, int(k), float(epsilon), engine, limit, _folder(out))
        for engine in engines.split(",")
        for epsilon in eps.split(",")
        for k in ks.split(",")
        for network in queries.FILES
        for image in range(images)
    ]
    chosen = [task for task in tasks if queries.matches(task.name.partition(" ")[0], _patterns(only))]
    _measure(chosen, measure.perform, partial(measure.prepare, engines.split(",")), jobs, out, retry_errors)


@app.command()
def scaling(
    what: Annotated[str, typer.Option(help="Comma-separated: epsilon, k.")] = "epsilon,k",
    images: Annotated[int, typer.Option(help="How many images.")] = 5,
    k_eps: Annotated[str, typer.Option(help="The epsilons at which k grows.")] = "0.005,0.01,0.02",
    engines: Engines = "auto",
    limit: Limit = 100.0,
    jobs: Jobs = 2,
    out: Out = RESULTS,
    only: Only = "",
    retry_errors: Retry = False,
) -> None:
    """Measures a ladder of epsilons at k = 2, and k from 1 to 5; time against unstable units comes from all records."""
    _need_published()
    pairs = queries.load_pairs()[:images]
    questions = []
    if "epsilon" in what.split(","):
        questions += queries.grid(pairs, queries.LADDER_EPSILONS)
    if "k" in what.split(","):
        questions += queries.by_k(pairs, queries.clean_firsts(), [float(e) for e in k_eps.split(",")])
    _measure_questions(list(dict.fromkeys(questions)), engines, limit, jobs, out, only, retry_errors)


@app.command("recheck")
def recheck_command(
    restarts: Annotated[
        int, typer.Option(help="Climbs a question, at least; a quarter of them from random corners.")
    ] = 10_000,
    steps: Annotated[int, typer.Option(help="Gradient steps of each.")] = 20,
    kinds: Annotated[str, typer.Option(help="Comma-separated: query, labels.")] = "query,labels",
    device: Annotated[str, typer.Option(help="The torch device of the attacks.")] = "cpu",
    jobs: Jobs = 2,
    file: Results = RESULTS,
    to: Annotated[Path | None, typer.Option(help="The attacks' results; by default beside the results.")] = None,
    only: Only = "",
    retry_errors: Retry = False,
) -> None:
    """Attacks every "robust" and replays every "vulnerable". Exit code 1: a contradiction; 2: an attack ended in an error."""
    _need_published()
    measured = [record for record in results.read(file) if record["kind"] in kinds.split(",")]
    wrong = results.contradictions(measured)
    replays = [why for _, why in recheck.failed_replays(measured, file)]
    wrong += [why for why in replays if why is not None]
    print(f"{len(replays)} counterexamples replayed, {sum(why is not None for why in replays)} failed", flush=True)
    claimed = recheck.robust_claims(measured)
    chosen = queries.chosen(list(claimed), _patterns(only))
    target = report.recheck_file(file) if to is None else to
    tasks = [AttackTask(question, restarts, steps, device, _folder(target)) for question in chosen]
    os.environ.update(recheck.ENVIRONMENT)
    has_errors = _measure(tasks, recheck.attack, recheck.prepare, jobs, target, retry_errors)
    attacks = [record for record in results.read(target) if record["kind"] == "attack"]
    for record in attacks:
        wrong += recheck.contradicted(record, claimed.get(results.question_of(record), []))
    print(f"{len(chosen)} robust questions attacked, {len(wrong)} contradictions")
    for why in wrong:
        print(f"CONTRADICTION {why}")
    raise typer.Exit(1 if wrong else 2 if has_errors else 0)


@app.command("report")
def report_command(
    file: Results = RESULTS,
    limit: Annotated[float, typer.Option(help="Only measurements under this limit.")] = 100.0,
) -> None:
    """Prints the tables in Markdown."""
    print(report.render(results.read(file), results.read(report.recheck_file(file)), limit))


@app.command("plot")
def plot_command(
    folder: Annotated[Path, typer.Option("--out", help="The folder for the pictures.")] = Path("docs/pictures"),
    file: Results = RESULTS,
    limit: Annotated[float, typer.Option(help="Only measurements under this limit.")] = 100.0,
) -> None:
    """Draws the pictures."""
    for path in plots.draw_all(results.read(file), limit, folder):
        print(path)


def _need_published() -> None:
    if not queries.is_published_here():
        print(f"skipped: the published networks and images are not in {queries.PUBLISHED}")
        raise typer.Exit(0)


def _questions(set_: str) -> list[queries.Question]:
    if set_ not in ("hard", "grid"):
        raise typer.BadParameter(f"set: got {set_!r}, wanted hard or grid")
    return queries.hard() if set_ == "hard" else queries.grid(queries.load_pairs())


def _patterns(only: str) -> list[str]:
    return only.split(",") if only else []


def _folder(out: Path) -> Path:
    return out.parent / f"{out.stem}-images"


def _measure_questions(
    questions: Sequence[queries.Question],
    engines: str,
    limit: float,
    jobs: int,
    out: Path,
    only: str,
    retry_errors: bool,
) -> None:
    chosen = queries.chosen(questions, _patterns(only))
    tasks = [QueryTask(question, engine, limit, _folder(out)) for engine in engines.split(",") for question in chosen]
    _measure(tasks, measure.perform, partial(measure.prepare, engines.split(",")), jobs, out, retry_errors)


def _measure(
    tasks: Sequence[T],
    work: Callable[[T], results.Record],
    prepare: Callable[[], None],
    jobs: int,
    out: Path,
    retry_errors: bool,
) -> bool:
    """Does what the file does not hold yet. Returns whether something ended in an error; a contradiction ends with exit code 1."""
    held = results.read(out)
    done = results.done(held, retry_errors=retry_errors)
    missing = [task for task in tasks if results.key(task.identity) not in done]
    print(f"{len(tasks)} measurements, {len(missing)} to do", flush=True)
    errors = []
    with results.appending(out) as append:
        machine = describe()
        if missing and results.key(machine) not in {results.key(record) for record in held}:
            append(machine)
        for number, (task, found) in enumerate(workers.run_tasks(missing, work=work, prepare=prepare, jobs=jobs), 1):
            record = {**task.identity, **found}
            append(record)
            errors += [record] if "error" in record else []
            print(f"{number}/{len(missing)} {task.name}: {report.in_words(record)}", flush=True)
    if any(record["error"].startswith("ContradictionError") for record in errors):
        print("two engines contradict each other; see above")
        sys.exit(1)
    return bool(errors)


if __name__ == "__main__":
    app()
