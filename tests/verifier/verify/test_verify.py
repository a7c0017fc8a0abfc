import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import dense_network, exact_supremum, linear_network, random_box, random_dense_network

from attacks.margin import MarginAttack, MarginAttackOptions
from verifier import check
from verifier.bounds import BoundMethod, BoundOptions
from verifier.bounds.engine import OwnEngine
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import InputError, NetworkTooLargeError, SolverUnavailableError
from verifier.evaluation import evaluate
from verifier.lowering import lower
from verifier.network import Network
from verifier.property import Property, keeps_thresholds, keeps_top_k_set, stays_in_top_k, stays_out_of_top_k
from verifier.query import Query
from verifier.region import Box
from verifier.runtime import run
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import EngineChoice, VerifyOptions, plan_for, verify

ATTACK = MarginAttack(MarginAttackOptions(scout_steps=8, steps=10, max_subsets=6))
COMPLETE = [EngineChoice.AUTO, EngineChoice.MILP]
OWN = [*COMPLETE, EngineChoice.BOUNDS]
PROPERTIES = [
    stays_in_top_k(0, 1, 4),
    stays_in_top_k(1, 2, 4),
    stays_in_top_k(2, 3, 4),
    stays_out_of_top_k(2, 1, 4),
    stays_out_of_top_k(3, 2, 4),
    keeps_top_k_set([0, 2], 4),
    keeps_thresholds([1, -1, 0, 1], [0.1, 0.2, 0.0, -0.3]),
    keeps_thresholds([1, -1, 0, 1], [0.1, 0.2, 0.0, -0.3], 1),
]

# Score 0 is the pixel, score 1 is 1/2.
AGAINST_HALF = linear_network([[1.0], [0.0]], [0.0, 0.5])


def pixel(lower: float, upper: float) -> Box:
    return Box(np.full((1, 1, 1), lower), np.full((1, 1, 1), upper))


def options(engine: EngineChoice, **others) -> VerifyOptions:
    return VerifyOptions(engine=engine, **others)


def assert_shows_violation(query: Query, verdict: Vulnerable) -> None:
    """Re-checks everything that a counterexample claims, from scratch."""
    found = verdict.counterexample
    assert found.image.dtype == np.float32
    assert query.region.contains(found.image)
    assert check.margin_lower_bound(query.network, query.property, found.image.astype(np.float64)) > 0
    assert query.property.margin(run(query.network, found.image[None])[0].astype(np.float64)) > 0


# ---- known answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", OWN)
def test_robust_by_hand(engine):
    outcome = verify(Query(AGAINST_HALF, pixel(0.625, 0.875), stays_in_top_k(0, 1, 2)), options=options(engine))
    assert isinstance(outcome.verdict, Robust)
    certificate = outcome.verdict.certificate
    assert TrustedClaim.FLOAT64_ROUNDING in certificate.trusted
    assert len(set(certificate.trusted)) == len(certificate.trusted)
    if certificate.bound is not None:
        assert -0.125 - 1e-9 <= certificate.bound < 0
    assert outcome.statistics.open_subsets == 0


@pytest.mark.parametrize("engine", OWN)
@pytest.mark.parametrize("falsifier", [None, ATTACK])
def test_vulnerable_by_hand(engine, falsifier):
    query = Query(AGAINST_HALF, pixel(0.375, 0.875), stays_in_top_k(0, 1, 2))
    verdict = verify(query, falsifier=falsifier, options=options(engine)).verdict
    assert isinstance(verdict, Vulnerable)
    assert_shows_violation(query, verdict)
    assert verdict.counterexample.image[0, 0, 0] == np.float32(0.375)
    assert verdict.counterexample.margin_lower == pytest.approx(0.125)


@pytest.mark.parametrize("engine", COMPLETE)
def test_a_tie_on_the_border_is_neither(engine):
    verdict = verify(Query(AGAINST_HALF, pixel(0.5, 0.875), stays_in_top_k(0, 1, 2)), options=options(engine)).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.reason is UnknownReason.TIE
    assert verdict.best_bound == pytest.approx(0.0, abs=1e-5)


def test_labels_that_always_tie_are_a_tie_both_ways():
    network = linear_network([[1.0], [1.0]], [0.0, 0.0])
    for goal in (stays_in_top_k(0, 1, 2), stays_out_of_top_k(0, 1, 2)):
        verdict = verify(Query(network, pixel(0.0, 1.0), goal), falsifier=ATTACK).verdict
        assert isinstance(verdict, Unknown)
        assert verdict.reason is UnknownReason.TIE


def test_a_label_outside_the_clean_top_k_is_vulnerable_without_any_engine():
    query = Query(AGAINST_HALF, pixel(0.25, 0.25), stays_in_top_k(0, 1, 2))
    outcome = verify(query, options=options(EngineChoice.BOUNDS))
    assert isinstance(outcome.verdict, Vulnerable)
    assert [stage.name for stage in outcome.statistics.stages] == ["points"]


def test_given_starts_are_tried_first():
    # 0.5 + (h1 - h2) peaks only at the pixel 0.3125: a spike that neither centre nor corners nor gradients from them see.
    peak = 0.3125
    hidden = ([[64.0], [64.0], [64.0]], [-64 * (peak - 0.0625), -64 * peak, -64 * (peak + 0.0625)])
    network = dense_network([hidden, ([[0.0, 0.0, 0.0], [1.0, -2.0, 1.0]], [1.0, 0.0])])
    query = Query(network, pixel(0.0, 1.0), stays_in_top_k(0, 1, 2))
    start = np.full((1, 1, 1, 1), peak)
    incomplete = options(EngineChoice.BOUNDS, bounds=BoundOptions(method=BoundMethod.INTERVAL))
    assert isinstance(verify(query, options=incomplete).verdict, Unknown)
    verdict = verify(query, options=incomplete, starts=start).verdict
    assert isinstance(verdict, Vulnerable)
    assert verdict.counterexample.image[0, 0, 0] == peak
    # A complete engine finds the spike by itself.
    assert isinstance(verify(query).verdict, Vulnerable)


def test_bounds_alone_say_that_they_are_incomplete():
    # |x - 1/2| - relu(x - 1/2) - relu(1/2 - x) is 0, but each relaxation is loose.
    hidden = ([[1.0], [-1.0], [1.0], [-1.0]], [-0.5, 0.5, -0.5, 0.5])
    network = dense_network([hidden, ([[0, 0, 0, 0], [1, 1, -1, -1]], [0.125, 0.0])])
    query = Query(network, pixel(0.0, 1.0), stays_in_top_k(0, 1, 2))
    interval = options(EngineChoice.BOUNDS, bounds=BoundOptions(method=BoundMethod.INTERVAL))
    verdict = verify(query, falsifier=ATTACK, options=interval).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.reason is UnknownReason.INCOMPLETE
    assert 0 < verdict.best_bound < math.inf
    assert isinstance(verify(query, falsifier=ATTACK).verdict, Robust)


def test_a_network_too_large_for_bounds_is_never_proved_but_can_be_refuted():
    network = dense_network([([[1.0], [0.0]], [0.0, 0.5]), ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])])
    goal = stays_in_top_k(0, 1, 2)
    holds, breaks = Query(network, pixel(0.75, 1.0), goal), Query(network, pixel(0.25, 1.0), goal)
    assert isinstance(verify(holds).verdict, Robust)
    entries = lower(network).most_entries
    for engine in (EngineChoice.AUTO, EngineChoice.BOUNDS, EngineChoice.MILP, EngineChoice.SEARCH):
        enough = options(engine, bounds=BoundOptions(most_entries=entries))
        assert isinstance(verify(holds, options=enough).verdict, Robust)
        small = options(engine, bounds=BoundOptions(most_entries=entries - 1), require_certificate=True)
        verdict = verify(holds, falsifier=ATTACK, options=small).verdict
        assert isinstance(verdict, Unknown)
        assert verdict.reason is UnknownReason.TOO_LARGE
        assert verdict.best_bound == math.inf
        assert isinstance(verify(breaks, falsifier=ATTACK, options=small).verdict, Vulnerable)
    with pytest.raises(NetworkTooLargeError, match=r"multiplications, wanted at most"):
        OwnEngine(small.bounds).analyse(lower(network), holds.region, deadline=Deadline())


# ---- brute force ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", OWN)
@pytest.mark.parametrize("goal", PROPERTIES, ids=lambda goal: goal.name)
def test_agrees_with_the_exact_supremum(engine, goal):
    decided = 0
    for seed in range(4):
        network = random_dense_network(seed)
        query = Query(network, random_box(network, seed), goal)
        supremum = exact_supremum(network, goal, query.region)
        outcome = verify(query, falsifier=ATTACK if seed % 2 else None, options=options(engine))
        match outcome.verdict:
            case Robust(certificate):
                assert supremum < 1e-9
                assert certificate.bound is None or certificate.bound >= supremum - 1e-6
            case Vulnerable() as verdict:
                assert supremum > -1e-9
                assert_shows_violation(query, verdict)
            case Unknown(_, bound):
                assert bound >= supremum - 1e-6
                assert engine is EngineChoice.BOUNDS or abs(supremum) < 1e-4
        decided += not isinstance(outcome.verdict, Unknown)
        bounds = [stage.upper_bound for stage in outcome.statistics.stages]
        assert bounds == sorted(bounds, reverse=True)
    assert decided


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(OWN), st.booleans())
def test_a_planted_counterexample_never_verifies(seed, engine, has_attack):
    generator = np.random.default_rng(seed)
    network = random_dense_network(seed, inputs=4, hidden=6, labels=3)
    box = random_box(network, seed)
    planted = check.inside_box_float32(box, box.lower + generator.random(box.shape) * (box.upper - box.lower))
    scores = evaluate(network, planted[None].astype(np.float64))[0]
    # Label c must stay below a threshold that its score at the planted image exceeds, barely or clearly.
    label, excess = int(generator.integers(3)), float(generator.choice([1e-9, 1e-4, 0.3]))
    signs = [-1 if c == label else 0 for c in range(3)]
    goal = keeps_thresholds(signs, (scores - excess).tolist())
    query = Query(network, box, goal)
    outcome = verify(query, falsifier=ATTACK if has_attack else None, options=options(engine))
    assert not isinstance(outcome.verdict, Robust)
    if isinstance(outcome.verdict, Vulnerable):
        assert_shows_violation(query, outcome.verdict)
    with_hint = verify(query, options=options(engine), starts=planted[None].astype(np.float64))
    assert not isinstance(with_hint.verdict, Robust)
    if excess > 1e-5:
        assert isinstance(with_hint.verdict, Vulnerable)


# ---- time, options, misuse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", OWN)
def test_an_expired_deadline_answers_at_once(engine):
    query = Query(AGAINST_HALF, pixel(0.375, 0.875), stays_in_top_k(0, 1, 2))
    outcome = verify(query, falsifier=ATTACK, options=options(engine), deadline=Deadline.after(0.0))
    assert outcome.verdict.reason is UnknownReason.TIME_LIMIT
    assert outcome.verdict.best_bound == math.inf
    assert outcome.statistics.stages == ()


def test_shared_bounds_are_used_and_checked():
    box = pixel(0.625, 0.875)
    query = Query(AGAINST_HALF, box, stays_in_top_k(0, 1, 2))
    shared = OwnEngine(BoundOptions()).analyse(lower(AGAINST_HALF), box, deadline=Deadline())
    outcome = verify(query, region_bounds=shared)
    assert isinstance(outcome.verdict, Robust)
    assert "analysis" not in [stage.name for stage in outcome.statistics.stages]
    assert outcome.statistics.unstable_units == shared.unstable_units
    with pytest.raises(InputError, match="another region"):
        verify(Query(AGAINST_HALF, pixel(0.5, 0.875), stays_in_top_k(0, 1, 2)), region_bounds=shared)
    twin = linear_network([[1.0], [0.0]], [0.0, 0.75])
    with pytest.raises(InputError, match="another network"):
        verify(Query(twin, box, stays_in_top_k(0, 1, 2)), region_bounds=shared)


def test_refuses_what_does_not_fit_together():
    with pytest.raises(InputError, match="solver"):
        VerifyOptions(engine=EngineChoice.BOUNDS, solver="highs")
    query = Query(AGAINST_HALF, pixel(0.25, 0.75), stays_in_top_k(0, 1, 2))
    with pytest.raises(InputError, match="starts"):
        verify(query, starts=np.zeros((1, 2, 1, 1)))
    robust_only_by_milp = Query(AGAINST_HALF, pixel(0.625, 0.875), stays_in_top_k(0, 1, 2))
    with pytest.raises((InputError, SolverUnavailableError), match="no-such-solver"):
        verify(robust_only_by_milp, options=options(EngineChoice.MILP, solver="no-such-solver"))


def test_a_box_that_holds_no_float32_image_is_never_vulnerable():
    # No float32 equals the double 0.1; in exact arithmetic the one image violates, in the file's arithmetic none exists.
    query = Query(AGAINST_HALF, pixel(0.1, 0.1), stays_in_top_k(0, 1, 2))
    verdict = verify(query, falsifier=ATTACK).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.best_bound >= 0.4 - 1e-6


def test_statistics_name_every_stage():
    hidden = ([[1.0], [-1.0], [1.0], [-1.0]], [-0.5, 0.5, -0.5, 0.5])
    network: Network = dense_network([hidden, ([[0, 0, 0, 0], [1, 1, -1, -1]], [0.125, 0.0])])
    query = Query(network, pixel(0.0, 1.0), stays_in_top_k(0, 1, 2))
    outcome = verify(query, falsifier=ATTACK, options=options(EngineChoice.MILP))
    statistics = outcome.statistics
    assert [stage.name for stage in statistics.stages] == ["points", "attack", "analysis", "tightening", "MILP"]
    assert statistics.unstable_units == 4
    assert statistics.seconds == pytest.approx(sum(stage.seconds for stage in statistics.stages))
    assert pickle.loads(pickle.dumps(query)).property.name == query.property.name


@pytest.mark.parametrize("engine", [EngineChoice.AUTO, EngineChoice.SEARCH, EngineChoice.BOUNDS, EngineChoice.MILP])
def test_sharpening_can_be_left_out(engine):
    assert plan_for(options(engine)).sharpen is not None
    assert plan_for(options(engine, sharpens=False)).sharpen is None


def test_thresholds_count_flips():
    network = linear_network(np.eye(2), [0.0, 0.0])
    box = Box(np.full((1, 1, 2), 0.25), np.full((1, 1, 2), 0.75))
    one_flip = Query(network, box, keeps_thresholds([1, 1], [0.5, 0.125], 1))
    assert isinstance(verify(one_flip).verdict, Robust)
    assert isinstance(verify(Query(network, box, keeps_thresholds([1, 1], [0.5, 0.125]))).verdict, Vulnerable)
    goal = Property("offset", np.array([[1.0, 1.0]]), np.array([-1.25]), 1)
    assert isinstance(verify(Query(network, box, goal)).verdict, Vulnerable)


def test_auto_lirpa_decides_by_itself():
    try:
        lirpa = plan_for(options(EngineChoice.AUTO_LIRPA))
    except SolverUnavailableError as error:
        pytest.skip(str(error))
    proved = verify(Query(AGAINST_HALF, pixel(0.625, 0.875), stays_in_top_k(0, 1, 2)), plan=lirpa).verdict
    assert isinstance(proved, Robust)
    assert TrustedClaim.AUTO_LIRPA in proved.certificate.trusted
    refuted = verify(Query(AGAINST_HALF, pixel(0.375, 0.875), stays_in_top_k(0, 1, 2)), plan=lirpa).verdict
    assert isinstance(refuted, Vulnerable)
