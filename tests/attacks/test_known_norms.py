"""On affine networks the least change is known: |margin| / |g|_1 in l_inf, |margin| / |g|_2 in l2."""

import pytest
import torch
from tiny_networks import linear_network

import attacks
from attacks import GoalOptions

# Far from the bounds of [0, 1], so that these do not matter.
PIXELS, MIDDLE = 16, 0.5


def affine(seed: int = 0, labels: int = 5):
    """Scores g.(x - 1/2) + s with distinct small s: the margins at the middle are known exactly."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((labels, PIXELS), generator=generator)
    scores = torch.tensor([0.6, 0.45, -0.3, -0.4, -0.5])
    network = linear_network(weight.numpy(), (scores - weight.sum(dim=1) * MIDDLE).numpy())
    image = torch.full((1, *network.input_shape), MIDDLE)
    return network, weight.double(), scores.double(), image, (scores > 0)[None]


def single(labels=2, seed=4):
    """Two labels, of which label 0 is to leave the top 1: one constraint, so that every attack has the same answer."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((labels, PIXELS), generator=generator)
    scores = torch.tensor([0.5, -0.25])
    network = linear_network(weight.numpy(), (scores - weight.sum(dim=1) * MIDDLE).numpy())
    image = torch.full((1, *network.input_shape), MIDDLE)
    row = (weight[0] - weight[1]).double()
    return network, image, torch.tensor([[True, False]]), 0.75 / row.abs().sum(), 0.75 / row.norm()


ONE = {"goal": "target-miss", "k": 1, "goal_options": GoalOptions(label=0)}


@pytest.mark.parametrize("method", ["fgsm", "bim", "pgd", "mi-fgsm", "layered"])
def test_sign_attacks_succeed_exactly_beyond_the_least_radius(method):
    network, image, labels, linf, _ = single()
    inside = attacks.run(network, image, labels, method=method, eps=float(linf) * 0.99, **ONE)
    beyond = attacks.run(network, image, labels, method=method, eps=float(linf) * 1.01, **ONE)
    assert not bool(inside.success[0])
    assert bool(beyond.success[0])


@pytest.mark.parametrize("method", ["fgm", "pgd", "bim"])
def test_l2_attacks_succeed_exactly_beyond_the_least_radius(method):
    network, image, labels, _, l2 = single()
    inside = attacks.run(network, image, labels, method=method, norm="l2", eps=float(l2) * 0.99, **ONE)
    beyond = attacks.run(network, image, labels, method=method, norm="l2", eps=float(l2) * 1.01, **ONE)
    assert not bool(inside.success[0])
    assert bool(beyond.success[0])


def test_slide_succeeds_exactly_beyond_the_least_radius():
    # In l1 the least change moves the pixel with the largest slope alone: |margin| / max |g|, if the range allows it.
    network, image, labels, _, _ = single()
    row = torch.from_numpy(network.nodes[-1].op.weight[0] - network.nodes[-1].op.weight[1]).double()
    least = float(0.75 / row.abs().max())
    assert least < 0.5
    for share, wins in ((0.99, False), (1.02, True)):
        result = attacks.run(
            network, image, labels, method="slide", eps=least * share, options={"sparsity": 0.95}, **ONE
        )
        assert bool(result.success[0]) is wins


# The margin aimed at makes each a little larger than the least change.
def test_deepfool_finds_the_least_l2_change():
    network, image, labels, _, l2 = single()
    result = attacks.run(network, image, labels, method="ml-dp", options={"kappa": 1e-4}, **ONE)
    assert float(result.l2[0]) == pytest.approx(float(l2), rel=5e-4)
    assert result.iterations.tolist() == [1]


def test_kfool_finds_the_least_l2_change():
    network, image, labels, _, l2 = single()
    result = attacks.run(network, image, labels, method="kfool", options={"kappa": 0.0, "overshoot": 1e-3}, **ONE)
    assert float(result.l2[0]) == pytest.approx(float(l2), rel=2e-3)


def test_kfool_counts_no_label_that_has_overtaken_already():
    # Label 0 is to leave the top 2. Label 1 is above it already, so the least change is label 2's: one step, gap / |g|.
    weight = torch.eye(3, PIXELS)
    scores = torch.tensor([0.5, 0.75, 0.25])
    network = linear_network(weight.numpy(), (scores - weight.sum(dim=1) * MIDDLE).numpy())
    image, labels = torch.full((1, *network.input_shape), MIDDLE), torch.tensor([[True, True, False]])
    goal = {"goal": "target-miss", "k": 2, "goal_options": GoalOptions(label=0)}
    options = {"iterations": 3, "kappa": 0.0, "overshoot": 1e-3}
    result = attacks.run(network, image, labels, method="kfool", options=options, **goal)
    assert result.success.tolist() == [True]
    assert float(result.l2[0]) == pytest.approx(0.25 / 2**0.5, rel=2e-3)
    assert result.iterations.tolist() == [1]


def test_linear_programming_finds_the_least_linf_change():
    network, image, labels, linf, _ = single()
    for solver in ("dual", "whole"):
        result = attacks.run(
            network, image, labels, method="mla-lp", options={"kappa": 1e-4, "trust": 0.5, "solver": solver}, **ONE
        )
        assert float(result.linf[0]) == pytest.approx(float(linf), rel=5e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ml-cw", {"kappa": 1e-3, "searches": 5, "iterations": 50, "rate": 0.005}),
        ("tkmia", {"rate": 1e-3, "momentum": 0.0, "iterations": 2000}),
        ("tkml-ap-u", {"rate": 1e-3, "momentum": 0.0, "iterations": 2000}),
        ("tkml-ap-t", {"rate": 1e-3, "momentum": 0.0, "iterations": 2000, "stops": True}),
        ("ml-cw-u", {"rate": 1e-3, "momentum": 0.0, "iterations": 2000}),
    ],
)
def test_descent_comes_near_the_least_l2_change(method, options):
    network, image, labels, _, l2 = single()
    result = attacks.run(network, image, labels, method=method, options=options, **ONE)
    assert bool(result.success[0])
    assert float(l2) <= float(result.l2[0]) <= 1.05 * float(l2)


@pytest.mark.parametrize("method", ["rank-1", "rank-2"])
def test_rank_attacks_come_near_the_least_l2_change(method):
    # Two labels that swap places: the goal is one ranking.
    network, image, labels, _, l2 = single()
    options = {"searches": 4, "iterations": 40, "rate": 0.01}
    result = attacks.run(network, image, labels, method=method, options=options, **ONE)
    assert bool(result.success[0])
    assert float(l2) <= float(result.l2[0]) <= 1.1 * float(l2)


def test_evolution_succeeds_with_room_and_not_without():
    network, image, labels, linf, _ = single()
    small = attacks.run(network, image, labels, method="mlae-de", eps=float(linf) * 0.9, **ONE)
    large = attacks.run(network, image, labels, method="mlae-de", eps=float(linf) * 3.0, **ONE)
    assert not bool(small.success[0])
    assert bool(large.success[0])


@pytest.mark.parametrize("method", ["tkml-ap-uv", "kuap"])
def test_one_image_s_universal_change_is_its_own(method):
    network, image, labels, _, l2 = single()
    inside = attacks.run(network, image, labels, method=method, norm="l2", eps=float(l2) * 0.99, **ONE)
    beyond = attacks.run(network, image, labels, method=method, norm="l2", eps=float(l2) * 1.3, **ONE)
    assert not bool(inside.success[0])
    assert bool(beyond.success[0])
    torch.testing.assert_close(beyond.shared, beyond.deltas[0].float(), atol=1e-6, rtol=0)
