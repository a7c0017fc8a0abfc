"""The results file: JSON Lines, appended to and resumed; cells, distances between classes and the machine, one a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.multi_task_study.cells import Cell, Scale, all_cells

Record = dict[str, Any]
_CELL = tuple(Cell.__dataclass_fields__)
_MACHINE = ("cpu", "cores", "memory", "versions")


def key(record: Mapping[str, Any]) -> str:
    """What makes two lines the same measurement.

    Raises:
        KeyError: A line of no known kind.
    """
    names = _CELL if "problem" in record else ("digits",) if "digits" in record else _MACHINE
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


def missing(cells: Iterable[Cell], records: Iterable[Record]) -> list[Cell]:
    """The cells that no record holds, in their order."""
    held = {key(record) for record in records}
    return [cell for cell in cells if key(cell.identity) not in held]


def of_scale(records: Iterable[Record], scale: Scale) -> list[Record]:
    """The records of this scale's cells, in the order of the cells; what was measured for another scale must not be mixed in."""
    held = {key(record): record for record in records if "problem" in record}
    return [held[key(cell.identity)] for cell in all_cells(scale) if key(cell.identity) in held]
