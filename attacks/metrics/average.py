"""The average that leaves out what is undefined, and says how much that was."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True)
class Average:
    """A mean over the rows where a metric is defined.

    Attributes:
        value: The mean; NaN where `counted` is 0.
        counted: Rows that entered it.
        skipped: Rows where the metric is undefined (NaN).
    """

    value: float
    counted: int
    skipped: int


def mean_defined(values: Float[np.ndarray, " rows"]) -> Average:
    """The mean of the numbers that are not NaN."""
    defined = values[~np.isnan(values)]
    value = float(defined.mean()) if len(defined) else float("nan")
    return Average(value, len(defined), len(values) - len(defined))
