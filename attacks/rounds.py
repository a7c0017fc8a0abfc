"""A round of the margin attack: climb again from good and from random points, then put the best tiles together."""

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.climber import INITIAL_STEPS, Climber
from attacks.population import Population
from attacks.recombination import choose, compose, draw_tiling, exchange

FRESH_SHARE = 0.25
ELITE = 8
SURVIVORS = 12
COARSE_SPLITS = 4
OTHER_SPLITS = (2, 8)
EXCHANGES = 640
GAMES, VARIANTS = 16, 8
POLISH = 15


def next_subset(population: Population, generator: torch.Generator, *, is_first: bool) -> int:
    """The subset with the best point in the first round; later the n-th best with probability proportional to 1 / n^2."""
    ranked = population.ranked_subsets()
    weights = torch.arange(1, len(ranked) + 1, dtype=torch.float64) ** -2.0
    return ranked[0 if is_first else int(torch.multinomial(weights, 1, generator=generator))]


def play_round(climber: Climber, population: Population, subset: int, *, rows: int, steps: int) -> None:
    """Adds points that climbed one subset of forms; ends early at a clear success or when time is over."""
    members = population.subsets[subset].expand(rows, -1)
    before = len(population.points)
    population.add(climber.climb_smoothed(_starts(climber, population, subset, rows), members, steps))
    climbed = population.points[before:]
    other = OTHER_SPLITS[int(torch.randint(len(OTHER_SPLITS), (1,), generator=climber.generator))]
    for splits in (COARSE_SPLITS, other):
        if population.has_success or climber.deadline.has_expired:
            return
        _recombine(climber, population, subset, climbed, splits)


def _starts(climber: Climber, population: Population, subset: int, rows: int) -> Float[Tensor, "rows ..."]:
    """The subset's best points, each several times, for the smoothing differs; some rows are random corners."""
    elite, _ = population.elite(subset, ELITE)
    generator = climber.generator
    parents = elite[torch.randint(len(elite), (rows,), generator=generator).to(elite.device)]
    is_fresh = (torch.rand(rows, generator=generator) < FRESH_SHARE).to(elite.device)
    corners = climber.domain.random_corners(rows, generator)
    return torch.where(is_fresh.reshape(-1, *([1] * (elite.ndim - 1))), corners, parents)


def _recombine(
    climber: Climber, population: Population, subset: int, climbed: Float[Tensor, "rows ..."], splits: int
) -> None:
    """Puts tiles of the round's points and of the elite into the subset's best point and climbs from there."""
    elite, forms = population.elite(subset, 1 + ELITE)
    tiling = draw_tiling(climber.domain.widths, splits, climber.generator)
    donors = torch.cat([elite[1:], climbed])[: max(ELITE, EXCHANGES // tiling.tiles)]
    exchanged = torch.arange(tiling.tiles * len(donors), device=donors.device)
    found = []
    for which in exchanged.split(climber.rows):
        if climber.deadline.has_expired:
            return
        points = exchange(elite[0], donors, tiling, which)
        found.append(climber.forms(points))
        is_clear = climber.margin.of_forms(found[-1]) > climber.clear
        if bool(is_clear.any()):
            population.take(points[is_clear], found[-1][is_clear])
            return
    inside = population.subsets[subset]
    gains = torch.cat(found)[:, inside] - forms[0, inside]
    choices = choose(
        forms[0, inside],
        gains.reshape(tiling.tiles, len(donors), -1),
        rounds=GAMES,
        variants=VARIANTS,
        generator=climber.generator,
    )
    composed = compose(elite[0], donors, tiling, choices)
    members = inside.expand(len(composed), -1)
    population.add(climber.climb(composed, members, POLISH, initial=INITIAL_STEPS[2]))
