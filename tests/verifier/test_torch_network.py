import numpy as np
import pytest
import torch
from hypothesis import given, settings
from network_strategies import SEEDS, chain, dense, images, random_network

from verifier import evaluation, torch_network
from verifier.errors import InputError, UnsupportedOpError
from verifier.network import LeakyRelu, Relu
from verifier.torch_network import TorchNetwork

RNG = np.random.default_rng(3)


@settings(max_examples=120)
@given(SEEDS)
def test_equals_the_evaluation(seed: int) -> None:
    network = random_network(seed, blocks=6)
    points = images(network, 4)
    expected = evaluation.evaluate(network, points)
    got = TorchNetwork(network, dtype=torch.float64)(torch.tensor(points)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11 * max(1.0, np.abs(expected).max()))


@settings(max_examples=20)
@given(SEEDS)
def test_gradients_are_those_of_the_scores(seed: int) -> None:
    network = random_network(seed, blocks=4)
    # Along a short random segment a piecewise linear function changes by its gradient, unless a kink lies within it.
    start = torch.tensor(np.random.default_rng(1).random((1, *network.input_shape)), requires_grad=True)
    scores = TorchNetwork(network, dtype=torch.float64)(start).sum()
    (gradient,) = torch.autograd.grad(scores, start, allow_unused=True)
    direction = torch.tensor(np.random.default_rng(0).normal(size=start.shape))
    step = 1e-9
    moved = TorchNetwork(network, dtype=torch.float64)(start.detach() + step * direction).sum()
    slope = ((moved - scores) / step).item()
    expected = 0.0 if gradient is None else (gradient * direction).sum().item()
    assert slope == pytest.approx(expected, rel=1e-3, abs=1e-3 * max(1.0, abs(scores.item())))


def test_default_is_float32_and_batches_may_be_empty() -> None:
    model = TorchNetwork(chain((3,), dense(RNG, (3,), 4), Relu()))
    assert model(torch.zeros(2, 3)).dtype == torch.float32
    assert model(torch.zeros(0, 3)).shape == (0, 4)
    assert model.device == torch.device("cpu")


def test_a_value_read_later_is_kept() -> None:
    network = chain((3,), Relu(), Relu(), dense(RNG, (3,), 4))
    images_ = torch.rand(2, 3)
    model = TorchNetwork(network)
    assert torch.equal(model(images_), model(images_))


def test_refuses_wrong_images_and_types() -> None:
    model = TorchNetwork(chain((3,), dense(RNG, (3,), 4)))
    with pytest.raises(InputError, match=r"wanted torch.float32 \(batch, 3\)"):
        model(torch.zeros(2, 4))
    with pytest.raises(InputError, match="float64"):
        model(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="floating-point"):
        TorchNetwork(chain((3,), dense(RNG, (3,), 4)), dtype=torch.int32)


def test_refuses_an_unknown_operation_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {op: rule for op, rule in torch_network.RULES.items() if op is not LeakyRelu}
    monkeypatch.setattr(torch_network, "RULES", rules)
    with pytest.raises(UnsupportedOpError, match=r"'LeakyRelu0' \(LeakyRelu\)"):
        TorchNetwork(chain((2,), LeakyRelu(0.5)))
