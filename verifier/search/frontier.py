"""What a search leaves behind, in the network's own terms: the parts still open, and the trees of its splits.

Splits speak of the windows of the network, not of a region, and the two sides of each cover whatever it splits: so the leaves of a
tree of splits *cover* every region, whatever became of them in the one where the tree grew, refuted or not. That is why a tree may
start the search of any other region, or of another property.

The *open* parts cover only what was not refuted, and refutations hold for one region and one property. A Frontier therefore names
the question it belongs to, and resumes no other.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from jaxtyping import Float32

from verifier.certificate import TrustedClaim
from verifier.errors import InputError
from verifier.region import frozen

Form = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NamedSplit:
    """One side of a split of one window: the largest alternative lies in a set of them, or outside it.

    Attributes:
        node: The ReLU or Max, an index into the canonical network's nodes.
        entry: The window, an entry of that node's value.
        alternatives: Bit set: bit i is the i-th candidate of the window (a ReLU's input is its only one), and the bit after the
            window's width is the floor 0.
        wins: Whether the largest alternative lies in the set.
    """

    node: int
    entry: int
    alternatives: int
    wins: bool

    @property
    def opposite(self) -> "NamedSplit":
        """The other side."""
        return replace(self, wins=not self.wins)


NamedSplits = tuple[NamedSplit, ...]


@dataclass(frozen=True, slots=True)
class CoverTree:
    """A tree of splits.

    Attributes:
        forms: The linear forms it was grown for, each as its coefficients on the scores and its offset. They say for what the
            splits are likely to be good, no more.
        nodes: In preorder, each node's split, its side that wins first; None for a leaf.
    """

    forms: tuple[Form, ...]
    nodes: tuple[NamedSplit | None, ...]

    def __post_init__(self) -> None:
        # A tree has one leaf more than splits, and no part of it that comes first is a tree.
        missing = list(accumulate((1 if node is not None else -1 for node in self.nodes), initial=1))
        if missing[-1] != 0 or 0 in missing[:-1]:
            raise InputError("cover: its nodes form no tree")

    def leaves(self) -> list[NamedSplits]:
        """The splits that hold in each leaf; together the leaves cover every region."""
        found: list[NamedSplits] = []
        waiting: list[NamedSplits] = [()]
        for node in self.nodes:
            here = waiting.pop()
            if node is None:
                found.append(here)
            else:
                waiting.extend([(*here, node.opposite), (*here, node)])
        return found


@dataclass(frozen=True, slots=True)
class Cover:
    """Trees of splits of one network.

    Attributes:
        network: The network's fingerprint.
        trees: One per count-subset that was split.
    """

    network: str
    trees: tuple[CoverTree, ...]

    def likely(self, forms: tuple[Form, ...]) -> CoverTree | None:
        """The tree that was grown for these forms, or else for most of them; None if there is none."""
        wanted = set(forms)

        def likeness(tree: CoverTree) -> float:
            return len(wanted & set(tree.forms)) - 0.5 * (wanted != set(tree.forms))

        best = max(self.trees, key=likeness, default=None)
        return best if best is not None and wanted & set(best.forms) else None


@dataclass(frozen=True, slots=True, eq=False)
class OpenPart:
    """A part of the region and of the count-subsets that nobody has refuted.

    Attributes:
        members: Forms, by index into the property, that all are >= 0 at a violation sought here.
        rest: Forms that the members may be completed from; () once there are `count` members.
        splits: What holds in this part.
        bound: An upper bound of the least of the members here; inf if there is none.
        is_bounded: Whether that bound was computed for this part, not taken over from a larger one.
        leaf: The tree of the frontier's cover that it lies in, and which of its nodes is the leaf; or None.
        start: Parameters of that bound, or None; good for one layout of windows only.
    """

    members: tuple[int, ...]
    rest: tuple[int, ...]
    splits: NamedSplits
    bound: float
    is_bounded: bool = False
    leaf: tuple[int, int] | None = None
    start: Float32[np.ndarray, " parameters"] | None = None

    def __post_init__(self) -> None:
        if self.start is not None:
            object.__setattr__(self, "start", frozen(self.start, np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """Where a search of one question stands.

    Soundness: a violation of the question, if there is one, lies in one of the parts. It may be resumed with narrower bounds inside
    the network, since the parts are sets of points that do not depend on them.

    Attributes:
        question: The fingerprint of network, box and property.
        subsets: The count-subsets asked about, or None for all.
        parts: What is open; none if everything was refuted.
        refuted_bound: The largest bound of a refuted part, -inf if there is none.
        trusted: What the refutations take on trust.
        layout: The fingerprint of the windows that parameters in `parts` belong to.
        inside: The fingerprint of the bounds inside the network that the parts' own bounds were computed with.
        cover: The trees, good for other regions and properties.
    """

    question: str
    subsets: tuple[tuple[int, ...], ...] | None
    parts: tuple[OpenPart, ...]
    refuted_bound: float
    trusted: tuple[TrustedClaim, ...]
    layout: str
    inside: str
    cover: Cover

    @property
    def best_bound(self) -> float:
        """An upper bound of the margin over the subsets asked about."""
        return max([self.refuted_bound, *(part.bound for part in self.parts)])

    def without_parameters(self) -> "Frontier":
        """The same, much smaller, and slower to resume."""
        return replace(self, parts=tuple(replace(part, start=None) for part in self.parts))

    def asked(self, question: str, subsets: tuple[tuple[int, ...], ...] | None) -> "Frontier":
        """The parts that matter to these count-subsets.

        Raises:
            InputError: The frontier belongs to another question, or says nothing about some of these subsets.
        """
        if question != self.question:
            raise InputError(
                "frontier: its network, box or property differs from the one asked about; start from its `cover` instead"
            )
        if self.subsets is None and subsets is None:
            return self
        known = None if self.subsets is None else set(self.subsets)
        if subsets is None or (known is not None and not known.issuperset(subsets)):
            raise InputError(
                "frontier: subsets are asked about that its search did not look at; start from its `cover` instead"
            )
        wanted = {frozenset(subset) for subset in subsets}
        parts = tuple(part for part in self.parts if _may_become(part, wanted))
        return replace(self, subsets=subsets, parts=parts)


def _may_become(part: OpenPart, subsets: set[frozenset[int]]) -> bool:
    members = frozenset(part.members)
    if not part.rest:
        return members in subsets
    return any(members <= subset <= members | set(part.rest) for subset in subsets)
