"""Draws an influence map: the image, an epsilon heat map per ordered pair with what limits it, and the matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aureole.images import write_file
from aureole.panels import (
    OUTLINE,
    check_channels,
    draw_heat,
    draw_image,
    draw_outline,
    heat_bar,
    heat_norm,
    new_figure,
    png_of,
    zone_mask,
)
from synth.influence import Influence, InfluenceMap

_COLOURS = (OUTLINE, "#ff9a2e", "#9be564", "#ff6fb1", "#c9a6ff", "#ffe14d")
_ENLARGED = {"colour": "#ff9a2e", "width": 0.9}
_PANEL_INCHES = 2.6


def draw_influence(influence: InfluenceMap, path: Path, heading: str) -> None:
    """Writes one PNG: the image with its objects outlined, a row of panels per perturbed object, and the matrix.

    Each ordered pair has its epsilons as a heat map, all on one colour scale, and beside it the counterexample that stops the layer
    of the smallest epsilon, this layer outlined; where no layer is known to be at its limit, the nearest counterexample found.
    The matrix says for each pair the proved size, its upper bound, the mean epsilon, the area above zero and whether it is
    maximal.

    Args:
        influence: The map, with at least two objects.
        path: The PNG file, written whole or not at all.
        heading: Above everything.

    Raises:
        InputError: The image has neither 1 nor 3 channels.
        OutputError: The file cannot be written.
    """
    check_channels(influence.image)
    count = len(influence.objects)
    columns = 2 * (count - 1)
    widths = [1.0, columns + 0.5, 0.75 * count + 0.4]
    figure = new_figure(_PANEL_INCHES * sum(widths) + 0.5, (_PANEL_INCHES + 0.7) * count + 0.5, heading)
    left, middle, right = figure.subfigures(1, 3, width_ratios=widths)
    _draw_objects(left.subplots(), influence)
    _draw_pairs(middle, influence, columns)
    draw_matrix(right.subplots(), influence)
    write_file(path, png_of(figure))


def _draw_objects(axes: Any, influence: InfluenceMap) -> None:
    draw_image(axes, influence.image, [], "the image and its objects")
    for number, mask in enumerate(influence.objects):
        colour = _COLOURS[number % len(_COLOURS)]
        draw_outline(axes, mask, colour, 1.4)
        rows, columns = np.nonzero(mask)
        words = f"{number}: label {influence.labels[number]}"
        axes.text(
            columns.mean(),
            rows.min() - 1.0,
            words,
            color="white",
            ha="center",
            fontsize=8,
            bbox={"facecolor": "0.1", "edgecolor": colour},
        )


def _draw_pairs(figure: Any, influence: InfluenceMap, columns: int) -> None:
    count = len(influence.objects)
    places = figure.subplots(count, columns, squeeze=False)
    found = {(pair.perturbed, pair.kept): pair for pair in influence.pairs}
    reasons = {(failure.perturbed, failure.kept): failure.reason for failure in influence.failures}
    norm = heat_norm(np.concatenate([pair.neighbourhood.epsilons for pair in influence.pairs] or [np.zeros(0)]))
    shown = None
    for perturbed in range(count):
        for place, kept in enumerate(other for other in range(count) if other != perturbed):
            heat, limit = places[perturbed][2 * place], places[perturbed][2 * place + 1]
            title = f"object {perturbed} changes,\nlabel {influence.labels[kept]} stays"
            pair = found.get((perturbed, kept))
            if pair is None:
                _say(heat, f"{title}:\nno answer")
                _say(limit, reasons[perturbed, kept])
                continue
            shown = draw_heat(heat, pair.neighbourhood, title + ("" if pair.is_proved else " (NOT proved)"), norm)
            _draw_tightest(limit, pair)
    if shown is not None:
        heat_bar(figure, shown, list(places.flat), norm)


def _draw_tightest(axes: Any, pair: Influence) -> None:
    limit, outside = pair.tightest, pair.outside
    shape = pair.neighbourhood.image.shape
    if limit is not None and limit.image is not None:
        title = f"{limit.name} stops at {limit.epsilon:.3g}:\nlost here by {limit.margin_lower:.2g}"
        mask = zone_mask(pair.neighbourhood, limit.layer)
        draw_image(axes, np.reshape(limit.image, shape), [mask], title, **_ENLARGED)
    elif limit is None and outside is not None and outside.image is not None:
        title = f"nearest loss found, by {outside.margin_lower:.2g}:\nfurther in {_listed(outside.exceeded)}"
        draw_image(axes, np.reshape(outside.image, shape), [pair.neighbourhood.pixels], title)
    elif limit is not None:
        _say(axes, f"{limit.name} stops at {limit.epsilon:.3g};\nits counterexample\nis not at hand")
    else:
        _say(axes, "no layer is known\nto be at its limit")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{len(names)} layers"


def _say(axes: Any, text: str) -> None:
    axes.set_axis_off()
    # A reason may be a long sentence; what does not fit is in the JSON file.
    shown = text if len(text) <= 120 else text[:117] + "..."
    axes.text(0.5, 0.5, shown, ha="center", va="center", color="0.4", fontsize=8, wrap=True, transform=axes.transAxes)


def draw_matrix(axes: Any, influence: InfluenceMap) -> None:
    """The matrix of proved weighted sizes, brighter where larger, with the other numbers in the cells."""
    sizes = influence.matrix(lambda pair: pair.weighted_size)
    largest = float(np.nanmax(sizes)) if influence.pairs else 0.0
    axes.imshow(sizes, cmap="Blues", vmin=0.0, vmax=1.6 * largest or 1.0)
    for pair in influence.pairs:
        axes.text(pair.kept, pair.perturbed, cell_text(pair), ha="center", va="center", fontsize=7.5)
    for failure in influence.failures:
        axes.text(failure.kept, failure.perturbed, "no answer", ha="center", va="center", fontsize=7.5, color="0.4")
    ticks = range(len(influence.objects))
    axes.set_xticks(ticks, [f"{kept}: label {influence.labels[kept]}" for kept in ticks])
    axes.set_yticks(ticks, [f"object {perturbed}" for perturbed in ticks], rotation=90, va="center")
    axes.set_xlabel("label that must survive", fontsize=9)
    axes.set_ylabel("object that changes", fontsize=9)
    axes.set_title("proved weighted size", fontsize=10)
    axes.tick_params(labelsize=8, length=0)


def cell_text(pair: Influence) -> str:
    """What a cell of the matrix says."""
    maximal = "maximal" if pair.is_maximal else ("not shown maximal" if pair.is_proved else "NOT proved")
    return (
        f"{pair.weighted_size:.3g}\nat most {pair.upper_bound:.3g}\nmean epsilon {pair.mean_epsilon:.2g}\n"
        f"area {pair.area_above_zero:.0%}\n{maximal}"
    )
