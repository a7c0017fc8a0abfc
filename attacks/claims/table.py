"""Claims in files: CSV, JSON or Parquet, one record a claim (docs/claims.md)."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attacks.claims.aim import Aim
from attacks.claims.claim import Claim, ClaimKind
from attacks.metrics import Norm
from verifier.errors import InputError, SolverUnavailableError

Record = Mapping[str, Any]
SUFFIXES = (".csv", ".json", ".parquet")
NAMES = ("claims", "results")
"""What a table in a folder may be called, before its suffix."""

NO_CLAIM = "none"


def table_in(path: Path) -> Path:
    """The table that a path names: itself, or the one table `claims.*`, else `results.*`, of a folder.

    Raises:
        InputError: There is no such table, or several.
    """
    if not path.is_dir():
        return path
    for name in NAMES:
        found = [place for suffix in SUFFIXES if (place := path / f"{name}{suffix}").is_file()]
        if len(found) > 1:
            raise InputError(f"{path}: holds {', '.join(place.name for place in found)}; name the one to read")
        if found:
            return found[0]
    wanted = ", ".join(f"{name}{suffix}" for name in NAMES for suffix in SUFFIXES)
    raise InputError(f"{path}: holds no table of claims; wanted one of {wanted}")


def read_records(path: Path) -> list[Record]:
    """The records of a table that claim something, cells that are empty left out.

    Records whose `claim` is "none" say so themselves, such as images that an attack found not eligible.

    Raises:
        InputError: The file is no readable table, or holds no record.
        SolverUnavailableError: It is Parquet, and pyarrow is not installed.
    """
    readers = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: got a {path.suffix or 'suffixless'} file, wanted {', '.join(readers)}")
    rows = reader(path)
    records: list[Record] = [{str(name): cell for name, cell in row.items() if not _is_empty(cell)} for row in rows]
    claims = [record for record in records if record.get("claim") != NO_CLAIM]
    if not claims:
        raise InputError(f"{path}: holds no claim")
    return claims


def read_claim(
    record: Record, place: int, labels: int, read_image: Callable[[str], np.ndarray], folder: Path | None = None
) -> Claim:
    """The claim of one record; where something in it cannot be used, a claim whose `problem` says what.

    Args:
        record: Its cells by column.
        place: Its place in the table, from 0; its name if it has none.
        labels: How many labels the network has.
        read_image: Reads the image that a cell names; its InputError becomes the claim's problem.
        folder: What the names of certificates are relative to; the working folder if None.
    """
    name, attack = str(record.get("name", place)), str(record.get("attack", ""))
    try:
        kind = _kind(record)
    except InputError as error:
        return Claim(name, ClaimKind.FAILURE, attack, problem=str(error), source=record)
    claim: dict[str, Any] = {}
    try:
        claim = {
            "norm": _norm(record),
            "bound": _number(record, "bound"),
            "group": str(record.get("group", "")),
            "value": _number(record, "value"),
            "certificate": _certificate(record, kind, folder),
        }
        if kind is not ClaimKind.ROBUST_ACCURACY:
            claim["image"] = _image(record, "image", read_image)
            claim["aim"] = _aim(record, labels)
            if "adversarial" in record:
                claim["adversarial"] = _image(record, "adversarial", read_image)
    except InputError as error:
        return Claim(name, kind, attack, problem=str(error), source=record, **claim)
    return Claim(name, kind, attack, source=record, **claim)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restkey="", strict=True)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from error
    for place, row in enumerate(rows):
        if "" in row:
            raise InputError(f"{path}: record {place} has more cells than the header has columns")
    return rows


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from error
    rows = content.get("claims") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path}: wanted a list of objects, or an object whose "claims" is one')
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise SolverUnavailableError(
            f"{path}: reading Parquet needs pyarrow, which is not installed; pip install 'aureole[attacks]', or write CSV or JSON"
        ) from error
    try:
        return parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


def _is_empty(cell: object) -> bool:
    return (
        cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and math.isnan(cell))
    )


def _kind(record: Record) -> ClaimKind:
    word = str(record.get("claim", "")).strip()
    if word not in {kind.value for kind in ClaimKind}:
        raise InputError(f"claim: got {word or 'nothing'!r}, wanted {', '.join(kind.value for kind in ClaimKind)}")
    return ClaimKind(word)


def _norm(record: Record) -> Norm | None:
    word = str(record.get("norm", "")).strip().lower()
    if word and word not in {norm.value for norm in Norm}:
        raise InputError(f"norm: got {word!r}, wanted {', '.join(norm.value for norm in Norm)}")
    return Norm(word) if word else None


def _number(record: Record, column: str) -> float | None:
    cell = record.get(column)
    if cell is None:
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError):
        raise InputError(f"{column}: got {cell!r}, wanted a number") from None
    if isinstance(cell, bool) or not math.isfinite(number):
        raise InputError(f"{column}: got {cell!r}, wanted a finite number")
    return number


def _integer(record: Record, column: str) -> int | None:
    number = _number(record, column)
    if number is not None and number != int(number):
        raise InputError(f"{column}: got {record[column]!r}, wanted a whole number")
    return None if number is None else int(number)


def _labels(record: Record, column: str) -> tuple[int, ...]:
    """Labels as a list of numbers, or as words in one cell."""
    cell = record.get(column, ())
    words = (
        cell.replace(",", " ").split() if isinstance(cell, str) else cell if isinstance(cell, list | tuple) else [cell]
    )
    try:
        labels = tuple(int(str(word)) for word in words)
    except ValueError:
        raise InputError(f"{column}: got {cell!r}, wanted labels such as 3 7") from None
    return labels


def _aim(record: Record, labels: int) -> Aim:
    on, off = _labels(record, "on"), _labels(record, "off")
    needed = _integer(record, "needed")
    k, threshold = _integer(record, "k"), _number(record, "threshold")
    return Aim(labels, on, off, len(on) + len(off) if needed is None else needed, k, threshold)


def _certificate(record: Record, kind: ClaimKind, folder: Path | None) -> Path | None:
    if "certificate" not in record:
        return None
    if kind is not ClaimKind.FAILURE:
        raise InputError(f"certificate: given with a claim of {kind}, wanted one of failure")
    path = (folder or Path()) / str(record["certificate"])
    if not path.is_file():
        raise InputError(f"certificate: {path}: no such file")
    return path


def _image(record: Record, column: str, read_image: Callable[[str], np.ndarray]) -> np.ndarray:
    if column not in record:
        raise InputError(f"{column}: missing, wanted the name of an image")
    try:
        return read_image(str(record[column]))
    except InputError as error:
        raise InputError(f"{column}: {error}") from error
