"""Measured tables inside documents that people write."""

from pathlib import Path

import typer

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


def show(text: str, write: Path | None) -> None:
    """Prints the text, or puts it into a document and prints its name.

    Raises:
        typer.BadParameter: As `write_between_markers`.
    """
    if write is None:
        print(text)
        return
    try:
        write_between_markers(write, text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    print(write)
