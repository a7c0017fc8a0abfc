"""Split trees: that their leaves cover the region, and what each leaf's splits leave."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from verifier.check.maps import Vector
from verifier.check.steps import MaximumStep
from verifier.proof.assemble import Way
from verifier.proof.errors import CertificateError
from verifier.proof.records import Leaf, Split, Tree, WindowGroup

MOST_DEPTH = 10_000

Maxima = Mapping[int, MaximumStep]


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """Members: linear forms of one value, factor * value[column] + constant each, of which the least is to be bounded.

    Attributes:
        value: The value read.
        columns: int64 (members,), without repetition.
        factors: (members,), 1 or -1.
        constants: (members,).
    """

    value: int
    columns: Int[np.ndarray, " members"]
    factors: Vector
    constants: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A leaf with what leads to it.

    Attributes:
        goal: What is to be bounded there.
        layout: Of the leaf's parameters.
        masks: By (operation, window), the set A of alternatives that its splits leave, as a bit set.
        leaf: The evidence.
        clips: Whether the splits clip the box.
    """

    goal: Goal
    layout: tuple[WindowGroup, ...]
    masks: Mapping[tuple[int, int], int]
    leaf: Leaf
    clips: bool


def part_at(goal: Goal, layout: tuple[WindowGroup, ...], way: Way, leaf: Leaf, maxima: Maxima) -> Part:
    """The leaf at the end of a way down a tree that clips."""
    masks: dict[tuple[int, int], int] = {}
    for split, wins in way:
        _restrict(masks, split, wins, maxima)
    return Part(goal, layout, masks, leaf, clips=True)


def _restrict(masks: dict[tuple[int, int], int], split: Split, wins: bool, maxima: Maxima) -> None:
    key, everything = (split.operation, split.window), maxima[split.operation].everything
    chosen = split.alternatives if wins else everything & ~split.alternatives
    masks[key] = masks.get(key, everything) & chosen


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a split, below another one's."""

    above: "_Side | None"
    split: Split
    wins: bool
    depth: int


def parts_of(goal: Goal, tree: Tree, maxima: Maxima) -> Iterator[Part]:
    """The leaves of a tree, depth first.

    Soundness: the nodes are read by the grammar  tree = Split tree tree | Leaf.  At every point the largest alternative of a window
    lies in a given set or outside it (at a tie in both), so whatever fits the grammar has leaves that cover the region.

    Raises:
        CertificateError: Nodes are missing or left over, a name is unknown, or the tree is too deep.
    """
    _check_layout(tree.layout, maxima)
    pending: list[_Side | None] = [None]
    for node in tree.nodes:
        if not pending:
            raise CertificateError("a tree has nodes after its last leaf")
        side = pending.pop()
        if isinstance(node, Leaf):
            yield Part(goal, tree.layout, _masks(side, maxima), node, tree.clips)
            continue
        step = maxima.get(node.operation)
        if step is None or not (0 <= node.window < step.windows and 0 <= node.alternatives <= step.everything):
            raise CertificateError(
                f"a split names operation {node.operation}, window {node.window}: there is none such"
            )
        depth = side.depth + 1 if side else 1
        if depth > MOST_DEPTH:
            raise CertificateError(f"a tree is deeper than {MOST_DEPTH}")
        pending.extend(_Side(side, node, wins, depth) for wins in (False, True))
    if pending:
        raise CertificateError("a tree ends before its last leaf")


def _masks(side: _Side | None, maxima: Maxima) -> dict[tuple[int, int], int]:
    masks: dict[tuple[int, int], int] = {}
    while side is not None:
        _restrict(masks, side.split, side.wins, maxima)
        side = side.above
    return masks


def _check_layout(layout: tuple[WindowGroup, ...], maxima: Maxima) -> None:
    """Refuses a layout that names what is not there, or something twice."""
    named: dict[int, list[Int[np.ndarray, " _"]]] = {}
    for group in layout:
        step, windows, table = maxima.get(group.operation), group.windows, group.alternatives
        if step is None or table.ndim != 2 or len(table) != len(windows) or not table.shape[1]:
            raise CertificateError(f"a layout for operation {group.operation} fits none")
        if len(windows) and not 0 <= windows.min() <= windows.max() < step.windows:
            raise CertificateError(f"a layout names windows that operation {group.operation} has not")
        is_used = table >= 0
        if (table >= len(step.index)).any() or not is_used[:, 0].all():
            raise CertificateError(f"a layout names alternatives that operation {group.operation} has not")
        ordered = np.sort(np.where(is_used, table, -1 - np.arange(table.shape[1])), axis=1)
        named.setdefault(group.operation, []).append(windows)
        if not step.present[table, windows[:, None]][is_used].all() or (np.diff(ordered, axis=1) == 0).any():
            raise CertificateError(f"a layout names an alternative in the padding, or one twice ({group.operation})")
    together = [np.concatenate(parts) for parts in named.values()]
    if any(len(np.unique(windows)) < len(windows) for windows in together):
        raise CertificateError("a layout names a window twice")
