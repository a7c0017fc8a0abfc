"""The results file: JSON Lines, appended to and resumed; cells, distances between classes and the machine, one a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import records as results
from benchmarks.multi_task_study.cells import Cell, Scale, all_cells
from benchmarks.records import MACHINE, Record

_CELL = tuple(Cell.__dataclass_fields__)


def key(record: Mapping[str, Any]) -> str:
    """What makes two lines the same measurement.

    Raises:
        KeyError: A line of no known kind.
    """
    names = _CELL if "problem" in record else ("digits",) if "digits" in record else MACHINE
    return json.dumps([record[name] for name in names])


def read(path: Path) -> list[Record]:
    """The records of a file, each measurement once (see `benchmarks.records`)."""
    return results.read(path, key)


def missing(cells: Iterable[Cell], records: Iterable[Record]) -> list[Cell]:
    """The cells that no record holds, in their order."""
    held = {key(record) for record in records}
    return [cell for cell in cells if key(cell.identity) not in held]


def of_scale(records: Iterable[Record], scale: Scale) -> list[Record]:
    """The records of this scale's cells, in the order of the cells; what was measured for another scale must not be mixed in."""
    held = {key(record): record for record in records if "problem" in record}
    return [held[key(cell.identity)] for cell in all_cells(scale) if key(cell.identity) in held]
