"""Small parts of tables: groups of records, medians, Markdown rows. Undecided questions count with the time they took."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from benchmarks.topk.results import Record

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [_row(header), "|---" * len(header) + "|", *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def grouped(values: Iterable[V], by: Callable[[V], K]) -> dict[K, list[V]]:
    """The values by key, in order of first appearance."""
    groups: dict[K, list[V]] = defaultdict(list)
    for value in values:
        groups[by(value)].append(value)
    return dict(groups)


def is_decided(record: Record) -> bool:
    """Whether a record of kind "query" holds a verdict."""
    return record.get("verdict") in ("robust", "vulnerable")


def seconds(number: float) -> str:
    """Seconds as short as tables need them: "0.04", "0.31", "1.2", "63"."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 0.995 else f"{number:.2f}"


def share(part: int, whole: int) -> str:
    """A share in percent that says 100% only of all: "97.5%", "100%"."""
    percent = 100 * part / whole
    shown = f"{percent:.1f}".removesuffix(".0")
    return f"{min(percent, 99.9):.1f}%" if part < whole and shown == "100" else f"{shown}%"


def times(records: Sequence[Record]) -> list[float]:
    """The seconds of the records that ended without an error."""
    return [record["seconds"] for record in records if "error" not in record]


def median(numbers: Sequence[float]) -> str:
    """The median in seconds, or nothing."""
    return seconds(statistics.median(numbers)) if numbers else ""


def largest(numbers: Sequence[float]) -> str:
    """The largest in seconds, or nothing."""
    return seconds(max(numbers)) if numbers else ""


def summary(records: Sequence[Record]) -> str:
    """One cell: "97.5%, 0.3 / 63 s" for share decided, median and longest time."""
    if not records:
        return ""
    spent = times(records)
    decided = share(sum(map(is_decided, records)), len(records))
    return f"{decided}, {median(spent)} / {largest(spent)} s" if spent else f"{decided}, errors"
