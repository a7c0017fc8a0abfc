"""Which window to split, and on which alternative: estimates from one walk, then a look ahead at the best of them.

At the corner x* where a row's plane attains its bound, the bound exceeds the row's value by a sum of one term >= 0 per window
(`Walk.gaps`): what each window's relaxation costs there. The windows with the largest terms are candidates; the candidate whose
children's worse bound is least, evaluated at the parent's parameters, is taken.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from verifier.deadline import Deadline
from verifier.search.domain import Split
from verifier.search.planes import MaxPlanes
from verifier.search.rows import Rows, Walk


def candidate_splits(walk: Walk, count: int) -> tuple[list[list[Split]], Tensor]:
    """Up to `count` splits per row, the largest estimate first, and the sum of all estimates (batch,).

    A row has none exactly where no window contributes anything.
    """
    skeleton = walk.rows.skeleton
    gaps = walk.gaps()
    batch = walk.rows.batch
    if not gaps:
        return [[] for _ in range(batch)], walk.bounds.new_zeros(batch)
    everything = torch.cat([gap for gap, _ in gaps])
    top = everything.topk(min(count, len(everything)), dim=0)
    homes = [(index, window) for index, stage in enumerate(skeleton.stages) for window in range(stage.windows)]
    found: list[list[Split]] = [[] for _ in range(batch)]
    values, places = top.values.T.tolist(), top.indices.T.tolist()
    for row in range(batch):
        for value, place in zip(values[row], places[row], strict=True):
            if value > 0:
                stage, window = homes[place]
                found[row].extend(
                    Split(stage, window, slots, wins=True)
                    for slots in _divisions(walk, stage, window, row, gaps[stage][1])
                )
    return found, everything.clamp(min=0.0).sum(dim=0)


def _divisions(walk: Walk, stage: int, window: int, row: int, z: Tensor) -> list[int]:
    """Sets of alternatives to split a window by, as bit sets.

    A ReLU has one. Otherwise: the alternative that is largest at the corner, the one with the largest upper bound, and the half
    with the largest upper bounds.
    """
    planes = walk.rows.planes[stage]
    if not isinstance(planes, MaxPlanes):
        return [1]
    held = walk.rows.skeleton.stages[stage]
    alive = planes.alive[window, :, row].nonzero().squeeze(1).tolist()
    ends = [*z[:, row].index_select(0, held.index[window].clamp(max=len(z) - 1)).tolist(), 0.0]
    upper = planes.upper[window, :, row].tolist()
    by_upper = sorted(alive, key=lambda slot: -upper[slot])
    winner = max(alive, key=lambda slot: ends[slot])
    half = by_upper[: len(alive) // 2]
    sets = [1 << winner, 1 << by_upper[0], sum(1 << slot for slot in half)]
    return list(dict.fromkeys(sets))


def choose_splits(
    rows: Rows,
    parameters: Tensor,
    splits: Sequence[tuple[Split, ...]],
    candidates: Sequence[Sequence[Split]],
    *,
    chunk: int,
    deadline: Deadline,
) -> list[Split]:
    """For every row the candidate whose worse child has the least bound, at the parent's parameters; ties go to the first.

    Args:
        rows: The rows, whose members are used.
        parameters: (size, batch).
        splits: Of each row's subproblem.
        candidates: At least one per row.
        chunk: The most children evaluated at a time.
        deadline: Once it has passed, candidates not yet evaluated are not; a row's first is then taken.
    """
    trials = [(row, split) for row, listed in enumerate(candidates) if len(listed) > 1 for split in listed]
    scores: dict[tuple[int, Split], float] = {}
    for first in range(0, len(trials), max(1, chunk // 2)):
        if deadline.has_expired:
            break
        part = trials[first : first + max(1, chunk // 2)]
        owners = torch.tensor([row for row, _ in part for _ in range(2)], device=parameters.device)
        children = [(*splits[row], side) for row, split in part for side in (split, split.opposite)]
        members = rows.members[:, owners].T.tolist()
        trial = Rows.of(rows.skeleton, members, children)
        matrix = parameters[:, owners]
        trial.project(matrix)
        bounds = torch.where(trial.infeasible, -torch.inf, trial.walk(matrix).bounds)
        pairs = bounds.reshape(-1, 2)
        worst = pairs.amax(dim=1) + 1e-3 * pairs.amin(dim=1).clamp(min=-1e6)
        scores.update(zip(part, worst.tolist(), strict=True))
    return [
        min(listed, key=partial(_score, scores, row)) if (row, listed[-1]) in scores else listed[0]
        for row, listed in enumerate(candidates)
    ]


def _score(scores: dict[tuple[int, Split], float], row: int, split: Split) -> float:
    return scores[row, split]
