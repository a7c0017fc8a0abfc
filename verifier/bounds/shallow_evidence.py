"""What proves the bounds that `shallow` finds: split trees over first-layer ReLUs, with the parameters of every leaf."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int8, Int16

from verifier.bounds.shallow_search import Maxima, Parts


@dataclass(frozen=True, slots=True, eq=False)
class SplitLeaves:
    """The leaves of a tree that splits some ReLUs by their phase, with the parameters of the linear bound found at each.

    Attributes:
        order: (leaves, depth), the ReLUs split on the way to a leaf, from the root; -1 fills.
        phase: (leaves, units): 1 active, -1 inactive, 0 not fixed.
        slopes: (leaves, units) in [0, 1], of the planes below ReLUs that are not fixed.
        multipliers: (leaves, units) >= 0, of the constraints that fixed ReLUs are; 0 elsewhere.
        needs_slope: (units,), whether the ReLU enters with a weight < 0: the others need a plane above alone, their chord.
    """

    order: Int16[np.ndarray, "leaves depth"]
    phase: Int8[np.ndarray, "leaves units"]
    slopes: Float32[np.ndarray, "leaves units"]
    multipliers: Float32[np.ndarray, "leaves units"]
    needs_slope: Bool[np.ndarray, " units"]


@dataclass(frozen=True, slots=True, eq=False)
class ShallowProof:
    """sign * z <= bound for some entries z of a value that are one function of first-layer ReLUs up to a constant.

    Every bound holds over the region's box by the tree alone, with interval bounds of the first layer, up to float64 rounding.

    Attributes:
        value: Index of the canonical value.
        sign: 1 for upper bounds, -1 for lower ones.
        entries: int64 (entries,), of the value.
        bounds: float64 (entries,).
        nodes: int64 (entries, units), the canonical ReLU nodes of the first-layer ReLUs that each entry reads.
        places: int64 (entries, units), their entries there.
        leaves: The tree, over those ReLUs.
    """

    value: int
    sign: int
    entries: Int[np.ndarray, " entries"]
    bounds: Float[np.ndarray, " entries"]
    nodes: Int[np.ndarray, "entries units"]
    places: Int[np.ndarray, "entries units"]
    leaves: SplitLeaves


def split_leaves(found: Maxima, weights: Sequence[Float[np.ndarray, "_"]]) -> list[SplitLeaves | None]:
    """For each function the smallest tree of parts whose own parameters all bound it by its `upper`.

    A part whose own bound is as good as the function's is a leaf, whatever was found below it. So no leaf rests on an ancestor's
    bound: that ancestor would be the leaf.

    Args:
        found: What a search found.
        weights: Of each function's ReLUs, without padding.

    Returns:
        None for a function without a finite bound.
    """
    nodes = Parts.joined([found.inner, found.leaves])
    nodes = nodes.chosen(nodes.number.argsort())
    upper, owner, parent = found.upper.numpy(), nodes.owner.numpy(), nodes.parent.numpy()
    closes = nodes.is_own.numpy() & (nodes.bounds.numpy() <= upper[owner])
    top = found.leaves.number.numpy().copy()
    above = parent[top]
    while (above >= 0).any():
        top = np.where((above >= 0) & closes[above], above, top)
        above = np.where(above >= 0, parent[above], -1)
    kept = np.unique(top)
    phase, slopes, multipliers = (part.numpy() for part in (nodes.phase, nodes.slopes, nodes.multipliers))
    answers: list[SplitLeaves | None] = []
    for number, weight in enumerate(weights):
        real = len(weight)
        mine = kept[owner[kept] == number]
        if not np.isfinite(upper[number]) or not closes[mine].all():
            answers.append(None)
            continue
        ways = [_way(int(node), parent, nodes.unit.numpy()) for node in mine]
        order = np.full((len(mine), max(len(way) for way in ways)), -1, dtype=np.int16)
        for row, way in zip(order, ways, strict=True):
            row[: len(way)] = way
        answers.append(
            SplitLeaves(
                order,
                phase[mine, :real],
                slopes[mine, :real].astype(np.float32),
                multipliers[mine, :real].astype(np.float32),
                weight < 0,
            )
        )
    return answers


def _way(node: int, parent: Int[np.ndarray, " nodes"], unit: Int[np.ndarray, " nodes"]) -> list[int]:
    way = []
    while parent[node] >= 0:
        way.append(int(unit[node]))
        node = int(parent[node])
    return way[::-1]
