"""Charts as PNG files, in one look. The same records give the same bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

DOTS_PER_INCH = 110


def save(
    path: Path, size: tuple[float, float], draw: Callable[[Any], None], *, grid: Literal["both", "y"] = "both"
) -> None:
    """Draws on a matplotlib figure of this size in inches, and writes it; the folder is made if it is missing."""
    # Figure without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis=grid, color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No software version in the file, so that it tells of the records alone.
    figure.savefig(path, format="png", metadata={"Software": None})
