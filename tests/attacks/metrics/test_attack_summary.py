"""The summary of an attack holds each metric of its eligible rows, and runs behind JPEG too."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from tiny_networks import dense_network, linear_network

import attacks
from attacks import metrics
from attacks.jpeg import Purified, jpeg
from attacks.metrics import Attacked, Norm, summarise
from verifier.errors import InputError
from verifier.evaluation import evaluate

IMAGES = np.array([[[0.8, 0.6, 0.1]], [[0.2, 0.9, 0.7]], [[0.1, 0.2, 0.9]]], np.float32)[:, None]
LABELS = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]])


@pytest.fixture
def network():
    """Scores (x0, x1, x2, 0.3), around a threshold of 0.5."""
    return linear_network([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], [0, 0, 0, 0.3])


@pytest.fixture
def result(network):
    return attacks.run(network, IMAGES, LABELS, method="bim", goal="top-k-untargeted", k=2, norm="linf", eps=0.25)


def test_only_eligible_rows_enter(result):
    attacked = Attacked.of(result)
    # The third image ranks its label last.
    assert result.eligible.tolist() == [True, True, False]
    assert len(attacked.success) == 2
    summary = summarise(attacked)
    assert summary.values["success rate"].value == result.success_rate
    assert summary.changes["P@2"].before.value == 1.0
    after = metrics.precision_at_k(result.scores.numpy()[:2], LABELS[:2] > 0, 2).mean()
    assert summary.changes["P@2"].drop == pytest.approx(1.0 - after)
    sizes = metrics.norms(result.clean.numpy()[:2], result.images.numpy()[:2], Norm.L2)
    assert summary.values["APer (l2, all)"].value == pytest.approx(sizes.mean())
    np.testing.assert_array_equal(attacked.sizes[Norm.L2], sizes)
    np.testing.assert_allclose(sizes, result.l2.numpy()[:2], atol=1e-12)


def test_threshold_goals_have_label_metrics(network):
    options = attacks.GoalOptions(threshold=0.5)
    result = attacks.run(
        network, IMAGES[:2], LABELS[:2], method="bim", goal="hiding-all", norm="linf", eps=0.5, goal_options=options
    )
    summary = summarise(Attacked.of(result))
    assert summary.changes["micro F1"].before.value == 1.0
    assert summary.values["Hamming A to target"].value == 0.0
    assert summary.values["Hamming B to target"].value == 0.0
    assert summary.values["success rate"].value == 1.0
    assert "delta-l" not in summary.values


def test_nothing_attacked_is_said(result):
    attacked, none = Attacked.of(result), np.zeros(2, bool)
    names = [each.name for each in fields(attacked) if each.name not in ("sizes", "k", "threshold")]
    sizes = {norm: size[none] for norm, size in attacked.sizes.items()}
    with pytest.raises(InputError, match="no image was attacked"):
        summarise(replace(attacked, sizes=sizes, **{name: getattr(attacked, name)[none] for name in names}))


def test_attacks_run_through_jpeg():
    rng = np.random.default_rng(0)
    images = rng.random((2, 1, 8, 8)).astype(np.float32)
    network = dense_network([(rng.normal(size=(4, 64)) / 8, np.zeros(4))], (1, 8, 8))
    defended = Purified(network, 80)
    scores = defended(torch.from_numpy(images))
    labels = np.zeros((2, 4))
    labels[np.arange(2), scores.argmax(dim=1).numpy()] = 1
    result = attacks.run(defended, images, labels, method="bim", goal="target-miss", k=1, norm="linf", eps=0.2)
    assert result.success.all()
    coded = torch.from_numpy(jpeg(result.images.numpy(), 80))
    np.testing.assert_allclose(result.scores.numpy(), Purified(network, 80)(result.images.double()).numpy(), atol=1e-12)
    rescored = evaluate(network, coded.double().numpy())
    assert (rescored.argmax(axis=1) != labels.argmax(axis=1)).all()
