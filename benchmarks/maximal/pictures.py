"""The pictures, from records alone."""

from collections import defaultdict
from typing import Any

import numpy as np

from aureole.convergence_picture import Convergence, ConvergencePoint
from aureole.heatmap import HeatPanel
from benchmarks.maximal.runs import CUTS, NETWORKS, OURS
from nets import shipped
from synth.zones import Zones


def convergences(records: list[dict[str, Any]]) -> dict[str, list[Convergence]]:
    """Runs with bands by network and image. Records of older runs did not count the queries of bounds."""
    panels: dict[str, list[Convergence]] = defaultdict(list)
    for row in records:
        sizes = tuple(ConvergencePoint(seconds, queries, size) for seconds, queries, size in row["sizes"])
        bounds = tuple(
            ConvergencePoint(point[0], point[3] if len(point) > 3 else None, point[2]) for point in row["bounds"]
        )
        panels[f"{row['network']}, image {row['image']}"].append(Convergence(f"{row['method']} bands", sizes, bounds))
    return panels


def heat_rows(records: list[dict[str, Any]], images: int) -> list[list[HeatPanel]]:
    """Our neighbourhoods: one row per image and cutting weights, one column per network."""
    own = {(row["image"], row["cut"], row["network"]): row for row in records if row["method"] == OURS}
    chosen = sorted({image for image, _, _ in own})[:images]
    return [
        [heat_panel(own.get((image, cut, name)), name, image, cut) for name in NETWORKS]
        for image in chosen
        for cut in CUTS
        if any((image, cut, name) in own for name in NETWORKS)
    ]


def heat_panel(row: dict[str, Any] | None, network: str, image: int, cut: str) -> HeatPanel:
    """One panel; an empty one where the run is missing."""
    title = f"{network}, image {image}, {cut}"
    if row is None:
        return HeatPanel(f"{title}\nnot measured", None)
    shipped_images = shipped.images()
    centre = shipped_images.images[image].astype(np.float64)
    zones = Zones.of_layers(centre, shipped_images.masks[image][0])
    proof = "" if row["is_proved"] else ", NOT proved"
    return HeatPanel(f"{title}\nsize {row['weighted_size']:.3g}{proof}", zones.neighbourhood(np.array(row["epsilons"])))
