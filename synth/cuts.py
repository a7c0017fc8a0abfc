"""Counterexamples as cuts: what each forbids, and how to make one forbid more by shrinking its radii."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from synth.oracle import Oracle
from synth.size import Size
from verifier.deadline import Deadline
from verifier.region import frozen
from verifier.verdict import Counterexample

Vector = Float[np.ndarray, " layers"]
Falsify = Callable[[Vector, list[Float[np.ndarray, "..."]]], Counterexample | None]

ROUNDS = 6
SMALLEST_SHARE = 1.0 / 256.0
"""Where the search for a small neighbourhood with a violation ends, as a share of the size it starts from."""

CLEAR = 1e-5
"""The least float64 margin worth a replay."""

SCALES = np.linspace(0.0, 1.0, 17)[:-1]
MOST_TRIMMED = 12


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A replayed counterexample and its largest change per layer: no robust epsilons reach all of `radii`.

    Soundness: with eps >= radii the neighbourhood contains the counterexample. (Radii are differences of doubles, rounded once.)
    """

    radii: Vector
    counterexample: Counterexample

    def forbids(self, epsilons: Vector) -> bool:
        """Whether these epsilons reach every radius."""
        return bool((epsilons >= self.radii).all())


def water_level(corner: Vector, objective: Size, size: float) -> Vector:
    """The epsilons below `corner` of the given size that lose equally much of it in every layer, as far as it goes.

    A counterexample inside cuts the corner off, and whichever layer gives way, at least that loss is gained. Layers without weight
    are 0: a radius above 0 there would cost nothing to obey.
    """
    worth = objective.parts(corner)
    ordered = np.sort(worth)[::-1]
    # With the n largest above the level: sum of them - n * level = size.
    levels = (np.cumsum(ordered) - size) / np.arange(1, len(ordered) + 1)
    level = max(0.0, float(levels.max(initial=0.0)))
    return frozen(objective.inverse(np.maximum(worth - level, 0.0)))


def shrink(
    oracle: Oracle, found: Counterexample, corner: Vector, objective: Size, falsify: Falsify, deadline: Deadline
) -> Counterexample:
    """A counterexample with smaller radii, made to cut off as much below `corner` as possible.

    First the size of the neighbourhood it is looked for in is bisected, the last one found moved inside and, where that is none,
    attacked from; then layers that are not needed are put back, and the others reduced. The result is replayed, and at worst
    the one given.
    """
    best, low, high = found, SMALLEST_SHARE, 1.0
    size = objective.value(corner)
    for _ in range(ROUNDS):
        if deadline.has_expired or size <= 0.0:
            break
        middle = float(np.sqrt(low * high))
        inside = water_level(corner, objective, middle * size)
        moved = oracle.projected(best.image, inside)
        nearer = _confirmed(oracle, moved, inside, best.found_by) or falsify(inside, [moved])
        if nearer is None:
            low = middle
        else:
            best, high = nearer, middle
    return trimmed(oracle, best, corner, objective)


def trimmed(oracle: Oracle, found: Counterexample, corner: Vector, objective: Size) -> Counterexample:
    """The counterexample with as many layers as possible unchanged, and the others closer to the image."""
    image = np.asarray(found.image, dtype=np.float64)
    radii = oracle.radii(image)
    image, radii = _without_needless_layers(oracle, image, radii)
    image, radii = _scaled(oracle, image, radii, radii > 0.0)
    losses = np.where(radii > 0.0, objective.loss(corner, radii), np.inf)
    for layer in np.argsort(losses, kind="stable")[: min(MOST_TRIMMED, int((radii > 0.0).sum()))]:
        image, radii = _scaled(oracle, image, radii, np.arange(len(radii)) == layer)
    return _confirmed(oracle, image, _roomy(radii), found.found_by) or found


def _without_needless_layers(
    oracle: Oracle, image: Float[np.ndarray, "..."], radii: Vector
) -> tuple[Float[np.ndarray, "..."], Vector]:
    """The image with the longest run of layers put back that keeps it a violation, the least needed first."""
    support = np.flatnonzero(radii > 0.0)
    if len(support) < 2:
        return image, radii
    single = [oracle.projected(image, _put_back(radii, np.array([layer]))) for layer in support]
    order = support[np.argsort(-oracle.margins(np.stack(single)), kind="stable")]
    runs = [_put_back(radii, order[: length + 1]) for length in range(len(order))]
    images = np.stack([oracle.projected(image, run) for run in runs])
    clear = np.flatnonzero(oracle.margins(images) > CLEAR)
    return (image, radii) if len(clear) == 0 else (images[clear[-1]], runs[clear[-1]])


def _put_back(radii: Vector, layers: Int[np.ndarray, " chosen"]) -> Vector:
    smaller = radii.copy()
    smaller[layers] = 0.0
    return smaller


def _scaled(
    oracle: Oracle, image: Float[np.ndarray, "..."], radii: Vector, chosen: Bool[np.ndarray, " layers"]
) -> tuple[Float[np.ndarray, "..."], Vector]:
    """The image with the chosen layers' radii as small, by one factor, as keeps it a violation."""
    options = [np.where(chosen, scale * radii, radii) for scale in SCALES]
    images = np.stack([oracle.projected(image, option) for option in options])
    clear = np.flatnonzero(oracle.margins(images) > CLEAR)
    return (image, radii) if len(clear) == 0 else (images[clear[0]], options[clear[0]])


def _roomy(radii: Vector) -> Vector:
    """Epsilons a little above the radii, so that rounding to float32 has room; 0 where nothing may change."""
    return np.where(radii > 0.0, np.minimum(radii + 1e-6, 1.0), 0.0)


def _confirmed(
    oracle: Oracle, image: Float[np.ndarray, "..."], epsilons: Vector, found_by: str
) -> Counterexample | None:
    """The replayed counterexample, if the margin looks clear enough to ask."""
    if float(oracle.margins(np.asarray(image)[None])[0]) <= CLEAR:
        return None
    return oracle.replay(image, epsilons, found_by)
