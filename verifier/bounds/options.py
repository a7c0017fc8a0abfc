"""How bounds are computed: the choices a caller has."""

import math
from dataclasses import dataclass
from enum import Enum

from verifier.canonical import CanonicalNetwork
from verifier.errors import InputError, NetworkTooLargeError

SAFETY_SLACK = 1e-9
"""A bound proves something only if it is below 0 by this much times the magnitude of the scores involved.

Float64 sums of 10^5 terms carry relative errors near 1e-11 at worst and 1e-14 typically; the slack stands for them until bounds
are re-derived with outward rounding, and reports name the rounding as a trusted claim.
"""


class BoundMethod(Enum):
    """Which bounds: each is at least as tight, and as slow, as the one before it."""

    INTERVAL = "interval"
    CROWN = "CROWN"
    ALPHA_CROWN = "alpha-CROWN"


@dataclass(frozen=True, slots=True)
class BoundOptions:
    """Choices of the bound engine.

    Attributes:
        method: Interval, CROWN or alpha-CROWN.
        iterations: Optimisation steps of alpha-CROWN per batch of rows.
        learning_rate: The first step of the Adam-like update; slopes and weights live in [0, 1].
        decay: The factor on the learning rate per step.
        patience: Stop after this many steps in which no row improved by more than a thousandth of its gap to 0.
        subset_cap: The most count-subsets bounded one by one; above it the count-th largest form bound stands alone.
        row_chunk: The most rows bounded together.
        most_entries: The most entries that all linear maps together may have as sparse matrices, about one for each multiplication
            of an evaluation. An entry takes about 40 bytes at the peak, and a network at the limit half a minute to prepare.
        device: Where rows of a property are optimised, as torch names it; a region's own bounds are computed on the CPU.

    Raises:
        InputError: A number is out of range.
    """

    method: BoundMethod = BoundMethod.ALPHA_CROWN
    iterations: int = 40
    learning_rate: float = 0.1
    decay: float = 0.93
    patience: int = 10
    subset_cap: int = 1024
    row_chunk: int = 64
    most_entries: int = 100_000_000
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("patience", "subset_cap", "row_chunk", "most_entries"):
            if getattr(self, name) < 1:
                raise InputError(f"bound options: {name} is {getattr(self, name)}, wanted at least 1")
        if self.iterations < 0:
            raise InputError(f"bound options: iterations is {self.iterations}, wanted 0 or more")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate) and 0 < self.decay <= 1):
            raise InputError(
                f"bound options: learning_rate {self.learning_rate} and decay {self.decay}, wanted > 0 and in (0, 1]"
            )


def check_size(canonical: CanonicalNetwork, options: BoundOptions) -> None:
    """Refuses a network whose matrices would not fit in memory, before any of them is built.

    Raises:
        NetworkTooLargeError: They have more entries than the options allow.
    """
    if canonical.most_entries > options.most_entries:
        raise NetworkTooLargeError(
            f"network: an evaluation takes {canonical.most_entries:.3g} multiplications, wanted at most"
            f" {options.most_entries:.3g} for bounds (BoundOptions.most_entries); attacks, metrics and replays of attack successes"
            " work at any size, proofs need a smaller network or image"
        )
