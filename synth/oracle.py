"""The questions growing asks about a vector of epsilons."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from synth.proposal import Slope
from verifier.deadline import Deadline
from verifier.verdict import Counterexample
from verifier.verify import Outcome

Vector = Float[np.ndarray, " layers"]


class Effort(Enum):
    """How hard a query is tried: bounds alone answer fast and often "unknown"; everything includes attack and MILP."""

    BOUNDS = "bounds"
    COMPLETE = "complete"


@runtime_checkable
class Oracle(Protocol):
    """Decides neighbourhoods by their epsilons. Only `decide` is believed; the rest guides the search."""

    @property
    def layers(self) -> int:
        """The number of layers."""
        ...

    @property
    def sizes(self) -> Vector:
        """The number of entries of each layer."""
        ...

    @property
    def reach(self) -> Vector:
        """Per layer, the epsilon from which on its pixels are unrestricted: larger ones name the same neighbourhood."""
        ...

    @property
    def free_layers(self) -> Bool[np.ndarray, " layers"]:
        """Layers whose pixels cannot matter to any score."""
        ...

    def decide(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Outcome:
        """The verifier's answer for the whole neighbourhood."""
        ...

    def slope(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Slope | None:
        """The margin to first order: of the proved bound, or (complete effort) of the network at the weakest points found."""
        ...

    def falsify(
        self,
        epsilons: Vector,
        deadline: Deadline,
        starts: Sequence[Float[np.ndarray, "..."]] = (),
        *,
        is_quick: bool = False,
    ) -> Counterexample | None:
        """A replayed violation inside the neighbourhood, if the attack finds one.

        `starts` are images worth starting from; quick attacks try less, for where many are made.
        """
        ...

    def replay(self, image: Float[np.ndarray, "..."], epsilons: Vector, found_by: str) -> Counterexample | None:
        """The image as a counterexample inside the neighbourhood, if it is one in rigorous arithmetic and ONNX Runtime."""
        ...

    def projected(self, image: Float[np.ndarray, "..."], epsilons: Vector) -> Float[np.ndarray, "..."]:
        """The nearest image inside the neighbourhood."""
        ...

    def margins(self, images: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, " n"]:
        """The margin at each image, rounded to nearest: a hint at what a replay will say."""
        ...

    def radii(self, image: Float[np.ndarray, "..."]) -> Vector:
        """The largest change per layer of an image: no robust epsilons reach all of a violation's radii."""
        ...
