"""Measured tables inside documents that people write."""

from pathlib import Path

from verifier.errors import InputError

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def write_between_markers(path: Path, text: str) -> None:
    """Replaces what lies between the two marker lines of a document.

    Raises:
        InputError: The file is missing, or has no markers.
    """
    content = path.read_text() if path.exists() else ""
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path}: wanted a document with the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
