"""The pictures: what is proved and what survives the attack by epsilon, what proofs cost in accuracy, how far an object may change.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; shapes say the same again.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pictures import Drawing, save_all
from benchmarks.topk.results import Record
from benchmarks.training_study.questions import KINDS
from benchmarks.training_study.report import VERIFIED, price, sizes, tallies
from benchmarks.training_study.subjects import SUBJECTS

LOOKS = {
    "none": ("#000000", "o"),
    "l0": ("#888888", "s"),
    "linf": ("#0072b2", "D"),
    "sabr": ("#d55e00", "*"),
    "ibp": ("#e69f00", "^"),
    "crown-ibp": ("#b8a800", "v"),
    "linf-0.05": ("#003a5c", "d"),
    "bce": ("#009e73", "P"),
    "softmax": ("#56b4e9", "X"),
    "ml-liw": ("#cc79a7", "h"),
    "ml-gcn": ("#6a3d9a", "p"),
}
_WHOLE, _OTHER = KINDS


def draw_all(records: Sequence[Record], folder: Path) -> list[Path]:
    """Writes every picture that the records allow, as PNG; returns the files."""
    drawings: dict[str, Drawing] = {
        "training-certified": (_is_measured(records, _WHOLE), (9.0, 4.4), _draw_whole),
        "training-other-object": (_is_measured(records, _OTHER), (9.0, 4.4), _draw_other),
        "training-price": (bool(_priced(records)), (9.0, 4.4), _draw_price),
        "training-neighbourhoods": (any(sizes(records, name) for name in SUBJECTS), (9.0, 4.0), _draw_neighbourhoods),
    }
    return save_all(drawings, records, folder)


def _is_measured(records: Sequence[Record], kind: str) -> bool:
    return any(tallies(records, kind, name) for name in SUBJECTS)


def _priced(records: Sequence[Record]) -> list[str]:
    return [f"{epsilon:g}" for epsilon in KINDS[_WHOLE].epsilons if price(records, f"{epsilon:g}")]


def _draw_whole(figure: Any, records: Sequence[Record]) -> None:
    _draw_by_epsilon(figure, records, _WHOLE, "largest change of any pixel")


def _draw_other(figure: Any, records: Sequence[Record]) -> None:
    _draw_by_epsilon(figure, records, _OTHER, "largest change of the other digit's ink")


def _draw_by_epsilon(figure: Any, records: Sequence[Record], kind: str, axis: str) -> None:
    """Left what is proved, right what the attack leaves, against epsilon."""
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    places = list(range(len(KINDS[kind].epsilons)))
    shown: dict[str, Any] = {}
    for name, (colour, marker) in LOOKS.items():
        proved, attacked = tallies(records, kind, name, VERIFIED), tallies(records, kind, name)
        for axes, shares in (
            (left, [tally.proved / tally.total for tally in proved.values()]),
            (right, [tally.unbroken / tally.total for tally in attacked.values()]),
        ):
            if shares:
                (shown[name],) = axes.plot(places, shares, color=colour, marker=marker, markersize=7)
    for axes, title in ((left, "proved"), (right, "unbroken by the attack")):
        axes.set(title=title, xlabel=axis, ylim=(-0.03, 1.03))
        axes.set_xticks(places, [f"{epsilon:g}" for epsilon in KINDS[kind].epsilons])
    left.set_ylabel("share of test images")
    figure.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False)


def _draw_price(figure: Any, records: Sequence[Record]) -> None:
    """Clean accuracy against the share proved, a panel an epsilon."""
    epsilons = _priced(records)
    panels = figure.subplots(1, len(epsilons), sharex=True, sharey=True, squeeze=False)[0]
    shown: dict[str, Any] = {}
    for axes, epsilon in zip(panels, epsilons, strict=True):
        for name, (clean, proved) in price(records, epsilon).items():
            colour, marker = LOOKS[name]
            shown[name] = axes.scatter(clean, proved, color=colour, marker=marker, s=70)
        axes.set(title=f"epsilon {epsilon}", xlabel="exact top-2, clean", ylim=(-0.03, 1.03))
    panels[0].set_ylabel("share proved")
    figure.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False)


def _draw_neighbourhoods(figure: Any, records: Sequence[Record]) -> None:
    """The weighted size of every neighbourhood, a column a network, and their median as a line."""
    axes = figure.subplots()
    names = [name for name in LOOKS if sizes(records, name)]
    for place, name in enumerate(names):
        found, (colour, marker) = sizes(records, name), LOOKS[name]
        # Side by side in the order of the images, so that equal sizes do not hide one another.
        places = [place + 0.5 * (index / max(1, len(found) - 1) - 0.5) for index in range(len(found))]
        axes.plot(places, found, marker, color=colour, markersize=4, alpha=0.7)
        axes.hlines(statistics.median(found), place - 0.35, place + 0.35, color=colour, linewidth=2)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="weighted size", ylim=(-0.03, None))
    axes.set_title(
        "Proved neighbourhoods of one digit in which the other's label stays; lines are medians", fontsize=11
    )
