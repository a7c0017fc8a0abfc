"""Results files: JSON Lines, appended to and resumed; what makes two lines the same measurement is each study's own matter."""

import json
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

Record = dict[str, Any]
K = TypeVar("K", bound=Hashable)
MACHINE = ("cpu", "cores", "memory", "versions")
"""The fields of a line that tells of the machine."""


def read(path: Path, key: Callable[[Record], Hashable]) -> list[Record]:
    """The records of a file, each measurement once: the last record of a key wins. No file, no records.

    Lines that are no records (a run that was killed while it wrote leaves half a line), or for which `key` raises a KeyError or
    TypeError, are passed over.
    """
    records: dict[Hashable, Record] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            records[key(record)] = record
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return list(records.values())


def done(records: Iterable[Record], key: Callable[[Record], K], *, retry_errors: bool = False) -> set[K]:
    """The keys that need not be measured again; with `retry_errors` those that ended in an error are."""
    return {key(record) for record in records if not (retry_errors and "error" in record)}
