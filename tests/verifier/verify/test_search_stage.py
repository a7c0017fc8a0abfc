"""The search as an engine of `verify`: alone it decides, with others it takes its turn, and its lies are caught."""

import numpy as np
import pytest
from tiny_networks import exact_supremum, linear_network, random_box, random_dense_network

from verifier.bounds import BoundMethod, BoundOptions
from verifier.bounds.engine import OwnEngine
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, InputError
from verifier.milp import MilpOutcome, MilpStatus
from verifier.property import stays_in_top_k
from verifier.query import Query
from verifier.region import Box
from verifier.search import Descent, Frontier, SearchOptions, SearchOutcome, SearchStatus, search
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import EngineChoice, Plan, VerifyOptions, verify

HONEST = OwnEngine(BoundOptions(method=BoundMethod.INTERVAL))
NETWORK = linear_network([[3.0, -1.0], [0.0, 0.0]], [0.25, 0.5])
NOTHING = np.zeros((0, 2))


def query(lower, upper) -> Query:
    box = Box(np.array(lower).reshape(1, 1, 2), np.array(upper).reshape(1, 1, 2))
    return Query(NETWORK, box, stays_in_top_k(0, 1, 2))


ROBUST = query((0.5, 0.0), (1.0, 0.5))  # supremum -0.75
TRAP = query((0.25, 0.25), (0.75, 1.0))  # 0.5 at (0.25, 1), though the centre and the extreme corners are fine
WORST = np.array([[0.25, 1.0]])


def explorer(status, bound, offered=None, seeds=NOTHING, *, interrupted=False, calls=None):
    """A search that answers whatever it is told."""

    def explore(region, goal, open_subsets, *, on_candidates, deadline, start):
        if calls is not None:
            calls.append("search")
        accepted = offered is not None and on_candidates(offered)
        told = SearchStatus.WITNESS if accepted else status
        claims = (TrustedClaim.FLOAT64_ROUNDING,)
        return SearchOutcome(told, bound, 1, 1, seeds, claims, interrupted, "as told")

    return explore


def plan(explore, decide=None) -> Plan:
    return Plan(HONEST, (), decide, None, explore)


def hide_violations(monkeypatch) -> None:
    monkeypatch.setattr("verifier.verify.evidence.Evidence.climb_linearly", lambda self, goal, starts: starts[:0])


@pytest.mark.parametrize("seed", range(12))
def test_the_search_alone_decides(seed):
    network = random_dense_network(seed)
    asked = Query(network, random_box(network, seed), stays_in_top_k(seed % 4, 1 + seed % 2, 4))
    weak = BoundOptions(method=BoundMethod.INTERVAL)
    bare = SearchOptions(root=Descent(iterations=2), step=Descent(iterations=2), leaf_windows=0)
    verdict = verify(asked, options=VerifyOptions(engine=EngineChoice.SEARCH, bounds=weak, search=bare)).verdict
    supremum = exact_supremum(network, asked.property, asked.region)
    if abs(supremum) > 1e-5:
        assert isinstance(verdict, Robust if supremum < 0 else Vulnerable)


def test_a_certificate_names_the_search_and_what_it_trusts():
    outcome = verify(ROBUST, plan=plan(explorer(SearchStatus.REFUTED, -0.5)))
    assert isinstance(outcome.verdict, Robust)
    assert outcome.verdict.certificate.engine == "branch and bound"
    assert outcome.verdict.certificate.bound == -0.5
    assert TrustedClaim.FLOAT64_ROUNDING in outcome.verdict.certificate.trusted
    assert outcome.statistics.stages[-1].name == "search"
    assert "as told" in outcome.statistics.stages[-1].detail


def test_a_false_proof_contradicts_the_points_of_the_search(monkeypatch):
    hide_violations(monkeypatch)
    with pytest.raises(ContradictionError, match="branch and bound") as caught:
        verify(TRAP, plan=plan(explorer(SearchStatus.REFUTED, -0.5, seeds=WORST)))
    assert caught.value.query is TRAP or isinstance(caught.value, ContradictionError)


@pytest.mark.parametrize("bound", [float("nan"), -float("inf"), 0.0, 0.3])
def test_a_refutation_without_a_negative_bound_proves_nothing(bound):
    assert isinstance(verify(ROBUST, plan=plan(explorer(SearchStatus.REFUTED, bound))).verdict, Unknown)


def test_a_witness_that_does_not_replay_is_no_verdict():
    middle = np.array([[0.75, 0.25]])
    verdict = verify(ROBUST, plan=plan(explorer(SearchStatus.UNDECIDED, 1.0, offered=middle))).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.reason is UnknownReason.INCOMPLETE


def test_a_witness_that_replays_is_the_verdict(monkeypatch):
    hide_violations(monkeypatch)
    verdict = verify(TRAP, plan=plan(explorer(SearchStatus.UNDECIDED, 1.0, offered=WORST))).verdict
    assert isinstance(verdict, Vulnerable)
    assert verdict.counterexample.found_by == "branch and bound"


def test_solver_and_search_take_turns_and_say_why():
    calls: list[str] = []

    def decide(region, goal, open_subsets, *, on_witness, deadline):
        calls.append("MILP")
        return MilpOutcome(MilpStatus.UNDECIDED, 1.0, None, NOTHING, (), "", 0, (), "as told")

    outcome = verify(
        ROBUST, plan=plan(explorer(SearchStatus.UNDECIDED, 1.0, calls=calls), decide), deadline=Deadline.after(60.0)
    )
    assert calls == ["search", "search", "MILP", "search", "MILP", "search"]
    stages = [stage for stage in outcome.statistics.stages if stage.name in ("search", "MILP")]
    assert [stage.name for stage in stages] == calls
    assert all("units unstable" in stage.detail for stage in stages[1:])


@pytest.mark.parametrize(("few", "longest"), [(400, 30.0), (-1, 15.0)])
def test_a_small_model_gives_the_solver_more_time(monkeypatch, few, longest):
    monkeypatch.setattr("verifier.verify.investigation._FEW_UNITS", few)
    given: list[float] = []

    def decide(region, goal, open_subsets, *, on_witness, deadline):
        given.append(deadline.remaining())
        return MilpOutcome(MilpStatus.UNDECIDED, 1.0, None, NOTHING, (), "", 0, (), "as told")

    verify(ROBUST, plan=plan(explorer(SearchStatus.UNDECIDED, 1.0), decide), deadline=Deadline.after(60.0))
    assert longest - 3.0 < given[0] <= longest
    assert given[1] > given[0]


def test_an_interrupted_search_answers_with_its_bound():
    outcome = verify(ROBUST, plan=plan(explorer(SearchStatus.UNDECIDED, 0.25, interrupted=True)))
    assert isinstance(outcome.verdict, Unknown)
    assert outcome.verdict.reason is UnknownReason.INTERRUPTED
    assert outcome.verdict.best_bound == 0.25


def test_an_interrupt_anywhere_answers_with_what_is_known():
    def interrupted(region, goal, open_subsets, *, on_candidates, deadline, start):
        raise KeyboardInterrupt

    outcome = verify(ROBUST, plan=plan(interrupted))
    assert isinstance(outcome.verdict, Unknown)
    assert outcome.verdict.reason is UnknownReason.INTERRUPTED
    found = verify(TRAP, plan=plan(explorer(SearchStatus.WITNESS, 1.0, WORST, interrupted=True)))
    assert isinstance(found.verdict, Vulnerable)


def test_an_expired_deadline_is_the_reason():
    outcome = verify(ROBUST, options=VerifyOptions(engine=EngineChoice.SEARCH), deadline=Deadline(at=0.0))
    assert isinstance(outcome.verdict, Unknown)
    assert outcome.verdict.reason is UnknownReason.TIME_LIMIT


def test_the_search_takes_no_solver():
    with pytest.raises(InputError, match="solver"):
        VerifyOptions(engine=EngineChoice.SEARCH, solver="highs")


def real_outcome(asked, **choices):
    return verify(asked, options=VerifyOptions(engine=EngineChoice.SEARCH, bounds=LOOSE, **choices))


LOOSE = BoundOptions(method=BoundMethod.INTERVAL)


def test_the_long_search_goes_on_where_the_short_one_stopped():
    starts = []

    def explore(region, goal, open_subsets, *, on_candidates, deadline, start):
        starts.append(start)
        first = Deadline.after(0.0) if len(starts) == 1 else deadline
        return search(region, goal, open_subsets, on_candidates=on_candidates, deadline=first, start=start)

    outcome = verify(ROBUST, plan=plan(explore))
    assert isinstance(outcome.verdict, Robust)
    assert starts[0] is None
    assert isinstance(starts[1], Frontier)


@pytest.mark.parametrize("seed", range(10))
def test_covers_of_nested_regions_change_no_verdict(seed):
    network = random_dense_network(seed, hidden=6)
    outer = random_box(network, seed)
    middle = 0.5 * (outer.lower + outer.upper)
    inner = Box(0.5 * (outer.lower + middle), 0.5 * (outer.upper + middle))
    goal = stays_in_top_k(seed % 4, 2, 4)
    cover = real_outcome(Query(network, inner, goal)).cover
    for region in (inner, outer):
        asked = Query(network, region, goal)
        alone = real_outcome(asked).verdict
        helped = verify(asked, options=VerifyOptions(engine=EngineChoice.SEARCH, bounds=LOOSE), cover=cover).verdict
        assert type(alone) is type(helped)


class Patient:
    """Finds what it is told to find, in the turn it is told."""

    def __init__(self, turn_of_success):
        self.turn_of_success, self.starts = turn_of_success, []

    def __call__(self, query, *, starts, deadline):
        return []

    def longer(self, turn):
        def attack(query, *, starts, deadline):
            assert 0 < deadline.remaining() <= 10.0
            self.starts.append(starts)
            image = WORST if turn == self.turn_of_success else query.region.lower.reshape(1, 2)
            return [image.astype(np.float32).reshape(query.region.shape)]

        return attack


@pytest.mark.parametrize("turn", [0, 1])
def test_a_patient_attack_gets_turns_and_its_own_points_back(turn, monkeypatch):
    hide_violations(monkeypatch)

    def decide(region, goal, open_subsets, *, on_witness, deadline):
        return MilpOutcome(MilpStatus.UNDECIDED, 1.0, None, NOTHING, (), "", 0, (), "as told")

    patient = Patient(turn)
    engines = plan(explorer(SearchStatus.UNDECIDED, 1.0), decide)
    outcome = verify(TRAP, falsifier=patient, plan=engines, deadline=Deadline.after(60.0))
    assert isinstance(outcome.verdict, Vulnerable)
    assert len(patient.starts) == turn + 1
    if turn:
        lower = TRAP.region.lower.astype(np.float32).astype(np.float64)
        assert any(np.array_equal(start, lower) for start in patient.starts[1])
