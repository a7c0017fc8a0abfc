"""The results file: JSON Lines, appended to and resumed; cells, networks and the machine, one a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.attack_study import cells

Record = dict[str, Any]
_NETWORK = ("network", "seed", "steps")
_MACHINE = ("cpu", "cores", "memory", "versions")


def key(record: Mapping[str, Any]) -> str:
    """What makes two lines the same measurement.

    Raises:
        KeyError: A line of no known kind.
    """
    if "claim" in record:
        return cells.key(record)
    names = _NETWORK if "network" in record else _MACHINE
    return json.dumps([record[name] for name in names])


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


def measured(records: Iterable[Record], claim: str) -> list[Record]:
    """The cells of a claim that ended without an error."""
    return [record for record in records if record.get("claim") == claim and "error" not in record]
