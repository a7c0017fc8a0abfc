"""The tables, in Markdown, from records alone."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.maximal.runs import NETWORKS, OURS, PUBLISHED, WITHOUT_CUTS
from benchmarks.topk.machine import in_words
from benchmarks.topk.tables import grouped, table
from nets import shipped
from synth.zones import Zones


def measured_on(records: list[dict[str, Any]]) -> str:
    """The machines and the versions of the code."""
    lines = [f"- {in_words(record)}" for record in records if "cpu" in record]
    ended = [record for record in records if "cpu" not in record]
    codes = sorted({record.get("code", "unknown") for record in ended})
    limits = sorted({record["limit"] for record in ended})
    lines.append(
        f"- {len(ended)} runs of {', '.join(f'{limit:g}' for limit in limits)} s each, one thread; code {', '.join(codes)}"
    )
    return "\n".join(lines)


def methods(records: list[dict[str, Any]]) -> str:
    """One line per network, method and cutting weights: medians over images."""
    header = [
        "network",
        "method",
        "cut",
        "images",
        "size",
        "area",
        "complete",
        "bounds",
        "attacks",
        "seconds",
        "maximal",
        "gap",
    ]
    rows = []
    for (network, method, cut), own in grouped(records, itemgetter("network", "method", "cut")).items():
        asked = [
            f"{statistics.median(row['queries'][kind] for row in own):g}" for kind in ("complete", "bounds", "attack")
        ]
        rows.append(
            [
                network,
                method,
                "-" if method in WITHOUT_CUTS else cut,
                len(own),
                f"{statistics.median(row['weighted_size'] for row in own):.4f}",
                f"{statistics.median(area(row) for row in own):.0%}",
                *asked,
                f"{statistics.median(row['seconds'] for row in own):.0f}",
                f"{sum(row['is_maximal'] for row in own)}/{len(own)}",
                f"{statistics.median(row['gap'] for row in own):.0%}",
            ]
        )
    return table(header, rows)


def area(row: dict[str, Any]) -> float:
    """The share of the pixels that may change by a step of 1/255 at least."""
    sizes = layer_sizes(row["image"])
    wide = np.asarray(row["epsilons"]) >= 1.0 / 255.0
    return float(sizes[wide].sum() / sizes.sum())


@cache
def layer_sizes(image: int) -> Float[np.ndarray, " layers"]:
    """The number of pixels of each layer around the first object of a shipped image."""
    images = shipped.images()
    return Zones.of_layers(images.images[image].astype(np.float64), images.masks[image][0]).sizes


def bands(records: list[dict[str, Any]]) -> str:
    """One line per network and number of bands: where the gap stands when time ends."""
    rows = [
        [
            network,
            method,
            len(own),
            f"{statistics.median(row['weighted_size'] for row in own):.4f}",
            f"{statistics.median(row['upper_bound'] for row in own):.4f}",
            f"{statistics.median(row['gap'] for row in own):.0%}",
            f"{sum(row['gap_stop'] == 'CLOSED' for row in own)}/{len(own)}",
        ]
        for (network, method), own in grouped(records, itemgetter("network", "method")).items()
    ]
    return table(["network", "bands", "images", "size", "upper bound", "gap", "closed"], rows)


WANTED_RATIO = 1.2


def comparison(records: list[dict[str, Any]]) -> Iterator[str]:
    """Ours against the published method on the same image, network and cutting weights: medians over pairs."""
    pairs = [
        {row["method"]: row for row in rows if row["method"] in (OURS, PUBLISHED)}
        for _, rows in grouped(records, itemgetter("network", "image", "cut", "limit")).items()
    ]
    both = [(pair[OURS], pair[PUBLISHED]) for pair in pairs if len(pair) == 2]
    if not both:
        return
    sizes = [ours["weighted_size"] / max(other["weighted_size"], 1e-12) for ours, other in both]
    ended = [(ours["queries"]["complete"], other["queries"]["complete"]) for ours, other in both]
    needed = [queries_until(ours, WANTED_RATIO * other["weighted_size"]) for ours, other in both]
    reached = [count for count in needed if count is not None]
    yield (
        f"Ours against published, medians over {len(both)} pairs: {statistics.median(sizes):.2f} x the weighted size (at least"
        f" {WANTED_RATIO} x in {sum(size >= WANTED_RATIO for size in sizes)}), with {statistics.median(own for own, _ in ended):g}"
        f" complete queries in all against {statistics.median(other for _, other in ended):g}."
    )
    if reached:
        yield (
            f"{WANTED_RATIO} x the size that the published method ends with was proved in {len(reached)} of {len(both)} pairs,"
            f" after {statistics.median(reached):g} complete queries in the median, {max(reached)} at most."
        )


def queries_until(row: dict[str, Any], size: float) -> int | None:
    """The complete queries a run had asked when it first held a proved neighbourhood of that size; None if it never did."""
    return next((complete for _, complete, best in row["sizes"] if best >= size), None)


def defences(records: list[dict[str, Any]]) -> Iterator[str]:
    """On how many images each network's neighbourhood, by our loop, is the largest."""
    own = [row for row in records if row["method"] == OURS]
    wins: dict[str, int] = defaultdict(int)
    whole = [
        rows
        for _, rows in grouped(own, itemgetter("image", "cut")).items()
        if len({row["network"] for row in rows}) == len(NETWORKS)
    ]
    for rows in whole:
        wins[max(rows, key=lambda row: row["weighted_size"])["network"]] += 1
    if whole:
        counted = ", ".join(f"{name} {wins[name]}" for name in NETWORKS)
        yield f"Largest neighbourhood by network, of {len(whole)} images and cutting weights: {counted}."


def report(records: list[dict[str, Any]]) -> str:
    """Every table that the records allow."""
    good = [record for record in records if "error" not in record and "cpu" not in record]
    failed = [record for record in records if "error" in record]
    grown, banded = ([record for record in good if record["kind"] == kind] for kind in ("grow", "bands"))
    sections = [("Measured on", measured_on(records)), ("Methods", methods(grown) if grown else "")]
    sections.append(("Ours and the published method", "\n".join(comparison(grown))))
    sections.append(("Defences", "\n".join(defences(grown))))
    sections.append(("Bands", bands(banded) if banded else ""))
    if failed:
        sections.append(("Errors", f"{len(failed)} runs: {sorted({record['error'] for record in failed})}"))
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in sections if text)
