"""The books of one run: what was asked, what is proved, what is excluded, and when to stop. No neighbourhood grows but here."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from jaxtyping import Float

from synth.cuts import Cut, shrink
from synth.oracle import Effort, Oracle
from synth.proposal import Slope
from synth.result import GrowStep, QueryCounts, StepKind, StepVerdict
from synth.size import Size
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.region import frozen
from verifier.verdict import Counterexample, Robust, Unknown, Verdict, Vulnerable
from verifier.verify import Outcome

Vector = Float[np.ndarray, " layers"]

ATTACK_STARTS = 3
"""How many known counterexamples an attack starts from, moved inside."""

RADII_ROUNDING = 1e-12
"""Radii are differences of doubles in [0, 1], boxes are sums of them: each is off by at most 2^-53."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop asking.

    Attributes:
        deadline: The end of the run.
        max_queries: The most queries, earlier runs of a resumed trace included.
        query_seconds: The most time for one query.
        bounds_seconds: The most time for one query by bounds alone.
    """

    deadline: Deadline
    max_queries: int
    query_seconds: float
    bounds_seconds: float = math.inf


class Ledger:
    """The current neighbourhood and the record of how it came about.

    Soundness: `robust` changes only to epsilons whose whole neighbourhood the oracle just answered with `Robust`, and only to a
    weighted size that is not smaller.
    """

    def __init__(
        self,
        oracle: Oracle,
        objective: Size,
        limits: Limits,
        on_step: Callable[[GrowStep], None],
        *,
        on_cut: Callable[[Cut], None] | None = None,
        first_index: int = 0,
        counts: QueryCounts = QueryCounts(),  # noqa: B008 - frozen
        cuts: Sequence[Cut] = (),
        prunes: bool = True,
    ) -> None:
        self.oracle = oracle
        self.objective = objective
        self.limits = limits
        self.robust: Vector = frozen(np.zeros(oracle.layers))
        self.outcome: Outcome | None = None
        self.counts = counts
        self.steps: list[GrowStep] = []
        self.cuts: list[Cut] = list(cuts)
        self._prunes = prunes
        self._reach = oracle.reach
        self._undecided: set[tuple[bytes, Effort]] = set()
        self._unrefuted: set[bytes] = set()
        self._on_step, self._on_cut = on_step, on_cut
        self._first_index = first_index
        self._began = time.monotonic()

    @property
    def queries(self) -> int:
        """Verifier queries so far, complete and incomplete."""
        return self.counts.verifier

    @property
    def size(self) -> float:
        """The weighted size of the current neighbourhood."""
        return self.objective.value(self.robust)

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
        return any(cut.forbids(epsilons) for cut in self.cuts)

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

        What contains a known counterexample (unless the ledger does not prune), or was left undecided before, is answered without a
        query.
        """
        wanted = self.saturated(epsilons)
        if self._prunes and self.is_excluded(wanted):
            self._record(kind, layer, wanted, None, StepVerdict.EXCLUDED)
            return StepVerdict.EXCLUDED
        question = (wanted.tobytes(), effort)
        if question in self._undecided:
            return StepVerdict.UNKNOWN
        if self.is_spent and not even_if_spent:
            return None
        self.counts = self.counts.plus(effort.value)
        seconds = self.limits.query_seconds
        if effort is Effort.BOUNDS:
            seconds = min(seconds, self.limits.bounds_seconds)
        outcome = self.oracle.decide(wanted, effort, self.limits.deadline.within(seconds))
        verdict, bound = _summary(outcome.verdict)
        if self.outcome is None and np.array_equal(wanted, self.robust):
            self.outcome = outcome
        match outcome.verdict:
            case Robust() if self.objective.value(wanted) >= self.size:
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

    def settle(
        self, kind: StepKind, epsilons: Vector, layer: int | None = None, *, asks_bounds: bool = True
    ) -> StepVerdict | None:
        """As `attempt` with complete effort, but attack and bounds are asked first: complete queries are about what they leave.

        Bounds can be left out where they are known to be too loose.
        """
        cheap = self.try_cheaply(kind, epsilons, layer) if asks_bounds else self.try_attack(kind, epsilons, layer)
        return self.attempt(kind, epsilons, Effort.COMPLETE, layer) if cheap is StepVerdict.UNKNOWN else cheap

    def try_cheaply(self, kind: StepKind, epsilons: Vector, layer: int | None = None) -> StepVerdict | None:
        """Asks the attack, then bounds alone; UNKNOWN if neither answers."""
        attacked = self.try_attack(kind, epsilons, layer)
        return self.attempt(kind, epsilons, Effort.BOUNDS, layer) if attacked is StepVerdict.UNKNOWN else attacked

    def try_attack(
        self, kind: StepKind, epsilons: Vector, layer: int | None = None, *, is_quick: bool = False
    ) -> StepVerdict | None:
        """EXCLUDED, VULNERABLE or, where no counterexample is known and the attack finds none, UNKNOWN; None if it is too late."""
        wanted = self.saturated(epsilons)
        if self.is_excluded(wanted):
            self._record(kind, layer, wanted, None, StepVerdict.EXCLUDED)
            return StepVerdict.EXCLUDED
        if self.is_spent:
            return None
        found = self.falsify(wanted, is_quick=is_quick)
        if found is None:
            return StepVerdict.UNKNOWN
        self._record(kind, layer, wanted, found.margin_lower, StepVerdict.VULNERABLE)
        return StepVerdict.VULNERABLE

    def falsify(
        self, epsilons: Vector, starts: Sequence[Float[np.ndarray, "..."]] = (), *, is_quick: bool = False
    ) -> Counterexample | None:
        """A replayed counterexample in that neighbourhood, remembered as a cut; None if the attack finds none in a query's time.

        An attack that failed is not made again. Known counterexamples nearest to it are starts beside those given.
        """
        if epsilons.tobytes() in self._unrefuted:
            return None
        nearest = sorted(self.cuts, key=lambda cut: float(np.maximum(cut.radii - epsilons, 0.0).max()))[:ATTACK_STARTS]
        known = [self.oracle.projected(cut.counterexample.image, epsilons) for cut in nearest]
        self.counts = self.counts.plus("attack")
        deadline = self.limits.deadline.within(self.limits.query_seconds)
        found = self.oracle.falsify(epsilons, deadline, [*starts, *known], is_quick=is_quick)
        if found is not None:
            self.exclude(found)
        elif not is_quick:
            self._unrefuted.add(epsilons.tobytes())
        return found

    def shrink(self, found: Counterexample, corner: Vector) -> Counterexample:
        """The counterexample shrunk below the corner (see `cuts.shrink`), remembered as a cut."""

        def scout(epsilons: Vector, starts: list[Float[np.ndarray, "..."]]) -> Counterexample | None:
            return self.falsify(epsilons, starts, is_quick=True)

        smaller = shrink(self.oracle, found, corner, self.objective, scout, self.limits.deadline)
        self.exclude(smaller)
        return smaller

    def slope(self, effort: Effort, epsilons: Vector | None = None) -> Slope | None:
        """The margin to first order at the current neighbourhood, or another one; None if it is too late, or nothing was found."""
        if self.is_spent:
            return None
        self.counts = self.counts.plus("gradient" if effort is Effort.BOUNDS else "attack")
        return self.oracle.slope(self.robust if epsilons is None else epsilons, effort, self.limits.deadline)

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
        if any(np.array_equal(cut.radii, radii) for cut in self.cuts):
            return
        self.cuts.append(Cut(radii, counterexample))
        if self._on_cut is not None:
            self._on_cut(self.cuts[-1])

    def nearest_cut(self) -> Cut | None:
        """The counterexample that the fewest extra epsilon (in the largest layer) would let in; the first found on ties."""
        return min(self.cuts, key=self.excess, default=None)

    def excess(self, cut: Cut) -> float:
        """How much some layer must grow to let the counterexample in."""
        return float((cut.radii - self.robust).max())

    def _record(
        self, kind: StepKind, layer: int | None, epsilons: Vector, bound: float | None, verdict: StepVerdict
    ) -> None:
        step = GrowStep(
            index=self._first_index + len(self.steps),
            kind=kind,
            layer=layer,
            epsilons=epsilons,
            weighted_size=self.objective.value(epsilons),
            margin_bound=bound,
            verdict=verdict,
            counts=self.counts,
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
