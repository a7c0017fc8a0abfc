"""Tiles of good points put together: what moves a window of a convolutional network lies within a patch of the image.

Local optima met from different starts are good in different places. Where the patches hardly overlap, the forms' changes add
up, so the best tile of each place can be chosen from single exchanges.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_KEPT_SHARE = 0.75
_HOPELESS = -1e30


@dataclass(frozen=True, slots=True, eq=False)
class Tiling:
    """The entries of an image that can move, in disjoint rectangles over the last two axes.

    Attributes:
        labels: The tile of each entry, -1 where nothing can move.
        tiles: How many there are; none is empty.
    """

    labels: Int[Tensor, "..."]
    tiles: int


def draw_tiling(widths: Float[Tensor, "..."], splits: int, generator: torch.Generator) -> Tiling:
    """About `splits` tiles along each of the last two axes, over what lies within the moving entries, shifted at random."""
    moves = (widths > 0).cpu()
    labels = torch.zeros(moves.shape, dtype=torch.int64)
    places = moves.nonzero()
    for axis in range(max(0, moves.ndim - 2), moves.ndim) if len(places) else ():
        first, last = int(places[:, axis].min()), int(places[:, axis].max())
        size = -(-(last - first + 1) // splits)
        shift = int(torch.randint(size, (1,), generator=generator))
        part = (torch.arange(moves.shape[axis]) - first + shift).clamp(min=0) // size
        labels = labels * (splits + 2) + part.reshape(-1, *([1] * (moves.ndim - 1 - axis)))
    used, compact = torch.unique(labels[moves], return_inverse=True)
    labels = torch.full(moves.shape, -1, dtype=torch.int64)
    labels[moves] = compact
    return Tiling(labels.to(widths.device), len(used))


def exchange(
    point: Float[Tensor, "..."],
    donors: Float[Tensor, "donors ..."],
    tiling: Tiling,
    which: Int[Tensor, " rows"],
) -> Float[Tensor, "rows ..."]:
    """The point with one tile of one donor, for row numbers tile * donors + donor in `which`."""
    count = len(donors)
    tiles = (which // count).reshape(-1, *([1] * point.ndim))
    return torch.where(tiling.labels == tiles, donors[which % count], point)


def choose(
    forms: Float[Tensor, " members"],
    gains: Float[Tensor, "tiles donors members"],
    *,
    rounds: int,
    variants: int,
    generator: torch.Generator,
) -> Int[Tensor, "choices tiles"]:
    """Choices of a donor for each tile, -1 for none, that make the least member large if the changes of the forms add up.

    Fictitious play (Brown 1951): each tile answers the present weights of the members, and the weights drift towards the
    member that is least after that. `variants` random parts of the best answer come on top, as changes do not add up exactly.

    Args:
        forms: The members at the point.
        gains: How each exchange changes them; what is not finite is passed over.
        rounds: Answers given.
        variants: How many parts.
        generator: For the parts.
    """
    gains = torch.nan_to_num(gains, nan=_HOPELESS, posinf=_HOPELESS, neginf=_HOPELESS)
    members = len(forms)
    weights = torch.full_like(forms, 1.0 / members)
    choices, expected = [], []
    for played in range(rounds):
        value, donor = (gains @ weights).max(dim=1)
        taken = value > 0
        change = gains.gather(1, donor.reshape(-1, 1, 1).expand(-1, 1, members))[:, 0]
        total = forms + torch.where(taken[:, None], change, 0.0).sum(dim=0)
        choices.append(torch.where(taken, donor, -1))
        expected.append(total.amin())
        weights = weights * (played + 1) / (played + 2)
        weights[total.argmin()] += 1.0 / (played + 2)
    best = choices[int(torch.stack(expected).argmax())]
    for _ in range(variants):
        kept = torch.rand(len(best), generator=generator).to(best.device) < _KEPT_SHARE
        choices.append(torch.where(kept, best, -1))
    return torch.unique(torch.stack(choices), dim=0)


def compose(
    point: Float[Tensor, "..."],
    donors: Float[Tensor, "donors ..."],
    tiling: Tiling,
    choices: Int[Tensor, "rows tiles"],
) -> Float[Tensor, "rows ..."]:
    """The point with every tile taken from the chosen donor; entries that cannot move stay."""
    sources = torch.cat([point[None], donors])
    picked = torch.where(tiling.labels >= 0, 1 + choices[:, tiling.labels], 0)
    return sources.gather(0, picked)
