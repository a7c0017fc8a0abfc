"""Parts that pictures of neighbourhoods share: figures without a display, images, outlines, epsilons as colours."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from synth.zones import FIXED, Neighbourhood, ZonedNeighbourhood
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood

UNRESTRICTED = "#b8e0c8"
"""The colour of epsilon 1, which lies above every scale."""

OUTLINE = "#35c9ff"
_HEAT = "inferno"
_DIVERGING = "RdBu_r"
_LOG_RATIO = 12.0
_DOTS_PER_INCH = 130
_LETTERS_PER_INCH = 8.5


def check_channels(image: np.ndarray) -> None:
    """Refuses what is no picture.

    Raises:
        InputError: The image has neither 1 nor 3 channels.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"picture: got an image of shape {image.shape}, wanted 1 or 3 channels, height and width")


def new_figure(width: float, height: float, heading: str) -> Any:
    """An empty figure of that size in inches. Without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    lines = [
        part for line in heading.split("\n") for part in textwrap.wrap(line, max(20, int(_LETTERS_PER_INCH * width)))
    ]
    # Names of files may hold a dollar sign, which is no formula.
    figure.suptitle("\n".join(lines), fontsize=13, fontweight="bold", parse_math=False)
    return figure


def png_of(figure: Any) -> bytes:
    """The figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def heat_norm(epsilons: np.ndarray) -> Any:
    """The colour scale of the restricted layers; an epsilon of 1 is unrestricted and lies above every scale."""
    from matplotlib.colors import LogNorm, Normalize

    shown = epsilons[(epsilons > 0.0) & (epsilons < 1.0)]
    if not len(shown):
        return Normalize(0.0, 0.999)
    low, high = float(shown.min()), float(shown.max())
    # Layers next to the object often have a small share of what far ones have; then only a logarithm shows both.
    return LogNorm(0.9 * low, 1.001 * high) if high > _LOG_RATIO * low else Normalize(0.0, 1.001 * high)


def heat_colours() -> Any:
    """Dark for small epsilons, bright for large ones, another hue for unrestricted ones."""
    from matplotlib import colormaps

    return colormaps[_HEAT].with_extremes(over=UNRESTRICTED, under="black", bad="black")


def is_logarithmic(norm: Any) -> bool:
    """Whether the colour scale is logarithmic."""
    from matplotlib.colors import LogNorm

    return isinstance(norm, LogNorm)


def number_ticks(axis: Any, norm: Any) -> None:
    """Few ticks on a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if is_logarithmic(norm):
        spans_decades = float(norm.vmax) > 100.0 * float(norm.vmin)
        axis.set_major_locator(LogLocator(subs=(1.0,) if spans_decades else (1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def heat_bar(figure: Any, shown: Any, axes: Any, norm: Any) -> None:
    """The colour scale beside heat maps."""
    bar = figure.colorbar(shown, ax=axes, shrink=0.82, pad=0.02)
    number_ticks(bar.ax.yaxis, norm)
    bar.set_label("epsilon: largest change of the pixel", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def draw_image(axes: Any, image: np.ndarray, masks: Sequence[np.ndarray], title: str, **style: Any) -> None:
    """The image, with an outline around each mask."""
    axes.imshow(_for_imshow(image), cmap="gray", vmin=0, vmax=1)
    for mask in masks:
        draw_outline(axes, mask, **style)
    _panel(axes, title, image)


def draw_heat(axes: Any, neighbourhood: Neighbourhood, title: str, norm: Any) -> Any:
    """Epsilon per pixel over the image, the object outlined; returns what a colour bar needs."""
    shown = axes.imshow(neighbourhood.widths.max(axis=0), cmap=heat_colours(), norm=norm)
    ink = neighbourhood.image.max(axis=0)
    # White where the image has ink, transparent where it has none: the heat stays readable in between.
    overlay = np.ones((*ink.shape, 4))
    overlay[..., 3] = 0.55 * ink
    axes.imshow(overlay)
    draw_outline(axes, neighbourhood.pixels)
    _panel(axes, title, neighbourhood.image)
    return shown


def draw_change(axes: Any, change: np.ndarray, masks: Sequence[np.ndarray], title: str, **style: Any) -> float:
    """A difference of images, magnified until its largest entry has full colour; returns the factor, 1 for no difference."""
    largest = float(np.abs(change).max(initial=0.0)) or 1.0
    if len(change) == 1:
        axes.imshow(change[0], cmap=_DIVERGING, vmin=-largest, vmax=largest)
    else:
        axes.imshow(_for_imshow(0.5 + 0.5 * change / largest))
    for mask in masks:
        draw_outline(axes, mask, **style)
    _panel(axes, title, change)
    return 1.0 / largest


def draw_outline(axes: Any, mask: np.ndarray, colour: str = OUTLINE, width: float = 1.1) -> None:
    """A line around the mask's pixels; none around an empty one."""
    if not mask.any():
        return
    # The contour of a binary mask at 0.5 runs between its pixels and their neighbours.
    padded = np.pad(mask.astype(np.float64), 1)
    rows, columns = np.arange(-1, padded.shape[0] - 1), np.arange(-1, padded.shape[1] - 1)
    axes.contour(columns, rows, padded, levels=[0.5], colors=colour, linewidths=width)


def zone_mask(neighbourhood: Neighbourhood, zone: int) -> np.ndarray:
    """The pixels with an entry in this layer or zone, bool (height, width)."""
    if isinstance(neighbourhood, LayeredNeighbourhood):
        return np.asarray(neighbourhood.layers == zone)
    if isinstance(neighbourhood, ZonedNeighbourhood) and zone != FIXED:
        zones = neighbourhood.zones
        return np.asarray(((zones.rising == zone) | (zones.falling == zone)).any(axis=0))
    return np.zeros(neighbourhood.pixels.shape, dtype=np.bool_)


def _for_imshow(image: np.ndarray) -> np.ndarray:
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)


def _panel(axes: Any, title: str, image: np.ndarray) -> None:
    height, width = image.shape[1:]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(title, fontsize=10, parse_math=False)
