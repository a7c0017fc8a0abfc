"""From leaves, as engines know them by their way down, to trees, as certificates hold them."""

from collections.abc import Iterator, Sequence

from verifier.proof.errors import CertificateError
from verifier.proof.records import Leaf, Node, Split

Way = tuple[tuple[Split, bool], ...]
"""The splits on the way to a leaf, from the root, each with the side taken: True for the child where the set holds the largest."""


def depth_first(leaves: Sequence[tuple[Way, Leaf]]) -> Iterator[Node]:
    """The nodes of the tree that has these leaves, in the order of `Tree.nodes`; the leaves may come in any order.

    Raises:
        CertificateError: They are not the leaves of one tree: a side is missing, or leaves below one node disagree about its split.
    """
    pending: list[tuple[list[int], int]] = [(list(range(len(leaves))), 0)]
    while pending:
        below, depth = pending.pop()
        ways = [leaves[index][0] for index in below]
        if len(below) == 1 and len(ways[0]) == depth:
            yield leaves[below[0]][1]
            continue
        if not below or any(len(way) <= depth for way in ways) or len({way[depth][0] for way in ways}) != 1:
            raise CertificateError(f"a proof's leaves do not form a tree at depth {depth}")
        sides = [[index for index in below if leaves[index][0][depth][1] is wins] for wins in (False, True)]
        pending.extend((side, depth + 1) for side in sides)
        yield ways[0][depth][0]
