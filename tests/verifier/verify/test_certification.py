"""Robust with a certificate trusts nothing; without one it says why, and is Unknown where one is required."""

import io
import math

import numpy as np
import pytest
from tiny_networks import exact_supremum, random_box, random_dense_network

from verifier.certificate import Certificate
from verifier.certify import Certification, certify
from verifier.check.certificates import check_certificate, is_about
from verifier.check.judge import Judge
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, InputError
from verifier.network import Network
from verifier.property import Property, stays_in_top_k
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import EngineChoice, Outcome, VerifyOptions, verify
from verifier.verify.case import Case
from verifier.verify.evidence import Evidence

CERTIFY = "verifier.verify.certification.certify"


def robust_query(seed: int, count: int = 2) -> Query:
    """A question whose supremum is clearly below 0."""
    network = random_dense_network(seed)
    region = random_box(network, seed)
    goal = stays_in_top_k(seed % 4, count, 4)
    shift = exact_supremum(network, goal, region) + 0.05
    return Query(network, region, Property(goal.name, goal.coefficients, goal.offsets - shift, count))


ROBUST = robust_query(1)


def ask(query: Query = ROBUST, *, seconds: float | None = None, **options: object) -> Outcome:
    return verify(query, options=VerifyOptions(**options), deadline=Deadline.after(seconds))


def in_bytes(outcome: Outcome) -> bytes:
    target = io.BytesIO()
    assert outcome.proof is not None
    outcome.proof.write(target)
    return target.getvalue()


@pytest.mark.parametrize("engine", [EngineChoice.AUTO, EngineChoice.BOUNDS, EngineChoice.SEARCH, EngineChoice.MILP])
def test_whichever_engine_proved_it_the_checker_accepts(engine: EngineChoice) -> None:
    certified = 0
    for seed in range(4):
        query = robust_query(seed, 1 + seed % 2)
        outcome = ask(query, engine=engine, certify=True)
        if not isinstance(outcome.verdict, Robust):
            assert engine is EngineChoice.BOUNDS
            continue
        assert outcome.uncertified is None
        assert outcome.verdict.certificate.trusted == ()
        assert outcome.verdict.certificate.bound is None
        assert outcome.verdict.certificate.engine.endswith("certified")
        report = check_certificate(in_bytes(outcome), query.network)
        assert report.accepted
        assert report.leaves == outcome.proof.leaves
        assert is_about(report.statement, query)
        stage = outcome.statistics.stages[-1]
        assert stage.name == "certificate"
        assert stage.seconds <= outcome.statistics.seconds
        certified += 1
    assert certified >= 2


def test_nothing_is_certified_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CERTIFY, lambda *_args, **_kwargs: pytest.fail("certified"))
    outcome = ask()
    assert isinstance(outcome.verdict, Robust)
    assert (outcome.proof, outcome.uncertified) == (None, None)
    assert outcome.verdict.certificate.trusted


def gives_up(monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, object]] | None = None) -> None:
    def attempt(_query: Query, **arguments: object) -> Certification:
        if calls is not None:
            calls.append(arguments)
        return Certification(None, "out of ideas", -0.5, 0.0)

    monkeypatch.setattr(CERTIFY, attempt)


def test_without_a_proof_trust_stays_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ask().verdict
    gives_up(monkeypatch)
    outcome = ask(certify=True)
    assert outcome.verdict == plain
    assert (outcome.proof, outcome.uncertified) == (None, "out of ideas")
    assert outcome.statistics.stages[-1].detail == "none: out of ideas"


def test_a_required_certificate_that_cannot_be_made_leaves_the_query_open(monkeypatch: pytest.MonkeyPatch) -> None:
    gives_up(monkeypatch)
    outcome = ask(require_certificate=True)
    assert isinstance(outcome.verdict, Unknown)
    assert outcome.verdict.reason is UnknownReason.NOT_CERTIFIED
    assert outcome.verdict.best_bound == math.inf, "nothing is certified"
    assert outcome.uncertified == "out of ideas"


@pytest.mark.parametrize("required", [False, True])
def test_ctrl_c_keeps_the_verdict(monkeypatch: pytest.MonkeyPatch, required: bool) -> None:
    def interrupted(*_args: object, **_kwargs: object) -> Certification:
        raise KeyboardInterrupt

    monkeypatch.setattr(CERTIFY, interrupted)
    outcome = ask(certify=True, require_certificate=required)
    assert (outcome.proof, outcome.uncertified) == (None, "interrupted")
    if required:
        assert isinstance(outcome.verdict, Unknown)
        assert outcome.verdict.reason is UnknownReason.INTERRUPTED
    else:
        assert isinstance(outcome.verdict, Robust)
        assert outcome.verdict.certificate.trusted


def test_ctrl_c_before_it_leaves_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CERTIFY, lambda *_args, **_kwargs: pytest.fail("certified"))

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("verifier.verify.investigation.Investigation.solve", interrupted)
    outcome = ask(certify=True)
    assert isinstance(outcome.verdict, Robust)
    assert outcome.uncertified == "interrupted"


def test_it_gets_as_long_again_as_the_limit_and_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []
    gives_up(monkeypatch, calls)
    ask(certify=True, seconds=500.0)
    ask(certify=True, float32=True)
    first, second = calls
    assert isinstance(first["deadline"], Deadline)
    assert isinstance(second["deadline"], Deadline)
    assert 400.0 < first["deadline"].remaining() <= 500.0
    assert second["deadline"].remaining() == math.inf
    assert (first["float32"], second["float32"]) == (False, True)
    assert first["region"] is not None


def test_a_proof_of_something_else_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    other = certify(robust_query(1, 1))
    assert other.proof is not None
    monkeypatch.setattr(CERTIFY, lambda *_args, **_kwargs: other)
    with pytest.raises(ContradictionError, match="another question") as caught:
        ask(certify=True)
    assert caught.value.query is ROBUST


def test_a_counterexample_is_its_own_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CERTIFY, lambda *_args, **_kwargs: pytest.fail("certified"))
    shifted = Property("violated", ROBUST.property.coefficients, ROBUST.property.offsets + 0.2, ROBUST.property.count)
    outcome = ask(Query(ROBUST.network, ROBUST.region, shifted), require_certificate=True)
    assert isinstance(outcome.verdict, Vulnerable)
    assert (outcome.proof, outcome.uncertified) == (None, None)


def test_an_open_query_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CERTIFY, lambda *_args, **_kwargs: pytest.fail("certified"))
    outcome = ask(require_certificate=True, seconds=0.0)
    assert outcome.verdict == Unknown(UnknownReason.TIME_LIMIT, math.inf)


def test_float32_needs_a_certificate_to_speak_about() -> None:
    with pytest.raises(InputError, match="float32"):
        VerifyOptions(float32=True)


def test_a_float32_certificate_passes_the_stricter_check() -> None:
    outcome = ask(require_certificate=True, float32=True)
    assert isinstance(outcome.verdict, Robust)
    assert check_certificate(in_bytes(outcome), ROBUST.network, covers_float32=True).accepted


# ---- rounding ---------------------------------------------------------------------------------------------------------------


def large_sums(gap: float) -> Query:
    """Label 1 beats label 0 by the gap; both read sums near 2^30 that cancel, exactly representable."""
    from tiny_networks import dense_network

    big = 2.0**30
    network = dense_network([([[1.0]], [big]), ([[1.0], [0.0]], [-big, 1.0 + gap])])
    return Query(network, Box(np.zeros((1, 1, 1)), np.ones((1, 1, 1))), stays_in_top_k(1, 1, 2))


def test_a_bound_within_rounding_is_settled_by_the_checker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding is some 2^30 2^-53 = 1e-7 here: a bound of -1e-8 says nothing, one of -1e-2 does."""
    assert isinstance(ask(large_sums(1e-2)).verdict, Robust)
    near = large_sums(0.0)
    near = Query(near.network, near.region, Property("near", np.array([[1.0, -1.0]]), np.array([-1e-8]), 1))
    calls: list[dict[str, object]] = []
    gives_up(monkeypatch, calls)
    outcome = ask(near, engine=EngineChoice.BOUNDS)
    assert len(calls) == 1
    assert outcome.verdict == Unknown(UnknownReason.ROUNDING, math.inf)


def test_what_rounding_left_unclear_becomes_robust_by_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "verifier.verify.evidence.score_roundings", lambda network, _box: np.full(network.labels, np.inf)
    )
    outcome = ask(engine=EngineChoice.BOUNDS)
    assert isinstance(outcome.verdict, Robust)
    assert outcome.proof is not None
    assert outcome.verdict.certificate.trusted == ()
    assert outcome.verdict.certificate.engine == "certified bounds and splits"


def test_no_proof_survives_an_image_that_disproves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.check.replay", lambda *_: None)
    shifted = Property("violated", ROBUST.property.coefficients, ROBUST.property.offsets + 9.0, ROBUST.property.count)
    query = Query(ROBUST.network, ROBUST.region, shifted)
    evidence = Evidence(query.network, query.region)
    case = Case(query, evidence)
    evidence.offer_near(query.region.centre[None], "by hand")
    case.look()
    assert case.verdict is None
    with pytest.raises(ContradictionError, match="certified proved the margin < 0") as caught:
        case.accept(Certificate("bounds, certified", None, ()))
    assert caught.value.query is query


def test_estimates_of_rounding_grow_with_what_cancels() -> None:
    from verifier.verify.float64 import score_roundings

    small = score_roundings(ROBUST.network, ROBUST.region).max()
    assert 0.0 < small < 1e-12
    query = large_sums(0.0)
    assert 2.0**-23 < score_roundings(query.network, query.region)[0] < 2.0**-15


def test_networks_that_the_checker_cannot_follow_have_no_known_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    from verifier.errors import UnsupportedOpError
    from verifier.verify import float64

    def refuses(_network: Network) -> Judge:
        raise UnsupportedOpError("no rule")

    monkeypatch.setattr(float64, "steps_of", refuses)
    assert (float64.score_roundings(ROBUST.network, ROBUST.region) == np.inf).all()
