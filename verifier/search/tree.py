"""Open subproblems, the least bounded first, and what they remember."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from verifier.search.domain import Split


@dataclass(frozen=True, slots=True, eq=False)
class Subproblem:
    """Part of the region, and the count-subsets of forms in question there.

    Attributes:
        members: Forms that all are >= 0 at a violation sought here.
        rest: Forms that the members may be completed from to a count-subset; () once there are `count` members.
        splits: What holds in this part of the region.
        bound: An upper bound of the least of the members.
        start: float32 (size,), parameters to start from, or None.
    """

    members: tuple[int, ...]
    rest: tuple[int, ...]
    splits: tuple[Split, ...]
    bound: float
    start: Tensor | None

    def improved(self, bound: float) -> "Subproblem":
        """The same with a lower bound, if this one is."""
        return replace(self, bound=bound) if bound < self.bound else self

    def starting_from(self, start: Tensor) -> "Subproblem":
        """The same with other parameters to start from."""
        return replace(self, start=start)

    def halves(self, split: Split) -> list["Subproblem"]:
        """The two sides of a split; together they cover this subproblem."""
        return [replace(self, splits=(*self.splits, side)) for side in (split, split.opposite)]

    def completed(self, count: int) -> list["Subproblem"]:
        """One subproblem per form that can be the next member; together they cover all count-subsets of this one."""
        missing = count - len(self.members)
        return [
            replace(self, members=(*self.members, form), rest=self.rest[index + 1 :] if missing > 1 else (), start=None)
            for index, form in enumerate(self.rest[: len(self.rest) - missing + 1])
        ]


class OpenSubproblems:
    """A priority queue: largest bound first, then the order of insertion; subproblems with fewer members before all others."""

    def __init__(self, most_with_parameters: int) -> None:
        self._most = most_with_parameters
        self._queues: dict[int, list[tuple[float, int, Subproblem]]] = {}
        self._inserted = 0

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def extend(self, subproblems: Iterable[Subproblem]) -> None:
        """Adds subproblems; they forget their parameters where too many are open."""
        for subproblem in subproblems:
            kept = subproblem if len(self) < self._most else replace(subproblem, start=None)
            self._inserted += 1
            queue = self._queues.setdefault(len(kept.members), [])
            heapq.heappush(queue, (-kept.bound, self._inserted, kept))

    def pop(self, count: int) -> list[Subproblem]:
        """Up to `count` subproblems with equally many members."""
        size = min(size for size, queue in self._queues.items() if queue)
        queue = self._queues[size]
        return [heapq.heappop(queue)[2] for _ in range(min(count, len(queue)))]

    def largest_bound(self) -> float:
        """The largest bound of an open subproblem, -inf if there is none."""
        return max((-queue[0][0] for queue in self._queues.values() if queue), default=float("-inf"))
