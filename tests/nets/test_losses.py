"""The losses by their formulas, the margin by hand, and the attack within its ball."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nets.losses import (
    LOSSES,
    InstanceAndLabelRanking,
    ProjectedGradient,
    binary_cross_entropy,
    perturb,
    ranking_loss,
    set_margins,
    softmax_cross_entropy,
)
from verifier.errors import InputError

SCORES = torch.tensor([[2.0, 1.0, -1.0, 0.5]])
TARGETS = torch.tensor([[1.0, 0.0, 1.0, 0.0]])


def test_the_ranking_loss_is_its_formula() -> None:
    pairs = sum(math.exp(other - label) for label in (2.0, -1.0) for other in (1.0, 0.5))
    assert float(ranking_loss(SCORES, TARGETS)) == pytest.approx(math.log(1 + pairs), rel=1e-6)


def test_the_binary_cross_entropy_is_its_formula() -> None:
    wanted = sum(math.log(1 + math.exp(-score)) for score in (2.0, -1.0, -1.0, -0.5))
    assert float(binary_cross_entropy(SCORES, TARGETS)) == pytest.approx(wanted, rel=1e-6)


def test_the_softmax_cross_entropy_is_its_formula() -> None:
    scores = [2.0, 1.0, -1.0, 0.5]
    normaliser = math.log(sum(math.exp(score) for score in scores))
    assert float(softmax_cross_entropy(SCORES, TARGETS)) == pytest.approx(normaliser - (2.0 - 1.0) / 2, rel=1e-6)


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def pair_means(rows: list[list[float]], signs: list[list[float]]) -> list[float]:
    """Per row with both sides, the mean of exp(f_q - f_p), one pair after the other."""
    means = []
    for row, sign in zip(rows, signs, strict=True):
        pairs = [
            math.exp(sigmoid(row[q]) - sigmoid(row[p]))
            for p in range(len(row))
            for q in range(len(row))
            if sign[p] == 1 and sign[q] == 0
        ]
        if pairs:
            means.append(sum(pairs) / len(pairs))
    return means


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_instance_and_label_ranking_loss_is_its_double_loop(seed: int) -> None:
    draws = np.random.default_rng(seed)
    scores, targets = draws.normal(0, 3, (4, 3)), draws.integers(0, 2, (4, 3)).astype(float)
    instances = pair_means(scores.tolist(), targets.tolist())
    labels = pair_means(scores.T.tolist(), targets.T.tolist())
    found = {
        variant: float(InstanceAndLabelRanking(0.5, variant)(torch.from_numpy(scores), torch.from_numpy(targets)))
        for variant in ("printed", "released")
    }
    mean_of = [sum(part) / max(1, len(part)) for part in (instances, labels)]
    assert found["printed"] == pytest.approx(0.5 * mean_of[0] + mean_of[1], rel=1e-12)
    assert found["released"] == pytest.approx(0.5 * sum(instances) + sum(labels), rel=1e-12)


def test_the_instance_and_label_ranking_loss_by_hand() -> None:
    # Both images have the first label alone: the label-wise part has no pair, and each image has one pair at distance 0.5 - 0.75.
    scores = torch.tensor([[math.log(3.0), 0.0]]).expand(2, 2)
    targets = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    assert float(InstanceAndLabelRanking()(scores, targets)) == pytest.approx(0.5 * math.exp(-0.25), rel=1e-6)
    released = InstanceAndLabelRanking(variant="released")
    assert float(released(scores, targets)) == pytest.approx(2 * 0.5 * math.exp(-0.25), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_losses_and_gradients_are_finite_where_a_side_is_empty(loss: object, value: float) -> None:
    scores = torch.tensor([[2.0, 80.0, -80.0], [0.0, 0.0, 0.0]], requires_grad=True)
    loss(scores, torch.full((2, 3), value)).backward()
    assert scores.grad.isfinite().all()


def test_the_margin_by_hand_and_a_tie_is_not_positive() -> None:
    assert float(set_margins(SCORES, TARGETS)) == -2.0
    assert float(set_margins(torch.zeros(1, 4), TARGETS)) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4))
def test_a_ranking_loss_below_log_two_means_an_exact_set(values: list[float]) -> None:
    scores = torch.tensor([values])
    if float(ranking_loss(scores, TARGETS)) < math.log(2) - 1e-6:
        assert float(set_margins(scores, TARGETS)) > 0


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_the_attack_stays_in_the_box_and_raises_the_loss(loss: object) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        network[1].weight.copy_(torch.linspace(-1, 1, 64).reshape(4, 16))
        network[1].bias.zero_()
    images = torch.from_numpy(np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32))
    targets = TARGETS.expand(5, 4)
    attack = ProjectedGradient(epsilon=0.1, steps=5, relative_step=0.5)
    perturbed = perturb(network, images, targets, attack, loss, torch.Generator().manual_seed(0))
    assert float((perturbed - images).abs().max()) <= 0.1 + 1e-6
    assert float(perturbed.min()) >= 0
    assert float(perturbed.max()) <= 1
    with torch.no_grad():
        assert float(loss(network(perturbed), targets)) > float(loss(network(images), targets))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_misuse_is_refused() -> None:
    for wrong in ((-0.1, 1, 0.5), (0.1, 0, 0.5), (0.1, 1, 0.0), (float("nan"), 1, 0.5)):
        with pytest.raises(InputError, match="wanted epsilon"):
            ProjectedGradient(*wrong)
    with pytest.raises(InputError, match="finite weight"):
        InstanceAndLabelRanking(weight=-1.0)
    with pytest.raises(InputError, match="wanted variant 'printed' or 'released'"):
        InstanceAndLabelRanking(variant="summed")
