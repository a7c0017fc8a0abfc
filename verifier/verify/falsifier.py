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
