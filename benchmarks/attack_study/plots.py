"""The pictures: success against change, MLA-LP by n, norms and metric drops of the top-k attacks, universal rates.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; shapes and dashes say the same again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attacks import expected_labels
from benchmarks.attack_study import threshold_tables as threshold
from benchmarks.attack_study import topk_tables as topk
from benchmarks.attack_study.cells import ABLATIONS, NS, TOP_K
from benchmarks.attack_study.records import measured
from benchmarks.attack_study.stats import Record, at_equal_success, attacked, estimate, smallest, values
from benchmarks.pictures import Drawing, save_all
from nets.architectures import CLASSES

_BLACK, _ORANGE, _SKY, _GREEN, _YELLOW, _BLUE, _RED, _PURPLE, _GREY = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#b8a800", "#0072b2", "#d55e00", "#cc79a7", "#888888",
)  # fmt: skip
_STYLES = {
    "fgsm": (_GREY, ":"),
    "fgm": (_BLACK, ":"),
    "bim": (_SKY, "-"),
    "pgd": (_GREEN, "--"),
    "mi-fgsm": (_BLUE, "-."),
    "slide": (_PURPLE, "--"),
    "ml-dp": (_ORANGE, "-"),
    "ml-cw": (_RED, "-"),
    "mla-lp": (_YELLOW, "-."),
}
_TOP_K = {"tkmia": (_RED, "o"), "tkml-ap-u": (_BLUE, "s"), "kfool": (_BLACK, "^"), "ml-cw-u": (_GREEN, "D")}
_PARTS = {
    "released": "released",
    "kept": "threshold kept at 1/2",
    "raised": "threshold raised",
    "no-reset": "+ no reset",
    "best": "+ best image kept",
    "box": "+ pixel range in the programme",
    "elastic": "+ least violation where unsolvable",
}


def draw_all(records: Sequence[Record], folder: Path) -> list[Path]:
    """Writes every picture that the records allow, as PNG; returns the files."""
    drawings: dict[str, Drawing] = {
        "attacks-showing-many": (bool(measured(records, "showing-many")), (9.0, 6.4), _draw_showing_many),
        "attacks-mla-lp": (bool(measured(records, "mla-lp")), (8.4, 4.0), _draw_programmes),
        "attacks-top-k": (bool(measured(records, "top-k")), (11.0, 8.0), _draw_top_k),
        "attacks-universal": (bool(measured(records, "universal")), (6.4, 4.0), _draw_universal),
    }
    return save_all(drawings, records, folder)


def _draw_showing_many(figure: Any, records: Sequence[Record]) -> None:
    """For each n the share of images with a success of at most a given change."""
    own = threshold.of(measured(records, "showing-many"), variant="fixed")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    shown: dict[str, Any] = {}
    for axes, n in zip(grid.flat, NS, strict=True):
        for method, (colour, dashes) in _STYLES.items():
            mine = threshold.of(own, method=method, n=n)
            sizes = np.sort([size * threshold.PER_RMSD for size in smallest(mine).values()])
            if mine:
                # From 0 at the left edge, level after the last success.
                shares = np.arange(len(sizes) + 1) / attacked(mine)
                places = np.concatenate([[0.0], sizes, [80.0]])
                levels = np.append(shares, shares[-1])
                (shown[method],) = axes.plot(places, levels, drawstyle="steps-post", color=colour, linestyle=dashes)
        axes.axvline(threshold.CAP, color="0.6", linewidth=0.8)
        axes.set_title(f"n = {n}: {expected_labels(n, CLASSES, 2.0)} labels on", fontsize=10)
        axes.set(xlim=(0, 80), ylim=(-0.02, 1.02))
    for axes in grid[1]:
        axes.set_xlabel("RMSD of 255")
    for axes in grid[:, 0]:
        axes.set_ylabel("success")
    figure.legend(
        shown.values(), shown.keys(), loc="outside upper center", ncols=(len(_STYLES) + 1) // 2, frameon=False
    )


def _draw_programmes(figure: Any, records: Sequence[Record]) -> None:
    """Success by n of MLA-LP with one part after the other put right."""
    axes = figure.subplots()
    released = measured(records, "mla-lp")
    fixed = threshold.of(measured(records, "showing-many"), method="mla-lp")
    looks = (
        (_GREY, "o:"), (_ORANGE, "s--"), (_SKY, "D--"), (_GREEN, "v-."), (_PURPLE, "P-."), (_BLUE, "^-."), (_BLACK, "X-"),
    )  # fmt: skip
    for parts, (colour, style) in zip(ABLATIONS, looks, strict=True):
        own = threshold.of(released, variant=parts)
        shares = [_share(threshold.met_marks(own, n)) for n in NS]
        axes.plot(NS, shares, style, color=colour, label=_PARTS[parts])
    whole = threshold.of(fixed, n=NS[-1])
    if whole:
        shares = [_share(threshold.met_marks(whole, n)) for n in NS]
        axes.plot(NS, shares, "d--", color=_RED, label="fixed, all labels asked for")
    shown = [n for n in NS if threshold.of(fixed, n=n)]
    shares = [_share(threshold.marks(threshold.of(fixed, n=n))) for n in shown]
    axes.plot(shown, shares, "o-", color=_RED, label="fixed, as many as n needs")
    axes.set(xlabel="n", ylabel="success", xticks=NS, ylim=(-0.03, 1.03))
    axes.set_title("MLA-LP, showing many: as released, with parts put right, fixed", fontsize=11)
    figure.legend(frameon=False, fontsize=8, loc="outside right center")


def _share(marks: dict[int, str]) -> float:
    whole = "".join(marks.values())
    return whole.count("1") / len(whole) if whole else float("nan")


def _draw_top_k(figure: Any, records: Sequence[Record]) -> None:
    """Norm and drop of AP at equal success, with intervals: one row of panels a way to run the attacks."""
    grid = figure.subplots(len(topk.GROUPS), 2, sharex=True)
    places = {name: place for place, name in enumerate(TOP_K)}
    shown: dict[str, Any] = {}
    for (left, right), name in zip(grid, topk.GROUPS, strict=True):
        for setting, place in places.items():
            found = topk.group(records, setting, name)
            sizes = topk.able(found, topk.norm_of(name))
            common = at_equal_success(list(sizes.values()))
            for shift, (method, (colour, marker)) in enumerate(_TOP_K.items()):
                if method not in sizes or not common:
                    continue
                drop = values(found[method], "drops", "AP")
                norm = estimate((sizes[method][image] for image in common), "median")
                lost = estimate((drop[image] for image in common if image in drop), "mean")
                for axes, what in ((left, norm), (right, lost)):
                    if what.count:
                        bars = [[what.value - what.low], [what.high - what.value]]
                        at = place + 0.18 * (shift - 1.5)
                        shown[method] = axes.errorbar(at, what.value, bars, fmt=marker, color=colour, markersize=5)
        is_l2 = topk.norm_of(name) == "l2"
        left.set(ylabel="l2, median" if is_l2 else "norm reported, median", yscale="linear" if is_l2 else "log")
        left.set_title(f"{name}: change", fontsize=10)
        right.set(ylabel="drop of AP, mean")
        right.set_title(f"{name}: drop of AP@k", fontsize=10)
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=len(_TOP_K), frameon=False)
    for axes in grid[-1]:
        axes.set_xticks(list(places.values()), [name.replace(" ", "\n") for name in places], fontsize=8)
        axes.set_xlim(-0.5, len(places) - 0.5)


def _draw_universal(figure: Any, records: Sequence[Record]) -> None:
    """Fooling rate on other images against the radius."""
    axes = figure.subplots()
    own = measured(records, "universal")
    radii = sorted({record["eps"] for record in own})
    looks = {
        ("tkml-ap-uv", "fixed"): (_RED, "o-"),
        ("tkml-ap-uv", "released"): (_ORANGE, "s--"),
        ("kuap", "fixed"): (_BLUE, "D-"),
        ("kuap", "released"): (_SKY, "^--"),
    }
    for (method, variant), (colour, style) in looks.items():
        mine = [record for record in own if (record["method"], record["variant"]) == (method, variant)]
        if mine:
            shares = [_share(topk.held_out(mine, radius)) for radius in radii]
            axes.plot(radii, shares, style, color=colour, label=f"{method}, {variant}")
    axes.set(xlabel="l2 radius", ylabel="fooling rate on other images", ylim=(-0.03, 1.03))
    axes.set_title("One perturbation for all images, top 2", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
