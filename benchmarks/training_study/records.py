"""The results file: JSON Lines, appended to and resumed; the machine and every task's result, one a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.topk.results import Record
from benchmarks.training_study.questions import KINDS

_REGION = ("network", "first", "count", "limit", "effort")
_KEYS = {
    "machine": ("cpu", "cores", "memory", "versions"),
    "network": ("network", "steps"),
    "grown": ("network", "image", "limit"),
    **dict.fromkeys(KINDS, _REGION),
}


def key(record: Mapping[str, Any]) -> str:
    """What makes two lines the same measurement.

    Raises:
        KeyError: A line of no known kind.
    """
    kind = record["kind"]
    return json.dumps([kind, *(record[name] for name in _KEYS[kind])])


def read(path: Path) -> list[Record]:
    """The records of a file, each measurement once: the last record of a key wins. No file, no records.

    Lines that are no records (a run that was killed while it wrote leaves half a line) are passed over.
    """
    records: dict[str, Record] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            records[key(record)] = record
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return list(records.values())


def done(records: Iterable[Record], *, retry_errors: bool = False) -> set[str]:
    """The keys that need not be measured again; with `retry_errors` those that ended in an error are."""
    return {key(record) for record in records if not (retry_errors and "error" in record)}


def of(records: Iterable[Record], kind: str, network: str) -> list[Record]:
    """A network's records of one kind that ended without an error."""
    return [
        record
        for record in records
        if record["kind"] == kind and record.get("network") == network and "error" not in record
    ]
