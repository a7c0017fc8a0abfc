"""Networks built so that floating point drops what matters never verify wrongly: Zombori et al. 2021, Jia and Rinard 2021.

A unit adds 2^k and a later one subtracts it: exactly that changes nothing, in floating point the payload is gone.
"""

from collections.abc import Callable

import numpy as np
import pytest
from tiny_networks import dense_network, linear_network

from verifier.certify import certify
from verifier.check.certificates import check_certificate
from verifier.check.judge import Judge
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.labels import LabelState, classify_labels
from verifier.network import Network
from verifier.onnx_import import load_network_bytes
from verifier.proof.errors import CertificateError
from verifier.proof.records import Leaf, Refutation, Tree
from verifier.property import stays_in_top_k
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import EngineChoice, VerifyOptions, verify

SECONDS = 20.0
"""Ends what stays open; no answer here depends on it."""
FLOAT32, FLOAT64 = (24, 45), (53, 120)
"""Powers of 2 from which on a payload is lost in either precision."""


def box(*ends: tuple[float, float]) -> Box:
    lower, upper = np.array(ends, dtype=np.float64).T
    return Box(lower.reshape(1, 1, -1), upper.reshape(1, 1, -1))


# Label 0 scores what is left of a payload x in [0, 1], label 1 scores `rival`.


def one_layer(k: int, rival: float) -> tuple[Network, Box]:
    """2^k a + x - 2^k c with a and c fixed at 1."""
    big = 2.0**k
    return linear_network([[big, 1.0, -big], [0.0, 0.0, 0.0]], [0.0, rival]), box((1, 1), (0, 1), (1, 1))


def two_layers(k: int, rival: float) -> tuple[Network, Box]:
    """relu(x + 2^k) - 2^k."""
    big = 2.0**k
    return dense_network([([[1.0]], [big]), ([[1.0], [0.0]], [-big, rival])]), box((0, 1))


def three_layers(k: int, rival: float) -> tuple[Network, Box]:
    """relu(2^k - relu(2^k - x)), beside a unit that stays small."""
    big = 2.0**k
    layers = [
        ([[-1.0], [1.0]], [big, 0.0]),
        ([[-1.0, 0.0], [0.0, 1.0]], [big, 0.0]),
        ([[1.0, 0.0], [0.0, 0.0]], [0.0, rival]),
    ]
    return dense_network(layers), box((0, 1))


def asleep(k: int, rival: float) -> tuple[Network, Box]:
    """x - 2/5, by way of a large unit that is 0 up to x = 3/4: only beyond is anything dropped, and there alone label 0 wins."""
    big = 2.0**k
    layers = [
        ([[4 * big], [1.0]], [-3 * big, 0.0]),
        ([[1.0, 1.0], [1.0, 0.0]], [0.0, 0.0]),
        ([[1.0, -1.0], [0.0, 0.0]], [-0.4, rival]),
    ]
    return dense_network(layers), box((0, 1))


CRAFTED = (one_layer, two_layers, three_layers, asleep)
Craft = Callable[[int, float], tuple[Network, Box]]


def query(craft: Craft, k: int, rival: float) -> Query:
    network, region = craft(k, rival)
    return Query(network, region, stays_in_top_k(1, 1, 2))


def answer(asked: Query, seconds: float = SECONDS, **options: object) -> Robust | Vulnerable | Unknown | None:
    """The verdict; None where two engines contradict each other, which stops a run too."""
    try:
        return verify(asked, options=VerifyOptions(**options), deadline=Deadline.after(seconds)).verdict
    except ContradictionError:
        return None


@pytest.mark.parametrize("k", [*FLOAT32, *FLOAT64])
@pytest.mark.parametrize("craft", CRAFTED)
def test_a_dropped_payload_never_verifies(craft: Craft, k: int) -> None:
    """Label 0 beats label 1 somewhere. Asked or not asked for a certificate, nobody may say otherwise."""
    assert not isinstance(answer(query(craft, k, 0.5), engine=EngineChoice.BOUNDS, certify=k % 2 == 0), Robust)


@pytest.mark.parametrize("engine", [EngineChoice.AUTO, EngineChoice.MILP], ids=str)
@pytest.mark.parametrize("craft", CRAFTED)
def test_no_complete_engine_is_fooled(craft: Craft, engine: EngineChoice) -> None:
    assert not isinstance(answer(query(craft, 53, 0.5), 3.0, engine=engine), Robust)


@pytest.mark.parametrize("craft", [one_layer, two_layers])
def test_no_label_is_always_in_that_is_not(craft: Craft) -> None:
    """All labels at once, where no certificate is ever made."""
    network, region = craft(53, 0.5)
    image = region.lower.astype(np.float32)
    found = classify_labels(network, image, region, 1, options=VerifyOptions(engine=EngineChoice.BOUNDS))
    # At x = 0 label 1 leads, at x = 1 label 0.
    assert not {result.state for result in found.results} & {LabelState.ALWAYS_IN, LabelState.ALWAYS_OUT}


@pytest.mark.parametrize("k", [10, 24, 45, 53, 60, 120])
@pytest.mark.parametrize("craft", CRAFTED)
def test_the_checker_knows_what_it_does_not_know(craft: Craft, k: int) -> None:
    """Whatever rounding leaves of the payload, the bound accounts for it: the leaf is never accepted."""
    asked = query(craft, k, 0.5)
    with pytest.raises(CertificateError, match="not < 0"):
        Judge(asked.network, asked.region, asked.property).judge(Refutation((0,), Tree((), (Leaf(()),))))


@pytest.mark.parametrize("craft", CRAFTED)
def test_what_is_robust_all_the_same_is_certified_or_open(craft: Craft) -> None:
    """Label 1 scores 2, so x <= 1 never reaches it: provable while 2^-53 times 2^k is small."""
    proved = 0
    for k in (4, 20, 120):
        asked = query(craft, k, 2.0)
        verdict = answer(asked, require_certificate=True)
        match verdict:
            case Robust(certificate):
                assert certificate.trusted == ()
                assert k < 53
                proved += 1
            case Unknown(reason, _):
                assert (
                    reason in (UnknownReason.NOT_CERTIFIED, UnknownReason.ROUNDING, UnknownReason.INCOMPLETE) or k > 40
                )
            case Vulnerable():
                pytest.fail("no image violates it")
    assert proved == 2


@pytest.mark.parametrize("craft", [one_layer, two_layers])
def test_float32_inference_that_loses_the_payload_is_not_covered(craft: Craft, tmp_path) -> None:
    """Label 0 scores x <= 1 exactly and label 1 scores 1.5; float32 rounds 2^26 + x to a multiple of 8."""
    asked = query(craft, 26, 1.5)
    exact, inference = certify(asked), certify(asked, float32=True)
    assert exact.proof is not None, exact.reason
    assert inference.proof is None
    assert inference.reason
    path = tmp_path / "exact.cert"
    with path.open("wb") as target:
        exact.proof.write(target)
    assert check_certificate(path, asked.network).accepted
    assert not check_certificate(path, asked.network, covers_float32=True).accepted
    verdict = answer(asked, require_certificate=True, float32=True)
    assert isinstance(verdict, Unknown)
    assert verdict.reason is UnknownReason.NOT_CERTIFIED


@pytest.mark.parametrize("craft", CRAFTED)
def test_the_file_is_read_or_refused_and_never_verified(craft: Craft) -> None:
    """The same networks through the ONNX reader."""
    made, region = craft(53, 0.5)
    network = load_network_bytes(made.onnx_bytes, "crafted.onnx")
    asked = Query(network, region, stays_in_top_k(1, 1, 2))
    assert not isinstance(answer(asked, engine=EngineChoice.BOUNDS, require_certificate=True), Robust)


# ---- margins near 0 ---------------------------------------------------------------------------------------------------------


def by(gap: float, *, layers: int = 1) -> Network:
    """Label 1 scores x + gap, label 0 scores x."""
    if layers == 1:
        return linear_network([[1.0], [1.0]], [0.0, gap])
    return dense_network([([[1.0]], [0.0]), ([[1.0], [1.0]], [0.0, gap])])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("gap", [2.0**-30, 1e-9, 1e-12])
def test_a_margin_of_1e_9_is_certified_or_open(gap: float, layers: int) -> None:
    """The margin is minus the float32 nearest to the gap, everywhere. The checker can tell; engines need not find the proof."""
    asked = Query(by(gap, layers=layers), box((0.25, 0.75)), stays_in_top_k(1, 1, 2))
    Judge(asked.network, asked.region, asked.property).judge(Refutation((0,), Tree((), (Leaf(()),))))
    inference = Judge(asked.network, asked.region, asked.property, covers_float32=True)
    with pytest.raises(CertificateError, match="not < 0"):
        # In float32 0.75 + 1e-9 is 0.75.
        inference.judge(Refutation((0,), Tree((), (Leaf(()),))))
    verdict = answer(asked, engine=EngineChoice.BOUNDS, require_certificate=True)
    assert isinstance(verdict, Robust | Unknown)
    if isinstance(verdict, Robust):
        assert verdict.certificate.trusted == ()


def test_a_margin_of_1e_6_is_certified() -> None:
    asked = Query(by(1e-6), box((0.25, 0.75)), stays_in_top_k(1, 1, 2))
    verdict = answer(asked, require_certificate=True)
    assert isinstance(verdict, Robust)
    assert verdict.certificate.trusted == ()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("gap", [0.0, -(2.0**-30), -1e-9, -(2.0**-60)])
@pytest.mark.parametrize("certify_it", [False, True])
def test_a_tie_and_a_violation_by_1e_9_never_verify(gap: float, layers: int, certify_it: bool) -> None:
    asked = Query(by(gap, layers=layers), box((0.25, 0.75)), stays_in_top_k(1, 1, 2))
    assert certify(asked).proof is None
    verdict = answer(asked, engine=EngineChoice.BOUNDS, certify=certify_it)
    assert isinstance(verdict, Unknown | Vulnerable)
    if isinstance(verdict, Vulnerable):
        assert gap < 0


def test_a_violation_by_1e_9_that_float32_shows_is_a_counterexample() -> None:
    """At x = 0 the scores are 0 and -1e-9, which float32 tells apart."""
    asked = Query(by(-1e-9), box((0.0, 0.5)), stays_in_top_k(1, 1, 2))
    verdict = answer(asked, require_certificate=True)
    assert isinstance(verdict, Vulnerable)
    assert verdict.counterexample.margin_lower == pytest.approx(1e-9, rel=1e-6)
