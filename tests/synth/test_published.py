"""The published method on oracles whose robust sets are known, and on a network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth_fakes import LinearOracle, StaircaseOracle
from tiny_networks import exact_supremum, random_dense_network

from synth.cutting import CutRule, fixed_cutting_weights
from synth.grow import GrowOptions
from synth.ledger import Ledger, Limits
from synth.oracle import Effort
from synth.published import PublishedOptions, optimise, published
from synth.result import StepKind, StepVerdict, StopReason
from synth.size import Size
from synth.weights import default_weights
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.lowering import lower
from verifier.property import stays_in_top_k


def run(oracle, method, cutting=None, max_queries=3000):
    ledger = Ledger(
        oracle,
        Size(default_weights(oracle.layers)),
        Limits(Deadline(), max_queries, 5.0),
        lambda step: None,
        prunes=False,
    )
    ledger.attempt(StepKind.START, np.zeros(oracle.layers), Effort.COMPLETE)
    stop = optimise(ledger, fixed_cutting_weights(oracle.layers) if cutting is None else cutting, method)
    return ledger, stop


@given(
    costs=st.lists(st.floats(0.5, 8.0), min_size=2, max_size=5),
    cuts=st.sampled_from([0, 3]),
    rate=st.sampled_from([0.02, 0.2]),
)
@settings(max_examples=15)
def test_every_question_is_complete_and_what_it_ends_with_is_robust(costs, cuts, rate):
    oracle = LinearOracle(len(costs), costs=np.array(costs), room=1.0)
    ledger, stop = run(oracle, PublishedOptions(cuts=cuts, learning_rate=rate))
    assert oracle.margin(ledger.robust) < 0.0
    assert {effort for _, effort in oracle.asked} == {Effort.COMPLETE}
    assert ledger.counts.complete == len(oracle.asked)
    assert stop in (StopReason.OPTIMISED, StopReason.NO_EXPANSION)


def test_cuts_follow_the_formula_and_a_known_counterexample_is_asked_about_again():
    oracle = StaircaseOracle(3, corners=np.array([[0.01, 0.0, 0.0]]), gradient=np.zeros(3))
    cutting = np.array([1.0, 0.5, 0.0])
    ledger, _ = run(oracle, PublishedOptions(cuts=2), cutting, max_queries=4)
    first, second, third = (step.epsilons for step in ledger.steps[1:4])
    assert second == pytest.approx(cutting * first)
    assert third == pytest.approx(cutting * second)
    assert [step.verdict for step in ledger.steps[1:4]] == [StepVerdict.VULNERABLE] * 3


def test_a_query_limit_ends_it():
    oracle = LinearOracle(3, costs=np.ones(3), room=1.0)
    assert run(oracle, PublishedOptions(), max_queries=3)[1] is StopReason.QUERY_LIMIT


def test_it_may_fill_everything():
    oracle = LinearOracle(2, costs=np.ones(2), room=3.0)
    ledger, stop = run(oracle, PublishedOptions(learning_rate=0.2))
    assert stop is StopReason.NO_EXPANSION
    assert (ledger.robust == 1.0).all()


@pytest.mark.parametrize("cut", CutRule)
def test_a_network(cut):
    network = random_dense_network(1, inputs=3)
    image = np.random.default_rng(1).random(network.input_shape).astype(np.float32).astype(np.float64)
    target = int(np.argmax(lower(network).evaluate(image.reshape(1, -1))[-1][0]))
    pixels = np.array([[True, False, False]])
    result = published(network, image, pixels, target, options=GrowOptions(cut=cut, max_queries=20))
    assert result.is_proved
    assert exact_supremum(network, stays_in_top_k(target, 2, network.labels), result.neighbourhood.box()) < 0.0


@pytest.mark.parametrize("wrong", [{"trade_off": 1.0}, {"learning_rate": 0.0}, {"cuts": -1}, {"floor": 0.0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        PublishedOptions(**wrong)
