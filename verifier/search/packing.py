"""Batches of subproblems as rows: members padded to one width, parameters handed from parent to child."""

from collections.abc import Sequence

import torch
from torch import Tensor

from verifier.search.goals import FormBlock
from verifier.search.rows import Rows
from verifier.search.skeleton import Skeleton
from verifier.search.tree import Subproblem


def members_in(block: FormBlock, subproblem: Subproblem) -> tuple[int, ...]:
    """A subproblem's members as forms of the block."""
    places = block.places[subproblem.goal]
    return tuple(places[form] for form in subproblem.members)


def rows_of(skeleton: Skeleton, block: FormBlock, subproblems: Sequence[Subproblem]) -> Rows:
    """The rows of subproblems with at least one member each.

    Members are repeated up to the widest row's number: a combination of repeated members is one of the members.
    """
    members = [members_in(block, subproblem) for subproblem in subproblems]
    width = max(map(len, members))
    padded = [(*listed, *[listed[-1]] * (width - len(listed))) for listed in members]
    return Rows.of(skeleton, padded, [subproblem.splits for subproblem in subproblems])


def unpacked(rows: Rows, subproblems: Sequence[Subproblem]) -> Tensor:
    """The parameters each subproblem starts from, in range: its parent's, or CROWN's (size, batch)."""
    matrix = rows.first_parameters()
    width = rows.layout.members
    for column, subproblem in enumerate(subproblems):
        own, start = len(subproblem.members), subproblem.start
        matrix[own:width, column] = 0.0
        if start is None:
            matrix[:own, column] = 1.0 / own
        else:
            matrix[:own, column] = start[:own].to(matrix)
            matrix[width:, column] = start[own:].to(matrix)
    rows.project(matrix)
    return matrix


def packed(rows: Rows, subproblems: Sequence[Subproblem], parameters: Tensor) -> list[Tensor]:
    """Each subproblem's own parameters, float32, without the padding."""
    width, compact = rows.layout.members, parameters.T.to(torch.float32)
    found = []
    for column, subproblem in enumerate(subproblems):
        own, vector = len(subproblem.members), compact[column]
        if own == width:
            found.append(vector.clone())
        else:
            last = vector[own - 1 : width].sum().unsqueeze(0)
            found.append(torch.cat([vector[: own - 1], last, vector[width:]]))
    return found
