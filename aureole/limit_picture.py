"""Draws what limits a grown neighbourhood: per layer the counterexample one step further, and its difference from the image."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aureole.images import write_file
from aureole.panels import check_channels, draw_change, draw_image, new_figure, png_of, zone_mask
from aureole.questions import top_labels
from synth.influence import Limit
from synth.zones import Neighbourhood
from verifier.evaluation import evaluate
from verifier.network import Network

MOST_LIMITS = 8
_COLUMNS = 4
_LAYER = {"colour": "#ff9a2e", "width": 0.9}


def chosen_limits(limits: Sequence[Limit]) -> list[Limit]:
    """The limits that a picture has room for: those of the smallest epsilons, in the layers' order."""
    drawn = [limit for limit in limits if limit.image is not None]
    return sorted(sorted(drawn, key=lambda limit: limit.epsilon)[:MOST_LIMITS], key=lambda limit: limit.layer)


def draw_limits(
    neighbourhood: Neighbourhood, limits: Sequence[Limit], path: Path, heading: str, network: Network, k: int
) -> None:
    """Writes one PNG: for each of `chosen_limits` the counterexample with its top labels, and its difference, magnified.

    The object is outlined in the counterexample, the enlarged layer in the difference.

    Args:
        neighbourhood: What was grown.
        limits: Its limits with their images, at least one.
        path: The PNG file, written whole or not at all.
        heading: Above everything.
        network: Whose labels are named.
        k: How many.

    Raises:
        InputError: The image has neither 1 nor 3 channels.
        OutputError: The file cannot be written.
    """
    check_channels(neighbourhood.image)
    chosen = chosen_limits(limits)
    if len(chosen) < len(limits):
        heading += f"\n{len(chosen)} of {len(limits)} limits: those of the smallest epsilons"
    columns = min(_COLUMNS, len(chosen))
    blocks = math.ceil(len(chosen) / columns)
    figure = new_figure(max(2.7 * columns, 6.0), 6.0 * blocks + 0.7, heading)
    places = figure.subplots(2 * blocks, columns, squeeze=False)
    for axes in places.flat:
        axes.set_axis_off()
    shown = [limit.image for limit in chosen if limit.image is not None]
    images = np.stack(shown).reshape(-1, *neighbourhood.image.shape).astype(np.float64)
    scores = evaluate(network, images)
    for place, (limit, image) in enumerate(zip(chosen, images, strict=True)):
        block, column = divmod(place, columns)
        above, below = places[2 * block][column], places[2 * block + 1][column]
        above.set_axis_on()
        below.set_axis_on()
        names = ", ".join(map(str, top_labels(scores[place], k)))
        title = (
            f"{limit.name}: {limit.epsilon:.3g} + {limit.step:.3g}\ntop {k} = {names}, margin {limit.margin_lower:.2g}"
        )
        draw_image(above, image, [neighbourhood.pixels], title)
        change = image - neighbourhood.image
        factor = draw_change(below, change, [zone_mask(neighbourhood, limit.layer)], "", **_LAYER)
        below.set_title(f"difference x {factor:.3g}", fontsize=10)
    write_file(path, png_of(figure))
