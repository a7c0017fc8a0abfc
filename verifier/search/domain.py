"""Subproblems: the part of a region where certain alternatives of certain windows win, or do not.

A split divides the alternatives of one undecided window, its slots, into two sets; on each side the output is the largest
alternative of one set, and none of the other exceeds it. At every point the largest alternative lies in one of the sets (in both,
at a tie), so the sides cover what they split. Several splits leave every window a set A of alternatives, y = max over A being its
output, and a set D of dropped ones with the constraints y >= z_d, d in D. A ReLU's phases are the same thing: its alternatives are
z and the floor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.search.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class Split:
    """One side of a split.

    Attributes:
        stage: Index into the skeleton's stages.
        window: Index into the stage's windows.
        slots: Bit set: bit i is alternative i; neither empty nor all alternatives.
        wins: Whether the largest alternative lies in this set, or outside.
    """

    stage: int
    window: int
    slots: int
    wins: bool

    @property
    def opposite(self) -> "Split":
        """The other side."""
        return Split(self.stage, self.window, self.slots, not self.wins)


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """What the splits of a batch of subproblems leave, by stage.

    Attributes:
        alive: bool (windows, slots, batch): the set A.
        dropped: bool (windows, slots, batch): the set D; alternatives that bounds of the whole region exclude are in neither.
    """

    alive: tuple[Tensor, ...]
    dropped: tuple[Tensor, ...]

    def selected(self, rows: Tensor) -> "Domain":
        """Some of the batch."""
        return Domain(*(tuple(part.index_select(2, rows) for part in parts) for parts in (self.alive, self.dropped)))


def domain_of(skeleton: Skeleton, splits: Sequence[Sequence[Split]]) -> Domain:
    """The sets A and D of each subproblem, given by its splits."""
    batch = len(splits)
    alive, dropped = [], []
    for index, stage in enumerate(skeleton.stages):
        here = [(split, column) for column, listed in enumerate(splits) for split in listed if split.stage == index]
        possible = stage.alive.unsqueeze(-1)
        gone = possible & _excluded(here, (*stage.alive.shape, batch)).to(possible.device)
        alive.append(possible & ~gone)
        dropped.append(gone)
    return Domain(tuple(alive), tuple(dropped))


def _excluded(splits: list[tuple[Split, int]], shape: tuple[int, int, int]) -> Tensor:
    """The alternatives that these splits, each of one subproblem, exclude: bool (windows, slots, batch)."""
    excluded = np.zeros(shape, dtype=np.bool_)
    if splits:
        # Python integers hold any number of slots, NumPy's only 63.
        bits = np.array([split.slots for split, _ in splits], dtype=np.int64 if shape[1] < 63 else object)
        is_member = (bits[:, None] >> np.arange(shape[1]) & 1).astype(np.bool_)
        drops = is_member != np.array([split.wins for split, _ in splits])[:, None]
        which, slots = np.nonzero(drops)
        windows = np.array([split.window for split, _ in splits])
        columns = np.array([column for _, column in splits])
        excluded[windows[which], slots, columns[which]] = True
    return torch.from_numpy(excluded)
