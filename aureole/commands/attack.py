"""`aureole attack`: one attack on many images, resumable, with metrics and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aureole import api, terminal
from aureole.attack_job import Job, make_job, settings
from aureole.attack_journal import RESULTS_NAME, Journal, require_extra, write_results
from aureole.attack_options import AttackRun, GoalWords, MethodWords
from aureole.attack_pictures import MOST_ROWS, Pair, draw_grid
from aureole.attack_report import attack_code, attack_object, attack_text, listing, listing_object
from aureole.attack_rows import attack_all, result_rows, summary_of
from aureole.exits import UsageError
from aureole.image_sets import known_labels, read_images, read_labels
from aureole.images import write_file
from aureole.json_parts import to_text
from aureole.questions import top_labels
from verifier.network import Network

SUMMARY_NAME, GRID_NAME = "summary.json", "grid.png"
_SHOWN_LABELS = 3


def run(
    network_name: str | None,
    references: Sequence[str],
    goal: GoalWords,
    method: MethodWords,
    options: AttackRun,
    *,
    lists: bool,
) -> int:
    """Attacks, or lists attacks and goals; returns the exit code."""
    if lists:
        return _list(as_json=options.as_json)
    if network_name is None or not references:
        raise UsageError("NET and IMAGES: missing; or give --list to see methods and goals")
    with terminal.reserved_stdout(options.as_json):
        require_extra()
        job = _job(network_name, references, goal, method, options)
        journal = Journal.open(options.out, settings(job, goal))
        _attack(job, journal)
        rows = result_rows(job, journal)
        files = _write(job, journal, rows, options.out)
        summary = summary_of(job, journal)
        content = attack_object(job, network_name, rows, summary, files)
        write_file(Path(files["summary"]), to_text(content).encode())
    if options.as_json:
        terminal.write_json(to_text(content))
    else:
        terminal.answers().print(attack_text(job, network_name, rows, summary, files))
    return int(attack_code(job, rows))


def _list(*, as_json: bool) -> int:
    if as_json:
        terminal.write_json(json.dumps(listing_object(), indent=1) + "\n")
    else:
        terminal.answers().print(listing())
    return 0


def _job(network_name: str, references: Sequence[str], goal: GoalWords, method: MethodWords, options: AttackRun) -> Job:
    network = api.load_network(network_name)
    api.checked_device(options.device)
    images = read_images(references, network.input_shape)
    count, given = network.labels, options.labels
    labels = known_labels(images, count) if given is None else read_labels(given, images, count)
    return make_job(network, images, labels, goal, method, options)


def _attack(job: Job, journal: Journal) -> None:
    """Attacks what is left, with a progress bar on stderr; Ctrl-C ends it after the last finished batch."""
    with terminal.progress() as bar:
        task = bar.add_task(job.method.name, total=int(job.goal.eligible.sum()), detail="")
        try:
            attack_all(job, journal, lambda count, name: bar.update(task, advance=count, detail=name))
        except KeyboardInterrupt:
            terminal.notes().print("aureole: interrupted; the same command goes on from here")


def _write(job: Job, journal: Journal, rows: Sequence[Any], out: Path) -> dict[str, str]:
    """The Parquet file and the grid; returns where everything lies."""
    files = {"results": str(out / RESULTS_NAME), "summary": str(out / SUMMARY_NAME)}
    if rows:
        write_results(out / RESULTS_NAME, rows)
    heading = f"{job.method.name} towards {job.goal.name}" + ("" if job.goal.k is None else f", k = {job.goal.k}")
    if draw_grid(_pairs(job, journal), out / GRID_NAME, heading):
        files["grid"] = str(out / GRID_NAME)
    return files


def _pairs(job: Job, journal: Journal) -> list[Pair]:
    """The images of the grid; those that it would leave out are not read."""
    finished = [(image, key) for image, key in zip(job.images, job.keys, strict=True) if key in journal.rows]
    pairs = []
    for image, key in sorted(finished, key=lambda each: not journal.rows[each[1]]["success"])[:MOST_ROWS]:
        row = journal.rows[key]
        words = [_top(row[name], job.network, job.goal.k) for name in ("clean_scores", "scores")]
        size = f"linf {row['linf']:.3g}, l2 {row['l2']:.3g}"
        pairs.append(
            Pair(
                Path(image.name).name, image.pixels, journal.image(key), words[0], words[1], bool(row["success"]), size
            )
        )
    return pairs


def _top(scores: Sequence[float], network: Network, k: int | None) -> str:
    """The top k labels, after a bar the next one."""
    count = min(k or _SHOWN_LABELS, network.labels)
    ranked = [str(label) for label in top_labels(np.asarray(scores), min(count + 1, network.labels))]
    return " ".join(ranked[:count]) + (f" | {ranked[count]}" if len(ranked) > count else "")
