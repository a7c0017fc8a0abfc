"""The pictures: cactus plot, time against unstable units, time against epsilon and against k.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; shapes and dashes say the same again.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pictures import save
from benchmarks.topk.growth import k_series, ladder
from benchmarks.topk.queries import FILES, KS, LADDER_EPSILONS
from benchmarks.topk.report import is_of_grid
from benchmarks.topk.results import Record
from benchmarks.topk.tables import grouped, is_decided

_BLACK, _ORANGE, _SKY, _GREEN, _BLUE, _RED, _PURPLE = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip
_STYLES = {
    "auto": (_BLUE, "-"),
    "search": (_ORANGE, "--"),
    "milp": (_RED, "-."),
    "bounds": (_GREEN, ":"),
    "auto-lirpa": (_PURPLE, (0, (5, 1, 1, 1, 1, 1))),
}
_OTHER_STYLE = (_BLACK, (0, (1, 3)))
_VERDICTS = {"robust": (_BLUE, "o"), "vulnerable": (_ORANGE, "^"), "unknown": (_BLACK, "x")}
_NETWORKS = dict(zip(FILES, ((_BLUE, "o", "-"), (_ORANGE, "s", "--"), (_GREEN, "^", "-.")), strict=True))
_SIZE = (6.4, 4.0)
_LEAST_SECONDS = 1e-3


def draw_all(records: Sequence[Record], limit: float, folder: Path) -> list[Path]:
    """Writes every picture that the records of one limit allow, as PNG; returns the files."""
    asked = [r for r in records if r["kind"] == "query" and r["limit"] == limit and "error" not in r]
    auto = [record for record in asked if record["engine"] == "auto"]
    drawings: dict[str, tuple[Sequence[Record], Callable[[Any, Sequence[Record]], None]]] = {
        "topk-cactus": ([record for record in asked if is_of_grid(record)], draw_cactus),
        "topk-unstable-units": ([record for record in auto if record["unstable_units"]], draw_units),
        "topk-epsilon": (ladder(auto), draw_epsilon),
        "topk-k": (k_series(auto), draw_k),
    }
    written = []
    for name, (own, draw) in drawings.items():
        if own:
            written.append(folder / f"{name}.png")
            save(written[-1], _SIZE, partial(_draw_alone, records=own, draw=draw))
    return written


def _draw_alone(figure: Any, records: Sequence[Record], draw: Callable[[Any, Sequence[Record]], None]) -> None:
    draw(figure.subplots(), records)


def draw_cactus(axes: Any, records: Sequence[Record]) -> None:
    """Questions decided within so many seconds each, one line per engine."""
    asked = max(len(own) for own in grouped(records, lambda record: record["engine"]).values())
    for engine, own in grouped(records, lambda record: record["engine"]).items():
        spent = sorted(max(record["seconds"], _LEAST_SECONDS) for record in own if is_decided(record))
        colour, dashes = _STYLES.get(engine, _OTHER_STYLE)
        label = f"{engine}: {len(spent)} of {len(own)}"
        # The line goes on to the limit, where it still holds.
        ends = [*spent, max(own[0]["limit"], *spent)] if spent else []
        heights = [*range(1, len(spent) + 1), len(spent)] if spent else []
        axes.step(ends, heights, where="post", color=colour, linestyle=dashes, linewidth=1.8, label=label)
    axes.axhline(asked, color="0.6", linewidth=0.8)
    axes.set(xscale="log", xlabel="seconds a question", ylabel="questions decided", ylim=(0, 1.04 * asked))
    axes.set_title("Questions of the grid decided within a time", fontsize=11)
    _plain_seconds(axes.xaxis)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def draw_units(axes: Any, records: Sequence[Record]) -> None:
    """Seconds against the units that bounds left unstable, one point a question."""
    for verdict, (colour, marker) in _VERDICTS.items():
        own = [record for record in records if record["verdict"] == verdict]
        units = [record["unstable_units"] for record in own]
        spent = [max(record["seconds"], _LEAST_SECONDS) for record in own]
        edge = {"linewidths": 1.0} if marker == "x" else {"linewidths": 0.8, "facecolors": "none"}
        style = {"s": 16, "marker": marker, "alpha": 0.75, "label": f"{verdict} ({len(own)})", **edge}
        axes.scatter(units, spent, **({"c": colour} if marker == "x" else {"edgecolors": colour}), **style)
    axes.set(xscale="log", yscale="log", xlabel="unstable units", ylabel="seconds")
    axes.set_title("Time against unstable units, engine auto", fontsize=11)
    _plain_seconds(axes.xaxis)
    _plain_seconds(axes.yaxis)
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def draw_epsilon(axes: Any, records: Sequence[Record]) -> None:
    """Seconds against epsilon: the median of each network, and the middle half as a band."""
    _draw_bands(axes, records, "epsilon", LADDER_EPSILONS)
    axes.set(xscale="log", xlabel="epsilon", xticks=LADDER_EPSILONS)
    axes.set_title("Time against epsilon, k = 2, engine auto: median and middle half", fontsize=11)
    _plain_seconds(axes.xaxis, locate=False)


def draw_k(axes: Any, records: Sequence[Record]) -> None:
    """Seconds against k: the median of each network, and the middle half as a band."""
    _draw_bands(axes, records, "k", KS)
    sizes = ", ".join(f"{size:g}" for size in sorted({record["epsilon"] for record in records}))
    axes.set(xlabel="k", xticks=KS)
    axes.set_title(f"Time against k, epsilon {sizes}, engine auto: median and middle half", fontsize=11)


def _draw_bands(axes: Any, records: Sequence[Record], field: str, values: Sequence[float]) -> None:
    for network, (colour, marker, dashes) in _NETWORKS.items():
        own = [record for record in records if record["network"] == network]
        spent = {value: sorted(r["seconds"] for r in own if r[field] == value) for value in values}
        shown = [value for value in values if spent[value]]
        if not shown:
            continue
        low, middle, high = zip(*(_quartiles(spent[value]) for value in shown), strict=True)
        axes.fill_between(shown, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(shown, middle, color=colour, marker=marker, linestyle=dashes, markersize=5, label=network)
    axes.set(yscale="log", ylabel="seconds")
    _plain_seconds(axes.yaxis)
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def _quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    if len(numbers) == 1:
        return numbers[0], numbers[0], numbers[0]
    low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return low, middle, high


def _plain_seconds(axis: Any, *, locate: bool = True) -> None:
    """Plain numbers on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if locate:
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100.0 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
