"""Engines and attacks that lie must never make a wrong verdict: it is refused, Unknown, or a contradiction."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from tiny_networks import linear_network

from verifier.bounds import BoundMethod, BoundOptions, PropertyBound
from verifier.bounds.engine import OwnEngine
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.milp import MilpOutcome, MilpStatus
from verifier.property import stays_in_top_k
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import Plan, verify

HONEST = OwnEngine(BoundOptions(method=BoundMethod.CROWN))
# Score 0 is 3 a - b + 1/4, score 1 is 1/2: over the unit square the margin is largest, 1.25, at (0, 1).
NETWORK = linear_network([[3.0, -1.0], [0.0, 0.0]], [0.25, 0.5])


def query(lower=(0.0, 0.0), upper=(1.0, 1.0)) -> Query:
    box = Box(np.array(lower).reshape(1, 1, 2), np.array(upper).reshape(1, 1, 2))
    return Query(NETWORK, box, stays_in_top_k(0, 1, 2))


VULNERABLE = query()
ROBUST = query((0.5, 0.0), (1.0, 0.5))  # supremum 0.5 - 1.5 + 0.5 - 0.25 = -0.75


class LyingBounds:
    """Changes an honest engine's answer."""

    name = "liar"

    def __init__(self, **lies) -> None:
        self._lies = lies

    def analyse(self, canonical, box, *, deadline):
        return HONEST.analyse(canonical, box, deadline=deadline)

    def bound(self, region, property, *, deadline) -> PropertyBound:
        return replace(HONEST.bound(region, property, deadline=deadline), engine="liar", **self._lies)


def lying_milp(status: MilpStatus, bound: float, witness=None, seeds=(), replays=None, solver="liar"):
    """Answers whatever it is told; shows `witness` to the replay first."""

    def decide(region, property, open_subsets, *, on_witness, deadline):
        if witness is not None:
            accepted = on_witness(np.array(witness))
            if replays is not None:
                replays.append(accepted)
        points = np.array(seeds, dtype=np.float64).reshape(-1, 2)
        told = None if witness is None else np.array(witness)
        return MilpOutcome(status, bound, told, points, (), solver, 3, (), "as told")

    return decide


def only_bounds(**lies) -> Plan:
    return Plan(HONEST, (LyingBounds(**lies),), None)


def only_milp(*args, **kwargs) -> Plan:
    return Plan(HONEST, (), lying_milp(*args, **kwargs))


NO_POINTS = np.zeros((0, 2))
CLAIMS_ROBUST = {"is_robust": True, "open_subsets": (), "open_forms": (), "upper": -1.0, "minimisers": NO_POINTS}


class HiddenViolations:
    """A falsifier that is called but finds nothing: what a query needs to reach the engines is a violation nobody tries."""

    def __call__(self, query, *, starts, deadline):
        return []


def hide_violations(monkeypatch) -> None:
    """Switches off the cheap points, so that a lie meets no evidence before it is told."""
    monkeypatch.setattr("verifier.verify.evidence.Evidence.climb_linearly", lambda self, goal, starts: starts[:0])


# A box whose centre and extreme corners are all fine, so that only the gradient, an engine or an attack shows the violation.
TRAP = query((0.25, 0.25), (0.75, 1.0))  # at (0.25, 1): 0.5 - (0.75 - 1 + 0.25) = 0.5; at lower corner 0.5-0.75 < 0
WORST = [0.25, 1.0]


def test_the_trap_is_a_trap(monkeypatch):
    assert isinstance(verify(TRAP, plan=Plan(HONEST, (), None)).verdict, Vulnerable)
    hide_violations(monkeypatch)
    assert isinstance(verify(TRAP, plan=Plan(HONEST, (), None)).verdict, Unknown)


def test_a_false_bound_proof_contradicts_its_own_maximisers(monkeypatch):
    hide_violations(monkeypatch)
    lies = {**CLAIMS_ROBUST}
    del lies["minimisers"]
    with pytest.raises(ContradictionError, match="liar") as caught:
        verify(TRAP, plan=only_bounds(**lies))
    assert caught.value.query is TRAP
    assert caught.value.details["margin_lower"] > 0.4
    np.testing.assert_array_equal(caught.value.details["image"].ravel(), np.float32(WORST))
    revived = pickle.loads(pickle.dumps(caught.value))
    assert revived.query.property.name == TRAP.property.name
    assert str(revived) == str(caught.value)


def test_a_false_bound_that_proves_nothing_is_a_contradiction_too(monkeypatch):
    # The worst point's margin is 0.5; a bound of 0.2 does not even claim robustness.
    hide_violations(monkeypatch)
    with pytest.raises(ContradictionError, match=r"at least 0\.5"):
        verify(TRAP, plan=only_bounds(upper=0.2))


def test_a_false_proof_contradicts_points_tried_before(monkeypatch):
    # ONNX Runtime refuses every replay, so the violation stays on the table as exact evidence when the engine lies.
    monkeypatch.setattr("verifier.check.replay", lambda *_: None)
    with pytest.raises(ContradictionError):
        verify(VULNERABLE, plan=only_bounds(**CLAIMS_ROBUST))


@pytest.mark.parametrize("upper", [math.nan, -math.inf])
def test_bounds_that_are_no_numbers_prove_nothing(upper):
    plan = only_bounds(**{**CLAIMS_ROBUST, "upper": upper})
    verdict = verify(ROBUST, plan=plan).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.best_bound == math.inf


@pytest.mark.parametrize("upper", [math.inf, 0.5, 0.0])
def test_a_robust_flag_without_a_negative_bound_proves_nothing(upper):
    verdict = verify(ROBUST, plan=only_bounds(**{**CLAIMS_ROBUST, "upper": upper})).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.best_bound == upper


def test_a_false_milp_refutation_contradicts_the_evidence(monkeypatch):
    monkeypatch.setattr("verifier.check.replay", lambda *_: None)
    with pytest.raises(ContradictionError, match="MILP"):
        verify(VULNERABLE, plan=only_milp(MilpStatus.REFUTED, -0.5, solver="cbc"))


def test_a_false_milp_refutation_contradicts_its_own_seeds(monkeypatch):
    hide_violations(monkeypatch)
    with pytest.raises(ContradictionError) as caught:
        verify(TRAP, plan=only_milp(MilpStatus.REFUTED, -0.5, seeds=[WORST]))
    assert caught.value.query is TRAP


@pytest.mark.parametrize("bound", [math.nan, -math.inf, math.inf, 0.25])
def test_a_refutation_whose_bound_says_otherwise_is_not_believed(bound):
    verdict = verify(ROBUST, plan=only_milp(MilpStatus.REFUTED, bound)).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.reason is UnknownReason.SOLVER_FAILED


def test_an_honest_refutation_names_its_trust():
    verdict = verify(ROBUST, plan=only_milp(MilpStatus.REFUTED, -0.5)).verdict
    assert isinstance(verdict, Robust)
    assert verdict.certificate.bound == -0.5
    assert set(verdict.certificate.trusted) == {TrustedClaim.MIP_SOLVER_STATUS, TrustedClaim.FLOAT64_ROUNDING}


def test_a_refutation_of_the_subsets_left_open_claims_no_bound_for_the_others():
    # Bounds refuted the other subsets with bounds that nobody kept, so only "< 0" is known of the whole.
    loose = LyingBounds(is_robust=False, upper=2.0, open_subsets=((0,),), open_forms=(0,))
    verdict = verify(ROBUST, plan=Plan(HONEST, (loose,), lying_milp(MilpStatus.REFUTED, -0.5))).verdict
    assert isinstance(verdict, Robust)
    assert verdict.certificate.bound is None


@pytest.mark.parametrize("witness", [[0.9, 0.1], [math.nan, 0.0], [7.0, -3.0]])
def test_a_false_witness_is_replayed_and_never_becomes_a_verdict(witness):
    replays = []
    plan = only_milp(MilpStatus.WITNESS, math.inf, witness=witness, replays=replays)
    verdict = verify(ROBUST, plan=plan).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.reason is UnknownReason.NOT_REPLAYED
    assert replays == [False]


def test_a_true_witness_is_replayed_from_the_callback(monkeypatch):
    hide_violations(monkeypatch)
    replays = []
    plan = only_milp(MilpStatus.UNDECIDED, math.inf, witness=WORST, replays=replays)
    verdict = verify(TRAP, plan=plan).verdict
    assert replays == [True]
    assert isinstance(verdict, Vulnerable)
    assert verdict.counterexample.found_by == "MILP"


def test_a_contradiction_that_milp_finds_itself_keeps_the_query():
    def decide(region, property, open_subsets, *, on_witness, deadline):
        raise ContradictionError("a point exceeds the solver's bound")

    with pytest.raises(ContradictionError, match="exceeds") as caught:
        verify(ROBUST, plan=Plan(HONEST, (), decide))
    assert caught.value.query is ROBUST


def test_a_solver_that_gives_up_is_named():
    verdict = verify(ROBUST, plan=only_milp(MilpStatus.UNDECIDED, math.inf)).verdict
    assert verdict.reason is UnknownReason.SOLVER_FAILED


# ---- attacks ----------------------------------------------------------------------------------------------------------------


def falsifier(*images):
    return lambda query, *, starts, deadline: list(images)


def image(a: float, b: float, dtype=np.float32) -> np.ndarray:
    return np.array([[[a, b]]], dtype=dtype)


@pytest.mark.parametrize(
    "lie",
    [
        image(0.0, 1.0),  # violates, outside the box
        image(np.nextafter(np.float32(0.5), np.float32(0.0)), 0.5),  # one float32 outside
        image(math.nan, 0.5),
        image(math.inf, 0.5),
        image(0.5, 0.25, np.float64),
        np.float32([0.5, 0.25]),
        np.zeros((1, 1, 3), np.float32),
        np.float32(0.5).reshape(()),
    ],
)
def test_attack_results_that_are_no_images_of_the_box_are_dropped(lie):
    outcome = verify(ROBUST, falsifier=falsifier(lie), plan=Plan(HONEST, (), None))
    assert isinstance(outcome.verdict, Unknown)
    attack = next(stage for stage in outcome.statistics.stages if stage.name == "attack")
    assert "1 refused" in attack.detail


def test_good_candidates_count_beside_bad_ones(monkeypatch):
    hide_violations(monkeypatch)
    images = (image(math.nan, 0.0), image(9.0, 0.0), image(0.5, 0.5), image(*WORST))
    verdict = verify(TRAP, falsifier=falsifier(*images), plan=Plan(HONEST, (), None)).verdict
    assert isinstance(verdict, Vulnerable)
    assert verdict.counterexample.found_by == "attack"


def test_an_attack_may_scribble_on_its_images_afterwards(monkeypatch):
    hide_violations(monkeypatch)
    mine = image(*WORST)

    def scribble(query, *, starts, deadline):
        yield mine
        mine[:] = 0.75

    verdict = verify(TRAP, falsifier=lambda *a, **k: list(scribble(*a, **k)), plan=Plan(HONEST, (), None)).verdict
    assert isinstance(
        verdict, Unknown
    )  # the list holds what the attack made of it in the end, and that is what is judged


def test_attack_gets_minimisers_and_starts(monkeypatch):
    hide_violations(monkeypatch)
    seen = []

    def spy(query, *, starts, deadline):
        seen.append(starts)
        return []

    start = np.array([[[[0.5, 0.5]]]])
    monkeypatch.setattr("verifier.check.replay", lambda *_: None)
    verify(TRAP, falsifier=spy, plan=Plan(HONEST, (HONEST,), None), starts=start)
    assert any(np.array_equal(point.ravel(), WORST) for point in seen[0])
    assert any(np.array_equal(point, start[0]) for point in seen[0])


def test_the_milp_deadline_is_the_caller_s():
    deadlines = []

    def decide(region, property, open_subsets, *, on_witness, deadline):
        deadlines.append(deadline)
        return lying_milp(MilpStatus.UNDECIDED, math.inf)(
            region, property, open_subsets, on_witness=on_witness, deadline=deadline
        )

    limit = Deadline.after(500.0)
    verify(ROBUST, plan=Plan(HONEST, (), decide), deadline=limit)
    assert deadlines == [limit]


def test_tighter_bounds_come_before_the_attack_only_where_a_proof_is_nearer(monkeypatch):
    hide_violations(monkeypatch)

    def stages(upper: float) -> list[str]:
        loose = LyingBounds(is_robust=False, upper=upper, open_forms=(0,))
        outcome = verify(ROBUST, falsifier=falsifier(), plan=Plan(HONEST, (loose, loose), None))
        return [stage.name for stage in outcome.statistics.stages]

    # The best margin seen is -0.75 or less.
    assert stages(0.1) == ["points", "analysis", "bounds", "bounds", "attack"]
    assert stages(90.0) == ["points", "analysis", "bounds", "attack", "bounds"]


def test_bounds_are_tightened_once_and_used(monkeypatch):
    hide_violations(monkeypatch)
    tightened, bounded = [], []

    def tighten(region, deadline):
        tightened.append(region)
        return replace(region, unstable_units=41)

    class Watching(LyingBounds):
        def bound(self, region, property, *, deadline):
            bounded.append(region.unstable_units)
            return super().bound(region, property, deadline=deadline)

    loose = Watching(is_robust=False, upper=0.001, open_forms=(0,))
    plan = Plan(HONEST, (loose,), lying_milp(MilpStatus.UNDECIDED, math.inf), tighten)
    outcome = verify(ROBUST, plan=plan, deadline=Deadline.after(500.0))
    assert len(tightened) == 1
    assert outcome.statistics.unstable_units == 41
    assert bounded == [0, 41]
