"""Keeps the files of one run from being overwritten by another: a network's record says which run it is of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from verifier.errors import InputError

_MOST_DIFFERENCES: Final = 3
_LONGEST_VALUE: Final = 24
_ABSENT: Final = object()
_ELSEWHERE: Final = "write into another folder (--out)"


def refuse_other_run(onnx_path: Path, record_path: Path, run: Mapping[str, Any], *, is_resumed: bool) -> None:
    """Returns if the two files may be written: neither is there, or the record has every field of `run`.

    Args:
        onnx_path: The network.
        record_path: Its record, JSON.
        run: The fields of a record that tell one run from another, as JSON values.
        is_resumed: Whether this very run was begun here before; it may have written its network and not yet its record.

    Raises:
        InputError: The record is another run's or cannot be read, or a network lies there without a record.
    """
    if not record_path.exists():
        if onnx_path.exists() and not is_resumed:
            raise InputError(
                f"{onnx_path}: a network is here without the record of its run; {_ELSEWHERE}, or remove it"
            )
        return
    kept = _read(record_path)
    found = [line for key, value in run.items() for line in differences(kept.get(key, _ABSENT), value, key)]
    if found:
        more = len(found) - _MOST_DIFFERENCES
        told = "; ".join(found[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"{record_path}: another run is kept here ({told}); {_ELSEWHERE}, or remove this file and {onnx_path.name}"
        )


def differences(kept: object, wanted: object, where: str) -> Iterator[str]:
    """One phrase for each value in which two JSON trees differ, named by its path, such as `options.schedule.steps`."""
    if isinstance(kept, Mapping) and isinstance(wanted, Mapping):
        for key in dict.fromkeys([*wanted, *kept]):
            yield from differences(kept.get(key, _ABSENT), wanted.get(key, _ABSENT), f"{where}.{key}")
    elif kept != wanted:
        yield f"{where} {_shown(kept)}, wanted {_shown(wanted)}"


def _shown(value: object) -> str:
    text = "absent" if value is _ABSENT else json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as the record of a run ({error}); {_ELSEWHERE}, or remove it"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: got JSON without fields, wanted the record of a run; {_ELSEWHERE}, or remove it")
    return content
