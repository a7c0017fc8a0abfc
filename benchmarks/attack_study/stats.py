"""Medians and means with bootstrap intervals, and comparisons at equal success. Images are pooled over the trainings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

Record = dict[str, Any]
Image = tuple[int, int]
"""The training's seed, and the image's place among those of its goal."""
Sizes = Mapping[Image, float]

_RESAMPLES, _CONFIDENCE, _SEED = 2000, 0.95, 0
MOVED = 1e-3
"""Released code that reports a smaller norm did not move: squeezing the contrast alone reached the goal."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95% percentile bootstrap interval over images (scipy.stats.bootstrap); equal bounds for one value.

    Attributes:
        value, low, high: NaN where there is no image.
        count: Images.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "-"
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}]"


def estimate(values: Iterable[float], of: Literal["median", "mean"]) -> Estimate:
    """The median or mean of some images' values."""
    numbers = np.array(list(values), dtype=np.float64)
    if not len(numbers):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    statistic = np.median if of == "median" else np.mean
    value = float(statistic(numbers))
    if np.ptp(numbers) == 0.0:
        return Estimate(value, value, value, len(numbers))
    interval = stats.bootstrap(
        (numbers,),
        statistic,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(numbers))


def smallest(records: Iterable[Record], field: str = "l2") -> dict[Image, float]:
    """The norm of each image's smallest success over all these records; images without one are left out.

    Args:
        records: Of one attack towards one goal, such as one record a radius.
        field: "l2", or a norm that released code reports in its place; images that did not move are then left out.
    """
    best: dict[Image, float] = {}
    least = 0.0 if field == "l2" else MOVED
    for record in records:
        for place, (mark, size) in enumerate(zip(record["success"], record[field], strict=True)):
            image = (record["seed"], place)
            if mark == "1" and size is not None and size >= least:
                best[image] = min(size, best.get(image, np.inf))
    return best


def attacked(records: Iterable[Record]) -> int:
    """How many images there are, in all trainings together."""
    return sum({record["seed"]: record["rows"] for record in records}.values())


def at_equal_success(sizes: Sequence[Mapping[Image, Any]]) -> list[Image]:
    """The images on which every attack succeeds."""
    if not sizes:
        return []
    return sorted(set(sizes[0]).intersection(*sizes[1:]))


def values(records: Iterable[Record], field: str, inner: str | None = None) -> dict[Image, float]:
    """One measured number an image; those that are undefined are left out."""
    found: dict[Image, float] = {}
    for record in records:
        numbers = record[field] if inner is None else record[field][inner]
        found |= {(record["seed"], place): number for place, number in enumerate(numbers) if number is not None}
    return found


def ratios(left: Sizes, right: Sizes) -> dict[Image, float]:
    """The quotient left / right, image by image, where both are known and right is positive."""
    return {image: left[image] / right[image] for image in sorted(set(left) & set(right)) if right[image] > 0}


def rate(marks: Mapping[int, str]) -> str:
    """The share of 1 among the marks of all trainings, with the lowest and highest training in brackets."""
    whole = "".join(marks.values())
    if not whole:
        return "-"
    own = sorted(each.count("1") / len(each) for each in marks.values() if each)
    shown = f"{whole.count('1') / len(whole):.2f}"
    return shown if len(own) == 1 else f"{shown} ({own[0]:.2f}-{own[-1]:.2f})"


def _short(number: float) -> str:
    """Three significant digits at most; no digits behind the point from 100 on."""
    return f"{number:.0f}" if abs(number) >= 99.5 else f"{number:.3g}"
