"""Other libraries' attacks on our goals, and ours in foolbox's style.

The libraries are optional. Stand-ins with their documented interfaces are always used; where a library is installed, the same
tests run with the real one.
"""

import importlib.util
import types

import numpy as np
import pytest
import torch
from tiny_networks import dense_network

import attacks
from attacks.goals import Goal
from attacks.peers import CriterionAttack, GoalHead, run_foolbox, run_torchattacks
from attacks.peers.criterion import as_goal
from verifier.errors import InputError
from verifier.evaluation import evaluate

# foolbox and torchattacks use names that their dependencies have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def network():
    generator = np.random.default_rng(0)
    layers = [(generator.normal(size=(12, 16)) / 4, generator.normal(size=12) / 8)]
    layers.append((generator.normal(size=(5, 12)), np.zeros(5)))
    return dense_network(layers, (1, 4, 4))


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(1).random((6, 1, 4, 4)).astype(np.float32))


def goal_for(network, images, name="target-miss", k=2):
    """Row by row another goal: the labels are the network's own top k."""
    scores = torch.from_numpy(evaluate(network, images.double().numpy()))
    labels = torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(k, dim=1).indices, True)
    return attacks.make_goal(name, labels, scores, attacks.GoalOptions(k=k))


class TorchattacksPGD:
    """The interface of torchattacks.PGD: made for a model, called with images and class indices."""

    def __init__(self, model, eps=0.3, alpha=0.05, steps=20):
        self.model, self.eps, self.alpha, self.steps = model, eps, alpha, steps
        self.device = next(model.parameters()).device

    def __call__(self, images, labels):
        points = images.clone()
        for _ in range(self.steps):
            points.requires_grad_()
            loss = torch.nn.functional.cross_entropy(self.model(points), labels)
            (gradient,) = torch.autograd.grad(loss, points)
            moved = points.detach() + self.alpha * gradient.sign()
            points = (images + (moved - images).clamp(-self.eps, self.eps)).clamp(0, 1)
        return points


class FoolboxModel:
    def __init__(self, model, bounds, device=None):
        assert isinstance(model, torch.nn.Module)
        self.model, self.bounds, self.device = model, bounds, device

    def __call__(self, images):
        return self.model(images)


class Misclassification:
    def __init__(self, labels):
        self.labels = labels


class FoolboxPGD:
    """The interface of a foolbox attack: model, inputs, criterion, epsilons -> raw, clipped, success."""

    def __call__(self, model, inputs, criterion, *, epsilons):
        found = TorchattacksPGD(_Module(model), eps=epsilons)(inputs, criterion.labels)
        return found, found, model(found).argmax(dim=1) != criterion.labels


class _Module(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.place = model, torch.nn.Parameter(torch.zeros(0))

    def forward(self, images):
        return self.model(images)


IS_HERE = {name: importlib.util.find_spec(name) is not None for name in ("foolbox", "torchattacks")}


@pytest.fixture(
    params=["stand-in", pytest.param("real", marks=pytest.mark.skipif(not IS_HERE["foolbox"], reason="optional"))]
)
def foolbox_pgd(request, monkeypatch):
    if request.param == "real":
        import foolbox

        return foolbox.attacks.LinfPGD(steps=20, rel_stepsize=1 / 6)
    stand_in = types.ModuleType("foolbox")
    stand_in.PyTorchModel = FoolboxModel
    stand_in.criteria = types.SimpleNamespace(Misclassification=Misclassification)
    monkeypatch.setitem(__import__("sys").modules, "foolbox", stand_in)
    return FoolboxPGD()


@pytest.fixture(
    params=["stand-in", pytest.param("real", marks=pytest.mark.skipif(not IS_HERE["torchattacks"], reason="optional"))]
)
def torchattacks_pgd(request):
    if request.param == "real":
        import torchattacks

        return lambda model: torchattacks.PGD(model, eps=0.3, alpha=0.05, steps=20)
    return TorchattacksPGD


@pytest.mark.parametrize("name", ["top-k-untargeted", "top-k-targeted", "target-miss"])
def test_a_goal_head_is_a_classifier_of_the_goal(network, images, name):
    goal = goal_for(network, images, name)
    head = GoalHead(network, goal)
    points = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = torch.from_numpy(evaluate(network, points.numpy()))
    assert torch.equal(head(points).argmax(dim=1).bool(), goal.satisfied(scores))
    assert (head(points) > 0).all()
    # The hinge's slope is the margin's own.
    points.requires_grad_()
    logits = head(points)
    (slope,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), points)
    (wanted,) = torch.autograd.grad(goal.margin(head.network(points)).sum(), points)
    assert torch.allclose(slope, wanted)
    with pytest.raises(InputError, match="one image at a time"):
        head(points[:2])


def test_torchattacks_reaches_our_goals(network, images, torchattacks_pgd):
    goal = goal_for(network, images)
    peer = run_torchattacks(torchattacks_pgd, network, images, goal, norm="linf", eps=0.3)
    check_peer(peer, network, goal)
    assert peer.claimed is None
    one_by_one = run_torchattacks(torchattacks_pgd, network, images, goal, norm="linf", eps=0.3, batch=1)
    check_peer(one_by_one, network, goal)


def test_foolbox_reaches_our_goals(network, images, foolbox_pgd):
    goal = goal_for(network, images)
    peer = run_foolbox(foolbox_pgd, network, images, goal, norm="linf", eps=0.3)
    check_peer(peer, network, goal)
    assert peer.claimed.shape == (6,)
    assert not peer.disagreements.any()


def check_peer(peer, network, goal):
    """Success is what the float64 scores of the returned image say, and some rows do succeed."""
    scores = evaluate(network, peer.result.images.double().numpy())
    assert torch.equal(peer.result.success, goal.satisfied(torch.from_numpy(scores)))
    assert peer.result.success.sum() >= 2
    assert not peer.outside_range.any()
    assert not peer.outside_ball.any()
    assert peer.result.linf.max() <= 0.3 + 1e-6


def test_a_cheating_attack_is_caught(network, images):
    goal = goal_for(network, images)
    won = run_torchattacks(TorchattacksPGD, network, images, goal).result

    def beyond_the_ball(_model):
        return lambda given, _labels: won.images

    peer = run_torchattacks(beyond_the_ball, network, images, goal, norm="linf", eps=0.01)
    assert won.success.any()
    assert peer.outside_ball[won.success].all()
    assert not peer.result.success.any()

    def beyond_the_range(_model):
        return lambda given, _labels: torch.where(
            torch.arange(6)[:, None, None, None] < 3, given + 5.0, given * torch.nan
        )

    peer = run_torchattacks(beyond_the_range, network, images, goal)
    assert peer.outside_range.all()
    assert not peer.result.success.any()
    with pytest.raises(InputError, match="returned shape"):
        run_torchattacks(lambda _model: lambda given, _labels: given[:1], network, images, goal)


def test_a_false_claim_is_a_disagreement(network, images, monkeypatch):
    stand_in = types.ModuleType("foolbox")
    stand_in.PyTorchModel = FoolboxModel
    stand_in.criteria = types.SimpleNamespace(Misclassification=Misclassification)
    monkeypatch.setitem(__import__("sys").modules, "foolbox", stand_in)

    def boaster(_model, inputs, _criterion, *, epsilons):
        return inputs, inputs, torch.ones(len(inputs), dtype=torch.bool)

    peer = run_foolbox(boaster, network, images, goal_for(network, images), eps=0.1)
    assert peer.disagreements.all()


def test_foolbox_is_named_where_it_is_missing(network, images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "foolbox", None)
    with pytest.raises(InputError, match="pip install foolbox"):
        run_foolbox(None, network, images, goal_for(network, images))


def test_ours_in_foolbox_style(network, images):
    goal = goal_for(network, images)
    attack = CriterionAttack("bim")
    raw, clipped, success = attack(network, images, goal, epsilons=[0.0, 0.1, 0.4])
    assert success.shape == (3, 6)
    assert not success[0].any()
    assert success[2].sum() >= max(success[1].sum(), 2)
    for radius, found, same in zip((0.0, 0.1, 0.4), raw, clipped, strict=True):
        assert torch.equal(found, same)
        assert (found - images).abs().max() <= radius + 1e-7
    single = attack(network, images, goal, epsilons=0.4)
    assert torch.equal(single[0], raw[2])
    assert torch.equal(single[2], success[2])


@pytest.mark.parametrize("wrap", ["network", "foolbox model"])
def test_foolbox_criteria_are_goals(network, images, wrap):
    scores = torch.from_numpy(evaluate(network, images.double().numpy()))
    classes = scores.argmax(dim=1)
    model = (
        network
        if wrap == "network"
        else FoolboxModel(_Module(GoalHead(network, goal_for(network, images)).network), (0, 1))
    )
    found, _, success = CriterionAttack("bim")(model, images, Misclassification(classes), epsilons=0.5)
    after = evaluate(network, found.double().numpy()).argmax(axis=1)
    assert success.any()
    assert np.array_equal(success.numpy(), after != classes.numpy())
    wanted = (classes + 1) % 5
    criterion = types.SimpleNamespace(target_classes=types.SimpleNamespace(raw=wanted))
    found, _, success = CriterionAttack("bim")(model, images, criterion, epsilons=0.5)
    after = evaluate(network, found.double().numpy()).argmax(axis=1)
    assert np.array_equal(success.numpy(), after == wanted.numpy())
    assert success.any()


def test_criteria_that_say_nothing_are_refused(network, images):
    for criterion in (torch.zeros(3, dtype=torch.int64), torch.zeros(6), torch.full((6,), 5)):
        with pytest.raises(InputError, match="wanted a goal"):
            as_goal(criterion, 6, 5)
    assert isinstance(as_goal(torch.zeros(6, dtype=torch.int64), 6, 5), Goal)
    with pytest.raises(InputError, match="bounds"):
        CriterionAttack()(
            FoolboxModel(_Module(None), (0, 255)), images, torch.zeros(6, dtype=torch.int64), epsilons=0.1
        )
    with pytest.raises(InputError, match="wanted a Network"):
        CriterionAttack()(3, images, torch.zeros(6, dtype=torch.int64), epsilons=0.1)
