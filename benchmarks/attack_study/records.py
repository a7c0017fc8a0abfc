"""The results file: JSON Lines, appended to and resumed; cells, networks and the machine, one a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import records as results
from benchmarks.attack_study import cells
from benchmarks.records import MACHINE, Record

_NETWORK = ("network", "seed", "steps")


def key(record: Mapping[str, Any]) -> str:
    """What makes two lines the same measurement.

    Raises:
        KeyError: A line of no known kind.
    """
    if "claim" in record:
        return cells.key(record)
    names = _NETWORK if "network" in record else MACHINE
    return json.dumps([record[name] for name in names])


def read(path: Path) -> list[Record]:
    """The records of a file, each measurement once (see `benchmarks.records`)."""
    return results.read(path, key)


def done(records: Iterable[Record], *, retry_errors: bool = False) -> set[str]:
    """The keys that need not be measured again; with `retry_errors` those that ended in an error are."""
    return results.done(records, key, retry_errors=retry_errors)


def measured(records: Iterable[Record], claim: str) -> list[Record]:
    """The cells of a claim that ended without an error."""
    return [record for record in records if record.get("claim") == claim and "error" not in record]
