"""The books of one run: what was asked, what is proved, what is excluded, and when to stop. No neighbourhood grows but here."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from jaxtyping import Float

from synth.oracle import Effort, Oracle
from synth.result import GrowStep, StepKind, StepVerdict
from synth.weights import weighted_size
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.region import frozen
from verifier.verdict import Counterexample, Robust, Unknown, Verdict, Vulnerable
from verifier.verify import Outcome

Vector = Float[np.ndarray, " layers"]

RADII_ROUNDING = 1e-12
"""Radii are differences of doubles in [0, 1], boxes are sums of them: each is off by at most 2^-53."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop asking.

    Attributes:
        deadline: The end of the run.
        max_queries: The most queries, earlier runs of a resumed trace included.
        query_seconds: The most time for one query.
    """

    deadline: Deadline
    max_queries: int
    query_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Exclusion:
    """A counterexample and its largest change per layer: epsilons that reach all of `radii` contain it."""

    radii: Vector
    counterexample: Counterexample

    def excludes(self, epsilons: Vector) -> bool:
        """Whether these epsilons reach every radius."""
        return bool((epsilons >= self.radii).all())


class Ledger:
    """The current neighbourhood and the record of how it came about.

    Soundness: `robust` changes only to epsilons whose whole neighbourhood the oracle just answered with `Robust`, and only to a
    weighted size that is not smaller.
    """

    def __init__(
        self,
        oracle: Oracle,
        weights: Vector,
        limits: Limits,
        on_step: Callable[[GrowStep], None],
        *,
        first_index: int = 0,
        queries: int = 0,
    ) -> None:
        self.oracle = oracle
        self.weights = weights
        self.limits = limits
        self.robust: Vector = frozen(np.zeros(oracle.layers))
        self.outcome: Outcome | None = None
        self.queries = queries
        self.steps: list[GrowStep] = []
        self.exclusions: list[Exclusion] = []
        self._reach = oracle.reach
        self._undecided: set[tuple[bytes, Effort]] = set()
        self._on_step = on_step
        self._first_index = first_index
        self._began = time.monotonic()

    @property
    def size(self) -> float:
        """The weighted size of the current neighbourhood."""
        return weighted_size(self.weights, self.robust)

    @property
    def is_spent(self) -> bool:
        """Whether no further query may be asked."""
        return self.limits.deadline.has_expired or self.queries >= self.limits.max_queries

    @contextmanager
    def until(self, share: float) -> Iterator[None]:
        """Inside, the run ends when this share of the time left has passed."""
        whole = self.limits
        left = whole.deadline.remaining()
        if math.isfinite(left):
            self.limits = replace(whole, deadline=whole.deadline.within(share * left))
        try:
            yield
        finally:
            self.limits = whole

    @property
    def is_proved(self) -> bool:
        """Whether the current neighbourhood was answered `Robust`."""
        return self.outcome is not None and isinstance(self.outcome.verdict, Robust)

    @property
    def seconds(self) -> float:
        """Time since the run began."""
        return time.monotonic() - self._began

    def saturated(self, epsilons: Vector) -> Vector:
        """The same neighbourhood with epsilon 1 wherever the layer is unrestricted anyway."""
        return frozen(np.where(epsilons >= self._reach, 1.0, epsilons))

    def is_excluded(self, epsilons: Vector) -> bool:
        """Whether a known counterexample lies in that neighbourhood; then no query is needed."""
        return any(exclusion.excludes(epsilons) for exclusion in self.exclusions)

    def attempt(
        self,
        kind: StepKind,
        epsilons: Vector,
        effort: Effort,
        layer: int | None = None,
        *,
        even_if_spent: bool = False,
    ) -> StepVerdict | None:
        """Asks about a neighbourhood and moves there if it is robust and not smaller; None if nothing may be asked any more.

        What contains a known counterexample, or was left undecided before, is answered without a query.
        """
        wanted = self.saturated(epsilons)
        if self.is_excluded(wanted):
            self._record(kind, layer, wanted, None, StepVerdict.EXCLUDED)
            return StepVerdict.EXCLUDED
        question = (wanted.tobytes(), effort)
        if question in self._undecided:
            return StepVerdict.UNKNOWN
        if self.is_spent and not even_if_spent:
            return None
        self.queries += 1
        outcome = self.oracle.decide(wanted, effort, self.limits.deadline.within(self.limits.query_seconds))
        verdict, bound = _summary(outcome.verdict)
        if self.outcome is None and np.array_equal(wanted, self.robust):
            self.outcome = outcome
        match outcome.verdict:
            case Robust() if weighted_size(self.weights, wanted) >= self.size:
                self.robust, self.outcome = wanted, outcome
            case Vulnerable(counterexample):
                self.exclude(counterexample)
            case Unknown():
                self._undecided.add(question)
            case Robust():
                pass
            case never:
                assert_never(never)
        self._record(kind, layer, wanted, bound, verdict)
        return verdict

    def exclude(self, counterexample: Counterexample) -> None:
        """Remembers a counterexample: no neighbourhood that contains it is asked about again.

        Raises:
            ContradictionError: It lies well inside the neighbourhood that was proved robust.
        """
        radii = frozen(self.oracle.radii(counterexample.image))
        if self.is_proved and (radii <= self.robust - RADII_ROUNDING * (self.robust > 0)).all():
            raise ContradictionError(
                f"counterexample by {counterexample.found_by}: it lies inside epsilons proved robust, radii {radii.tolist()}"
                f" against {self.robust.tolist()}; please report this with the network"
            )
        self.exclusions.append(Exclusion(radii, counterexample))

    def nearest_exclusion(self) -> Exclusion | None:
        """The counterexample that the fewest extra epsilon (in the largest layer) would let in; the first found on ties."""
        return min(self.exclusions, key=self.excess, default=None)

    def excess(self, exclusion: Exclusion) -> float:
        """How much some layer must grow to let the counterexample in."""
        return float((exclusion.radii - self.robust).max())

    def _record(
        self, kind: StepKind, layer: int | None, epsilons: Vector, bound: float | None, verdict: StepVerdict
    ) -> None:
        step = GrowStep(
            index=self._first_index + len(self.steps),
            kind=kind,
            layer=layer,
            epsilons=epsilons,
            weighted_size=weighted_size(self.weights, epsilons),
            margin_bound=bound,
            verdict=verdict,
            queries=self.queries,
            seconds=self.seconds,
            best_size=self.size,
        )
        self.steps.append(step)
        self._on_step(step)


def _summary(verdict: Verdict) -> tuple[StepVerdict, float | None]:
    """A verdict's kind and the margin that goes with it."""
    match verdict:
        case Robust(certificate):
            return StepVerdict.ROBUST, certificate.bound
        case Vulnerable(counterexample):
            return StepVerdict.VULNERABLE, counterexample.margin_lower
        case Unknown():
            return StepVerdict.UNKNOWN, verdict.best_bound
        case never:
            assert_never(never)
