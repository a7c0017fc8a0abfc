"""How large any robust neighbourhood can be at most, from counterexamples alone.

A counterexample with radii delta lies in every neighbourhood with eps >= delta, so robust epsilons stay below delta_d in some
layer d with delta_d > 0 (below 0 none can stay). Closing "below" to eps_d <= delta_d keeps every robust vector, and the largest
size sum_d f_d(eps_d), each f_d nondecreasing, over what is left bounds the best size from above. It is attained at a corner
whose coordinates are caps and radii, found here by branch and bound over which layer obeys which counterexample. No solver is
trusted.
"""

import heapq
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from jaxtyping import Bool, Float

from synth.size import Size
from verifier.region import frozen
from verifier.rounding import up

Vector = Float[np.ndarray, " layers"]


@dataclass(frozen=True, slots=True, eq=False)
class Corner:
    """Where the largest size may still lie.

    Attributes:
        epsilons: The corner: every robust vector has at most the size of this one.
        size: Its weighted size rounded up: an upper bound of the size of all robust epsilons.
        is_attained: Whether these epsilons obey every counterexample, so that no smaller bound follows from them.
    """

    epsilons: Vector
    size: float
    is_attained: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """The epsilons with floor_d < eps_d <= upper_d (or floor_d = 0, for no condition below)."""

    upper: Vector
    floor: Vector


@dataclass
class UpperBound:
    """The bound as counterexamples come in; what was branched once is kept.

    Soundness: the nodes in the heap cover every vector within the caps that obeys all radii added, at all times: a node is only
    replaced by children that cover its part of that set. The largest node's size, rounded up, is therefore a bound after any
    number of branchings.

    Args:
        objective: The size, nondecreasing in every epsilon.
        caps: The largest epsilon of each layer.
    """

    objective: Size
    caps: Vector
    _heap: list[tuple[float, int, _Node]] = field(default_factory=list, init=False, repr=False)
    _radii: list[Vector] = field(default_factory=list, init=False, repr=False)
    _ticket: "count[int]" = field(default_factory=count, init=False, repr=False)

    def __post_init__(self) -> None:
        self._push(_Node(frozen(self.caps), frozen(np.zeros(len(self.caps)))))

    @property
    def radii(self) -> Float[np.ndarray, "cuts layers"]:
        """What was added, rounded up."""
        return np.array(self._radii).reshape(-1, len(self.caps))

    def add(self, radii: Vector) -> None:
        """Uses a counterexample: its largest change per layer, each rounded to nearest once.

        Radii above 0 are taken as the next larger doubles, which forbids less.
        """
        self._radii.append(frozen(np.where(radii > 0.0, up(radii), 0.0)))

    def corner(self, branchings: int = 4000) -> Corner:
        """The corner of the largest size after at most so many branchings; attained unless they ran out.

        The default is enough for few zones, and little time with many.
        """
        radii = self.radii
        for _ in range(branchings):
            if not self._heap:
                # The clean image itself violates: not even epsilon 0 is robust.
                return Corner(frozen(np.zeros(len(self.caps))), 0.0, is_attained=True)
            node = self._heap[0][2]
            broken = _broken(radii, node.upper)
            if not broken.any():
                return Corner(node.upper, self.objective.upper(node.upper), is_attained=True)
            heapq.heappop(self._heap)
            for child in self._children(node, radii[broken]):
                self._push(child)
        if not self._heap:
            return Corner(frozen(np.zeros(len(self.caps))), 0.0, is_attained=True)
        top = self._heap[0][2].upper
        return Corner(top, self.objective.upper(top), is_attained=not _broken(radii, top).any())

    def _children(self, node: _Node, broken: Float[np.ndarray, "cuts layers"]) -> list[_Node]:
        """The node's part of the set, split by the first layer that obeys one of the broken radii, cheapest layer first."""
        is_open = (broken > 0.0) & (broken > node.floor)
        losses = np.where(is_open, self.objective.loss(node.upper, broken), np.inf)
        chosen = int(np.argmax(losses.min(axis=1)))
        radii, children, floor = broken[chosen], [], node.floor
        for layer in np.argsort(losses[chosen], kind="stable")[: int(is_open[chosen].sum())]:
            upper = node.upper.copy()
            upper[layer] = radii[layer]
            children.append(_Node(frozen(upper), floor))
            floor = floor.copy()
            floor[layer] = max(floor[layer], radii[layer])
        return children

    def _push(self, node: _Node) -> None:
        heapq.heappush(self._heap, (-self.objective.upper(node.upper), next(self._ticket), node))


def _broken(radii: Float[np.ndarray, "cuts layers"], upper: Vector) -> Bool[np.ndarray, " cuts"]:
    """Which counterexamples no layer obeys: every radius above 0 is exceeded."""
    return ((radii < upper) | (radii == 0.0)).all(axis=1)
