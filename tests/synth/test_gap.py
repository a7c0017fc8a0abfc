"""The gap: bounds never below the best robust size, found by enumeration; evidence that really is inside."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth_fakes import LinearOracle, StaircaseOracle, strip, violation

from synth.conclude import Ending, evidence, summarise
from synth.cuts import shrink, water_level
from synth.cutting import fixed_cutting_weights
from synth.gap import narrow
from synth.grow import GrowOptions, grow_with, start
from synth.ledger import Ledger, Limits
from synth.result import GapStop, StopReason
from synth.size import Size
from synth.weights import default_weights
from verifier.deadline import Deadline

STEP = 1.0 / 64.0


def ledger_for(oracle, objective=None):
    return Ledger(
        oracle, objective or Size(default_weights(oracle.layers)), Limits(Deadline(), 5000, 5.0), lambda step: None
    )


def best_linear(oracle, weights):
    """A continuous knapsack: layers by falling worth per cost."""
    best, room = 0.0, oracle.room
    for layer in np.argsort(-weights / oracle.costs):
        share = min(1.0, room / oracle.costs[layer])
        best += weights[layer] * share
        room -= oracle.costs[layer] * share
    return best


@given(
    costs=st.lists(st.floats(0.5, 8.0), min_size=1, max_size=3),
    room=st.floats(0.1, 2.0),
    corners=st.sampled_from([0, 2, 30]),
)
@settings(max_examples=25)
def test_the_upper_bound_is_never_below_the_best_robust_size(costs, room, corners):
    oracle = LinearOracle(len(costs), costs=np.array(costs), room=room)
    ledger = ledger_for(oracle)
    start(ledger, None)
    gap = narrow(ledger, STEP, 3, corners)
    result = summarise(ledger, strip(oracle.layers), Ending(StopReason.NO_EXPANSION, gap), STEP)
    best = best_linear(oracle, ledger.objective.weights)
    assert result.weighted_size <= best + 1e-9
    assert result.upper_bound >= best - 1e-9
    bounds = [point.upper_bound for point in result.gap_history]
    assert bounds == sorted(bounds, reverse=True)
    if gap.stop is GapStop.CLOSED:
        assert result.upper_bound <= result.weighted_size + STEP * ledger.objective.weights.sum() + 1e-9


@given(
    corners=st.integers(1, 3).flatmap(
        lambda layers: st.lists(
            st.lists(st.integers(0, 8), min_size=layers, max_size=layers).filter(any), min_size=1, max_size=5
        )
    )
)
@settings(max_examples=40)
def test_enough_corners_find_the_best_of_any_downward_closed_set(corners):
    """By enumeration of all epsilons on the corners' own grid."""
    layers = len(corners[0])
    oracle = StaircaseOracle(layers, corners=np.array(corners) / 8.0, gradient=np.ones(layers))
    ledger = ledger_for(oracle)
    start(ledger, None)
    gap = narrow(ledger, STEP, 3, 10_000)
    assert gap.stop is GapStop.CLOSED
    below = [sorted({1.0, *(max(0.0, row[d] / 8.0 - 1e-9) for row in corners)}) for d in range(layers)]
    best = max(
        float(ledger.objective.weights @ np.array(epsilons))
        for epsilons in product(*below)
        if not oracle.hit(np.array(epsilons))
    )
    assert not oracle.hit(ledger.robust)
    assert ledger.size <= best + 1e-9 <= gap.bound.corner().size + 1e-6
    assert best - ledger.size <= STEP * ledger.objective.weights.sum() + 1e-6


def test_the_whole_loop_closes_the_gap_on_few_layers():
    oracle = LinearOracle(2, costs=np.array([2.0, 1.0]), room=0.5)
    ledger = ledger_for(oracle)
    ending = grow_with(ledger, fixed_cutting_weights(2), GrowOptions(step=STEP))
    result = summarise(ledger, strip(2), ending, STEP)
    assert result.gap_stop is GapStop.CLOSED
    assert result.is_maximal
    assert result.weighted_size <= best_linear(oracle, ledger.objective.weights) <= result.upper_bound
    assert result.gap <= STEP * ledger.objective.weights.sum() / result.upper_bound + 1e-9


@given(corner=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), share=st.floats(0.01, 1.0))
@settings(max_examples=40)
def test_a_water_level_has_the_size_asked_and_loses_alike(corner, share):
    corner = np.array(corner)
    weights = default_weights(len(corner))
    size = share * float(weights @ corner)
    level = water_level(corner, Size(weights), size)
    assert (level <= corner + 1e-12).all()
    assert float(weights @ level) == pytest.approx(size, abs=1e-9)
    losses = weights * (corner - level)
    assert np.allclose(losses[level > 0.0], losses.max(initial=0.0), atol=1e-9)


def test_shrinking_gives_a_counterexample_with_smaller_radii():
    oracle = LinearOracle(4, costs=np.array([8.0, 1.0, 0.5, 0.0]), room=1.0)
    found = shrink(
        oracle,
        violation(np.ones(4)),
        np.ones(4),
        Size(default_weights(4)),
        lambda inside, starts: oracle.falsify(inside, None),
        Deadline(),
    )
    radii = oracle.radii(found.image)
    assert oracle.violates(radii)
    assert radii[0] < 0.2
    assert radii[3] == 0.0


def test_evidence_lies_in_the_neighbourhood_enlarged_in_one_layer_alone():
    oracle = LinearOracle(3, costs=np.array([2.0, 1.0, 0.25]), room=1.0)
    ledger = ledger_for(oracle)
    start(ledger, None)
    ledger.robust = np.array([0.25, 0.25, 0.5])
    for image in ([0.25, 0.5, 0.5], [0.4, 0.2, 0.4], [0.25, 0.25, 1.0]):
        ledger.exclude(violation(image))
    assert [one is not None for one in evidence(ledger, 0.15)] == [True, False, False]
    assert [one is not None for one in evidence(ledger, 0.25)] == [True, True, False]
    assert [one is not None for one in evidence(ledger, 0.5)] == [True, True, True]


def test_evidence_that_does_not_replay_does_not_count():
    oracle = LinearOracle(2, costs=np.array([1.0, 1.0]), room=1.0)
    ledger = ledger_for(oracle)
    start(ledger, None)
    ledger.exclude(violation([0.1, 0.1]))
    assert evidence(ledger, 0.5) == (None, None)
