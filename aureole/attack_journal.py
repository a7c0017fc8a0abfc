"""What an attack has finished, on disk: nothing finished is lost or done again."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aureole.exits import OutputError, UsageError
from aureole.images import npy_bytes, png_bytes, write_file
from verifier.errors import InputError, SolverUnavailableError

SETTINGS_NAME, PROGRESS_NAME, RESULTS_NAME, IMAGES_NAME = "run.json", "progress.jsonl", "results.parquet", "images"
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """A folder with one line for each finished image, appended as soon as its images lie beside it.

    Attributes:
        folder: Holds `run.json` (what was asked), `progress.jsonl` (the lines) and `images/`.
        rows: The finished rows by key, those found at the start included.
    """

    folder: Path
    rows: dict[str, Row]

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any]) -> "Journal":
        """The journal of this attack in a folder, with what an earlier run finished.

        Raises:
            UsageError: The folder holds another attack.
            OutputError: It cannot be written.
        """
        path, wanted = folder / SETTINGS_NAME, json.loads(json.dumps(settings))
        if path.exists():
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                known = None
            if known != wanted:
                changed = sorted(
                    name for name in wanted if not isinstance(known, dict) or known.get(name) != wanted[name]
                )
                raise UsageError(
                    f"--out {folder}: holds another attack (different: {', '.join(changed) or 'its settings'});"
                    " choose another folder"
                )
        else:
            write_file(path, (json.dumps(wanted, indent=1) + "\n").encode())
        return cls(folder, _finished(folder))

    def add(self, row: Row, image: Float32[np.ndarray, "..."], clean: Float32[np.ndarray, "..."]) -> None:
        """Keeps a finished image: its files first, then its line, on disk when this returns.

        Raises:
            OutputError: The system does not let us.
        """
        key = str(row["key"])
        content = npy_bytes(image)
        write_file(self.folder / adversarial_name(key), content)
        write_file(self.folder / clean_name(key), npy_bytes(clean))
        picture = png_bytes(image)
        if picture is not None:
            write_file(self.folder / adversarial_name(key).replace(".npy", ".png"), picture)
        line = json.dumps({**row, "sha256": hashlib.sha256(content).hexdigest()})
        path = self.folder / PROGRESS_NAME
        try:
            with path.open("a", encoding="utf-8") as stream:
                # A line that a crash cut short must not swallow this one.
                stream.write(f"\n{line}\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
        self.rows[key] = json.loads(line)

    def image(self, key: str) -> Float32[np.ndarray, "..."]:
        """The adversarial image of a finished row."""
        return np.load(self.folder / adversarial_name(key), allow_pickle=False)


def adversarial_name(key: str) -> str:
    """Where the adversarial image of a row lies, within the folder."""
    return f"{IMAGES_NAME}/{key}.npy"


def clean_name(key: str) -> str:
    """Where its clean image lies."""
    return f"{IMAGES_NAME}/{key}-clean.npy"


def _finished(folder: Path) -> dict[str, Row]:
    """Rows whose line is whole and whose image is the one the line speaks of."""
    path = folder / PROGRESS_NAME
    if not path.exists():
        return {}
    rows: dict[str, Row] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            content = (folder / adversarial_name(str(row["key"]))).read_bytes()
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if hashlib.sha256(content).hexdigest() == row.get("sha256"):
            rows[str(row["key"])] = row
    return rows


def require_extra() -> None:
    """Refuses to start work whose results could not be written or measured.

    Raises:
        SolverUnavailableError: pyarrow or scikit-learn is not installed.
    """
    for module, package in (("pyarrow", "pyarrow"), ("sklearn", "scikit-learn")):
        try:
            import_module(module)
        except ImportError as error:
            raise SolverUnavailableError(
                f"aureole attack needs {package}, which is not installed; pip install 'aureole[attacks]'"
            ) from error


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows as one Parquet file, whole or not at all; a column that no row fills has no type, and is left out.

    Raises:
        InputError: There are no rows.
        OutputError: The system does not let us.
    """
    import pyarrow
    from pyarrow import parquet

    if not rows:
        raise InputError("results: no rows to write")
    names = [name for name in rows[0] if any(row.get(name) is not None for row in rows)]
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    write_file(path, sink.getvalue().to_pybytes())
