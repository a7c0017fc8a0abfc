"""Which engines a run uses, and in which roles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from verifier.bounds import BoundMethod, RegionBounds, shallow_values, tightened_region
from verifier.bounds.engine import BoundEngine, OwnEngine
from verifier.deadline import Deadline
from verifier.milp import MilpOptions, MilpOutcome, decide, tighten_region
from verifier.property import Property
from verifier.search import Cover, Frontier, Goal, OnSettled, SearchOptions, SearchOutcome, search, search_all
from verifier.verify.options import EngineChoice, VerifyOptions

FIRST_PASS_SHARE = 0.5
_PROGRAMS_SECONDS = 4.0
"""Linear programs tighten what they reach in this time, in the order of the layers; wide networks have more than that."""


Tighten = Callable[[RegionBounds, Deadline], RegionBounds]


@runtime_checkable
class Decide(Protocol):
    """A complete engine over bounds: `verifier.milp.decide` with its options fixed."""

    def __call__(
        self,
        region: RegionBounds,
        goal: Property,
        open_subsets: Sequence[tuple[int, ...]] | None,
        *,
        on_witness: Callable[[Float[np.ndarray, "..."]], bool],
        deadline: Deadline,
    ) -> MilpOutcome:
        """Decides the property over the region; `open_subsets` None means that none was refuted or they are not listed."""


@runtime_checkable
class Explore(Protocol):
    """Branch and bound: `verifier.search.search` with its options fixed."""

    def __call__(
        self,
        region: RegionBounds,
        goal: Property,
        open_subsets: Sequence[tuple[int, ...]] | None,
        *,
        on_candidates: Callable[[Float[np.ndarray, "n inputs"]], bool],
        deadline: Deadline,
        start: Frontier | Cover | None,
    ) -> SearchOutcome:
        """Decides the property over the region; `open_subsets` None means that none was refuted or they are not listed.

        `start` is the frontier of an earlier search of the same question, or a cover that another one left behind.
        """


@runtime_checkable
class ExploreAll(Protocol):
    """Branch and bound over many questions on one region at once: `verifier.search.search_all` with its options fixed."""

    def __call__(
        self,
        region: RegionBounds,
        goals: Sequence[Goal],
        *,
        on_candidates: Callable[[int, Float[np.ndarray, "n inputs"]], bool],
        on_settled: OnSettled,
        deadline: Deadline,
    ) -> list[SearchOutcome]:
        """One outcome per goal, in their order; `on_settled` hears of a goal as soon as it is refuted or a violation accepted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Engines by role.

    Attributes:
        analysis: Computes the bounds of a region that everything else shares.
        proofs: Bound the property, the cheapest first.
        decide: The solver, complete, if the run may use it.
        tighten: Narrows a region's bounds before the solver or a long search runs, once for all queries on the region.
        explore_all: The same search for many questions on one region.
        sharpen: As `tighten`, quick enough to come before the property is bounded a second time.
        explore: The branch and bound, complete, if the run may use it.
    """

    analysis: BoundEngine
    proofs: tuple[BoundEngine, ...]
    decide: Decide | None
    tighten: Tighten | None = None
    explore: Explore | None = None
    sharpen: Tighten | None = None
    explore_all: ExploreAll | None = None

    @property
    def is_complete(self) -> bool:
        """Whether some engine decides every query, given time."""
        return self.decide is not None or self.explore is not None

    def before_decide(self, deadline: Deadline) -> Deadline:
        """The deadline of everything but complete engines: half of what is left, or all of it if there is no such engine."""
        return deadline if not self.is_complete else deadline.within(FIRST_PASS_SHARE * deadline.remaining())


def plan_for(options: VerifyOptions) -> Plan:
    """The engines that these options name.

    Raises:
        SolverUnavailableError: auto-LiRPA is asked for and not installed.
    """
    sharpen = tightened_region if options.sharpens else None
    match options.engine:
        # Where there is a search, its first rows are the alpha-CROWN bounds, on what CROWN's bounds leave undecided alone.
        case EngineChoice.AUTO:
            engines = _own_engines(options)
            return Plan(
                engines[0],
                engines[:1],
                _milp(options),
                _tightened,
                _search(options),
                sharpen,
                _search_all(options),
            )
        case EngineChoice.SEARCH:
            engines = _own_engines(options)
            return Plan(engines[0], engines[:1], None, _tightened, _search(options), sharpen, _search_all(options))
        case EngineChoice.BOUNDS:
            engines = _own_engines(options)
            is_asked = options.bounds.method is BoundMethod.ALPHA_CROWN
            return Plan(engines[0], engines, None, sharpen=sharpen if is_asked else None)
        case EngineChoice.MILP:
            return Plan(_own_engines(options)[0], (), _milp(options), _tightened, sharpen=sharpen)
        case EngineChoice.AUTO_LIRPA:
            from verifier.bounds.lirpa import AutoLirpaEngine

            lirpa = AutoLirpaEngine()
            return Plan(lirpa, (lirpa,), None)


def _tightened(region: RegionBounds, deadline: Deadline) -> RegionBounds:
    """Linear programs for what `tightened_region` does not bring near its exact range."""
    solved = shallow_values(region.canonical)
    if solved.issuperset(region.canonical.nonlinear_inputs()):
        return region
    return tighten_region(region, deadline.within(_PROGRAMS_SECONDS), left_out=solved)


def _search_options(options: VerifyOptions) -> SearchOptions:
    return replace(options.search, solver=options.solver) if options.solver != "auto" else options.search


def _search_all(options: VerifyOptions) -> ExploreAll:
    def run(
        region: RegionBounds,
        goals: Sequence[Goal],
        *,
        on_candidates: Callable[[int, Float[np.ndarray, "n inputs"]], bool],
        on_settled: OnSettled,
        deadline: Deadline,
    ) -> list[SearchOutcome]:
        return search_all(
            region,
            goals,
            options=_search_options(options),
            on_candidates=on_candidates,
            on_settled=on_settled,
            deadline=deadline,
        )

    return run


def _search(options: VerifyOptions) -> Explore:
    settings = _search_options(options)

    def run(
        region: RegionBounds,
        goal: Property,
        open_subsets: Sequence[tuple[int, ...]] | None,
        *,
        on_candidates: Callable[[Float[np.ndarray, "n inputs"]], bool],
        deadline: Deadline,
        start: Frontier | Cover | None,
    ) -> SearchOutcome:
        return search(
            region,
            goal,
            open_subsets,
            options=settings,
            on_candidates=on_candidates,
            deadline=deadline,
            start=start,
        )

    return run


def _own_engines(options: VerifyOptions) -> tuple[BoundEngine, ...]:
    """CROWN first where alpha-CROWN is asked for: most queries need no more."""
    asked = OwnEngine(options.bounds)
    if options.bounds.method is BoundMethod.ALPHA_CROWN:
        return (OwnEngine(replace(options.bounds, method=BoundMethod.CROWN)), asked)
    return (asked,)


def _milp(options: VerifyOptions) -> Decide:
    # No tightening of its own: the plan tightens once for all queries on a region.
    settings = MilpOptions(solver=options.solver, pipeline=options.use_pipeline, tightening_seconds=0.0)

    def run(
        region: RegionBounds,
        goal: Property,
        open_subsets: Sequence[tuple[int, ...]] | None,
        *,
        on_witness: Callable[[Float[np.ndarray, "..."]], bool],
        deadline: Deadline,
    ) -> MilpOutcome:
        return decide(region, goal, open_subsets, options=settings, on_witness=on_witness, deadline=deadline)

    return run
