"""A network that evaluates differently from its file never leaves the importer."""

from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from onnx_strategies import floats, model_bytes, network_files, node, runtime_outputs

from verifier import evaluation
from verifier.errors import ImportedNetworkError, ReplayMismatchError
from verifier.evaluation import RULES, apply_head, evaluate
from verifier.network import Conv, Dense, Head, Relu
from verifier.onnx_import import load_network_bytes, replay

RNG = np.random.default_rng(5)
WEIGHTS = {"c": floats(RNG, 4, 1, 3, 3), "w": floats(RNG, 64, 3), "b": floats(RNG, 3)}


def classifier(head: str | None = None, scale: float = 1.0) -> bytes:
    nodes = [
        node("Conv", "image c", "conv"),
        node("Relu", "conv", "relu"),
        node("Flatten", "relu", "flat"),
        node("Gemm", "flat w b", "scores" if head is None else "logits"),
    ]
    if head is not None:
        nodes.append(node(head, "logits", "scores"))
    weights = {name: (array * scale).astype(np.float32) for name, array in WEIGHTS.items()}
    return model_bytes(nodes, (1, 6, 6), weights)


def with_rule(monkeypatch: pytest.MonkeyPatch, op: type, rule) -> None:
    monkeypatch.setattr(evaluation, "RULES", MappingProxyType({**RULES, op: rule}))


WRONG = {
    "relu that does nothing": (Relu, lambda op, inputs: inputs[0]),
    "weights off by one part in ten thousand": (Dense, lambda op, inputs: RULES[Dense](op, inputs) * (1 + 1e-4)),
    "NaN": (Relu, lambda op, inputs: inputs[0] * np.nan),
    "another shape": (Conv, lambda op, inputs: RULES[Conv](op, inputs)[..., :-1]),
}


@pytest.mark.parametrize("head", [None, "Softmax", "LogSoftmax", "Sigmoid"])
@pytest.mark.parametrize("case", ["relu that does nothing", "weights off by one part in ten thousand"])
def test_a_wrong_rule_is_caught(monkeypatch, case, head) -> None:
    load_network_bytes(classifier(head), "right.onnx")
    with_rule(monkeypatch, *WRONG[case])
    with pytest.raises(ReplayMismatchError, match=r"right\.onnx: .*differ by"):
        load_network_bytes(classifier(head), "right.onnx")


@pytest.mark.parametrize("case", sorted(WRONG))
def test_networks_whose_images_take_long_are_compared_on_fewer(monkeypatch, case) -> None:
    monkeypatch.setattr(replay, "_LARGE", 0)
    load_network_bytes(classifier("Sigmoid"), "right.onnx")
    with_rule(monkeypatch, *WRONG[case])
    with pytest.raises((ReplayMismatchError, ImportedNetworkError, ValueError)):
        load_network_bytes(classifier("Sigmoid"), "right.onnx")


def test_a_saturated_softmax_hides_nothing(monkeypatch) -> None:
    # Scores in the thousands: every probability is 0 or 1, with or without this error.
    data = classifier("Softmax", scale=30.0)
    load_network_bytes(data, "right.onnx")
    with_rule(monkeypatch, Dense, lambda op, inputs: RULES[Dense](op, inputs) * (1 + 1e-3))
    with pytest.raises(ReplayMismatchError):
        load_network_bytes(data, "right.onnx")


@pytest.mark.parametrize("case", ["NaN", "another shape"])
def test_a_broken_rule_is_caught(monkeypatch, case) -> None:
    with_rule(monkeypatch, *WRONG[case])
    with pytest.raises((Exception,)) as caught:
        load_network_bytes(classifier(), "right.onnx")
    assert not isinstance(caught.value, AssertionError)


def test_large_values_that_cancel_are_no_mismatch() -> None:
    # y = (1e6 x + c) - 1e6 x: float32 keeps few digits of y, which is rounding and not an error.
    weights = {"big": np.float32(1e6), "c": floats(RNG, 4)}
    nodes = [node("Mul", "image big", "m"), node("Add", "m c", "a"), node("Sub", "a m", "scores")]
    assert load_network_bytes(model_bytes(nodes, (4,), weights), "cancel.onnx").labels == 4


@given(data=network_files())
@settings(max_examples=60)
def test_random_networks_agree_with_onnx_runtime(data) -> None:
    network = load_network_bytes(data, "random.onnx")
    images = np.random.default_rng(0).random((6, *network.input_shape), dtype=np.float32)
    expected = runtime_outputs(data, images)
    np.testing.assert_allclose(evaluate(network, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("op_type", "head"),
    [("Softmax", Head.SOFTMAX), ("LogSoftmax", Head.LOG_SOFTMAX), ("Sigmoid", Head.SIGMOID)],
)
def test_the_head_is_recognised_and_scores_are_logits(op_type, head) -> None:
    plain, headed = (load_network_bytes(classifier(name), "n.onnx") for name in (None, op_type))
    images = RNG.random((3, 1, 6, 6), dtype=np.float32)
    assert (plain.head, headed.head) == (Head.NONE, head)
    np.testing.assert_array_equal(evaluate(plain, images), evaluate(headed, images))
    np.testing.assert_allclose(
        apply_head(head, evaluate(headed, images)), runtime_outputs(classifier(op_type), images), rtol=1e-4, atol=1e-6
    )


def test_a_head_behind_identity_is_recognised() -> None:
    nodes = [node("Softmax", "image", "p"), node("Identity", "p", "q"), node("Identity", "q", "scores")]
    assert load_network_bytes(model_bytes(nodes, (4,)), "n.onnx").head is Head.SOFTMAX
