"""How much to do at a time: little enough for time and memory."""

import time

from verifier.deadline import Deadline
from verifier.search.rows import Layout
from verifier.search.skeleton import Skeleton

STEP_SECONDS = 0.6
"""A step is meant to take no longer, half of it to branch and half to bound, so that limits and interruptions are noticed."""
_DOUBLES_PER_PARAMETER, _DOUBLES_PER_COLUMN = 14, 14
_FIRST_PARAMETERS = 2_000_000


class Pace:
    """The amount of one kind of work that fits, judged by how long it took the last time.

    Args:
        first: The amount to begin with.
        most: Never more.
    """

    def __init__(self, first: int, most: int) -> None:
        self._most = max(1, most)
        self._amount = float(max(1, min(first, most)))
        self._seconds = 0.0

    def amount(self, deadline: Deadline, weight: float = 1.0) -> int:
        """How many units of this weight to do next: at least 1."""
        if self._seconds <= 0:
            return int(self._amount)
        fitting = min(0.5 * STEP_SECONDS, deadline.remaining()) / (self._seconds * weight)
        # No more than four times what was done before: what one unit costs depends on their number.
        return int(max(1.0, min(float(self._most), 4.0 * self._amount, fitting)))

    def took(self, started: float, amount: int, weight: float = 1.0) -> None:
        """Notes that so many units were done since a point of the monotonic clock."""
        self._seconds = (time.monotonic() - started) / (amount * weight)
        self._amount = float(amount)


def first_amount(layout: Layout) -> int:
    """Rows whose first evaluation takes a fraction of a second on any machine."""
    return max(1, _FIRST_PARAMETERS // max(1, layout.size))


def rows_in(memory: float, skeleton: Skeleton, layout: Layout) -> int:
    """How many rows can be optimised in so many bytes: at least 1.

    Per row, the parameters with gradient, step and moments; per column and alternative, planes, coefficients and values.
    """
    alternatives = sum(stage.windows * stage.slots for stage in skeleton.stages)
    doubles = _DOUBLES_PER_PARAMETER * layout.size + _DOUBLES_PER_COLUMN * (skeleton.columns + alternatives)
    return max(1, int(memory / (8 * doubles)))
