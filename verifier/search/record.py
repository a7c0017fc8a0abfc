"""The first splits of a search, kept for searches of other regions, and read back."""

from dataclasses import dataclass

from verifier.search.frontier import Cover, CoverTree, Form, NamedSplit

MOST_LEAVES = 1024
"""Later splits are not recorded: a leaf covers whatever it was split into. A search splits what is hardest first."""


@dataclass(slots=True, eq=False)
class Node:
    """A node of a tree of splits; a leaf until it is split.

    Attributes:
        split: The side that wins of its split, or None for a leaf.
        sides: The nodes where it wins and where it does not, () for a leaf.
    """

    split: NamedSplit | None = None
    sides: tuple["Node", "Node"] | tuple[()] = ()


class Record:
    """Trees of splits, one per count-subset; each is whole at any moment.

    Args:
        most: The most leaves of all trees together, beyond one per tree.
    """

    def __init__(self, most: int = MOST_LEAVES) -> None:
        self._most = most
        self._roots: list[tuple[tuple[Form, ...], Node]] = []
        self._leaves = 0

    def plant(self, forms: tuple[Form, ...]) -> Node:
        """A new tree of one leaf."""
        root = Node()
        self._roots.append((forms, root))
        return root

    def replant(self, tree: CoverTree) -> list[Node]:
        """An earlier tree, to grow on: its nodes in preorder."""
        nodes = nodes_of(tree)
        self._roots.append((tree.forms, nodes[0]))
        self._leaves += len(nodes) // 2
        return nodes

    def grow(self, leaf: Node | None, split: NamedSplit) -> tuple[Node | None, Node | None]:
        """The leaves for the sides of a split, that which wins first; the same leaf twice where it cannot grow."""
        if leaf is None or leaf.sides or self._leaves >= self._most:
            return leaf, leaf
        sides = Node(), Node()
        leaf.split = split if split.wins else split.opposite
        # Last, since it makes the node an inner one: an interruption may come between any two steps.
        leaf.sides = sides
        self._leaves += 1
        return sides

    def cover(self, network: str) -> tuple[Cover, dict[int, tuple[int, int]]]:
        """The trees, and where each leaf is, tree and node, by its identity."""
        trees, places = [], {}
        for number, (forms, root) in enumerate(self._roots):
            splits: list[NamedSplit | None] = []
            waiting = [root]
            while waiting:
                node = waiting.pop()
                if not node.sides:
                    places[id(node)] = (number, len(splits))
                splits.append(node.split if node.sides else None)
                waiting.extend(reversed(node.sides))
            trees.append(CoverTree(forms, tuple(splits)))
        return Cover(network, tuple(trees)), places


def nodes_of(tree: CoverTree) -> list[Node]:
    """The nodes of a tree in preorder, linked."""
    nodes = [Node(split) for split in tree.nodes]
    finished: list[Node] = []
    for node in reversed(nodes):
        if node.split is not None:
            node.sides = finished.pop(), finished.pop()
        finished.append(node)
    return nodes
