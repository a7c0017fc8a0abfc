"""Open subproblems, the least bounded first, and what they remember."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from verifier.search.domain import Split
from verifier.search.record import Node

_OBJECT_BYTES, _SPLIT_BYTES = 700, 24


@dataclass(frozen=True, slots=True, eq=False)
class Subproblem:
    """Part of the region, and the count-subsets of forms in question there.

    Attributes:
        members: Forms, by index into the goal's property, that all are >= 0 at a violation sought here.
        rest: Forms that the members may be completed from to a count-subset; () once there are `count` members.
        splits: What holds in this part of the region.
        bound: An upper bound of the least of the members.
        is_bounded: Whether that bound was computed here, not taken over from a larger part.
        start: float32 (size,), parameters to start from, or None.
        leaf: Where it lies in the recorded tree, or None.
        hint: Where it lies in another search's tree, which proposes how to split it, or None.
        goal: Which of the search's goals it belongs to.
    """

    members: tuple[int, ...]
    rest: tuple[int, ...]
    splits: tuple[Split, ...]
    bound: float
    is_bounded: bool = False
    start: Tensor | None = None
    leaf: Node | None = None
    hint: Node | None = None
    goal: int = 0

    @property
    def bytes(self) -> int:
        """About how much memory it takes without its parameters."""
        return _OBJECT_BYTES + _SPLIT_BYTES * len(self.splits)

    def improved(self, bound: float) -> "Subproblem":
        """The same with a lower bound, if this one is."""
        return replace(self, bound=bound) if bound < self.bound else self

    def bounded(self, bound: float, start: Tensor | None) -> "Subproblem":
        """The same with a bound of its own and the parameters that gave it."""
        return replace(self, bound=min(bound, self.bound), is_bounded=True, start=start)

    def halves(self, split: Split, leaves: Sequence[Node | None], hints: Sequence[Node | None]) -> list["Subproblem"]:
        """The two sides of a split, with what they record and follow; together they cover this subproblem."""
        return [
            replace(self, splits=(*self.splits, side), is_bounded=False, leaf=leaf, hint=hint)
            for side, leaf, hint in zip((split, split.opposite), leaves, hints, strict=True)
        ]

    def completed(self, count: int) -> list["Subproblem"]:
        """One subproblem per form that can be the next member; together they cover all count-subsets of this one."""
        missing = count - len(self.members)
        return [
            replace(
                self,
                members=(*self.members, form),
                rest=self.rest[index + 1 :] if missing > 1 else (),
                is_bounded=False,
                start=None,
                leaf=None,
                hint=None,
            )
            for index, form in enumerate(self.rest[: len(self.rest) - missing + 1])
        ]


class OpenSubproblems:
    """A priority queue: fewer members before more, then the largest bound, then the order of insertion.

    Subproblems are lent out and stay in the queue's keeping until what is left of them is put back: an interruption at any moment
    loses none, though it may keep a subproblem beside what was made of it.

    Args:
        most_bytes: Of subproblems; beyond it, those last in the heap are lent out first, which goes deep rather than wide.
        most_parameter_bytes: Of the parameters they remember; beyond it they forget.
    """

    def __init__(self, most_bytes: float, most_parameter_bytes: float) -> None:
        self._most, self._most_parameters = most_bytes, most_parameter_bytes
        self._queues: dict[int, list[tuple[float, int, Subproblem]]] = {}
        self._lent: list[Subproblem] = []
        self._inserted = 0
        self._bytes = self._parameter_bytes = 0

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values()) + len(self._lent)

    def __iter__(self) -> Iterator[Subproblem]:
        yield from self._lent
        for queue in self._queues.values():
            yield from (subproblem for _, _, subproblem in queue)

    def extend(self, subproblems: Iterable[Subproblem]) -> None:
        """Adds subproblems; they forget their parameters where there is no room for them."""
        for subproblem in subproblems:
            kept = subproblem
            if kept.start is not None and self._parameter_bytes + _parameter_bytes(kept) > self._most_parameters:
                kept = replace(kept, start=None)
            self._inserted += 1
            queue = self._queues.setdefault(len(kept.members), [])
            heapq.heappush(queue, (-kept.bound, self._inserted, kept))
            self._bytes += kept.bytes
            self._parameter_bytes += _parameter_bytes(kept)

    def lend(self) -> Subproblem | None:
        """The first subproblem not lent yet, or None; beyond the memory's limit the last."""
        size = min((size for size, queue in self._queues.items() if queue), default=None)
        if size is None:
            return None
        queue = self._queues[size]
        is_full = self._bytes > self._most
        # In both lists for a moment rather than in none: an interruption may come between any two steps.
        lent = (queue[-1] if is_full else queue[0])[2]
        self._lent.append(lent)
        if is_full:
            queue.pop()
        else:
            heapq.heappop(queue)
        self._bytes -= lent.bytes
        self._parameter_bytes -= _parameter_bytes(lent)
        return lent

    def settle(self, left: Iterable[Subproblem]) -> None:
        """Takes back, for all that is lent, what is left of it."""
        self.extend(left)
        self._lent = []

    def drop(self, refuted: Subproblem) -> None:
        """Strikes out a lent subproblem."""
        self._lent = [subproblem for subproblem in self._lent if subproblem is not refuted]

    def largest_bound(self) -> float:
        """The largest bound of a subproblem in its keeping, -inf if there is none."""
        heads = [-queue[0][0] for queue in self._queues.values() if queue]
        return max([*heads, *(subproblem.bound for subproblem in self._lent)], default=float("-inf"))


def _parameter_bytes(subproblem: Subproblem) -> int:
    return 0 if subproblem.start is None else subproblem.start.numel() * subproblem.start.element_size()
