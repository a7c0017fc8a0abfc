"""Charts as PNG files, in one look. The same records give the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.records import Record

DOTS_PER_INCH = 110
Drawing = tuple[bool, tuple[float, float], Callable[..., None]]


def save(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """Draws on a matplotlib figure of this size in inches, and writes it; the folder is made if it is missing."""
    # Figure without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No software version in the file, so that it tells of the records alone.
    figure.savefig(path, format="png", metadata={"Software": None})


def save_all(drawings: Mapping[str, Drawing], records: Sequence[Record], folder: Path) -> list[Path]:
    """Saves those of the drawings for which there are records, `NAME.png` each; returns the files.

    Args:
        drawings: By name: whether there is anything to draw, the size in inches, and what draws the records on a figure.
        records: For all of them.
        folder: For the files.
    """
    written = []
    for name, (is_measured, size, draw) in drawings.items():
        if is_measured:
            written.append(folder / f"{name}.png")
            save(written[-1], size, partial(draw, records=records))
    return written
