"""Attacked images side by side: the original, the perturbation magnified, the adversarial image, with the top labels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aureole.images import write_file

_DOTS_PER_INCH = 110
_DIVERGING = "RdBu_r"
MOST_ROWS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One row of the grid.

    Attributes:
        name: Of the image.
        clean, adversarial: Both images.
        before, after: The top labels of each, in words.
        is_success: Whether the goal was reached.
        size: The change, in words.
    """

    name: str
    clean: np.ndarray
    adversarial: np.ndarray
    before: str
    after: str
    is_success: bool
    size: str


def draw_grid(pairs: Sequence[Pair], path: Path, heading: str) -> bool:
    """Writes one PNG with a row for each of the first pairs, successes first; False where images have neither 1 nor 3 channels.

    All perturbations of a grid are magnified alike, so that they can be compared; the factor stands above them.

    Raises:
        OutputError: The file cannot be written.
    """
    if not pairs or any(pair.clean.ndim != 3 or pair.clean.shape[0] not in (1, 3) for pair in pairs):
        return False
    chosen = sorted(pairs, key=lambda pair: not pair.is_success)[:MOST_ROWS]
    write_file(path, _render(chosen, heading))
    return True


def _render(pairs: Sequence[Pair], heading: str) -> bytes:
    # Figure without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 2.9 * len(pairs) + 0.8), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=12, fontweight="bold")
    places = figure.subplots(len(pairs), 3, squeeze=False)
    largest = max(float(np.abs(_change(pair)).max()) for pair in pairs) or 1.0
    for row, pair in zip(places, pairs, strict=True):
        _draw(row, pair, largest)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(row: Any, pair: Pair, largest: float) -> None:
    original, perturbation, adversarial = row
    original.imshow(_pixels(pair.clean), cmap="gray", vmin=0, vmax=1)
    original.set_title(f"{pair.name}\ntop: {pair.before}", fontsize=9)
    change = _change(pair)
    if len(change) == 1:
        perturbation.imshow(change[0], cmap=_DIVERGING, vmin=-largest, vmax=largest)
    else:
        perturbation.imshow(_pixels(0.5 + 0.5 * change / largest))
    perturbation.set_title(f"perturbation x {1.0 / largest:.3g}\n{pair.size}", fontsize=9)
    adversarial.imshow(_pixels(pair.adversarial), cmap="gray", vmin=0, vmax=1)
    word = "reached" if pair.is_success else "not reached"
    colour = "darkgreen" if pair.is_success else "darkred"
    adversarial.set_title(f"goal {word}\ntop: {pair.after}", fontsize=9, color=colour)
    for axes in row:
        axes.set(xticks=[], yticks=[])


def _change(pair: Pair) -> np.ndarray:
    return pair.adversarial.astype(np.float64) - pair.clean.astype(np.float64)


def _pixels(image: np.ndarray) -> np.ndarray:
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)
