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
    ProjectedGradient,
    binary_cross_entropy,
    perturb,
    ranking_loss,
    set_margins,
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
