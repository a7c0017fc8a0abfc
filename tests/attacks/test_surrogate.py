import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_strategies import chain

from attacks.surrogate import Smoothing, SurrogateNetwork
from verifier.network import Conv, Dense, MaxPool, Network, Relu, Reshape
from verifier.torch_network import TorchNetwork

CPU = torch.device("cpu")
# Padding, overlapping windows, dilation.
POOLS = [
    MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    MaxPool((3, 2), (1, 2), (1, 0, 1, 1), (1, 1)),
    MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (2, 1)),
]


def pooled(seed: int, pool: MaxPool) -> Network:
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    front = chain((2, 5, 6), Conv(draw(3, 2, 2, 2), draw(3), (1, 1), (0, 0, 0, 0), (1, 1), 1), Relu(), pool)
    size = int(np.prod(front.nodes[-1].shape))
    back = (Reshape((size,)), Dense(draw(4, size), draw(4)))
    return chain((2, 5, 6), *(node.op for node in front.nodes), *back)


def smoothing(network: Network, rows: int, leak: float, temperature: float, noise: float, seed: int = 0) -> Smoothing:
    strengths = (torch.full((rows,), value) for value in (leak, temperature, noise))
    return SurrogateNetwork(network, CPU).draw(*strengths, torch.Generator().manual_seed(seed))


def one_row(of: Smoothing, row: int) -> Smoothing:
    return Smoothing(
        {index: slopes[row : row + 1] for index, slopes in of.slopes.items()},
        {index: favours[row : row + 1] for index, favours in of.favours.items()},
        of.temperature[row : row + 1],
    )


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(POOLS))
def test_with_nothing_to_smooth_it_is_the_network(seed, pool):
    network = pooled(seed, pool)
    images = torch.rand((6, *network.input_shape), generator=torch.Generator().manual_seed(seed))
    plain = SurrogateNetwork(network, CPU).smoothed(smoothing(network, 6, 0.0, 1e-6, 0.0))
    # The coldest softmax still mixes candidates that differ by less than about a thousandth of the window's spread.
    torch.testing.assert_close(plain(images), TorchNetwork(network)(images), rtol=0, atol=0.05)


@pytest.mark.parametrize("pool", POOLS)
def test_rows_do_not_influence_one_another(pool):
    network = pooled(1, pool)
    images = torch.rand((4, *network.input_shape), generator=torch.Generator().manual_seed(1))
    drawn, surrogate = smoothing(network, 4, 0.1, 0.2, 0.3), SurrogateNetwork(network, CPU)
    together = surrogate.smoothed(drawn)(images)
    assert together.isfinite().all()
    for row in range(4):
        alone = surrogate.smoothed(one_row(drawn, row))(images[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)


def test_rows_with_the_same_image_differ_by_their_draws():
    network = pooled(2, POOLS[0])
    images = torch.rand((1, *network.input_shape), generator=torch.Generator().manual_seed(2)).expand(3, -1, -1, -1)
    scores = SurrogateNetwork(network, CPU).smoothed(smoothing(network, 3, 0.1, 0.2, 0.3))(images)
    assert len(torch.unique(scores, dim=0)) == 3


def hand_network() -> Network:
    """The score is the maximum of relu(x), relu(y - 2), relu(z) over one window of a 1 x 3 image."""
    conv = Conv(np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32), (1, 1), (0, 0, 0, 0), (1, 1), 1)
    pool = MaxPool((1, 3), (1, 3), (0, 0, 0, 0), (1, 1))
    return chain(
        (1, 1, 3), conv, Relu(), pool, Reshape((1,)), Dense(np.ones((1, 1), np.float32), np.zeros(1, np.float32))
    )


def hand_smoothing(slope: float, favours: list[float], temperature: float) -> Smoothing:
    return Smoothing(
        {1: torch.full((1, 1, 1, 3), slope)},
        {2: torch.tensor(favours).reshape(1, 1, 3, 1)},
        torch.tensor([temperature]),
    )


def test_hand_computed():
    # Candidates 1, -0.5 leaking by 0.2 to -0.1, and 0.45: heights 0, -1, -0.5 of the spread 1.1.
    image = torch.tensor([[[[1.0, -0.5, 0.45]]]], requires_grad=True)
    score = SurrogateNetwork(hand_network(), CPU).smoothed(hand_smoothing(0.2, [0.0, 0.0, 0.0], 0.5))(image)
    weights = torch.exp(torch.tensor([0.0, -2.0, -1.0]))
    weights = weights / weights.sum()
    torch.testing.assert_close(score.ravel()[0], (weights * torch.tensor([1.0, -0.1, 0.45])).sum())
    # The gradient reaches the loser and what is behind the dead ReLU; on the network itself it does not.
    gradient = torch.autograd.grad(score.sum(), image)[0].ravel()
    torch.testing.assert_close(gradient, weights * torch.tensor([1.0, 0.2, 1.0]))
    hard = torch.autograd.grad(TorchNetwork(hand_network())(image).sum(), image)[0].ravel()
    assert hard.tolist() == [1.0, 0.0, 0.0]


def test_a_favoured_candidate_wins():
    image = torch.tensor([[[[1.0, -0.5, 0.45]]]])
    score = SurrogateNetwork(hand_network(), CPU).smoothed(hand_smoothing(0.0, [0.0, 0.0, 1.0], 0.01))(image)
    assert float(score) == pytest.approx(0.45, abs=1e-6)


def test_times_scales_everything():
    drawn = hand_smoothing(0.2, [0.5, 0.0, 1.0], 0.4).times(0.5)
    assert drawn.slopes[1].unique().tolist() == pytest.approx([0.1])
    assert drawn.favours[2].ravel().tolist() == [0.25, 0.0, 0.5]
    assert float(drawn.temperature) == pytest.approx(0.2)


def test_a_window_of_equal_candidates_is_their_value():
    image = torch.full((1, 1, 1, 3), 0.5)
    score = SurrogateNetwork(hand_network(), CPU).smoothed(hand_smoothing(0.1, [0.0, 2.0, 0.0], 0.0))(image)
    assert float(score) == pytest.approx(0.5)
