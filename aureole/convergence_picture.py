"""Draws how a neighbourhood's size and its proved upper bound approach each other, against time and against queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aureole.images import write_file
from aureole.panels import new_figure, png_of
from synth.result import GrowResult
from verifier.errors import InputError


@dataclass(frozen=True, slots=True)
class ConvergencePoint:
    """Where a run stood.

    Attributes:
        seconds: Since it began.
        queries: Complete queries asked so far, None where nobody counted them.
        value: The weighted size, or its upper bound.
    """

    seconds: float
    queries: int | None
    value: float


@dataclass(frozen=True, slots=True)
class Convergence:
    """One run: its proved sizes, which never fall, and its upper bounds, which never rise."""

    name: str
    sizes: tuple[ConvergencePoint, ...]
    bounds: tuple[ConvergencePoint, ...]


def convergence_of(name: str, result: GrowResult) -> Convergence:
    """The run of one result."""
    sizes = tuple(ConvergencePoint(step.seconds, step.counts.complete, step.best_size) for step in result.steps)
    bounds = tuple(
        ConvergencePoint(point.seconds, point.counts.complete, point.upper_bound) for point in result.gap_history
    )
    return Convergence(name, sizes, bounds)


def draw_convergence(panels: Mapping[str, Sequence[Convergence]], path: Path, heading: str) -> None:
    """Writes one PNG: a column per panel, size (dashed) and bound (solid) against seconds above, against complete queries below.

    Args:
        panels: By title, the runs that share a panel.
        path: The PNG file, written whole or not at all.
        heading: Above everything.

    Raises:
        InputError: There is no panel.
        OutputError: The file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    if not panels:
        raise InputError("convergence: got no run to draw, wanted at least one")
    figure = new_figure(4.6 * len(panels) + 0.8, 7.0, heading)
    rows = figure.subplots(2, len(panels), squeeze=False, sharey="col")
    for column, (title, runs) in enumerate(panels.items()):
        for axes, by_queries in zip(rows[:, column], (False, True), strict=True):
            for number, run in enumerate(runs):
                _draw_run(axes, run, f"C{number}", by_queries=by_queries)
            axes.set(
                xlabel="complete queries" if by_queries else "seconds", ylabel="weighted size (dashed) and its bound"
            )
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(MaxNLocator(integer=by_queries))
        rows[0, column].set_title(title, fontsize=10)
        rows[0, column].legend(fontsize=8, frameon=False)
    write_file(path, png_of(figure))


def _draw_run(axes: Any, run: Convergence, colour: str, *, by_queries: bool) -> None:
    curves = [_curve(points, by_queries=by_queries) for points in (run.bounds, run.sizes)]
    end = max((place for curve in curves for place, _ in curve), default=0.0)
    for curve, style, label in zip(curves, ("-", "--"), (run.name, None), strict=True):
        places, values = [place for place, _ in curve], [value for _, value in curve]
        # What holds at the last point holds until the run ends.
        line = (places + [end] * bool(places), values + values[-1:])
        axes.step(*line, where="post", linestyle=style, color=colour, label=label, marker=".", markersize=3)


def _curve(points: Sequence[ConvergencePoint], *, by_queries: bool) -> list[tuple[float, float]]:
    # A size of 0, before the first proof, has no place on a logarithmic scale.
    places = [(point.queries if by_queries else point.seconds, point.value) for point in points if point.value > 0.0]
    return [(float(place), value) for place, value in places if place is not None]
