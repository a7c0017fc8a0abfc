"""The interface of attacks: callables that propose images and promise nothing."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from verifier.deadline import Deadline
from verifier.query import Query


@runtime_checkable
class Falsifier(Protocol):
    """Proposes images that may violate a query; whatever it returns is checked before it counts."""

    def __call__(
        self, query: Query, *, starts: Float[np.ndarray, "n ..."], deadline: Deadline
    ) -> Sequence[Float[np.ndarray, "..."]]:
        """Float32 images inside the query's box, most promising first; may be empty.

        Args:
            query: Network, region and property.
            starts: Points worth starting from.
            deadline: When to return.
        """


@runtime_checkable
class PersistentFalsifier(Falsifier, Protocol):
    """One that can go on for as long as it is given, turn after turn."""

    def longer(self, turn: int) -> Falsifier:
        """The falsifier of that turn: it uses all of its deadline's time, starting from what the turns before it returned."""
