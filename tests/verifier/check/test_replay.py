from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_strategies import chain
from onnx_strategies import model_bytes, node

from verifier import check, evaluation, runtime
from verifier.check.replay import _runtime_margin
from verifier.errors import InputError
from verifier.network import Dense, Head, MulConstant, Network, Relu
from verifier.onnx_import import load_network_bytes
from verifier.property import Property, keeps_thresholds, stays_in_top_k, stays_out_of_top_k
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Counterexample

WEIGHT = np.float32([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
UNIT = Box(np.zeros(2), np.ones(2))
OUT_OF_FIRST = stays_in_top_k(0, 1, 3)
HEADS = {Head.SOFTMAX: "Softmax", Head.LOG_SOFTMAX: "LogSoftmax", Head.SIGMOID: "Sigmoid"}


def network(head: Head = Head.NONE, weight: np.ndarray = WEIGHT, bias: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Network:
    nodes = [node("Gemm", "image weight bias", "logits", transB=1)]
    nodes.append(node(HEADS.get(head, "Identity"), "logits", "scores"))
    return load_network_bytes(model_bytes(nodes, (2,), {"weight": weight, "bias": np.float32(bias)}), "test.onnx")


def lie(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    monkeypatch.setattr(runtime, "run", lambda network, images: np.float32([scores]))


def test_an_honest_violation_is_confirmed() -> None:
    query = Query(network(), UNIT, OUT_OF_FIRST)
    image = np.array([0.25, 0.75])
    found = check.replay(query, image, "by hand")
    assert isinstance(found, Counterexample)
    assert found.image.dtype == found.runtime_scores.dtype == np.float32
    assert query.region.contains(found.image)
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_allclose(found.scores, [0.25, 0.75, -1.0])
    assert found.margin_lower == pytest.approx(0.5)
    assert found.runtime_margin == pytest.approx(0.5)
    assert 0.0 < found.margin_lower <= 0.5
    assert found.found_by == "by hand"
    for array in (found.image, found.scores, found.runtime_scores):
        assert not array.flags.writeable


def test_the_image_handed_over_stays_the_caller_s() -> None:
    image = np.float32([0.25, 0.75])
    check.replay(Query(network(), UNIT, OUT_OF_FIRST), image, "by hand")
    image[0] = 0.5


@pytest.mark.parametrize("image", [[0.75, 0.25], [0.5, 0.5]])
def test_no_violation_and_a_tie_are_rejected(image: list[float]) -> None:
    assert check.replay(Query(network(), UNIT, OUT_OF_FIRST), np.array(image), "by hand") is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("direction", [0.0, 1.0])
def test_an_image_outside_by_one_ulp_is_rejected(dtype: type, direction: float) -> None:
    image = np.array([0.25, 0.75], dtype)
    box = Box(image, image)
    query = Query(network(), box, OUT_OF_FIRST)
    assert check.replay(query, image, "by hand") is not None
    outside = image.copy()
    outside[0] = np.nextafter(image[0], dtype(direction))
    assert check.replay(query, outside, "by hand") is None


def test_wrong_shapes_and_nan_are_rejected() -> None:
    query = Query(network(), UNIT, OUT_OF_FIRST)
    assert check.replay(query, np.array([0.25, 0.75, 0.5]), "by hand") is None
    assert check.replay(query, np.array([np.nan, 0.75]), "by hand") is None


def test_rounding_to_float32_never_leaves_the_box() -> None:
    # The upper bound lies between two float32, nearer to the one outside.
    upper = float(np.nextafter(np.float32(0.75), np.float32(1.0))) - 2.0**-40
    query = Query(network(), Box(np.zeros(2), np.array([1.0, upper])), OUT_OF_FIRST)
    found = check.replay(query, np.array([0.25, upper]), "by hand")
    assert found is not None
    assert float(np.float32(upper)) > upper
    assert found.image[1] == np.float32(0.75)


def test_a_box_without_float32_has_no_counterexample() -> None:
    between = 0.75 + 2.0**-40
    point = np.array([0.25, between])
    assert check.replay(Query(network(), Box(point, point), OUT_OF_FIRST), point, "by hand") is None


@pytest.mark.parametrize("scores", [[0.0, 5.0, -1.0], [0.0, 0.0, 7.0], [-np.inf, np.inf, 0.0]])
def test_a_lying_runtime_cannot_make_a_violation(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    query = Query(network(), UNIT, OUT_OF_FIRST)
    lie(monkeypatch, scores)
    assert check.replay(query, np.array([0.75, 0.25]), "by hand") is None
    assert check.replay(query, np.array([0.5, 0.5]), "by hand") is None


@pytest.mark.parametrize(
    "scores", [[1.0, 0.0, -1.0], [0.5, 0.5, -1.0], [0.25, 0.75, np.nan], [np.nan, 0.75, 0.0], [np.inf, np.inf, 0.0]]
)
def test_a_violation_that_the_runtime_does_not_see_is_rejected(
    monkeypatch: pytest.MonkeyPatch, scores: list[float]
) -> None:
    query = Query(network(), UNIT, OUT_OF_FIRST)
    image = np.array([0.25, 0.75])
    assert check.replay(query, image, "by hand") is not None
    lie(monkeypatch, scores)
    assert check.replay(query, image, "by hand") is None


@pytest.mark.parametrize("power", [54, 60, 100])
def test_a_tie_that_float64_takes_for_a_violation_is_rejected(monkeypatch: pytest.MonkeyPatch, power: int) -> None:
    # Exactly, both scores are -x1; in float64 the first sum loses its payload, so that label 1 seems to fall behind.
    big = 2.0**power
    weight = np.float32([[big, -1.0, -big], [0.0, -1.0, 0.0]])
    cancelling = chain((3,), Dense(weight, np.zeros(2, np.float32)))
    image = np.ones(3)
    goal = stays_in_top_k(1, 1, 2)
    query = Query(cancelling, Box(np.zeros(3), np.ones(3)), goal)
    naive = [(big * 1.0 + -1.0) - big, -1.0]
    assert goal.margin(np.array(naive)) > 0.0
    lie(monkeypatch, naive)
    assert check.replay(query, image, "by hand") is None
    assert check.margin_lower_bound(cancelling, goal, image) <= 0.0 <= check.margin_upper_bound(cancelling, goal, image)


def test_a_near_tie_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # The exact margin is 2^-100 > 0, far below what float64 arithmetic on these scores can tell.
    near = chain((2,), Dense(np.float32([[1.0, 1.0], [1.0, 1.0]]), np.float32([0.0, 2.0**-100])), Relu())
    lie(monkeypatch, [1.0, 2.0])
    assert check.replay(Query(near, UNIT, stays_in_top_k(0, 1, 2)), np.array([0.25, 0.5]), "by hand") is None


def test_scores_that_overflow_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # Label 2 overflows even float64; the forms between labels 0 and 1 are clear all the same.
    layers = [MulConstant(np.float32([1.0, 1.0, 3e38])) for _ in range(10)]
    goal = Property("label 1 beats label 0", np.array([[-1.0, 1.0, 0.0]]), np.zeros(1), 1)
    query = Query(chain((3,), *layers), Box(np.zeros(3), np.ones(3)), goal)
    image = np.array([0.25, 0.75, 0.5])
    assert check.margin_lower_bound(query.network, goal, image) == pytest.approx(0.5)
    lie(monkeypatch, [0.25, 0.75, 0.0])
    assert check.replay(query, image, "by hand") is None


def test_evaluation_and_replay_agree_on_the_scores() -> None:
    image = np.float32([0.125, 0.9])
    found = check.replay(Query(network(), UNIT, OUT_OF_FIRST), image, "by hand")
    assert found is not None
    np.testing.assert_allclose(found.scores, evaluation.evaluate(network(), image[None])[0])


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("goal", [OUT_OF_FIRST, stays_out_of_top_k(1, 1, 3)])
def test_rankings_replay_under_every_head(head: Head, goal: Property) -> None:
    query = Query(network(head), UNIT, goal)
    assert query.network.head is head
    assert check.replay(query, np.array([0.25, 0.75]), "by hand") is not None
    assert check.replay(query, np.array([0.5, 0.5]), "by hand") is None
    assert check.replay(query, np.array([0.75, 0.25]), "by hand") is None


def test_a_saturated_softmax_hides_the_violation() -> None:
    # One probability is 1, the others underflow to 0 and tie, so that the file's outputs do not show which label is second.
    steep = network(Head.SOFTMAX, np.float32([[0.0, 0.0], [0.0, 200.0], [500.0, 500.0]]))
    query = Query(steep, UNIT, stays_out_of_top_k(1, 2, 3))
    assert check.margin_lower_bound(steep, query.property, np.array([1.0, 1.0])) > 0.0
    assert check.replay(query, np.array([1.0, 1.0]), "by hand") is None


@pytest.mark.parametrize(("tau", "violated"), [(0.25, True), (0.4999, True), (0.5, False), (0.5001, False)])
def test_thresholds_on_logits_replay_under_a_sigmoid(tau: float, violated: bool) -> None:
    # Label 0 is required below tau; its logit is 0.5.
    query = Query(network(Head.SIGMOID), UNIT, keeps_thresholds([-1, 0, 0], [tau, 0.0, 0.0]))
    found = check.replay(query, np.array([0.5, 0.25]), "by hand")
    assert (found is not None) == violated
    if found is not None:
        assert found.runtime_margin == pytest.approx(0.5 - tau, abs=1e-6)


@pytest.mark.parametrize(
    ("sign", "value", "violated"), [(-1, 40.0, True), (1, 40.0, False), (1, -110.0, True), (-1, -110.0, False)]
)
def test_saturated_sigmoids_still_tell_the_side_of_a_moderate_threshold(
    sign: int, value: float, violated: bool
) -> None:
    steep = network(Head.SIGMOID, np.float32([[value, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    query = Query(steep, UNIT, keeps_thresholds([sign, 0, 0], [0.5, 0.0, 0.0]))
    assert (check.replay(query, np.array([1.0, 0.0]), "by hand") is not None) == violated


def test_a_sigmoid_cannot_tell_thresholds_beyond_its_saturation() -> None:
    goal = keeps_thresholds([-1, 0, 0], [30.0, 0.0, 0.0])
    assert _runtime_margin(goal, Head.SIGMOID, np.float32([1.0, 0.5, 0.5])) < 0.0
    assert _runtime_margin(goal, Head.SIGMOID, np.float32([1.5, 0.5, 0.5])) == -np.inf
    assert _runtime_margin(goal, Head.SOFTMAX, np.float32([1.0, 0.0, 0.0])) == -np.inf


@settings(max_examples=200)
@given(st.floats(-15, 15, width=32), st.sampled_from([-1, 1]))
def test_a_sigmoid_s_output_never_crosses_the_threshold_it_came_from(logit: float, sign: int) -> None:
    output = np.float32(1.0 / (1.0 + np.exp(-logit)))
    goal = keeps_thresholds([sign], [logit])
    assert not _runtime_margin(goal, Head.SIGMOID, np.float32([output])) > 0.0
    clear = keeps_thresholds([sign], [logit + sign * 1.0])
    assert _runtime_margin(clear, Head.SIGMOID, np.float32([output])) > 0.0


UNIT_FLOATS = st.floats(0, 1)


@settings(max_examples=400)
@given(UNIT_FLOATS, st.floats(0, 1e-6) | UNIT_FLOATS, st.floats(-0.5, 1.5))
def test_inside_box_float32_is_the_nearest_float32_inside(lower: float, width: float, candidate: float) -> None:
    upper = min(lower + width, 1.0)
    image = check.inside_box_float32(Box(np.array([lower]), np.array([upper])), np.array([candidate]))
    # The least float32 >= lower, found from the float32 around it.
    around = [np.float32(lower)]
    around = [np.nextafter(around[0], np.float32(-1)), around[0], np.nextafter(around[0], np.float32(2))]
    least = min(float(value) for value in around if float(value) >= lower)
    if least > upper:
        assert image is None
        return
    assert image is not None
    assert image.dtype == np.float32
    value = float(image[0])
    assert lower <= value <= upper
    for other in (np.nextafter(image[0], np.float32(-1)), np.nextafter(image[0], np.float32(2)), np.float32(candidate)):
        if lower <= float(other) <= upper:
            assert abs(value - candidate) <= abs(float(other) - candidate)


def test_inside_box_float32_moves_far_candidates_in_and_refuses_nan() -> None:
    box = Box(np.zeros(2), np.array([0.1, 1.0]))
    image = check.inside_box_float32(box, np.array([1e300, -1e300]))
    assert image is not None
    assert float(image[0]) <= 0.1 < float(np.nextafter(image[0], np.float32(1)))
    assert image[1] == 0.0
    for bad in (np.array([np.nan, 0.0]), np.array([0.0, np.inf]), np.zeros(3)):
        with pytest.raises(InputError, match="wanted finite numbers of shape"):
            check.inside_box_float32(box, bad)


def test_thresholds_after_a_softmax_are_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="softmax"):
        Query(network(Head.SOFTMAX), UNIT, keeps_thresholds([1, 0, 0], [0.0, 0.0, 0.0]))


MUTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda scores: scores,
    "all equal": np.zeros_like,
    "label 0 raised": lambda scores: scores + np.float32([5.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_only_the_unchanged_runtime_confirms(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    query = Query(network(), UNIT, OUT_OF_FIRST)
    honest = runtime.run
    monkeypatch.setattr(runtime, "run", lambda network, images: MUTATIONS[name](honest(network, images)))
    found = check.replay(query, np.array([0.25, 0.75]), "by hand")
    assert (found is not None) == (name == "nothing")
