"""The picture: what MTA and MP bring over STA, seed by seed, and what they cost.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; shapes say the same again.
"""

import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.multi_task_study.cells import AUXILIARIES, PERTURBATIONS
from benchmarks.multi_task_study.records import Record
from benchmarks.multi_task_study.report import MEASURES, chosen, differences
from benchmarks.pictures import save

_LOOKS = {"STA": ("#000000", "^"), "MTA": ("#0072b2", "s"), "MP": ("#d55e00", "o")}


def draw(records: Sequence[Record], folder: Path) -> Path:
    """Writes `multi-task-gains.png` into the folder and returns its path. The same records give the same bytes."""

    def draw_both(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_gains(left, records)
        _draw_costs(right, chosen(records, problem="single"))

    path = folder / "multi-task-gains.png"
    save(path, (10.5, 5.0), draw_both)
    return path


def _draw_gains(axes: Any, records: Sequence[Record]) -> None:
    """One dot a seed: percentage points over STA of the training that is otherwise the same."""
    names: list[str] = []
    for problem, digits in (("single", "one digit"), ("double", "two digits")):
        for is_targeted, auxiliaries in product((False, True), AUXILIARIES[1:]):
            own = [
                record
                for record in chosen(records, problem=problem, is_targeted=is_targeted)
                if tuple(record["auxiliaries"]) == auxiliaries
            ]
            for measure in ("PGD untargeted", "PGD targeted") if own else ():
                for shift, perturbation in ((-0.15, "MTA"), (0.15, "MP")):
                    points = [100 * each for each in differences(own, perturbation, MEASURES[measure])]
                    colour, marker = _LOOKS[perturbation]
                    places = [len(names) + shift + 0.06 * (seed - 1) for seed in range(len(points))]
                    axes.plot(points, places, marker, color=colour, markersize=5, linestyle="none")
                trained = "targeted" if is_targeted else "untargeted"
                plural = "s" * (len(auxiliaries) > 1)
                names.append(f"{digits}, +{len(auxiliaries)} task{plural}: {trained}, {measure}")
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("percentage points over STA, one dot a seed")
    axes.set_title("Adversarial accuracy of the main task, by training and attack", fontsize=11)
    for name in PERTURBATIONS[1:]:
        axes.plot([], [], _LOOKS[name][1], color=_LOOKS[name][0], linestyle="none", label=name)
    axes.legend(frameon=False, fontsize=9, loc="lower left")


def _draw_costs(axes: Any, records: Sequence[Record]) -> None:
    """Seconds of an epoch against the number of auxiliary tasks."""
    for name in PERTURBATIONS:
        colour, marker = _LOOKS[name]
        points = []
        for count in range(len(AUXILIARIES)):
            wanted = name if count else "STA"
            own = [r for r in records if len(r["auxiliaries"]) == count and r["perturbation"] == wanted]
            if own:
                points.append((count, statistics.fmean(record["seconds_per_epoch"] for record in own)))
        places, seconds = [place for place, _ in points], [mean for _, mean in points]
        axes.plot(places, seconds, f"{marker}-", color=colour, label=name)
    axes.set(xlabel="auxiliary tasks", ylabel="processor seconds", xticks=range(len(AUXILIARIES)))
    axes.set_ylim(bottom=0)
    axes.set_title("An epoch of 10,000 digits", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
