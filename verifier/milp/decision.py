"""Decides the open count-subsets of a property over a region: tightening, linear programs, then mixed-integer models."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from math import comb

import numpy as np

from verifier.bounds.results import NodeBounds, RegionBounds
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.milp.encoding import Encoding, Form, encode
from verifier.milp.evidence import Evidence, Point
from verifier.milp.options import MilpOptions, MilpOutcome, MilpStatus
from verifier.milp.settle import Settled, Settlement, settle
from verifier.milp.solvers.answer import MilpSolver
from verifier.milp.solvers.registry import pick_solver
from verifier.milp.tightening import LpTightener
from verifier.milp.topk import Forms, SubsetPrograms, TopKModel, form_interval, forms_of, single_model, subset_model
from verifier.property import Property

_LOG = logging.getLogger(__name__)
Subset = tuple[int, ...]


def decide(
    region: RegionBounds,
    prop: Property,
    open_subsets: Sequence[Subset] | None,
    *,
    options: MilpOptions | None = None,
    on_witness: Callable[[Point], bool],
    deadline: Deadline,
    solver: MilpSolver | None = None,
) -> MilpOutcome:
    """Whether some point of the box brings `count` forms of an open subset to >= 0.

    Soundness: REFUTED names what it trusts: the solver's word that a model is infeasible where one was asked, and float64
    rounding. Linear programs alone trust no solver (their bounds are re-derived from multipliers). A solution is never
    more than a candidate: only `on_witness` makes it a WITNESS. Points that the replay refuses, near-ties among them, end
    in UNDECIDED. An expired deadline ends in UNDECIDED within about a second.

    Args:
        region: The network, the box and node bounds.
        prop: The property.
        open_subsets: Count-subsets of form indices that may be violated together; all others must have been refuted
            before. None or empty: not listed, so every subset counts as open.
        options: Choices.
        on_witness: The replay: True iff it accepts a point as a violation.
        deadline: When to stop.
        solver: Used instead of the one that `options.solver` names.

    Raises:
        InputError: An unknown solver.
        SolverUnavailableError: The solver named is not installed, or its licence does not cover the model.
        ContradictionError: A claimed bound lies below what a known point attains.
    """
    chosen_options = options or MilpOptions()
    chosen_solver = solver or pick_solver(chosen_options.solver)
    _, upper = form_interval(region.node_bounds, region.canonical.output, prop)
    scale = float(np.max(np.abs(upper), initial=1.0, where=np.isfinite(upper)))
    slack = chosen_options.proof_slack * scale
    evidence = Evidence(region, prop, on_witness, 2.0 * max(slack, 1e-6 * scale))
    plan = _plan(prop, open_subsets, upper >= -slack, chosen_options)
    return _Run(region, prop, chosen_options, chosen_solver, deadline, slack, evidence).decide(plan, upper)


def tighten_region(region: RegionBounds, deadline: Deadline) -> RegionBounds:
    """The region with the bounds of undecided units narrowed by linear programs, as far as the deadline allows.

    All properties of the region share the result; call `decide` with `tightening_seconds=0` afterwards.
    """
    box = (region.lower, region.upper)
    tighten = LpTightener(deadline)
    encoding = encode(region.canonical, box, region.node_bounds, Form.RELAXED, tighten=tighten, deadline=deadline)
    if encoding is None:
        return region
    return replace(region, node_bounds=encoding.node_bounds, unstable_units=encoding.undecided)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to settle: the listed subsets one by one, or (subsets None) `count` of the members in one model."""

    members: Subset
    subsets: tuple[Subset, ...] | None


def _plan(prop: Property, open_subsets: Sequence[Subset] | None, can_reach: np.ndarray, options: MilpOptions) -> _Plan:
    if open_subsets:
        listed: tuple[Subset, ...] | None = tuple(tuple(s) for s in open_subsets if all(can_reach[list(s)]))
        members = tuple(sorted({form for subset in listed or () for form in subset}))
    else:
        members = tuple(np.flatnonzero(can_reach).tolist())
        few = comb(len(members), prop.count) <= options.subset_cap
        listed = tuple(combinations(members, prop.count)) if few else None
    if listed and (not options.pipeline or len(listed) > options.subset_cap):
        listed = None
    return _Plan(members, listed)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One call of `decide`: everything its steps share."""

    region: RegionBounds
    prop: Property
    options: MilpOptions
    solver: MilpSolver
    deadline: Deadline
    slack: float
    evidence: Evidence

    def decide(self, plan: _Plan, upper: np.ndarray) -> MilpOutcome:
        if plan.subsets == ():
            return self._refuted(-self.slack, [], "the bounds of the forms leave no subset open")
        start = float(np.sort(upper)[-self.prop.count])
        if self.evidence.witness is not None:
            return self._witness([], "the middle of the box")
        relaxed = self._encode(Form.RELAXED, self.region.node_bounds)
        if relaxed is None:
            return self._undecided(start, plan.subsets or (), [], "the time limit was reached while encoding")
        forms = forms_of(relaxed, self.prop)
        if plan.subsets is None:
            return self._single(plan.members, forms, start)
        return self._pipeline(plan, forms, start)

    def _encode(self, form: Form, bounds: NodeBounds) -> Encoding | None:
        seconds = self.options.tightening_seconds
        is_tightening = form is Form.RELAXED and seconds > 0
        tighten = LpTightener(self.deadline.within(seconds)) if is_tightening else None
        box = (self.region.lower, self.region.upper)
        return encode(self.region.canonical, box, bounds, form, tighten=tighten, deadline=self.deadline)

    # The pipeline: linear programs of the subsets, then one model for each that survives.

    def _pipeline(self, plan: _Plan, forms: Forms, start: float) -> MilpOutcome:
        subsets = plan.subsets or ()
        bounds = self._subset_bounds(SubsetPrograms(forms, plan.members), subsets, start)
        if self.evidence.witness is not None:
            return self._witness([], "a linear relaxation's optimum")
        pending = sorted((s for s in subsets if bounds[s] >= -self.slack), key=lambda s: -bounds[s])
        note = f"linear programs refuted {len(subsets) - len(pending)} of {len(subsets)} subsets"
        if not pending:
            return self._refuted(max(bounds.values()), [], note)
        exact = self._encode(Form.EXACT, forms.encoding.node_bounds)
        if exact is None:
            return self._undecided(max(bounds.values()), tuple(pending), [], f"{note}; the time limit was reached")
        return self._settle_subsets(pending, bounds, forms_of(exact, self.prop), note)

    def _subset_bounds(
        self, programs: SubsetPrograms, subsets: tuple[Subset, ...], start: float
    ) -> dict[Subset, float]:
        bounds = dict.fromkeys(subsets, start)
        for subset in subsets:
            bound, point = programs.maximise(subset, self.deadline)
            bounds[subset] = min(bound, start)
            if point is not None and self.evidence.add(point):
                break
            self.evidence.check(subset, bounds[subset], "linear programs")
        return bounds

    def _settle_subsets(
        self, pending: list[Subset], bounds: dict[Subset, float], forms: Forms, note: str
    ) -> MilpOutcome:
        answers: list[Settled] = []
        near_ties: list[Subset] = []
        for _ in range(2):  # What quick subsets leave of their share of the time goes to the slow ones.
            left = []
            for position, subset in enumerate(pending):
                share = self.deadline.within(self.deadline.remaining() / (len(pending) - position))
                settled = self._settle(partial(subset_model, forms, subset), subset, share)
                answers.append(settled)
                bounds[subset] = min(bounds[subset], settled.bound)
                if settled.settlement is Settlement.WITNESS:
                    return self._witness(answers, note)
                if settled.settlement is Settlement.NEAR_TIE:
                    near_ties.append(subset)
                elif settled.settlement is Settlement.OPEN:
                    left.append(subset)
            pending = left
            if not pending or self.deadline.has_expired:
                break
        best = max(bounds.values())
        if pending or near_ties:
            return self._undecided(best, (*pending, *near_ties), answers, note)
        return self._refuted(best, answers, note)

    # The single model of the count-th largest form.

    def _single(self, members: Subset, relaxed: Forms, start: float) -> MilpOutcome:
        programs = SubsetPrograms(relaxed, members)
        singles = tuple((form,) for form in members)
        uppers = relaxed.upper.copy()
        for (form,), bound in self._form_bounds(programs, singles).items():
            uppers[form] = min(uppers[form], bound)
        if self.evidence.witness is not None:
            return self._witness([], "a linear relaxation's optimum")
        open_members = [form for form in members if uppers[form] >= -self.slack]
        best = min(start, float(np.sort(uppers[list(members)])[-self.prop.count]))
        note = f"one model over {len(open_members)} open forms"
        if len(open_members) < self.prop.count:
            return self._refuted(best, [], "linear programs left fewer open forms than the property counts")
        exact = self._encode(Form.EXACT, relaxed.encoding.node_bounds)
        if exact is None:
            return self._undecided(best, (), [], f"{note}; the time limit was reached")
        forms = replace(forms_of(exact, self.prop), upper=uppers)
        make = partial(single_model, forms, open_members, self.prop.count)
        settled = self._settle(make, None, self.deadline)
        best = min(best, settled.bound)
        match settled.settlement:
            case Settlement.WITNESS:
                return self._witness([settled], note)
            case Settlement.REFUTED:
                return self._refuted(best, [settled], note)
            case Settlement.NEAR_TIE | Settlement.OPEN:
                return self._undecided(best, (), [settled], note)

    def _form_bounds(self, programs: SubsetPrograms, singles: tuple[Subset, ...]) -> dict[Subset, float]:
        return self._subset_bounds(programs, singles, np.inf)

    def _settle(self, make_model: Callable[[float], TopKModel], subset: Subset | None, deadline: Deadline) -> Settled:
        settled = settle(
            make_model,
            self.solver,
            self.evidence,
            slack=self.slack,
            witness_margin=self.options.witness_margin,
            check=lambda bound, who: self.evidence.check(subset, bound, who),
            deadline=deadline,
        )
        _LOG.debug("subset %s: %s, bound %g, %s", subset, settled.settlement.value, settled.bound, settled.detail)
        return settled

    # Outcomes.

    def _refuted(self, bound: float, answers: list[Settled], note: str) -> MilpOutcome:
        return self._outcome(MilpStatus.REFUTED, bound, (), answers, note)

    def _witness(self, answers: list[Settled], note: str) -> MilpOutcome:
        return self._outcome(MilpStatus.WITNESS, np.inf, (), answers, note)

    def _undecided(self, bound: float, left: tuple[Subset, ...], answers: list[Settled], note: str) -> MilpOutcome:
        return self._outcome(MilpStatus.UNDECIDED, bound, left, answers, note)

    def _outcome(
        self, status: MilpStatus, bound: float, left: tuple[Subset, ...], answers: list[Settled], note: str
    ) -> MilpOutcome:
        is_claim = status is not MilpStatus.WITNESS
        trusted = (TrustedClaim.FLOAT64_ROUNDING,) if is_claim else ()
        if is_claim and any(np.isfinite(answer.bound) for answer in answers):
            trusted = (TrustedClaim.MIP_SOLVER_STATUS, *trusted)
        said = dict.fromkeys(f"{answer.settlement.value} ({answer.detail})" for answer in answers)
        return MilpOutcome(
            status,
            float(bound),
            self.evidence.witness,
            self.evidence.seeds(),
            left,
            ", ".join(dict.fromkeys(answer.solver for answer in answers if answer.solver)),
            max((answer.binaries for answer in answers), default=0),
            trusted,
            "; ".join([note, *said]),
        )
