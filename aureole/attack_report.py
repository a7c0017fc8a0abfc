"""What an attack did, for people and as JSON; and what attacks and goals there are."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from attacks import GOALS, METHODS
from attacks.metrics import Average, Summary
from aureole.attack_job import Job
from aureole.exits import ExitCode
from aureole.json_parts import finite, network_object
from aureole.text_report import Row, fields, network_text

ATTACK_SCHEMA = "aureole/attack/1"


def attack_object(
    job: Job, network_name: str, rows: Sequence[Mapping[str, Any]], summary: Summary | None, files: Mapping[str, str]
) -> dict[str, Any]:
    """The report as docs/json.md describes it."""
    changes = {} if summary is None else summary.changes
    return {
        "schema": ATTACK_SCHEMA,
        "exit_code": int(attack_code(job, rows)),
        "network": network_object(job.network, network_name),
        "method": job.method.name,
        "variant": job.variant.value,
        "goal": job.goal.name,
        "k": job.goal.k,
        **counts(job, rows),
        "changes": {
            name: {"before": _mean(item.before), "after": _mean(item.after), "drop": finite(item.drop)}
            for name, item in changes.items()
        },
        "values": {} if summary is None else {name: _mean(item) for name, item in summary.values.items()},
        "ties": 0 if summary is None else summary.ties,
        "files": dict(files),
    }


def attack_code(job: Job, rows: Sequence[Mapping[str, Any]]) -> ExitCode:
    """ROBUST, which is 0, where every image is finished; otherwise INTERRUPTED."""
    return ExitCode.ROBUST if len(rows) == len(job.images) else ExitCode.INTERRUPTED


def counts(job: Job, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many images there are, make sense for the goal, are finished and reached it."""
    finished = [row for row in rows if row["eligible"]]
    return {
        "images": len(job.images),
        "eligible": int(job.goal.eligible.sum()),
        "finished": len(finished),
        "already_met": sum(row["already_met"] for row in finished),
        "successes": sum(row["success"] for row in finished),
        "jpeg_successes": sum(bool(row["jpeg_success"]) for row in finished) if job.words.jpeg is not None else None,
    }


def _mean(average: Average) -> dict[str, Any]:
    return {"value": finite(average.value), "counted": average.counted, "skipped": average.skipped}


def attack_text(
    job: Job, network_name: str, rows: Sequence[Mapping[str, Any]], summary: Summary | None, files: Mapping[str, str]
) -> Group:
    """The report for people."""
    number = counts(job, rows)
    left_out = number["images"] - number["eligible"]
    about: list[Row] = [
        ("network", network_text(job.network, network_name)),
        ("attack", f"{job.method.name} ({job.variant.value}), {job.method.paper}"),
        ("goal", job.goal.name + ("" if job.goal.k is None else f", k = {job.goal.k}")),
        (
            "images",
            f"{number['images']}" + (f", {left_out} not eligible; wanted: {job.goal.requirement}" if left_out else ""),
        ),
        ("reached", f"{number['successes']} of {number['finished']}"),
    ]
    if number["already_met"]:
        about.append(("", f"{number['already_met']} images met the goal before the attack"))
    if number["jpeg_successes"] is not None:
        how = "an attack that knows of it" if job.words.is_adaptive else "an attack that does not know of it"
        about.append(
            (
                f"JPEG {job.words.jpeg}",
                f"{number['jpeg_successes']} of {number['finished']} reach it through the defence, by {how}",
            )
        )
    about += [(name, place) for name, place in files.items()]
    parts: list[Any] = [_heading(job, rows), fields(about)]
    if summary is not None:
        parts += [Text(), _changes_table(summary), Text(), _values_table(summary)]
        if summary.ties:
            parts.append(Text(f"{summary.ties} rows hold equal scores; the lower label comes first"))
    return Group(*parts)


def _heading(job: Job, rows: Sequence[Mapping[str, Any]]) -> Text:
    if attack_code(job, rows) is ExitCode.INTERRUPTED:
        return Text.assemble(("INTERRUPTED", "bold yellow"), "  the same command goes on where this one stopped")
    return Text.assemble(("DONE", "bold"), f"  {job.method.name} towards {job.goal.name}")


def _changes_table(summary: Summary) -> Table:
    table = Table("the network's answers", box=None, header_style="dim", pad_edge=False)
    for column in ("before", "after", "drop"):
        table.add_column(column, justify="right")
    for name, item in summary.changes.items():
        table.add_row(escape(name), _number(item.before.value), _number(item.after.value), _number(item.drop))
    return table


def _values_table(summary: Summary) -> Table:
    table = Table("the attack", box=None, header_style="dim", pad_edge=False)
    table.add_column("mean", justify="right")
    table.add_column("over", justify="right")
    for name, item in summary.values.items():
        table.add_row(escape(name), _number(item.value), str(item.counted))
    return table


def _number(value: float) -> str:
    return "-" if finite(value) is None else f"{value:.4g}"


def listing() -> Group:
    """Every method with its defaults, and every goal."""
    methods = Table("method", "ball", "options", "what it does", box=None, header_style="dim", pad_edge=False)
    for method in METHODS.values():
        defaults = ", ".join(f"{name}={value}" for name, value in method.defaults().items())
        ball = method.norm or "none"
        does = f"{method.summary} ({method.paper})"
        if method.differences:
            does += f"; released: {method.differences}"
        methods.add_row(method.name, ball, escape(defaults), escape(does))
    goals = Table("goal", "labels by", "what it asks", box=None, header_style="dim", pad_edge=False)
    for goal in GOALS.values():
        goals.add_row(goal.name, goal.rule.value, escape(f"{goal.summary} ({goal.source})"))
    return Group(methods, Text(), goals)


def listing_object() -> dict[str, Any]:
    """The same as JSON."""
    return {
        "schema": "aureole/attacks/1",
        "methods": [
            {
                "name": method.name,
                "summary": method.summary,
                "source": method.paper,
                "norm": method.norm,
                "eps": finite(method.eps),
                "options": {name: str(value) for name, value in method.defaults().items()},
                "differences": method.differences,
            }
            for method in METHODS.values()
        ],
        "goals": [
            {"name": goal.name, "summary": goal.summary, "source": goal.source, "rule": goal.rule.value}
            for goal in GOALS.values()
        ],
    }
