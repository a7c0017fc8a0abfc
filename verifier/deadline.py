"""A point in time after which work must stop, handed down as an argument."""

import math
import time
from dataclasses import dataclass, field

from verifier.errors import InputError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, in seconds; `math.inf` means no limit."""

    at: float = field(default=math.inf)

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        """The deadline `seconds` from now; None means no limit.

        Raises:
            InputError: `seconds` is negative or NaN.
        """
        if seconds is None:
            return cls()
        if math.isnan(seconds) or seconds < 0:
            raise InputError(f"time limit: got {seconds} s, wanted a number >= 0; give --timeout in seconds")
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def has_expired(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at

    def within(self, seconds: float) -> "Deadline":
        """The earlier of this deadline and `seconds` from now."""
        return Deadline(min(self.at, time.monotonic() + seconds))
