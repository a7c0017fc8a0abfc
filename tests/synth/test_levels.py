"""Levels of the bound, on oracles whose best neighbourhoods are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth_fakes import UNKNOWN, LinearOracle, StaircaseOracle

from synth.grow import start
from synth.ledger import Ledger, Limits
from synth.levels import first_point, largest_at, press, rise_by_bounds
from synth.oracle import Effort
from synth.size import Size
from synth.weights import default_weights
from verifier.deadline import Deadline

linear = st.builds(
    lambda costs, room, share: LinearOracle(len(costs), costs=np.array(costs), room=room, bounds_share=share),
    st.lists(st.floats(0.05, 8.0), min_size=2, max_size=7),
    st.floats(0.05, 3.0),
    st.sampled_from([0.3, 0.8, 1.0]),
)


def started(oracle):
    ledger = Ledger(oracle, Size(default_weights(oracle.layers)), Limits(Deadline(), 2000, 5.0), lambda step: None)
    start(ledger, None)
    oracle.asked.clear()
    return ledger


def knapsack(oracle, weights, room):
    """The largest size whose linear margin costs @ eps - room is at most 0: layers by falling worth per cost."""
    best = 0.0
    for layer in np.argsort(-weights / oracle.costs):
        share = min(1.0, max(0.0, room) / oracle.costs[layer])
        best, room = best + weights[layer] * share, room - oracle.costs[layer] * share
    return best


@given(oracle=linear, level=st.floats(-0.5, 1.5))
@settings(max_examples=60)
def test_the_largest_of_a_linear_bound_at_a_level_is_nearly_found(oracle, level):
    """Of a bound costs @ eps - share * room, the best at `level` (in units of the room that bounds see) is a knapsack."""
    ledger = started(oracle)
    room = oracle.bounds_share * oracle.room
    slope = ledger.slope(Effort.BOUNDS)
    found = largest_at(ledger, level * room, 1e-3 * room, first_point(ledger, slope), 60)
    assert found is not None
    assert ((found >= 0.0) & (found <= 1.0)).all()
    assert oracle.costs @ found - room <= (level + 1e-3) * room + 1e-9
    best = knapsack(oracle, ledger.objective.weights, (1.0 + level) * room)
    assert ledger.objective.value(found) >= 0.85 * best
    assert not oracle.asked, "a level is found by gradients alone"


@given(oracle=linear)
@settings(max_examples=30)
def test_bounds_then_complete_queries_reach_what_each_can_prove(oracle):
    ledger = started(oracle)
    room = rise_by_bounds(ledger, np.zeros(oracle.layers), cuts=4)
    assert room == pytest.approx(oracle.bounds_share * oracle.room)
    assert oracle.costs @ ledger.robust < room
    assert ledger.size >= 0.8 * knapsack(oracle, ledger.objective.weights, room)
    assert {effort for _, effort in oracle.asked} <= {Effort.BOUNDS}
    before = ledger.size
    assert not press(ledger, room, np.zeros(oracle.layers), patience=3, cuts=4)
    assert oracle.margin(ledger.robust) < 0.0
    assert ledger.size >= before
    if oracle.bounds_share == 0.3:
        # Every proof of a level 0.35 above what bounds prove is a complete query's.
        assert ledger.size > before or (ledger.robust >= 1.0).all()


def test_a_verifier_that_leaves_every_level_open_ends_it():
    oracle = LinearOracle(3, costs=np.array([1.0, 2.0, 3.0]), room=0.6, bounds_share=1.0, says_unknown=True)
    ledger = started(oracle)
    room = rise_by_bounds(ledger, np.zeros(3), cuts=4)
    proved = ledger.robust
    assert press(ledger, room, np.zeros(3), patience=2, cuts=4)
    assert sum(effort is Effort.COMPLETE for _, effort in oracle.asked) == 2
    assert ledger.robust is proved


@given(
    corners=st.lists(st.lists(st.integers(0, 16), min_size=3, max_size=3).filter(any), min_size=1, max_size=5),
    gradient=st.lists(st.floats(0.0, 4.0), min_size=3, max_size=3),
)
@settings(max_examples=60)
def test_a_bound_that_says_nothing_leads_nowhere_wrong(corners, gradient):
    """The slope is arbitrary here, so predictions are worthless: only what was proved is taken."""
    oracle = StaircaseOracle(3, corners=np.array(corners) / 16.0, gradient=np.array(gradient))
    ledger = started(oracle)
    if not ledger.is_proved:
        return
    room = rise_by_bounds(ledger, np.full(3, 0.5), cuts=4)
    press(ledger, room, np.full(3, 0.5), patience=3, cuts=4)
    assert not oracle.violates(ledger.robust)


def test_what_is_found_is_asked_about_when_gradients_take_all_their_time(monkeypatch):
    """The ascent ends at its share of the time, with enough left for the question. The clock is the oracle's."""
    clock = [0.0]
    monkeypatch.setattr("verifier.deadline.time.monotonic", lambda: clock[0])

    class Slow(LinearOracle):
        def slope(self, epsilons, effort, deadline):
            clock[0] += 1.0
            return super().slope(epsilons, effort, deadline)

    oracle = Slow(9, costs=np.geomspace(0.1, 8.0, 9), room=0.5)
    limits = Limits(Deadline.after(10.0), 2000, 5.0)
    ledger = Ledger(oracle, Size(default_weights(9)), limits, lambda step: None)
    start(ledger, None)
    rise_by_bounds(ledger, np.zeros(9), cuts=0)
    assert 7.0 <= clock[0] <= 8.0
    assert [effort for _, effort in oracle.asked] == [Effort.BOUNDS, Effort.BOUNDS]
    assert ledger.size > 0.0


def test_a_refusal_costs_at_most_half_of_the_way():
    """Cutting weights that fall back to nothing in the layers that matter do not undo the step: halfway is asked instead."""
    oracle = LinearOracle(2, costs=np.array([8.0, 0.5]), room=1.0, bounds_share=0.5)
    ledger = started(oracle)
    decide, refusals = oracle.decide, [True]

    def refuses_once(epsilons, effort, deadline):
        return UNKNOWN if refusals and refusals.pop() else decide(epsilons, effort, deadline)

    oracle.decide = refuses_once
    rise_by_bounds(ledger, np.array([1.0, 0.0]), cuts=1)
    wanted = knapsack(oracle, ledger.objective.weights, 0.5)
    assert ledger.size >= 0.4 * wanted


def test_nothing_is_asked_where_the_image_itself_has_no_room():
    oracle = LinearOracle(2, costs=np.ones(2), room=0.5, bounds_share=0.0)
    ledger = started(oracle)
    assert rise_by_bounds(ledger, np.zeros(2), cuts=4) == 0.0
    assert not press(ledger, 0.0, np.zeros(2), patience=3, cuts=4)
    assert not oracle.asked
