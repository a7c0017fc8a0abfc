"""One query under investigation: its stages can be run one by one, and resumed with more time."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float

from verifier.bounds import PropertyBound, RegionBounds
from verifier.bounds.engine import BoundEngine
from verifier.bounds.topk import safety_slack
from verifier.certificate import Certificate, TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.milp import MilpOutcome, MilpStatus
from verifier.query import Query
from verifier.search import Cover, Frontier, Goal, SearchOutcome, SearchStatus
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify.case import Case
from verifier.verify.falsifier import Falsifier, PersistentFalsifier
from verifier.verify.outcome import Outcome, Stage, Statistics
from verifier.verify.plan import Decide, Explore, Plan
from verifier.verify.territory import Territory

_MAXIMISERS_FOR_ATTACK = 4
_NEAR = 0.1
"""Tightened bounds narrow a gap by some hundredths: only a bound within this share of the best margin's distance from 0 is tried
again with them."""


_FIRST_LOOK_SECONDS, _FIRST_LOOK_SHARE = 1.0, 0.1
_FIRST_SEARCH_SECONDS, _FIRST_SEARCH_SHARE = 3.0, 0.1
_EARLY_MODEL_SECONDS, _EARLY_SHARE = 15.0, {False: 0.25, True: 0.5}
_TURN_SECONDS, _TURN_SHARE = 10.0, 0.1
_HALF = 0.5
_FEW_UNITS = 400
"""Up to this many undecided units a model counts as small. Measured on published networks at a limit of 100 s: with 62 to 135 units
HiGHS settled three queries in 1 to 4 s and one not at all; with 1,888 and 2,781 units, once the bounds were sharpened, it refuted
in 0.8 and 1.3 s two queries that 55 s of search had left open, and others not in 40 s."""


class Investigation:
    """The search for a verdict on one query. What it hands out is frozen; it alone changes.

    Attributes:
        query: The query.
    """

    def __init__(self, query: Query, territory: Territory, plan: Plan, falsifier: Falsifier | None) -> None:
        self.query = query
        self._case = Case(query, territory.evidence)
        self._territory, self._plan, self._falsifier = territory, plan, falsifier
        self._stages: list[Stage] = []
        self._property_bound: PropertyBound | None = None
        self._milp: MilpOutcome | None = None
        self._frontier: Frontier | None = None
        self._was_cut_short = self._was_interrupted = False
        self._turns: list[Float[np.ndarray, "..."]] = []
        self._turn = 0
        self._has_polished = self._has_rebounded = False

    @property
    def verdict(self) -> Robust | Vulnerable | None:
        """The verdict, or None while the query is open."""
        return self._case.verdict

    @property
    def is_out_of_time(self) -> bool:
        """Whether the query is open because a deadline cut a stage short."""
        return self.verdict is None and self._was_cut_short

    def interrupt(self) -> None:
        """Notes that the user stopped the run: what is open stays open for that reason."""
        self._was_interrupted = True

    def hold_against_points(self, certificate: Certificate) -> None:
        """Adopts a proof that the checker accepted, if the query is open.

        Raises:
            ContradictionError: An image tried disproves it.
        """
        self._case.accept(certificate)

    def look(self) -> None:
        """Holds the query against points of its region that were found elsewhere.

        Raises:
            ContradictionError: One disproves what was proved here.
        """
        self._case.look()

    def first_pass(self, starts: Float[np.ndarray, "n ..."], deadline: Deadline, *, looks: bool = True) -> None:
        """Cheap points, the cheapest bound, attack, tighter bounds and, if it `looks`, a first look of the search.

        Stops once settled. Tighter bounds come before the attack where the cheap bound is nearer to 0 than the best margin: a proof
        is likelier then.
        """
        self._try_points(starts, deadline)
        for engine in self._plan.proofs[:1]:
            self._bound(engine, deadline)
        is_proof_likelier = self._case.best_bound < -self._case.best_margin
        if not is_proof_likelier:
            self._attack(self._starts(starts), deadline)
        self._sharpen(deadline)
        for engine in self._plan.proofs[1:]:
            self._bound(engine, deadline)
        if self._plan.explore is not None and looks:
            self._search(self._plan.explore, _share(deadline, _FIRST_LOOK_SHARE, _FIRST_LOOK_SECONDS), "a first look")
        if is_proof_likelier:
            self._attack(self._starts(starts), deadline)

    def solve(self, deadline: Deadline) -> None:
        """The complete engines, if the plan has any; may be called again with more time.

        Bounds are tightened first: every engine after that profits. Then solver and search take turns, since neither tells in
        advance that it will succeed: what the solver refutes it mostly refutes early, and each search goes on where the one before
        it stopped. The solver's first turn is long on a small model, short on a large one.
        """
        if not self._plan.is_complete:
            return
        self._tighten(deadline)
        bound = self._property_bound
        forms = "?" if bound is None else str(len(bound.open_forms))
        units = self._territory.unstable_units
        size = f"{units} units unstable, {forms} forms open"
        is_small = units is not None and units <= _FEW_UNITS
        explore, decide = self._plan.explore, self._plan.decide
        if explore is not None:
            self._search(
                explore, _share(deadline, _FIRST_SEARCH_SHARE, _FIRST_SEARCH_SECONDS), f"{size}: a short search"
            )
        self._attack_longer(_share(deadline, _TURN_SHARE, _TURN_SECONDS))
        if explore is not None and decide is not None:
            seconds = math.inf if is_small else _EARLY_MODEL_SECONDS
            why = f"{size}: {'a small model, half of the time' if is_small else 'a large model, a short turn'}"
            self._ask_solver(_share(deadline, _EARLY_SHARE[is_small], seconds), why)
            self._search(explore, _share(deadline, _HALF), f"{size}: the solver's turn ended")
        elif explore is not None:
            self._search(explore, deadline, f"{size}: no other complete engine")
        self._attack_longer(_share(deadline, _TURN_SHARE, _TURN_SECONDS))
        self._ask_solver(deadline, f"{size}: what time is left")
        if explore is not None and decide is not None:
            self._search(explore, deadline, f"{size}: the solver gave up")

    def goal(self) -> Goal:
        """The question as a search takes it, with where an earlier search stopped."""
        return Goal(self.query.property, self._open_subsets(), self._search_start())

    def take_search(self, found: SearchOutcome, why: str, seconds: float, deadline: Deadline) -> None:
        """Adopts what a search of this question and others found; `seconds` is this question's share of its time."""
        if self.verdict is not None and found.status is not SearchStatus.REFUTED:
            return
        self._remember(found)
        self._after_search(found, deadline)
        detail = f"{why}: {found.status.value}; {found.detail}"
        self._stages.append(Stage("search", seconds, self._case.best_bound, detail))

    def _search(self, explore: Explore, deadline: Deadline, why: str) -> None:
        # What cut earlier stages short was their share of the time, or the limit, which the next lines ask for again.
        self._was_cut_short = False
        region = self._region(deadline)
        if region is None or not self._may_go_on(deadline):
            return
        with self._stage("search") as detail:
            found = explore(
                region,
                self.query.property,
                self._open_subsets(),
                on_candidates=self.try_candidates,
                deadline=deadline,
                start=self._search_start(),
            )
            self._remember(found)
            detail.append(f"{why}: {found.status.value}; {found.detail}")
            self._after_search(found, deadline)
        if found.is_interrupted:
            raise KeyboardInterrupt

    def _search_start(self) -> Frontier | Cover | None:
        """This question's own frontier, where it still tells of all that is asked; else splits made for another one."""
        frontier, subsets = self._frontier, self._open_subsets()
        if frontier is None:
            return self._territory.cover
        is_narrower = frontier.subsets is None or (subsets is not None and set(subsets) <= set(frontier.subsets))
        return frontier if is_narrower else frontier.cover

    def _remember(self, found: SearchOutcome) -> None:
        if found.frontier is not None:
            self._frontier = found.frontier
            if found.frontier.cover.trees:
                self._territory.cover = found.frontier.cover

    def _ask_solver(self, deadline: Deadline, why: str) -> None:
        if self._plan.decide is None:
            return
        self._was_cut_short = False
        region = self._region(deadline)
        if region is None or not self._may_go_on(deadline):
            return
        with self._stage("MILP") as detail:
            self._milp = self._decide(self._plan.decide, region, deadline)
            detail.append(f"{why}: {self._milp.status.value}, {self._milp.binaries} binaries; {self._milp.detail}")
            self._after_milp(self._milp, deadline)

    def outcome(self) -> Outcome:
        """The verdict so far, with statistics."""
        # What rounding may explain is no bound either.
        best_bound = math.inf if self._case.is_unclear else self._case.best_bound
        verdict = Unknown(self._reason(), best_bound) if self.verdict is None else self.verdict
        bound = self._property_bound
        statistics = Statistics(
            stages=tuple(self._stages),
            unstable_units=self._territory.unstable_units,
            open_forms=None if bound is None else len(bound.open_forms),
            open_subsets=self._open_subset_count(),
            solver=None if self._milp is None or not self._milp.solver else self._milp.solver,
            seconds=math.fsum(stage.seconds for stage in self._stages),
        )
        return Outcome(verdict, statistics, None if self._frontier is None else self._frontier.cover)

    def _reason(self) -> UnknownReason:
        if self._case.is_unclear:
            return UnknownReason.ROUNDING
        if self._case.is_tie:
            return UnknownReason.TIE
        if self._was_interrupted:
            return UnknownReason.INTERRUPTED
        if self._territory.is_too_large and self._case.best_margin < 0:
            return UnknownReason.TOO_LARGE
        if self._was_cut_short:
            return UnknownReason.TIME_LIMIT
        has_candidate = self._milp is not None and (self._milp.witness is not None or self._case.is_nearly_violated)
        if self._case.best_margin >= 0 or has_candidate:
            return UnknownReason.NOT_REPLAYED
        return UnknownReason.INCOMPLETE if self._milp is None else UnknownReason.SOLVER_FAILED

    def _open_subset_count(self) -> int | None:
        if isinstance(self.verdict, Robust):
            return 0
        listed = self._open_subsets() if self._milp is None or not self._milp.open_subsets else self._milp.open_subsets
        return None if listed is None else len(listed)

    # Points and attacks.

    def _try_points(self, starts: Float[np.ndarray, "n ..."], deadline: Deadline) -> None:
        """Given starts, centre, extreme corners, and corners where the linearised margin is largest."""
        if not self._may_go_on(deadline):
            return
        evidence, box = self._territory.evidence, self.query.region
        with self._stage("points") as detail:
            first = np.concatenate([starts, box.centre[None], box.lower[None], box.upper[None]])
            evidence.offer_near(first, "a given point, the centre or an extreme corner")
            self.look()
            if self.verdict is None:
                uphill = np.concatenate([starts[:1], box.centre[None]])
                evidence.offer_near(evidence.climb_linearly(self.query.property, uphill), "linearised margin")
                self.look()
            detail.append(f"best margin {self._case.best_margin:.4g}")

    def _attack(self, starts: Float[np.ndarray, "n ..."], deadline: Deadline) -> None:
        if self._falsifier is None or not self._may_go_on(deadline):
            return
        with self._stage("attack") as detail:
            candidates = self._falsifier(self.query, starts=starts, deadline=deadline)
            refused = self._territory.evidence.offer(candidates, "attack")
            self.look()
            detail.append(f"best margin {self._case.best_margin:.4g}" + (f", {refused} refused" if refused else ""))

    def _attack_longer(self, deadline: Deadline) -> None:
        """A turn of a falsifier that can go on: where bounds stay open for long, a counterexample is the likelier answer."""
        has_search = self._plan.explore is not None
        if not has_search or not isinstance(self._falsifier, PersistentFalsifier) or not self._may_go_on(deadline):
            return
        with self._stage("attack") as detail:
            falsifier, end = self._falsifier.longer(self._turn), deadline.within(_TURN_SECONDS)
            self._turn += 1
            known = np.stack(self._turns).astype(np.float64) if self._turns else np.zeros((0, *self.query.region.shape))
            candidates = falsifier(self.query, starts=self._starts(known), deadline=end)
            self._turns = list(candidates)
            self._territory.evidence.offer(candidates, "attack")
            self.look()
            detail.append(f"turn {self._turn}, best margin {self._case.best_margin:.4g}")

    def _starts(self, starts: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "m ..."]:
        """The best point known, the last bound's maximisers, and the given starts."""
        point, bound, shape = self._case.best_point, self._property_bound, self.query.region.shape
        best = np.zeros((0, *shape)) if point is None else point.image[None].astype(np.float64)
        corners = (
            np.zeros((0, *shape)) if bound is None else bound.minimisers[:_MAXIMISERS_FOR_ATTACK].reshape(-1, *shape)
        )
        return np.concatenate([best, corners, starts])

    # Bounds.

    def _region(self, deadline: Deadline) -> RegionBounds | None:
        """The region's bounds; None if there is no time or no need to compute them, or the network is too large."""
        territory = self._territory
        if territory.bounds is None and not territory.is_too_large and self._may_go_on(deadline):
            with self._stage("analysis") as detail:
                region = territory.analyse(self._plan.analysis, deadline)
                found = "the network is too large" if region is None else f"{region.unstable_units} units unstable"
                detail.append(f"{self._plan.analysis.name}: {found}")
        return self._territory.bounds

    def _sharpen(self, deadline: Deadline) -> None:
        """Narrower bounds inside the network, before the property is bounded with more effort."""
        how = self._plan.sharpen
        if (
            how is None
            or self._territory.is_sharpened
            or self._region(deadline) is None
            or not self._may_go_on(deadline)
        ):
            return
        with self._stage("tightening") as detail:
            self._territory.sharpen(how, deadline)
            detail.append(f"{self._territory.unstable_units} units unstable")

    def _tighten(self, deadline: Deadline) -> None:
        """Narrower bounds for the complete engine, and for one more try to do without it where a proof seems near."""
        if self._plan.tighten is None or self._region(deadline) is None or not self._may_go_on(deadline):
            return
        before = self._territory.bounds
        if not self._territory.is_tightened:
            with self._stage("tightening") as detail:
                self._territory.tighten(self._plan.tighten, deadline)
                detail.append(f"{self._territory.unstable_units} units unstable")
            if self._territory.bounds is before:
                self._stages.pop()  # There was nothing to do.
        is_proof_near = self._case.best_bound < -_NEAR * self._case.best_margin and self._territory.bounds is not before
        if is_proof_near and not self._has_rebounded:
            self._has_rebounded = True
            for engine in self._plan.proofs[-1:]:
                self._bound(engine, deadline)

    def _bound(self, engine: BoundEngine, deadline: Deadline) -> None:
        region = self._region(deadline)
        if region is None or not self._may_go_on(deadline):
            return
        with self._stage("bounds") as detail:
            bound = engine.bound(region, self.query.property, deadline=deadline)
            detail.append(f"{bound.engine}: {len(bound.open_forms)} forms open")
            self._take(bound)
            self._was_cut_short |= self.verdict is None and deadline.has_expired

    def _take(self, bound: PropertyBound) -> None:
        """Adopts a bound once it has survived its own maximisers and every point known."""
        self._territory.evidence.offer_near(bound.minimisers, f"maximisers of {bound.engine}'s bounds")
        self._case.look()
        self._case.claim_bound(bound.upper, bound.engine)
        if bound.is_robust and -math.inf < bound.upper < 0:
            self._case.claim_robust(Certificate(bound.engine, bound.upper, _distinct(bound.trusted)), -bound.upper)
        if self._property_bound is None or bound.upper <= self._property_bound.upper:
            self._property_bound = bound

    def _open_subsets(self) -> tuple[tuple[int, ...], ...] | None:
        """The subsets that bounds left open, or None if they do not say."""
        bound = self._property_bound
        return bound.open_subsets if bound is not None and bound.subsets_listed and bound.open_subsets else None

    # The complete engines.

    def try_candidates(self, points: Float[np.ndarray, "n inputs"]) -> bool:
        """Whether one of the search's points is a counterexample that replays."""
        self._territory.evidence.offer_near(points.reshape(-1, *self.query.region.shape), "branch and bound")
        self.look()
        return isinstance(self.verdict, Vulnerable)

    def _after_search(self, found: SearchOutcome, deadline: Deadline) -> None:
        engine = "branch and bound"
        self._territory.evidence.offer_near(found.seeds.reshape(-1, *self.query.region.shape), f"points of {engine}")
        self.look()
        if found.status is not SearchStatus.WITNESS:
            self._case.claim_bound(self._everywhere(found.best_bound), engine)
        if found.status is SearchStatus.REFUTED and -math.inf < found.best_bound < 0:
            bound = self._everywhere(found.best_bound)
            earlier = () if self._property_bound is None else self._property_bound.trusted
            claims = _distinct((*found.trusted, *earlier))
            self._case.claim_robust(
                Certificate(engine, bound if bound < 0 else None, claims), self._room(found.best_bound)
            )
        self._was_cut_short |= self.verdict is None and deadline.has_expired

    def _decide(self, decide: Decide, region: RegionBounds, deadline: Deadline) -> MilpOutcome:
        def on_witness(point: Float[np.ndarray, "..."]) -> bool:
            return self._try_witness(point, deadline)

        subsets = self._open_subsets()
        try:
            return decide(region, self.query.property, subsets, on_witness=on_witness, deadline=deadline)
        except ContradictionError as error:
            if error.query is None:
                error.query = self.query
            raise

    def _try_witness(self, point: Float[np.ndarray, "..."], deadline: Deadline) -> bool:
        """Whether a solver's point is, or leads the attack once to, a counterexample that replays."""
        evidence = self._territory.evidence
        start = np.asarray(point, dtype=np.float64).reshape(1, *self.query.region.shape)
        evidence.offer_near(start, "MILP")
        self.look()
        if self.verdict is None and self._falsifier is not None and not self._has_polished:
            self._has_polished = True
            evidence.offer(self._falsifier(self.query, starts=start, deadline=deadline), "attack from a MILP point")
            self.look()
        return isinstance(self.verdict, Vulnerable)

    def _after_milp(self, milp: MilpOutcome, deadline: Deadline) -> None:
        engine = f"MILP ({milp.solver or 'linear programs'})"
        found = milp.seeds if milp.witness is None else np.concatenate([milp.witness[None], milp.seeds])
        self._territory.evidence.offer_near(found, f"optima of {engine}")
        self.look()
        if milp.status is not MilpStatus.WITNESS:
            self._case.claim_bound(self._everywhere(milp.best_bound), engine)
        if milp.status is MilpStatus.REFUTED and -math.inf < milp.best_bound < 0:
            self._case.claim_robust(self._milp_certificate(milp, engine), self._room(milp.best_bound))
        elif len(milp.seeds):
            self._attack(milp.seeds.reshape(-1, *self.query.region.shape), deadline)
        self._was_cut_short |= self.verdict is None and deadline.has_expired

    def _everywhere(self, bound: float) -> float:
        """A complete engine's bound speaks of the subsets it was given; of those that bounds refuted only "< 0" is known."""
        return max(bound, 0.0) if self._open_subsets() is not None and not math.isnan(bound) else bound

    def _room(self, bound: float) -> float:
        """How far below 0 everything lies once a complete engine has refuted what it was given: bounds refuted the rest."""
        region = self._territory.bounds
        if self._open_subsets() is None or region is None:
            return -bound
        return min(-bound, safety_slack(region, self.query.property))

    def _milp_certificate(self, milp: MilpOutcome, engine: str) -> Certificate:
        bound = self._everywhere(milp.best_bound)
        solver = (TrustedClaim.MIP_SOLVER_STATUS,) if milp.solver else ()
        earlier = () if self._property_bound is None else self._property_bound.trusted
        claims = _distinct((*solver, TrustedClaim.FLOAT64_ROUNDING, *milp.trusted, *earlier))
        return Certificate(engine, bound if bound < 0 else None, claims)

    # Time.

    def _may_go_on(self, deadline: Deadline) -> bool:
        """Whether the query is open and time is left; remembers that a stage was cut."""
        if self.verdict is not None:
            return False
        self._was_cut_short |= deadline.has_expired
        return not deadline.has_expired

    @contextmanager
    def _stage(self, name: str) -> Iterator[list[str]]:
        """Times a stage and records it with the details that the body appends."""
        details: list[str] = []
        started = time.monotonic()
        yield details
        self._stages.append(Stage(name, time.monotonic() - started, self._case.best_bound, "; ".join(details)))


def _distinct(claims: Sequence[TrustedClaim]) -> tuple[TrustedClaim, ...]:
    return tuple(dict.fromkeys(claims))


def _share(deadline: Deadline, share: float, most: float = math.inf) -> Deadline:
    """The deadline after this share of what is left, and after so many seconds at most."""
    return deadline.within(min(most, share * deadline.remaining()))
