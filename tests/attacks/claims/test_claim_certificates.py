"""Claims of failure with certificates: only an accepted proof of the right thing over the whole region confirms one."""

import io
from dataclasses import replace

import numpy as np
import pytest
from tiny_networks import linear_network

from attacks.claims import Aim, Claim, ClaimKind, ClaimVerdict, Court, certified, judge_claims, read_claim
from attacks.metrics import Norm
from verifier.check.certificates import CheckReport
from verifier.proof.records import Counterexample, Leaf, Refutation, Statement, Tree
from verifier.proof.writer import write_counterexample, write_proof
from verifier.property import Property, stays_in_top_k, stays_out_of_top_k
from verifier.region import Box

# Scores (x0, x1, 0.3, 0.2): label 0 leaves the top 1 from an epsilon of 0.1 on.
NETWORK = linear_network([[1, 0], [0, 1], [0, 0], [0, 0]], [0, 0, 0.3, 0.2])
CLEAN = np.array([[[0.8, 0.6]]], np.float32)
REACHED = np.array([[[0.65, 0.7]]], np.float32)
LOSES = Aim(4, (), (0,), 1, k=1)
STAYS = stays_in_top_k(0, 1, 4)


def nobody(_query, _starts, _deadline):
    raise AssertionError("no engine is to be asked")


def judge(*claims):
    return judge_claims(claims, NETWORK, Court(nobody, nobody))


@pytest.fixture
def claim(tmp_path):
    """A claim of failure whose certificate proves `goal` over the box of that radius."""

    def build(radius=0.05, goal=STAYS, forms=(0, 1, 2), image=None, network=NETWORK):
        statement = Statement(network.sha256, Box.around(CLEAN, radius), goal, "tests")
        target = io.BytesIO()
        if image is None:
            write_proof(target, statement, [Refutation((form,), Tree((), (Leaf(()),))) for form in forms])
        else:
            write_counterexample(target, Counterexample(statement, image))
        path = tmp_path / "proof.cert"
        path.write_bytes(target.getvalue())
        return Claim("f", ClaimKind.FAILURE, "pgd", CLEAN, None, LOSES, Norm.LINF, 0.05, certificate=path)

    return build


def test_a_proof_confirms_without_any_engine(claim):
    (judgement,) = judge(claim())
    assert judgement.verdict is ClaimVerdict.CONFIRMED, judgement.reason
    assert judgement.engine == "certificate"
    assert judgement.trusted == ()
    # A larger region and reordered forms prove it as well.
    assert judge(claim(radius=0.08))[0].stands
    shuffled = Property("a lie", STAYS.coefficients[[2, 0, 1]], STAYS.offsets, STAYS.count)
    assert judge(claim(goal=shuffled))[0].stands


@pytest.mark.parametrize(
    ("words", "change", "reason"),
    [
        ({"forms": (0, 1)}, {}, "rejected"),
        ({"radius": 0.15}, {}, "rejected"),
        ({"radius": 0.04}, {}, "does not hold every image"),
        ({}, {"bound": 0.06}, "does not hold every image"),
        ({}, {"norm": None, "bound": None}, "does not hold every image"),
        ({"goal": stays_out_of_top_k(3, 1, 4), "forms": range(0)}, {}, "rejected"),
        ({}, {"aim": Aim(4, (), (0, 1), 1, k=2)}, "something else"),
        ({}, {"aim": Aim(4, (), (1,), 1, k=2)}, "something else"),
        ({"network": linear_network([[1, 0]] * 4, [0] * 4)}, {}, "rejected"),
        ({"image": REACHED, "radius": 0.2}, {}, "a counterexample, not a proof"),
    ],
)
def test_what_does_not_prove_the_claim_is_not_valid(claim, words, change, reason):
    (judgement,) = judge(replace(claim(**words), **change))
    assert judgement.verdict is ClaimVerdict.NOT_VALID
    assert reason in judgement.reason


def test_one_blocked_constraint_settles_an_aim_that_needs_all(claim):
    both = replace(claim(), aim=Aim(4, (), (0, 1), 2, k=1))
    assert judge(both)[0].stands


def test_a_success_inside_an_accepted_certificate_is_a_contradiction(claim, monkeypatch):
    wrong = claim(radius=0.2)
    statement = Statement(NETWORK.sha256, Box.around(CLEAN, 0.2), STAYS, "tests")

    def accepts_all(_certificate, _network):
        return CheckReport(True, True, statement, False, 0, 3, 3, -1.0, None, "", 0.0)

    monkeypatch.setattr(certified, "check_certificate", accepts_all)
    success = Claim("s", ClaimKind.SUCCESS, "pgd", CLEAN, REACHED, LOSES)
    judgement = judge(wrong, success)[0]
    assert judgement.verdict is ClaimVerdict.CONTRADICTION
    assert np.array_equal(judgement.contradiction.details["image"], REACHED)
    assert judgement.contradiction.query.region.contains(REACHED)


def test_certificates_in_tables(tmp_path):
    (tmp_path / "proof.cert").write_bytes(b"")
    record = {"claim": "failure", "image": "x.npy", "off": [0], "k": 1, "certificate": "proof.cert"}
    claim = read_claim(record, 0, 4, lambda _name: CLEAN, tmp_path)
    assert claim.certificate == tmp_path / "proof.cert"
    assert "no such file" in read_claim({**record, "certificate": "none"}, 0, 4, lambda _name: CLEAN, tmp_path).problem
    assert (
        "wanted one of failure"
        in read_claim({**record, "claim": "success"}, 0, 4, lambda _name: CLEAN, tmp_path).problem
    )
