"""The first splits of a search, kept for searches of other regions."""

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.search.frontier import Cover, CoverTree, Form, NamedSplits

MOST_LEAVES = 1024
"""Later splits are not recorded: a leaf covers whatever it was split into. A search splits what is hardest first."""


@dataclass(slots=True, eq=False)
class Leaf:
    """A node of a recorded tree; a leaf until it has children.

    Attributes:
        splits: Those on the way to it.
        children: Leaves or nodes that together cover it, () for a leaf.
    """

    splits: NamedSplits
    children: tuple["Leaf", ...] = ()


class Record:
    """Trees of splits, one per count-subset; it only grows, and is a cover at any moment.

    Args:
        most: The most leaves of all trees together, once every tree has one.
    """

    def __init__(self, most: int = MOST_LEAVES) -> None:
        self._most = most
        self._roots: list[tuple[tuple[Form, ...], tuple[Leaf, ...]]] = []
        self._leaves = 0

    def plant(self, forms: tuple[Form, ...], leaves: Sequence[NamedSplits] = ((),)) -> tuple[Leaf, ...]:
        """A new tree of these leaves, which cover every region."""
        nodes = tuple(Leaf(splits) for splits in leaves)
        self._roots.append((forms, nodes))
        self._leaves += len(nodes)
        return nodes

    def grow(self, leaf: Leaf | None, parts: Sequence[NamedSplits]) -> Sequence[Leaf | None]:
        """The leaves that take this one's place, one for each of `parts`; the same leaf again where it cannot grow.

        Soundness: the parts, each given by further splits, must together cover every region.
        """
        if leaf is None or leaf.children or self._leaves + len(parts) - 1 > self._most:
            return [leaf] * len(parts)
        children = tuple(Leaf((*leaf.splits, *part)) for part in parts)
        self._leaves += len(children) - 1
        leaf.children = children
        return children

    def cover(self, network: str) -> tuple[Cover, dict[int, tuple[int, int]]]:
        """The leaves, and where each is, by the identity of its node."""
        trees, places = [], {}
        for number, (forms, nodes) in enumerate(self._roots):
            leaves = _leaves_below(nodes)
            trees.append(CoverTree(forms, tuple(leaf.splits for leaf in leaves)))
            places.update({id(leaf): (number, position) for position, leaf in enumerate(leaves)})
        return Cover(network, tuple(trees)), places


def _leaves_below(nodes: tuple[Leaf, ...]) -> list[Leaf]:
    found, waiting = [], list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        if node.children:
            waiting.extend(reversed(node.children))
        else:
            found.append(node)
    return found
