"""What keeps large networks affordable: batches are split everywhere, and an attack never lowers a network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from network_strategies import NetworkBuilder
from torch import Tensor, nn

import attacks
from attacks.claims import Aim, Claim, ClaimKind, ClaimVerdict, Court, judge_claims
from attacks.claims import judge as judging
from attacks.metrics import Attacked, Norm, summarise
from verifier import evaluation, runtime
from verifier.canonical import ConvolutionMap
from verifier.lowering import lower
from verifier.network import Conv, Dense, Network, Relu, Reshape

SHAPE, LABELS = (3, 8, 8), 4


class Counting(nn.Module):
    """A small classifier that remembers the largest batch it saw, in all its copies."""

    largest: list[int]

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, LABELS))

    def forward(self, images: Tensor) -> Tensor:
        Counting.largest.append(len(images))
        return self.layers(images)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((5, *SHAPE), dtype=np.float32)


def top_two(scores: np.ndarray) -> np.ndarray:
    labels = np.zeros(scores.shape, dtype=np.int64)
    np.put_along_axis(labels, scores.argsort(axis=1)[:, -2:], 1, axis=1)
    return labels


@pytest.mark.parametrize("method", ["fgsm", "pgd", "mi-fgsm", "slide", "ml-cw", "rank-1", "tkml-ap-u", "tkmia"])
def test_no_more_images_are_held_together_than_the_batch_says(images, method) -> None:
    Counting.largest = []
    module = Counting()
    with torch.no_grad():
        labels = top_two(torch.cat([module(image[None]) for image in torch.from_numpy(images)]).numpy())
    Counting.largest = []
    done: list[int] = []
    options = {} if method in ("fgsm",) else {"iterations": 2}
    run = attacks.run(
        module, images, labels, method=method, goal="target-miss", k=2, options=options, batch=2, on_rows=done.append
    )
    assert max(Counting.largest) == 2
    assert sum(done) == int(run.eligible.sum()) == 5
    assert max(done) <= 2


def network() -> Network:
    generator = np.random.default_rng(1)
    builder = NetworkBuilder(SHAPE)

    def floats(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    value = builder.add(Conv(floats(4, 3, 3, 3), floats(4), (1, 1), (1, 1, 1, 1), (1, 1), 1), 0)
    value = builder.add(Reshape((256,)), builder.add(Relu(), value))
    builder.add(Dense(floats(LABELS, 256), floats(LABELS)), value)
    return builder.network()


def test_attack_metrics_and_replays_never_lower_the_network(images, monkeypatch) -> None:
    def refuse(*_args: object, **_words: object) -> None:
        raise AssertionError("the network was lowered")

    victim = network()
    monkeypatch.setattr(ConvolutionMap, "__init__", refuse)
    with pytest.raises(AssertionError, match="was lowered"):
        lower(victim)
    scores = evaluation.evaluate(victim, images)
    result = attacks.run(
        victim, images, top_two(scores), method="bim", goal="target-miss", k=1, norm="linf", eps=0.5, batch=2
    )
    assert bool(result.success.any())
    assert summarise(Attacked.of(result)).values["success rate"].value > 0
    place = int(result.success.nonzero()[0, 0])
    off = int(scores[place].argmax())
    claim = Claim(
        "large",
        ClaimKind.SUCCESS,
        "bim",
        images[place],
        result.images[place].numpy(),
        Aim(LABELS, (), (off,), 1, k=1),
        Norm.LINF,
        0.5,
    )
    # The typed graph has no file: what ONNX Runtime would say is the float64 evaluation, rounded.
    monkeypatch.setattr(runtime, "run", lambda net, batch: evaluation.evaluate(net, batch).astype(np.float32))
    monkeypatch.setattr(judging, "LARGEST", 0)
    success, failure = judge_claims(
        [claim, replace(claim, name="open", kind=ClaimKind.FAILURE, adversarial=None, bound=1e-6)],
        victim,
        Court(refuse, refuse),
    )
    assert success.verdict is ClaimVerdict.CONFIRMED
    assert failure.verdict is ClaimVerdict.UNDECIDED
