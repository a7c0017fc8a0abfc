import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import dense_network, exact_supremum, linear_network, random_box, random_dense_network

from attacks.margin import MarginAttack, MarginAttackOptions
from verifier import check
from verifier.bounds import BoundMethod, BoundOptions
from verifier.bounds.engine import OwnEngine
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, InputError
from verifier.labels import LabelState, classify_labels
from verifier.milp import MilpOutcome, MilpStatus
from verifier.property import stays_in_top_k, stays_out_of_top_k
from verifier.region import Box
from verifier.search import search, search_all
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import EngineChoice, Plan, VerifyOptions

ATTACK = MarginAttack(MarginAttackOptions(scout_steps=8, steps=10, max_subsets=6))
CROWN = OwnEngine(BoundOptions(method=BoundMethod.CROWN))
INTERVAL = OwnEngine(BoundOptions(method=BoundMethod.INTERVAL))
BOUNDS_ONLY = VerifyOptions(engine=EngineChoice.BOUNDS)

# Scores: pixel a, pixel b, 1/2, and 9 (always first).
NETWORK = linear_network([[1, 0], [0, 1], [0, 0], [0, 0]], [0.0, 0.0, 0.5, 9.0])


def box(a: tuple[float, float], b: tuple[float, float]) -> Box:
    return Box(np.array([a[0], b[0]]).reshape(1, 1, 2), np.array([a[1], b[1]]).reshape(1, 1, 2))


def image(a: float, b: float) -> np.ndarray:
    return np.array([a, b]).reshape(1, 1, 2)


def states(classification) -> list[LabelState]:
    return [result.state for result in classification.results]


def test_a_network_too_large_for_bounds_leaves_labels_undecided_that_no_image_settles():
    options = VerifyOptions(bounds=BoundOptions(most_entries=1))
    found = classify_labels(NETWORK, image(0.25, 0.0), box((0.25, 0.75), (0.0, 0.125)), 2, options=options)
    undecided = LabelState.UNDECIDED
    assert states(found) == [LabelState.BOTH, undecided, LabelState.BOTH, undecided]
    verdict = found.results[1].stays_out.verdict
    assert isinstance(verdict, Unknown)
    assert verdict.reason is UnknownReason.TOO_LARGE


@pytest.mark.parametrize("options", [VerifyOptions(), BOUNDS_ONLY, VerifyOptions(engine=EngineChoice.MILP)])
def test_all_states_by_hand(options):
    # Second place: a (0.25 to 0.75) or 1/2; b never (0 to 0.125).
    found = classify_labels(NETWORK, image(0.25, 0.0), box((0.25, 0.75), (0.0, 0.125)), 2, options=options)
    assert states(found) == [LabelState.BOTH, LabelState.ALWAYS_OUT, LabelState.BOTH, LabelState.ALWAYS_IN]
    assert [result.label for result in found.results] == [0, 1, 2, 3]
    assert [result.is_in_clean for result in found.results] == [False, False, True, True]
    assert found.k == 2


def test_each_state_carries_its_evidence():
    region = box((0.25, 0.75), (0.0, 0.125))
    for result in classify_labels(NETWORK, image(0.25, 0.0), region, 2).results:
        inside, outside = (outcome and outcome.verdict for outcome in (result.stays_in, result.stays_out))
        match result.state:
            case LabelState.BOTH:
                assert isinstance(inside, Vulnerable)
                assert isinstance(outside, Vulnerable)
                assert region.contains(inside.counterexample.image)
                assert region.contains(outside.counterexample.image)
            case LabelState.ALWAYS_IN:
                assert isinstance(inside, Robust)
            case LabelState.ALWAYS_OUT:
                assert isinstance(outside, Robust)
            case LabelState.UNDECIDED:
                raise AssertionError


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
def test_agrees_with_the_exact_suprema(seed, k, has_attack):
    network = random_dense_network(seed, hidden=3)
    region = random_box(network, seed)
    clean = check.inside_box_float32(region, region.centre).astype(np.float64)
    seen = []
    found = classify_labels(
        network, clean, region, k, falsifier=ATTACK if has_attack else None, on_result=lambda r: seen.append(r.label)
    )
    assert sorted(seen) == [0, 1, 2, 3]
    for result in found.results:
        leaves = exact_supremum(network, stays_in_top_k(result.label, k, 4), region)
        enters = exact_supremum(network, stays_out_of_top_k(result.label, k, 4), region)
        match result.state:
            case LabelState.ALWAYS_IN:
                assert leaves < 1e-9
            case LabelState.ALWAYS_OUT:
                assert enters < 1e-9
            case LabelState.BOTH:
                assert leaves > -1e-9
                assert enters > -1e-9
            case LabelState.UNDECIDED:
                assert min(abs(leaves), abs(enters)) < 1e-4


def test_a_tie_in_the_clean_image_is_asked_both_ways():
    # Clean: a = 1/2 ties with the constant 1/2 for second place; a only rises from there.
    found = classify_labels(NETWORK, image(0.5, 0.0), box((0.5, 0.75), (0.0, 0.125)), 2)
    first = found.results[0]
    assert not first.is_in_clean
    assert first.stays_in is not None
    assert first.stays_out is not None
    # a reaches second place strictly, and leaves it only in a tie: not always in, not provably both.
    assert isinstance(first.stays_out.verdict, Vulnerable)
    assert isinstance(first.stays_in.verdict, Unknown)
    assert first.stays_in.verdict.reason is UnknownReason.TIE
    assert first.state is LabelState.UNDECIDED


def test_an_expired_deadline_leaves_all_undecided_with_the_reason():
    found = classify_labels(
        NETWORK, image(0.25, 0.0), box((0.25, 0.75), (0.0, 0.125)), 2, falsifier=ATTACK, deadline=Deadline.after(0.0)
    )
    assert states(found) == [LabelState.UNDECIDED] * 4
    for result in found.results:
        asked = result.stays_in if result.is_in_clean else result.stays_out
        assert asked.verdict.reason is UnknownReason.TIME_LIMIT


class SlowAttack:
    """Uses up the whole deadline of each call, as a clock that the test turns says."""

    def __init__(self, clock: "Clock") -> None:
        self.clock = clock

    def __call__(self, query, *, starts, deadline):
        self.clock.spent.append(deadline.at - self.clock.now)
        self.clock.now = max(self.clock.now, deadline.at)
        return []


class Clock:
    """Replaces time.monotonic, so that nothing here depends on the machine's speed."""

    def __init__(self, monkeypatch) -> None:
        self.now, self.spent = 1000.0, []
        monkeypatch.setattr("verifier.deadline.time.monotonic", lambda: self.now)


def hard_network():
    """Three labels whose differences cancel exactly, but not for intervals: bounds never decide them, points never violate."""
    # h = relu(+-(x - 1/2)), twice; score c = offset_c + h_1 + h_2 - h_3 - h_4 = offset_c.
    hidden = ([[1.0], [-1.0], [1.0], [-1.0]], [-0.5, 0.5, -0.5, 0.5])
    return dense_network([hidden, (np.array([[1, 1, -1, -1], [-1, -1, 1, 1], [0, 0, 0, 0]]), [0.25, 0.125, 0.0])])


WHOLE = Box(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
MIDDLE = np.full((1, 1, 1), 0.375)


def test_a_time_out_is_undecided_never_both(monkeypatch):
    clock = Clock(monkeypatch)

    def give_up(region, property, open_subsets, *, on_witness, deadline):
        clock.spent.append(deadline.at - clock.now)
        clock.now = max(clock.now, deadline.at)
        return MilpOutcome(MilpStatus.UNDECIDED, math.inf, None, np.zeros((0, 1)), (), "slow", 1, (), "time")

    plan = Plan(INTERVAL, (INTERVAL,), give_up)
    found = classify_labels(
        hard_network(), MIDDLE, WHOLE, 1, falsifier=SlowAttack(clock), plan=plan, deadline=Deadline(clock.now + 60.0)
    )
    assert states(found) == [LabelState.UNDECIDED] * 3
    for result in found.results:
        for outcome in (result.stays_in, result.stays_out):
            assert outcome is None or not isinstance(outcome.verdict, Robust)
        asked = result.stays_in if result.is_in_clean else result.stays_out
        assert asked.verdict.reason is UnknownReason.TIME_LIMIT
    # Half of the time for the first pass, an equal share of each pass for each label.
    np.testing.assert_allclose(clock.spent, [10.0] * 6)
    assert clock.now == pytest.approx(1060.0)


def test_time_that_quick_labels_leave_goes_to_the_others(monkeypatch):
    clock = Clock(monkeypatch)
    calls = []

    def slow_for_label_0(region, property, open_subsets, *, on_witness, deadline):
        calls.append((property.name, deadline.at - clock.now))
        is_slow = property.name.startswith("label 0")
        clock.now = deadline.at if is_slow else clock.now + 1.0
        status = MilpStatus.UNDECIDED if is_slow else MilpStatus.REFUTED
        return MilpOutcome(status, math.inf if is_slow else -0.1, None, np.zeros((0, 1)), (), "slow", 1, (), "")

    found = classify_labels(
        hard_network(), MIDDLE, WHOLE, 1, plan=Plan(INTERVAL, (), slow_for_label_0), deadline=Deadline(clock.now + 62.0)
    )
    assert states(found) == [LabelState.UNDECIDED, LabelState.ALWAYS_OUT, LabelState.ALWAYS_OUT]
    # 62 s for three labels, then what the quick two left over: 62 - 62 / 3 - 2.
    assert [name.split()[1] for name, _ in calls] == ["0", "1", "2", "0"]
    assert calls[0][1] == pytest.approx(62 / 3)
    assert calls[3][1] == pytest.approx(62 * 2 / 3 - 2)


def test_a_complete_engine_decides_what_intervals_cannot():
    found = classify_labels(hard_network(), MIDDLE, WHOLE, 1, plan=Plan(INTERVAL, (INTERVAL,), None))
    assert LabelState.UNDECIDED in states(found)
    found = classify_labels(hard_network(), MIDDLE, WHOLE, 1, options=VerifyOptions(engine=EngineChoice.MILP))
    assert states(found) == [LabelState.ALWAYS_IN, LabelState.ALWAYS_OUT, LabelState.ALWAYS_OUT]


class CountingEngine:
    """CROWN that counts its analyses."""

    name = "counting"

    def __init__(self) -> None:
        self.analyses = 0

    def analyse(self, canonical, box, *, deadline):
        self.analyses += 1
        return CROWN.analyse(canonical, box, deadline=deadline)

    def bound(self, region, property, *, deadline):
        return CROWN.bound(region, property, deadline=deadline)


def test_the_region_is_analysed_once_and_results_come_as_they_settle():
    engine, seen = CountingEngine(), []
    region = box((0.25, 0.75), (0.0, 0.125))
    found = classify_labels(
        NETWORK, image(0.25, 0.0), region, 2, plan=Plan(engine, (engine,), None), on_result=seen.append
    )
    assert engine.analyses == 1
    assert sorted(result.label for result in seen) == [0, 1, 2, 3]
    assert {result.label: result.state for result in seen} == {r.label: r.state for r in found.results}
    assert found.unstable_units == 0


class WithoutMaximisers:
    """CROWN that keeps its maximisers to itself, and may claim label 2 to stay out."""

    name = "liar"

    def __init__(self, *, lies: bool) -> None:
        self.lies = lies

    def analyse(self, canonical, box, *, deadline):
        return CROWN.analyse(canonical, box, deadline=deadline)

    def bound(self, region, property, *, deadline):
        honest = CROWN.bound(region, property, deadline=deadline)
        silent = replace(honest, minimisers=honest.minimisers[:0])
        if not self.lies or property.name != "label 2 stays out of the top 1":
            return silent
        return replace(silent, engine="liar", is_robust=True, upper=-1.0, open_subsets=(), open_forms=())


def test_an_image_found_for_one_label_settles_the_others(monkeypatch):
    # The attack answers only for label 0 (which falls out); its image also shows label 2 coming in.
    monkeypatch.setattr("verifier.verify.evidence.Evidence.climb_linearly", lambda self, goal, starts: starts[:0])
    network = linear_network([[3.0, -1.0], [0.0, 0.0], [0.0, 0.0]], [0.25, -9.0, 0.5])
    region = box((0.25, 0.75), (0.25, 1.0))  # at (0.25, 1) label 2 leads, at the centre and extreme corners label 0
    asked = []

    def only_for_label_0(query, *, starts, deadline):
        asked.append(query.property.name)
        return [image(0.25, 1.0).astype(np.float32)] if query.property.name.startswith("label 0") else []

    engine = WithoutMaximisers(lies=False)
    found = classify_labels(
        network, image(0.5, 0.5), region, 1, falsifier=only_for_label_0, plan=Plan(engine, (engine,), None)
    )
    assert states(found) == [LabelState.BOTH, LabelState.ALWAYS_OUT, LabelState.BOTH]
    assert asked == ["label 0 stays in the top 1"]


def test_an_image_found_later_contradicts_an_earlier_proof(monkeypatch):
    monkeypatch.setattr("verifier.verify.evidence.Evidence.climb_linearly", lambda self, goal, starts: starts[:0])
    # As above, with the labels' order turned so that the lie about label 2 comes before the attack on label 3.
    network = linear_network([[0, 0], [0, 0], [0, 0], [3.0, -1.0]], [-9.0, -9.0, 0.5, 0.25])
    region = box((0.25, 0.75), (0.25, 1.0))

    def only_for_label_3(query, *, starts, deadline):
        return [image(0.25, 1.0).astype(np.float32)] if query.property.name.startswith("label 3") else []

    engine = WithoutMaximisers(lies=True)
    with pytest.raises(ContradictionError, match="label 2"):
        classify_labels(
            network, image(0.5, 0.5), region, 1, falsifier=only_for_label_3, plan=Plan(engine, (engine,), None)
        )


def test_the_clean_image_counts_only_if_its_ranking_replays(monkeypatch):
    # Without replays nothing is BOTH, and both questions are asked of every label.
    monkeypatch.setattr("verifier.check.replay", lambda *_: None)
    found = classify_labels(NETWORK, image(0.25, 0.0), box((0.25, 0.75), (0.0, 0.125)), 2, options=BOUNDS_ONLY)
    assert states(found) == [
        LabelState.UNDECIDED,
        LabelState.ALWAYS_OUT,
        LabelState.UNDECIDED,
        LabelState.ALWAYS_IN,
    ]
    assert all(result.stays_in and result.stays_out for result in found.results)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_refuses_k_out_of_range(k):
    with pytest.raises(InputError, match="k: got"):
        classify_labels(NETWORK, image(0.25, 0.0), box((0.25, 0.75), (0.0, 0.125)), k)


def test_refuses_images_that_do_not_fit():
    region = box((0.25, 0.75), (0.0, 0.125))
    with pytest.raises(InputError, match="outside"):
        classify_labels(NETWORK, image(0.0, 0.0), region, 2)
    with pytest.raises(InputError, match="shape"):
        classify_labels(NETWORK, np.zeros((1, 2, 1)), region, 2)
    with pytest.raises(InputError, match="NaN"):
        classify_labels(NETWORK, image(math.nan, 0.0), region, 2)


# ---- one search for all labels ----------------------------------------------------------------------------------------------


def together(calls, answer=search_all):
    """A plan whose bounds decide little, so that the common search has work, and which remembers what that search was asked."""

    def explore_all(region, goals, **how):
        calls.append([goal.property.name for goal in goals])
        return answer(region, goals, **how)

    def explore(region, goal, open_subsets, *, on_candidates, deadline, start):
        calls.append("alone")
        return search(region, goal, open_subsets, on_candidates=on_candidates, deadline=deadline, start=start)

    return Plan(INTERVAL, (), None, None, explore, explore_all=explore_all)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2])
def test_labels_searched_together_agree_with_the_exact_suprema(seed, k, monkeypatch):
    monkeypatch.setattr("verifier.verify.evidence.Evidence.climb_linearly", lambda self, goal, starts: starts[:0])
    network = random_dense_network(seed, hidden=5)
    region = random_box(network, seed)
    clean = check.inside_box_float32(region, region.centre).astype(np.float64)
    calls = []
    found = classify_labels(network, clean, region, k, plan=together(calls))
    assert len(calls[0]) >= 1
    for result in found.results:
        leaves = exact_supremum(network, stays_in_top_k(result.label, k, 4), region)
        enters = exact_supremum(network, stays_out_of_top_k(result.label, k, 4), region)
        expected = {
            LabelState.ALWAYS_IN: leaves < 1e-9,
            LabelState.ALWAYS_OUT: enters < 1e-9,
            LabelState.BOTH: min(leaves, enters) > -1e-9,
            LabelState.UNDECIDED: min(abs(leaves), abs(enters)) < 1e-4,
        }
        assert expected[result.state]


def test_both_directions_are_searched_at_once_and_nothing_after_that():
    network, calls = random_dense_network(3, hidden=5), []
    region = random_box(network, 3)
    clean = check.inside_box_float32(region, region.centre).astype(np.float64)
    found = classify_labels(network, clean, region, 2, plan=together(calls))
    assert LabelState.UNDECIDED not in states(found)
    assert "alone" not in calls
    assert len(calls) == 1


def test_an_interrupt_answers_with_what_is_known():
    def interrupted(region, goals, **how):
        raise KeyboardInterrupt

    network = random_dense_network(3, hidden=5)
    region = random_box(network, 3)
    clean = check.inside_box_float32(region, region.centre).astype(np.float64)
    seen = []
    found = classify_labels(
        network, clean, region, 2, plan=together([], interrupted), on_result=lambda r: seen.append(r.label)
    )
    assert sorted(seen) == [0, 1, 2, 3]
    unsettled = [result for result in found.results if result.state is LabelState.UNDECIDED]
    assert unsettled
    reasons = {
        outcome.verdict.reason
        for result in unsettled
        for outcome in (result.stays_in, result.stays_out)
        if outcome is not None and isinstance(outcome.verdict, Unknown)
    }
    assert reasons == {UnknownReason.INTERRUPTED}


def test_a_label_is_reported_while_the_others_are_still_searched():
    network = random_dense_network(3, hidden=5)
    region = random_box(network, 3)
    clean = check.inside_box_float32(region, region.centre).astype(np.float64)
    reported, at_settling = [], []

    def watched(region, goals, *, on_settled, **how):
        def settled(number, outcome):
            on_settled(number, outcome)
            at_settling.append(len(reported))

        return search_all(region, goals, on_settled=settled, **how)

    calls = []
    classify_labels(
        network, clean, region, 2, plan=together(calls, watched), on_result=lambda r: reported.append(r.label)
    )
    assert len(at_settling) == len(calls[0]) > 1
    assert at_settling[0] < at_settling[-1] == len(reported)
