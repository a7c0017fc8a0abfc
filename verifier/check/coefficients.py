"""Coefficients on a value's entries: a row about one unit reads a patch of the image, so that most entries have none."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """A batch of linear forms of one value.

    Attributes:
        entries: int64 (n,), ascending: the entries that may have coefficients; None for all, in their order.
        values: (batch, n).
    """

    entries: Int[np.ndarray, " n"] | None
    values: Float[np.ndarray, "batch _"]

    @property
    def index(self) -> Int[np.ndarray, " n"] | slice:
        """Takes the same entries from an array over the whole value."""
        return slice(None) if self.entries is None else self.entries

    def places(self, entries: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
        """Where some of the entries held stand."""
        return entries if self.entries is None else np.searchsorted(self.entries, entries)

    def full(self, size: int) -> Float[np.ndarray, "batch size"]:
        """The coefficients of all entries."""
        if self.entries is None:
            return self.values
        result = np.zeros((len(self.values), size))
        result[:, self.entries] = self.values
        return result

    def with_entries(self, entries: Int[np.ndarray, " k"]) -> "Coefficients":
        """The same forms, these entries among those held."""
        if self.entries is None:
            return self
        united = np.union1d(self.entries, entries)
        if len(united) == len(self.entries):
            return self
        values = np.zeros((len(self.values), len(united)))
        values[:, np.searchsorted(united, self.entries)] = self.values
        return Coefficients(united, values)

    def plus(self, other: "Coefficients") -> "Coefficients":
        """The sum of two batches; each coefficient is rounded once."""
        if self.entries is None or other.entries is None:
            wide, narrow = (self, other) if self.entries is None else (other, self)
            total = wide.values.copy()
            total[:, narrow.index] += narrow.values
            return Coefficients(None, total)
        first, second = self.with_entries(other.entries), other.with_entries(self.entries)
        return Coefficients(first.entries, first.values + second.values)
