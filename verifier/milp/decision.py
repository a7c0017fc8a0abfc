"""Decides the open count-subsets of a property over a region: tightening, linear programs, then mixed-integer models."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float

from verifier.bounds.results import NodeBounds, RegionBounds
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.milp.encoding import Encoding, Form, encode
from verifier.milp.evidence import Evidence, Point
from verifier.milp.options import MilpOptions, MilpOutcome, MilpStatus
from verifier.milp.plan import Plan, Subset, make_plan
from verifier.milp.settle import Settled, Settlement, settle
from verifier.milp.solvers.answer import MilpSolver
from verifier.milp.solvers.registry import pick_solver
from verifier.milp.tightening import LpTightener
from verifier.milp.topk import (
    Forms,
    FormVector,
    SubsetPrograms,
    TopKModel,
    form_interval,
    forms_of,
    single_model,
    subset_model,
)
from verifier.property import Property

_LOG = logging.getLogger(__name__)
_ROUNDS = 3
_TIGHTENING_SHARE = 0.25
Seeds = Float[np.ndarray, "n inputs"]


def decide(
    region: RegionBounds,
    prop: Property,
    open_subsets: Sequence[Subset] | None,
    *,
    options: MilpOptions | None = None,
    on_witness: Callable[[Point], bool],
    deadline: Deadline,
    solver: MilpSolver | None = None,
    on_seeds: Callable[[Seeds], Point | None] | None = None,
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
        on_seeds: An attack, tried once between the linear programs and the first mixed-integer model: from the linear
            programs' optima to a point that `on_witness` accepts, or None.

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
    plan = make_plan(prop, open_subsets, upper, -slack, chosen_options)
    run = _Run(region, prop, chosen_options, chosen_solver, deadline, slack, evidence, on_seeds)
    return run.decide(plan, upper)


def tighten_region(region: RegionBounds, deadline: Deadline, *, left_out: frozenset[int] = frozenset()) -> RegionBounds:
    """The region with the bounds of undecided units narrowed by linear programs, as far as the deadline allows.

    All properties of the region share the result; call `decide` with `tightening_seconds=0` afterwards. The values `left_out` keep
    their bounds.
    """
    box = (region.lower, region.upper)
    tighten = LpTightener(deadline, left_out)
    # The encoding itself takes a moment only, and cutting it short would lose every bound tightened so far.
    encoding = encode(region.canonical, box, region.node_bounds, Form.RELAXED, tighten=tighten, deadline=Deadline())
    if encoding is None:
        return region
    return replace(region, node_bounds=encoding.node_bounds, unstable_units=encoding.undecided)


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
    on_seeds: Callable[[Seeds], Point | None] | None

    def decide(self, plan: Plan, upper: FormVector) -> MilpOutcome:
        if plan.subsets == ():
            return self._refuted(plan.excluded, [], "the bounds of the forms leave no subset open")
        if self.evidence.witness is not None:
            return self._witness([], "the middle of the box")
        relaxed = self._encode(Form.RELAXED, self.region.node_bounds)
        if relaxed is None:
            best = float(np.sort(upper)[-self.prop.count])
            return self._undecided(best, plan.subsets or (), [], "the time limit was reached while encoding")
        forms = forms_of(relaxed, self.prop)
        if plan.subsets is None:
            return self._single(plan, forms)
        return self._pipeline(plan, forms)

    def _encode(self, form: Form, bounds: NodeBounds) -> Encoding | None:
        seconds = min(self.options.tightening_seconds, _TIGHTENING_SHARE * self.deadline.remaining())
        is_tightening = form is Form.RELAXED and seconds > 0
        tighten = LpTightener(self.deadline.within(seconds)) if is_tightening else None
        box = (self.region.lower, self.region.upper)
        return encode(self.region.canonical, box, bounds, form, tighten=tighten, deadline=self.deadline)

    # The pipeline: linear programs of the subsets, then one model for each that survives.

    def _pipeline(self, plan: Plan, forms: Forms) -> MilpOutcome:
        subsets = plan.subsets or ()
        bounds = self._subset_bounds(SubsetPrograms(forms, plan.members), forms, subsets)
        if self._found_early(not all(bounds[s] < -self.slack for s in subsets)):
            return self._witness([], "from a linear relaxation's optimum")
        pending = sorted((s for s in subsets if bounds[s] >= -self.slack), key=lambda s: -bounds[s])
        note = f"linear programs refuted {len(subsets) - len(pending)} of {len(subsets)} subsets"
        if not pending:
            return self._refuted(max(plan.excluded, *bounds.values()), [], note)
        exact = self._encode(Form.EXACT, forms.encoding.node_bounds)
        if exact is None:
            return self._undecided(max(bounds.values()), tuple(pending), [], f"{note}; the time limit was reached")
        bounds[()] = plan.excluded
        return self._settle_subsets(pending, bounds, forms_of(exact, self.prop), note)

    def _found_early(self, is_open: bool) -> bool:
        """Whether there is a witness before any mixed-integer model; the attack is tried if something is open."""
        if self.evidence.witness is None and is_open and self.on_seeds is not None and not self.deadline.has_expired:
            point = self.on_seeds(self.evidence.seeds())
            if point is not None:
                self.evidence.add(point)
        return self.evidence.witness is not None

    def _subset_bounds(
        self, programs: SubsetPrograms, forms: Forms, subsets: tuple[Subset, ...]
    ) -> dict[Subset, float]:
        bounds = {subset: float(forms.upper[list(subset)].min()) for subset in subsets}
        for subset in subsets:
            bound, point = programs.maximise(subset, self.deadline)
            bounds[subset] = min(bound, bounds[subset])
            if point is not None and self.evidence.add(point):
                break
            self.evidence.check(subset, bounds[subset], "linear programs")
        return bounds

    def _settle_subsets(
        self, pending: list[Subset], bounds: dict[Subset, float], forms: Forms, note: str
    ) -> MilpOutcome:
        answers: list[Settled] = []
        left: list[Subset] = []
        near_ties: list[Subset] = []
        share = 0.0
        for _ in range(_ROUNDS):
            chosen = pending[: self._affordable(len(pending), 2.0 * share)]
            left = pending[len(chosen) :]
            if not chosen:
                break
            share = self.deadline.remaining() / len(chosen)
            for position, subset in enumerate(chosen):
                until = self.deadline.within(self.deadline.remaining() / (len(chosen) - position))
                settled = self._settle(partial(subset_model, forms, subset), subset, until)
                answers.append(settled)
                bounds[subset] = min(bounds[subset], settled.bound)
                if settled.settlement is Settlement.WITNESS:
                    return self._witness(answers, note)
                if settled.settlement is Settlement.NEAR_TIE:
                    near_ties.append(subset)
                elif settled.settlement is Settlement.OPEN:
                    left.append(subset)
            pending = sorted(left, key=lambda subset: -bounds[subset])
        best = max(bounds.values())
        if left or near_ties:
            return self._undecided(best, (*left, *near_ties), answers, note)
        return self._refuted(best, answers, note)

    def _affordable(self, subsets: int, seconds: float) -> int:
        """How many subsets can have that much time each: quick ones leave their share to the slow ones, doubled at least."""
        remaining = self.deadline.remaining()
        if remaining == 0.0 or subsets == 0:
            return 0
        return subsets if remaining >= seconds * subsets else int(remaining / seconds)

    # The single model of the count-th largest form.

    def _single(self, plan: Plan, relaxed: Forms) -> MilpOutcome:
        singles = tuple((form,) for form in plan.members)
        bounds = self._subset_bounds(SubsetPrograms(relaxed, plan.members), relaxed, singles)
        uppers = relaxed.upper.copy()
        for (form,), bound in bounds.items():
            uppers[form] = min(uppers[form], bound)
        open_members = [form for form in plan.members if uppers[form] >= -self.slack]
        best = max(plan.excluded, float(np.sort(uppers[list(plan.members)])[-self.prop.count]))
        if self._found_early(len(open_members) >= self.prop.count):
            return self._witness([], "from a linear relaxation's optimum")
        if len(open_members) < self.prop.count:
            return self._refuted(best, [], "linear programs left fewer open forms than the property counts")
        note = f"one model over {len(open_members)} open forms"
        exact = self._encode(Form.EXACT, relaxed.encoding.node_bounds)
        if exact is None:
            return self._undecided(best, (), [], f"{note}; the time limit was reached")
        forms = replace(forms_of(exact, self.prop), upper=uppers)
        settled = self._settle(partial(single_model, forms, open_members, self.prop.count), None, self.deadline)
        best = min(best, max(plan.excluded, settled.bound))
        match settled.settlement:
            case Settlement.WITNESS:
                return self._witness([settled], note)
            case Settlement.REFUTED:
                return self._refuted(best, [settled], note)
            case Settlement.NEAR_TIE | Settlement.OPEN:
                return self._undecided(best, (), [settled], note)

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
        # Solvers' bounds below 0 without their word that the model is infeasible are within tolerances: no proof.
        return self._outcome(MilpStatus.UNDECIDED, max(bound, 0.0), left, answers, note)

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
