"""Draws a layered neighbourhood: the image, epsilon per pixel over it, and a counterexample just outside."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from aureole.images import write_file
from synth.zones import Neighbourhood
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood

_OUTLINE = "#35c9ff"
_HEAT = "inferno"
_UNRESTRICTED = "#b8e0c8"
_LOG_RATIO = 12.0
_DOTS_PER_INCH = 130


@dataclass(frozen=True, slots=True)
class HeatmapText:
    """What the titles say.

    Attributes:
        heading: Above everything: the network, the claim and whether it is proved.
        image: Above the image, such as its top labels.
        heat: Above the heat map, such as the weighted size.
        outside: Above the counterexample; empty without one.
    """

    heading: str
    image: str
    heat: str
    outside: str = ""


def draw_heatmap(
    neighbourhood: Neighbourhood, path: Path, text: HeatmapText, outside: Float[np.ndarray, "..."] | None = None
) -> None:
    """Writes one PNG: the image with the object outlined, epsilon per pixel over it, and `outside`, with epsilon by layer below.

    Args:
        neighbourhood: What is drawn; its image has 1 or 3 channels.
        path: The PNG file, written whole or not at all.
        text: The titles.
        outside: A counterexample of the image's shape, drawn where given.

    Raises:
        InputError: The image has neither 1 nor 3 channels.
        OutputError: The file cannot be written.
    """
    if neighbourhood.image.shape[0] not in (1, 3):
        raise InputError(f"heat map: got {neighbourhood.image.shape[0]} channels, wanted 1 or 3")
    write_file(path, _render(neighbourhood, text, outside))


def _render(neighbourhood: Neighbourhood, text: HeatmapText, outside: np.ndarray | None) -> bytes:
    # Figure without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.6, 6.0), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(text.heading, fontsize=13, fontweight="bold")
    places = figure.subplot_mosaic([["image", "heat", "outside"], ["layers"] * 3], height_ratios=[4.2, 1.0])
    norm = _norm(neighbourhood.epsilons)
    _draw_image(places["image"], neighbourhood, text.image)
    shown = _draw_heat(places["heat"], neighbourhood, text.heat, norm)
    bar = figure.colorbar(shown, ax=places["heat"], shrink=0.82, pad=0.02)
    _number_ticks(bar.ax.yaxis, norm)
    bar.set_label("epsilon: largest change of the pixel", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if outside is None:
        places["outside"].set_axis_off()
        places["outside"].text(0.5, 0.5, "no counterexample\nwas found near by", ha="center", va="center", color="0.4")
    else:
        _draw_outside(places["outside"], neighbourhood, outside, text.outside)
    _draw_layers(places["layers"], neighbourhood, norm)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _norm(epsilons: np.ndarray) -> Any:
    """The colour scale of the restricted layers; an epsilon of 1 is unrestricted and lies above every scale."""
    from matplotlib.colors import LogNorm, Normalize

    shown = epsilons[(epsilons > 0.0) & (epsilons < 1.0)]
    if not len(shown):
        return Normalize(0.0, 0.999)
    low, high = float(shown.min()), float(shown.max())
    # Layers next to the object often have a small share of what far ones have; then only a logarithm shows both.
    return LogNorm(0.9 * low, 1.001 * high) if high > _LOG_RATIO * low else Normalize(0.0, 1.001 * high)


def _colours() -> Any:
    from matplotlib import colormaps

    return colormaps[_HEAT].with_extremes(over=_UNRESTRICTED, under="black", bad="black")


def _pixels(image: np.ndarray) -> np.ndarray:
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)


def _panel(axes: Any, title: str, neighbourhood: Neighbourhood) -> None:
    height, width = neighbourhood.pixels.shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)


def _outline(axes: Any, neighbourhood: Neighbourhood) -> None:
    # The contour of a binary mask at 0.5 runs between its pixels and their neighbours.
    mask = np.pad(neighbourhood.pixels.astype(np.float64), 1)
    rows, columns = np.arange(-1, mask.shape[0] - 1), np.arange(-1, mask.shape[1] - 1)
    axes.contour(columns, rows, mask, levels=[0.5], colors=_OUTLINE, linewidths=1.1)


def _draw_image(axes: Any, neighbourhood: Neighbourhood, title: str) -> None:
    axes.imshow(_pixels(neighbourhood.image), cmap="gray", vmin=0, vmax=1)
    _outline(axes, neighbourhood)
    _panel(axes, title, neighbourhood)


def _draw_heat(axes: Any, neighbourhood: Neighbourhood, title: str, norm: Any) -> Any:
    shown = axes.imshow(neighbourhood.widths.max(axis=0), cmap=_colours(), norm=norm)
    ink = neighbourhood.image.max(axis=0)
    # White where the image has ink, transparent where it has none: the heat stays readable in between.
    overlay = np.ones((*ink.shape, 4))
    overlay[..., 3] = 0.55 * ink
    axes.imshow(overlay)
    _outline(axes, neighbourhood)
    _panel(axes, title, neighbourhood)
    return shown


def _draw_outside(axes: Any, neighbourhood: Neighbourhood, outside: np.ndarray, title: str) -> None:
    axes.imshow(_pixels(outside.reshape(neighbourhood.image.shape)), cmap="gray", vmin=0, vmax=1)
    _outline(axes, neighbourhood)
    _panel(axes, title, neighbourhood)


def _draw_layers(axes: Any, neighbourhood: Neighbourhood, norm: Any) -> None:
    epsilons = neighbourhood.epsilons
    ceiling = float(norm.vmax) * 1.08
    heights = np.minimum(epsilons, ceiling)
    style = {"width": 0.9, "edgecolor": "0.4", "linewidth": 0.3}
    axes.bar(np.arange(len(epsilons)), heights, color=_colours()(norm(epsilons)), **style)
    axes.set(xlim=(-0.6, len(epsilons) - 0.4), ylim=(0.0, ceiling))
    if _is_logarithmic(norm):
        axes.set_yscale("log")
        axes.set_ylim(float(norm.vmin) * 0.8, ceiling)
        _number_ticks(axes.yaxis, norm)
    is_layered = isinstance(neighbourhood, LayeredNeighbourhood)
    axes.set_xlabel(
        "layer: Chebyshev distance from the outlined object, in pixels"
        if is_layered
        else "zone, in the report's order",
        fontsize=9,
    )
    axes.set_ylabel("epsilon", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if (epsilons >= 1.0).any():
        _legend(axes)


def _is_logarithmic(norm: Any) -> bool:
    from matplotlib.colors import LogNorm

    return isinstance(norm, LogNorm)


def _number_ticks(axis: Any, norm: Any) -> None:
    """Few ticks on a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if _is_logarithmic(norm):
        spans_decades = float(norm.vmax) > 100.0 * float(norm.vmin)
        axis.set_major_locator(LogLocator(subs=(1.0,) if spans_decades else (1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _legend(axes: Any) -> None:
    from matplotlib.patches import Patch

    patch = Patch(facecolor=_UNRESTRICTED, edgecolor="0.4", label="epsilon 1: unrestricted")
    axes.legend(handles=[patch], fontsize=8, frameon=False, loc="upper left")
