"""Where text goes: answers to stdout, progress and notes to stderr, and stdout kept clean for JSON."""

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def answers() -> Console:
    """The console for answers: stdout."""
    return Console(highlight=False)


def notes() -> Console:
    """The console for progress and remarks: stderr."""
    return Console(stderr=True, highlight=False)


def progress() -> Progress:
    """A progress bar on stderr, gone when done; nothing at all where stderr is no terminal."""
    console = notes()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def reserved_stdout(is_reserved: bool) -> Iterator[None]:
    """Sends to stderr whatever anything, native libraries included, writes to stdout meanwhile; does nothing unless asked."""
    if not is_reserved:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 1)
        os.close(saved)


def write_json(text: str) -> None:
    """Writes the object to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()
