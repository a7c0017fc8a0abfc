"""The loop on oracles whose robust sets are known exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth_fakes import LinearOracle, SilentOracle, StaircaseOracle, strip, violation

from synth.baselines import UNIFORM_TOLERANCE, bisect_layers, bisect_uniform
from synth.climb import ClimbOptions
from synth.conclude import Ending, summarise
from synth.cutting import fixed_cutting_weights
from synth.grow import GrowOptions, grow_with, start
from synth.ledger import Ledger, Limits
from synth.oracle import Effort
from synth.proposal import ProposalRule
from synth.result import StepVerdict, StopReason
from synth.size import Size
from synth.weights import default_weights
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, InputError
from verifier.verdict import Unknown

STEP = 1.0 / 64.0


def ledger_for(oracle, *, objective=None, max_queries=2000, deadline=None, on_step=None):
    objective = objective or Size(default_weights(oracle.layers))
    limits = Limits(deadline or Deadline(), max_queries, 5.0)
    return Ledger(oracle, objective, limits, on_step or (lambda step: None))


def run(oracle, *, cutting=None, resumed=None, climb=None, bounds_only=False, patience=3, corners=0, **books):
    ledger = ledger_for(oracle, **books)
    options = GrowOptions(
        step=STEP, climb=climb or ClimbOptions(), bounds_only=bounds_only, patience=patience, corners=corners
    )
    cutting = fixed_cutting_weights(oracle.layers) if cutting is None else cutting
    ending = grow_with(ledger, cutting, options, resumed)
    return ledger, summarise(ledger, strip(oracle.layers), ending, STEP)


def check_books(ledger, result):
    """What holds of every run, whatever the oracle."""
    sizes = [step.best_size for step in result.steps]
    assert sizes == sorted(sizes)
    assert result.weighted_size == pytest.approx(result.objective.value(result.neighbourhood.epsilons))
    assert [step.index for step in result.steps] == list(range(len(result.steps)))
    proved = [step for step in result.steps if step.verdict is StepVerdict.ROBUST]
    if result.is_proved:
        assert any(np.array_equal(step.epsilons, result.neighbourhood.epsilons) for step in proved)
    assert result.queries == len(ledger.oracle.asked) <= ledger.limits.max_queries


linear = st.builds(
    lambda costs, room, share: LinearOracle(len(costs), costs=np.array(costs), room=room, bounds_share=share),
    st.lists(st.floats(0.05, 8.0), min_size=2, max_size=7),
    st.floats(0.05, 3.0),
    st.sampled_from([0.3, 0.8, 1.0]),
)


@given(oracle=linear, rule=st.sampled_from(ProposalRule))
@settings(max_examples=20)
def test_linear_result_is_robust_and_maximal_within_a_step(oracle, rule):
    ledger, result = run(oracle, climb=ClimbOptions(rule=rule))
    check_books(ledger, result)
    epsilons = result.neighbourhood.epsilons
    assert result.is_proved
    assert oracle.margin(epsilons) < 0.0
    for layer in range(oracle.layers):
        assert epsilons[layer] == 1.0 or oracle.margin(epsilons) + oracle.costs[layer] * STEP > -1e-6
    assert result.stop is StopReason.NO_EXPANSION
    assert set(result.excluded_layers) | set(result.saturated_layers) == set(range(oracle.layers))


@given(oracle=linear)
@settings(max_examples=30)
def test_linear_result_is_nearly_the_best(oracle):
    """The best of a linear margin is a continuous knapsack: layers by falling worth per cost."""
    _, result = run(oracle)
    best, room = 0.0, oracle.room
    for layer in np.argsort(-result.weights / oracle.costs):
        best += result.weights[layer] * min(1.0, room / oracle.costs[layer])
        room -= oracle.costs[layer] * min(1.0, room / oracle.costs[layer])
    assert 0.8 * best <= result.weighted_size <= best + 1e-9


@given(oracle=linear)
@settings(max_examples=15)
def test_baselines_are_robust_and_maximal_by_bisection(oracle):
    for bisect in (bisect_uniform, bisect_layers):
        oracle.asked.clear()
        ledger = ledger_for(oracle)
        start(ledger, None)
        assert bisect(ledger, STEP) is StopReason.BISECTED
        result = summarise(ledger, strip(oracle.layers), Ending(StopReason.BISECTED), STEP)
        check_books(ledger, result)
        epsilons = result.neighbourhood.epsilons
        assert oracle.margin(epsilons) < 0.0
        if bisect is bisect_uniform:
            assert np.ptp(epsilons) == 0.0
            assert epsilons[0] == 1.0 or oracle.margin(epsilons + STEP * UNIFORM_TOLERANCE) > -1e-6
        else:
            assert all(
                value == 1.0 or oracle.margin(epsilons) + cost * STEP > -1e-6
                for value, cost in zip(epsilons, oracle.costs, strict=True)
            )


corners = st.integers(2, 5).flatmap(
    lambda layers: st.lists(
        st.lists(st.integers(0, 16), min_size=layers, max_size=layers).filter(any), min_size=1, max_size=6
    )
)


@given(
    corners=corners,
    gradient=st.lists(st.floats(0.0, 4.0), min_size=5, max_size=5),
    cutting=st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=5, max_size=5),
    rule=st.sampled_from(ProposalRule),
    max_queries=st.sampled_from([1, 5, 40, 2000]),
)
@settings(max_examples=40)
def test_any_downward_closed_set_is_never_left(corners, gradient, cutting, rule, max_queries):
    layers = len(corners[0])
    oracle = StaircaseOracle(layers, corners=np.array(corners) / 16.0, gradient=np.array(gradient[:layers]))
    ledger, result = run(
        oracle, cutting=np.array(cutting[:layers]), climb=ClimbOptions(rule=rule), max_queries=max_queries
    )
    check_books(ledger, result)
    assert not oracle.hit(result.neighbourhood.epsilons)
    if max_queries == 2000:
        assert result.stop is StopReason.NO_EXPANSION
        for layer in range(layers):
            larger = result.neighbourhood.epsilons.copy()
            larger[layer] = min(1.0, larger[layer] + STEP)
            assert result.neighbourhood.epsilons[layer] == 1.0 or oracle.hit(larger)
    if result.counterexample is not None:
        assert any(np.array_equal(result.counterexample_radii, corner) for corner in oracle.corners)


@given(corners=corners)
@settings(max_examples=20)
def test_a_known_counterexample_costs_no_second_query(corners):
    layers = len(corners[0])
    oracle = StaircaseOracle(layers, corners=np.array(corners) / 16.0, gradient=np.ones(layers))
    run(oracle)
    known = []
    for epsilons, effort in oracle.asked:
        assert not any((epsilons >= corner).all() for corner in known)
        if effort is Effort.COMPLETE:
            known.extend(oracle.corners[i] for i in oracle.hit(epsilons)[:1])


def test_an_oracle_that_proves_nothing_grows_nothing():
    oracle = SilentOracle(4)
    ledger, result = run(oracle)
    check_books(ledger, result)
    assert not result.neighbourhood.epsilons.any()
    assert not result.is_proved
    assert isinstance(result.outcome.verdict, Unknown)
    assert result.stop is StopReason.NOT_ROBUST_AT_ZERO
    assert result.pixels_above_zero == 0


def test_undecided_expansions_are_named():
    oracle = LinearOracle(5, costs=np.full(5, 2.0), says_unknown=True)
    _, result = run(oracle)
    assert result.is_proved
    assert result.stop is StopReason.UNDECIDED
    assert result.undecided_layers == (0, 1, 2, 3, 4)
    assert not result.is_maximal


def test_bounds_only_asks_no_complete_query_after_the_start():
    oracle = LinearOracle(5, costs=np.full(5, 2.0))
    run(oracle, bounds_only=True)
    assert all(effort.value == "bounds" for _, effort in oracle.asked[1:])


def test_an_expired_deadline_asks_about_the_image_alone():
    oracle = LinearOracle(3, costs=np.ones(3))
    _, result = run(oracle, deadline=Deadline.after(0.0))
    assert len(oracle.asked) == 1
    assert not result.neighbourhood.epsilons.any()
    assert result.stop is StopReason.TIME_LIMIT


def test_resuming_starts_from_the_epsilons_given_after_proving_them_again():
    oracle = LinearOracle(4, costs=np.array([2.0, 1.0, 3.0, 5.0]))
    first = np.array([0.2, 0.1, 0.05, 0.0])
    ledger, result = run(oracle, resumed=first)
    assert np.array_equal(oracle.asked[0][0], first)
    assert result.weighted_size >= result.objective.value(first)
    check_books(ledger, result)


def test_resumed_epsilons_that_are_not_robust_are_not_believed():
    oracle = LinearOracle(2, costs=np.array([2.0, 1.0]))
    ledger, result = run(oracle, resumed=np.array([1.0, 1.0]))
    assert oracle.margin(result.neighbourhood.epsilons) < 0.0
    check_books(ledger, result)


def test_layers_that_cannot_matter_are_saturated_in_the_first_query():
    class Free(LinearOracle):
        @property
        def free_layers(self):
            return self.costs == 0.0

    oracle = Free(3, costs=np.array([2.0, 0.0, 4.0]))
    _, result = run(oracle)
    assert np.array_equal(oracle.asked[0][0], [0.0, 1.0, 0.0])
    assert 1 in result.saturated_layers


def test_a_counterexample_inside_proved_epsilons_stops_the_run():
    ledger = ledger_for(LinearOracle(2, costs=np.ones(2), room=1.0))
    start(ledger, None)
    ledger.robust = np.array([0.4, 0.4])
    with pytest.raises(ContradictionError, match="inside epsilons proved robust"):
        ledger.exclude(violation([0.25, 0.25]))


def test_the_nearest_counterexample_outside_is_returned():
    oracle = LinearOracle(3, costs=np.array([1.0, 2.0, 4.0]))
    _, result = run(oracle)
    assert result.counterexample is not None
    assert (result.counterexample_radii - result.neighbourhood.epsilons).max() <= 2 * STEP
    assert oracle.margin(result.counterexample_radii) >= 0.0


@pytest.mark.parametrize(
    "wrong", [{"step": 0.0}, {"step": 2.0}, {"query_seconds": 0.0}, {"max_queries": 0}, {"patience": 0}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        GrowOptions(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"trade_off": 1.0}, {"decay": 0.0}, {"floor": 0.0}, {"learning_rate": 0.0}, {"cuts": -1}, {"patience": 0}]
)
def test_climb_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        ClimbOptions(**wrong)
