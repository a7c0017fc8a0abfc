"""Writes files whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verifier.errors import InputError


class FolderError(InputError):
    """A folder cannot be made, or takes no files."""


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, if it is not there; files can be written into it.

    Raises:
        FolderError: It cannot be made, or nothing can be written into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FolderError(f"{path}: no folder to write files into ({reason}); choose another") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename onto it, so that no reader ever sees half a file.

    Missing folders are made. When writing fails, `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON in the order given, with a final newline, as `write_bytes` does."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
