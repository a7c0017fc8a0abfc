"""Claims of every kind on networks whose answers are known: the true ones are confirmed, each planted false one is refused."""

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tiny_networks import dense_network, linear_network

from attacks.claims import Aim, Claim, ClaimKind, ClaimVerdict, Court, judge_claims, robust_accuracies
from attacks.claims import judge as judging
from attacks.claims.distance import ROUNDING, enclosing_box, is_within
from attacks.metrics import Norm
from verifier.certificate import Certificate
from verifier.errors import ContradictionError, SolverUnavailableError
from verifier.query import Query
from verifier.verdict import Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import Outcome, Statistics, verify

# Scores (x0, x1, 0.3, 0.2) of two pixels: label 0 leaves the top 1 once x1 overtakes x0, at an epsilon of 0.1 for the image here.
NETWORK = linear_network([[1, 0], [0, 1], [0, 0], [0, 0]], [0, 0, 0.3, 0.2])
CLEAN = np.array([[[0.8, 0.6]]], np.float32)
LOSES = Aim(4, (), (0,), 1, k=1)
EVERY_WAY = Aim(4, (), (0, 1), 2, k=2)


def verifier(query, starts, deadline):
    return verify(query, starts=starts, deadline=deadline)


def bounds_alone(query, starts, deadline):
    return verify(query, deadline=deadline)


COURT = Court(verifier, bounds_alone)
REACHED = np.array([[[0.65, 0.7]]], np.float32)
SUCCESS = Claim("s", ClaimKind.SUCCESS, "pgd", CLEAN, REACHED, LOSES, Norm.LINF, 0.2)
FAILURE = Claim("f", ClaimKind.FAILURE, "pgd", CLEAN, None, LOSES, Norm.LINF, 0.05)


def judge(*claims, network=NETWORK, court=COURT):
    return judge_claims(claims, network, court)


def verdict_of(claim, **words):
    return judge(claim, **words)[0].verdict


def test_a_true_success_is_confirmed():
    (judgement,) = judge(SUCCESS)
    assert judgement.verdict is ClaimVerdict.CONFIRMED
    assert judgement.stands
    assert judgement.size == pytest.approx(0.15, abs=1e-7)
    assert 0 < judgement.margin[0] <= judgement.margin[1]
    assert judgement.counterexample.runtime_margin > 0


def with_image(*values):
    return replace(SUCCESS, adversarial=np.array([[values]], np.float32))


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (with_image(0.8, 0.65), "the aim is not reached: its margin is at most -0.15"),
        (with_image(0.5, 0.9), "lies 0.3"),
        (with_image(0.6, 1.2), "wanted \\[0, 1\\]"),
        (with_image(-0.01, 0.9), "wanted \\[0, 1\\]"),
        (with_image(np.nan, 0.9), "NaN"),
        (with_image(0.6, np.inf), "infinite"),
        (with_image(0.6, 0.7, 0.8), "shape"),
        (replace(SUCCESS, adversarial=np.array([[[1, 0]]])), "dtype"),
        (replace(SUCCESS, image=np.array([[[0.8, 1.6]]])), "clean image"),
        (replace(SUCCESS, norm=Norm.L2, bound=0.17), "in l2, above the bound"),
        (replace(SUCCESS, norm=Norm.L1, bound=0.24), "in l1, above the bound"),
        (replace(SUCCESS, norm=Norm.L0, bound=1.0), "in l0, above the bound"),
        (replace(SUCCESS, norm=None), "wanted both or neither"),
        (replace(SUCCESS, bound=-0.1), ">= 0"),
        (replace(SUCCESS, bound=float("nan")), "finite"),
        (replace(SUCCESS, problem="image: no such file"), "no such file"),
        (replace(SUCCESS, aim=Aim(4, (0,), (), 1, k=1)), "not reached"),
        (replace(SUCCESS, aim=EVERY_WAY), "not reached"),
    ],
)
def test_a_false_success_is_not_valid(claim, reason):
    (judgement,) = judge(claim)
    assert judgement.verdict is ClaimVerdict.NOT_VALID
    assert not judgement.stands
    assert re.search(reason, judgement.reason), judgement.reason


def test_a_tie_and_a_near_tie_are_no_success():
    assert verdict_of(with_image(0.7, 0.7)) is ClaimVerdict.UNDECIDED
    # x0 + tiny and x1 through a sum whose rounding exceeds their difference.
    network = linear_network([[1, 0], [0, 1]], [1e10, 1e10])
    aim = Aim(2, (), (0,), 1, k=1)
    claim = replace(with_image(0.7, np.nextafter(np.float32(0.7), np.float32(1))), aim=aim)
    (judgement,) = judge(claim, network=network)
    assert judgement.verdict is ClaimVerdict.UNDECIDED
    assert "near tie" in judgement.reason


def test_rounding_to_float32_is_forgiven_and_said():
    clean, bound = np.float32(0.7), 0.1
    image = np.full((1, 1, 2), clean + np.float32(bound), np.float32)
    assert float(image[0, 0, 0]) - float(clean) > bound
    claim = replace(SUCCESS, image=np.full((1, 1, 2), clean, np.float32), adversarial=image, bound=bound)
    aim = Aim(2, (0,), (), 1, threshold=0.75)
    (judgement,) = judge(replace(claim, aim=aim), network=linear_network([[1, 0], [0, 1]], [0, 0]))
    assert judgement.verdict is ClaimVerdict.CONFIRMED
    assert "float32 rounding" in judgement.reason
    assert not judgement.is_exact
    # It breaks no image in a robust accuracy at that bound.
    assert robust_accuracies([judgement])[0].broken == 0


@pytest.mark.parametrize("norm", list(Norm))
def test_distances_are_exact(norm):
    clean, image = np.array([0.1, 0.2, 0.3], np.float32), np.array([0.4, 0.2, 0.0], np.float32)
    changes = [abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(clean, image, strict=True)]
    size = {
        Norm.LINF: float(max(changes)),
        Norm.L1: float(sum(changes)),
        Norm.L2: float(sum(c * c for c in changes)) ** 0.5,
        Norm.L0: 2.0,
    }[norm]
    above, below = size * (1 + 1e-14), size * (1 - 1e-14)
    assert is_within(clean, image, norm, above)
    assert not is_within(clean, image, norm, below)
    assert is_within(clean, image, norm, size - 1e-8, ROUNDING) is (norm is not Norm.L0)
    assert not is_within(clean, image, norm, size * 0.99, ROUNDING)


def test_enclosing_boxes_leave_nothing_out():
    clean = np.array([0.1, 0.9], np.float32)
    box = enclosing_box(clean, Norm.LINF, 0.3)
    assert Fraction(float(box.upper[0])) >= Fraction(float(clean[0])) + Fraction(0.3)
    assert Fraction(float(box.lower[1])) <= Fraction(float(clean[1])) - Fraction(0.3)
    assert (box.lower[0], box.upper[1]) == (0.0, 1.0)
    assert enclosing_box(clean, None, None).encloses(enclosing_box(clean, Norm.L0, 1.0))
    assert enclosing_box(clean, Norm.L2, 0.3).encloses(box)
    assert np.array_equal(enclosing_box(clean, Norm.L1, 0.0).upper, clean)


def test_a_true_failure_is_confirmed_by_a_proof():
    (judgement,) = judge(FAILURE)
    assert judgement.verdict is ClaimVerdict.CONFIRMED
    assert judgement.engine
    assert judgement.counterexample is None


def test_a_false_failure_is_refuted_by_a_counterexample():
    (judgement,) = judge(replace(FAILURE, bound=0.15))
    assert judgement.verdict is ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE
    assert is_within(CLEAN, judgement.counterexample.image, Norm.LINF, 0.15)
    assert judgement.counterexample.margin_lower > 0


def test_a_success_without_an_image():
    claim = replace(SUCCESS, adversarial=None)
    assert verdict_of(claim) is ClaimVerdict.CONFIRMED
    assert verdict_of(replace(claim, bound=0.05)) is ClaimVerdict.REFUTED_BY_CERTIFICATE


def test_other_norms_are_confirmed_by_the_box_around_their_ball():
    # Overtaking takes an l2 change of sqrt(0.02) = 0.141, an l1 change of 0.2 and a change of one entry.
    for norm, bound in ((Norm.L2, 0.09), (Norm.L1, 0.09)):
        assert verdict_of(replace(FAILURE, norm=norm, bound=bound)) is ClaimVerdict.CONFIRMED
    (judgement,) = judge(replace(FAILURE, norm=Norm.L2, bound=0.12))
    assert judgement.verdict is ClaimVerdict.UNDECIDED
    assert "only the box around the l2 ball" in judgement.reason
    assert verdict_of(replace(FAILURE, norm=Norm.L0, bound=0.0)) is ClaimVerdict.CONFIRMED
    # Our own attacks find an image within the ball, where the verifier's lies only in the box.
    for norm, bound in ((Norm.L2, 0.15), (Norm.L1, 0.23)):
        (judgement,) = judge(replace(FAILURE, norm=norm, bound=bound))
        assert judgement.verdict is ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE, judgement.reason
        assert is_within(CLEAN, judgement.counterexample.image, norm, bound)
    # A success with an image refutes another's failure in the same ball.
    shown = replace(SUCCESS, norm=Norm.L2, bound=0.3)
    both = judge(replace(FAILURE, norm=Norm.L2, bound=0.19), shown)
    assert [judgement.verdict for judgement in both] == [
        ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE,
        ClaimVerdict.CONFIRMED,
    ]


def test_no_time_leaves_a_claim_undecided():
    claim = replace(FAILURE, bound=0.15)
    assert verdict_of(claim, court=Court(verifier, bounds_alone, timeout=0.0)) is ClaimVerdict.UNDECIDED


def test_an_image_that_is_wrong_already_refutes_a_failure():
    claim = replace(FAILURE, image=np.array([[[0.5, 0.6]]], np.float32), bound=0.0)
    assert verdict_of(claim) is ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE


@pytest.mark.parametrize(("bound", "is_reachable"), [(0.25, False), (0.31, True)])
def test_several_labels_at_once(bound, is_reachable):
    # Labels 0 and 1 leave the top 2 once both are below 0.2: by 0.6 and 0.4.
    network = dense_network([(np.eye(4), np.zeros(4)), (np.eye(4), np.zeros(4))])
    clean = np.array([[[0.6, 0.5, 0.1, 0.0]]], np.float32)
    claim = Claim("f", ClaimKind.FAILURE, "", clean, None, EVERY_WAY, Norm.LINF, bound)
    # Label 3 must overtake label 0, at 0.3.
    wanted = ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE if is_reachable else ClaimVerdict.CONFIRMED
    assert verdict_of(claim, network=network) is wanted


def test_each_way_is_decided_where_every_constraint_alone_can_be_met():
    # One pixel: label 0 is out of the top 1 for x < 0.5 and label 1 for x > 0.5, never both: label 2 never wins.
    network = linear_network([[1], [-1], [0]], [0.0, 1.0, 0.0])
    clean = np.full((1, 1, 1), 0.5, np.float32)
    claim = Claim("f", ClaimKind.FAILURE, "", clean, None, Aim(3, (), (0, 1), 2, k=1), Norm.LINF, 0.25)
    (judgement,) = judge(claim, network=network)
    assert judgement.verdict is ClaimVerdict.CONFIRMED, judgement.reason
    easier = replace(claim, aim=Aim(3, (), (0, 1), 1, k=1))
    assert verdict_of(easier, network=network) is ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE


def lying(_query, _starts, _deadline):
    return Outcome(Robust(Certificate("a lie", -1.0, ())), Statistics((), None, None, None, None, 0.0))


def test_a_success_in_a_region_certified_robust_is_a_contradiction():
    (judgement,) = judge(SUCCESS, court=Court(verifier, lying))
    assert judgement.verdict is ClaimVerdict.CONTRADICTION
    error = judgement.contradiction
    assert isinstance(error, ContradictionError)
    assert error.query.region.contains(error.details["image"])
    assert error.query.property.margin(REACHED.ravel()[[0, 1, 0, 0]] * [1, 1, 0, 0] + [0, 0, 0.3, 0.2]) > 0
    assert error.details["certificate"].engine == "a lie"


def test_a_lying_verifier_does_not_hide_an_image():
    (judgement, _) = judge(replace(FAILURE, bound=0.2), SUCCESS, court=Court(lying, bounds_alone))
    assert judgement.verdict is ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE


def group(count):
    """Images whose label 0 leads by 0.2, 0.4, ..., each with a claimed failure at 0.15."""
    images = [np.array([[[0.8, 0.6 - 0.2 * place]]], np.float32) for place in range(count)]
    return [
        Claim(f"m{place}", ClaimKind.FAILURE, "pgd", image, None, LOSES, Norm.LINF, 0.15, group="g")
        for place, image in enumerate(images)
    ]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (2 / 3, ClaimVerdict.CONFIRMED),
        (0.667, ClaimVerdict.CONFIRMED),
        (0.9, ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE),
        (0.5, ClaimVerdict.REFUTED_BY_CERTIFICATE),
        (1.5, ClaimVerdict.NOT_VALID),
    ],
)
def test_robust_accuracy_is_an_interval(value, verdict):
    accuracy = Claim("a", ClaimKind.ROBUST_ACCURACY, norm=Norm.LINF, bound=0.15, group="g", value=value)
    judgements = judge(accuracy, *group(3))
    assert judgements[0].verdict is verdict, judgements[0].reason
    (counted,) = robust_accuracies(judgements)
    assert (counted.images, counted.certified, counted.broken) == (3, 2, 1)
    assert counted.interval == (2 / 3, 1 - 1 / 3)


def test_robust_accuracy_without_time_or_with_an_unreadable_image_is_open():
    accuracy = Claim("a", ClaimKind.ROBUST_ACCURACY, norm=Norm.LINF, bound=0.15, group="g", value=2 / 3)
    judgement = judge(accuracy, *group(3), court=Court(verifier, bounds_alone, timeout=0.0))[0]
    assert judgement.verdict is ClaimVerdict.UNDECIDED
    assert judgement.interval == (0.0, 1.0)
    unreadable = Claim("u", ClaimKind.FAILURE, norm=Norm.LINF, bound=0.15, group="g", problem="image: no such file")
    judgement = judge(replace(accuracy, value=0.6), *group(3), unreadable)[0]
    assert judgement.verdict is ClaimVerdict.UNDECIDED
    assert judgement.interval == (0.5, 0.75)


def test_robust_accuracy_of_claimed_successes_that_are_false():
    members = [replace(claim, kind=ClaimKind.SUCCESS, adversarial=claim.image) for claim in group(3)]
    accuracy = Claim("a", ClaimKind.ROBUST_ACCURACY, norm=Norm.LINF, bound=0.15, group="g", value=0.0)
    judgements = judge(*members, accuracy)
    assert all(judgement.verdict is ClaimVerdict.NOT_VALID for judgement in judgements[:3])
    assert judgements[3].verdict is ClaimVerdict.REFUTED_BY_CERTIFICATE
    assert judgements[3].interval == (2 / 3, 1 - 1 / 3)


def test_robust_accuracy_about_nothing_is_not_valid():
    accuracy = Claim("a", ClaimKind.ROBUST_ACCURACY, norm=Norm.LINF, bound=0.2, group="g", value=0.5)
    (judgement, *_) = judge(accuracy, *group(2))
    assert judgement.verdict is ClaimVerdict.NOT_VALID
    assert "no claim about a single image" in judgement.reason


def test_ctrl_c_keeps_what_was_judged():
    def interrupted(_query, _starts, _deadline):
        return Outcome(Unknown(UnknownReason.INTERRUPTED, np.inf), Statistics((), None, None, None, None, 0.0))

    kept = []
    court = Court(interrupted, bounds_alone)
    with pytest.raises(KeyboardInterrupt):
        judge_claims([FAILURE, SUCCESS], NETWORK, court, kept.append)
    assert [judgement.claim.name for judgement in kept] == ["s"]


def test_a_missing_engine_is_no_fault_of_a_claim():
    def missing(_query, _starts, _deadline):
        raise SolverUnavailableError("solver X is not installed")

    accuracy = Claim("a", ClaimKind.ROBUST_ACCURACY, norm=Norm.LINF, bound=0.15, group="g", value=0.5)
    member = replace(group(1)[0], kind=ClaimKind.SUCCESS, adversarial=CLEAN)
    for claims in ([FAILURE], [member, accuracy]):
        with pytest.raises(SolverUnavailableError, match="solver X"):
            judge(*claims, court=Court(missing, bounds_alone))


def test_the_verifier_used_here_can_find_and_prove():
    # Otherwise the tests above would show nothing.
    wide, narrow = (Query(NETWORK, enclosing_box(CLEAN, Norm.LINF, e), LOSES.obstacles()[0]) for e in (0.15, 0.05))
    assert isinstance(verify(wide).verdict, Vulnerable)
    assert isinstance(verify(narrow).verdict, Robust)


def never(query, starts, deadline):
    raise AssertionError("the engines were asked about a network that is too large for them")


def test_on_networks_too_large_for_proofs_images_alone_decide(monkeypatch):
    monkeypatch.setattr(judging, "LARGEST", NETWORK.entries - 1)
    wide = replace(FAILURE, name="wide", bound=0.2)
    wrong = replace(FAILURE, name="wrong", bound=0.2, adversarial=np.array([[[2.0, np.nan]]], np.float32))
    tight, wide_one, wrong_one, success = judge(FAILURE, wide, wrong, SUCCESS, court=Court(never, never))
    assert success.verdict is ClaimVerdict.CONFIRMED
    assert "not held against proofs" in success.reason
    # The claimed image lies within the wide bound, not within the tight one.
    assert wide_one.verdict is wrong_one.verdict is ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE
    assert tight.verdict is ClaimVerdict.UNDECIDED
    assert f"{NETWORK.entries:,} values an image" in tight.reason
    assert judge(replace(SUCCESS, adversarial=None), court=Court(never, never))[0].verdict is ClaimVerdict.UNDECIDED
    monkeypatch.setattr(judging, "LARGEST", NETWORK.entries)
    assert verdict_of(FAILURE) is ClaimVerdict.CONFIRMED
