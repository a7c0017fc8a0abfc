"""The results file: JSON Lines, appended to and resumed; the machine and every task's result, one a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import records as results
from benchmarks.records import MACHINE, Record
from benchmarks.training_study.questions import KINDS

_REGION = ("network", "first", "count", "limit", "effort")
_KEYS = {
    "machine": MACHINE,
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
    """The records of a file, each measurement once (see `benchmarks.records`)."""
    return results.read(path, key)


def done(records: Iterable[Record], *, retry_errors: bool = False) -> set[str]:
    """The keys that need not be measured again; with `retry_errors` those that ended in an error are."""
    return results.done(records, key, retry_errors=retry_errors)


def of(records: Iterable[Record], kind: str, network: str) -> list[Record]:
    """A network's records of one kind that ended without an error."""
    return [
        record
        for record in records
        if record["kind"] == kind and record.get("network") == network and "error" not in record
    ]
