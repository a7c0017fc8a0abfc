"""Draws layered neighbourhoods: one with its image and a counterexample just outside, or several side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from aureole.images import write_file
from aureole.panels import (
    UNRESTRICTED,
    check_channels,
    draw_heat,
    draw_image,
    heat_bar,
    heat_colours,
    heat_norm,
    is_logarithmic,
    new_figure,
    number_ticks,
    png_of,
)
from synth.zones import Neighbourhood, ZonedNeighbourhood
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood

_PANEL_INCHES = 2.5
_MOST_NAMES = 8


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


@dataclass(frozen=True, slots=True, eq=False)
class HeatPanel:
    """One of several heat maps: its title and what it shows, None for an empty place."""

    title: str
    neighbourhood: Neighbourhood | None


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
    check_channels(neighbourhood.image)
    write_file(path, _render(neighbourhood, text, outside))


def draw_heatmaps(rows: Sequence[Sequence[HeatPanel]], path: Path, heading: str) -> None:
    """Writes one PNG with epsilon per pixel of many neighbourhoods, one colour scale a row, so that a row can be compared.

    Args:
        rows: As many panels in each; such as one row an image, one column a network.
        path: The PNG file, written whole or not at all.
        heading: Above everything.

    Raises:
        InputError: No panel, rows of different lengths, or an image of neither 1 nor 3 channels.
        OutputError: The file cannot be written.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or not any(panel.neighbourhood is not None for row in rows for panel in row):
        raise InputError(
            f"heat maps: got rows of {sorted(lengths)} panels, wanted as many in each and one that is not empty"
        )
    (columns,) = lengths
    figure = new_figure(_PANEL_INCHES * columns + 1.4, (_PANEL_INCHES + 0.6) * len(rows) + 0.5, heading)
    for places, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        _draw_row(figure, places, row)
    write_file(path, png_of(figure))


def _draw_row(figure: Any, places: Any, row: Sequence[HeatPanel]) -> None:
    drawn = [panel.neighbourhood for panel in row if panel.neighbourhood is not None]
    norm = heat_norm(np.concatenate([one.epsilons for one in drawn] or [np.zeros(0)]))
    shown = None
    for axes, panel in zip(places, row, strict=True):
        if panel.neighbourhood is None:
            axes.set_axis_off()
            axes.set_title(panel.title, fontsize=10)
            continue
        check_channels(panel.neighbourhood.image)
        shown = draw_heat(axes, panel.neighbourhood, panel.title, norm)
    if shown is not None:
        heat_bar(figure, shown, list(places), norm)


def _render(neighbourhood: Neighbourhood, text: HeatmapText, outside: np.ndarray | None) -> bytes:
    figure = new_figure(11.6, 6.0, text.heading)
    places = figure.subplot_mosaic([["image", "heat", "outside"], ["layers"] * 3], height_ratios=[4.2, 1.0])
    norm = heat_norm(neighbourhood.epsilons)
    draw_image(places["image"], neighbourhood.image, [neighbourhood.pixels], text.image)
    heat_bar(figure, draw_heat(places["heat"], neighbourhood, text.heat, norm), places["heat"], norm)
    if outside is None:
        places["outside"].set_axis_off()
        places["outside"].text(0.5, 0.5, "no counterexample\nwas found near by", ha="center", va="center", color="0.4")
    else:
        draw_image(places["outside"], outside.reshape(neighbourhood.image.shape), [neighbourhood.pixels], text.outside)
    _draw_layers(places["layers"], neighbourhood, norm)
    return png_of(figure)


def _draw_layers(axes: Any, neighbourhood: Neighbourhood, norm: Any) -> None:
    epsilons = neighbourhood.epsilons
    ceiling = float(norm.vmax) * 1.08
    heights = np.minimum(epsilons, ceiling)
    style = {"width": 0.9, "edgecolor": "0.4", "linewidth": 0.3}
    axes.bar(np.arange(len(epsilons)), heights, color=heat_colours()(norm(epsilons)), **style)
    axes.set(xlim=(-0.6, len(epsilons) - 0.4), ylim=(0.0, ceiling))
    if is_logarithmic(norm):
        axes.set_yscale("log")
        axes.set_ylim(float(norm.vmin) * 0.8, ceiling)
        number_ticks(axes.yaxis, norm)
    if isinstance(neighbourhood, LayeredNeighbourhood):
        axes.set_xlabel("layer: Chebyshev distance from the outlined object, in pixels", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
    elif isinstance(neighbourhood, ZonedNeighbourhood) and len(epsilons) <= _MOST_NAMES:
        axes.set_xticks(np.arange(len(epsilons)), neighbourhood.zones.names)
    else:
        axes.set_xlabel("zone, in the report's order", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("epsilon", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if (epsilons >= 1.0).any():
        _legend(axes)


def _legend(axes: Any) -> None:
    from matplotlib.patches import Patch

    patch = Patch(facecolor=UNRESTRICTED, edgecolor="0.4", label="epsilon 1: unrestricted")
    axes.legend(handles=[patch], fontsize=8, frameon=False, loc="upper left")
