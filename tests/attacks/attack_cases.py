"""Tiny victims for attacks, images that every goal accepts, and options that make each attack quick."""

from functools import cache

import numpy as np
import torch
from tiny_networks import dense_network
from torch import nn

from attacks import METHODS, GoalOptions
from attacks.goals import Rule
from attacks.scenarios import GOALS
from verifier.network import Network
from verifier.torch_network import TorchNetwork

SHAPE, LABELS = (1, 3, 3), 6
QUICK = {
    "iterations": 4,
    "searches": 2,
    "population": 6,
    "evaluations": 30,
    "inner": 3,
    "passes": 1,
    "starts": 1,
    "rounds": 0,
}
THRESHOLDS = [name for name, goal in GOALS.items() if goal.rule is Rule.THRESHOLD]
SINGLE = [name for name, method in METHODS.items() if not method.is_universal]


def quick(method: str, **more: object) -> dict[str, object]:
    """The quick options that this method has."""
    return {name: value for name, value in (QUICK | more).items() if name in METHODS[method].defaults()}


@cache
def typed_network() -> Network:
    """A network of ours: 9 pixels, 12 ReLUs, 6 labels."""
    generator = np.random.default_rng(1)
    weight, out = generator.normal(size=(12, 9)), generator.normal(size=(6, 12))
    return dense_network([(weight, 0.2 * generator.normal(size=12)), (out, 0.2 * generator.normal(size=6))], SHAPE)


@cache
def torch_module() -> nn.Module:
    """A torch module of another architecture: a convolution and a smooth activation."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, LABELS))
    with torch.no_grad():
        module[3].weight.mul_(3.0)
    return module


VICTIMS = {"typed": typed_network, "module": torch_module}


def scores_of(victim: str, images: torch.Tensor) -> torch.Tensor:
    """float64 logits, computed apart from the attacks."""
    if victim == "typed":
        return TorchNetwork(typed_network(), "cpu", torch.float64)(images.double())
    module = torch_module()
    return torch.func.functional_call(
        module, {n: p.double() for n, p in module.named_parameters()}, images.double()
    ).detach()


@cache
def images_and_labels(victim: str, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose labels the network gets right by definition, two or three of the six being relevant, label 0 among them."""
    images = torch.rand((4000, *SHAPE), generator=torch.Generator().manual_seed(5))
    scores = scores_of(victim, images)
    labels = scores > 0
    count = labels.sum(dim=1)
    best = scores.argmax(dim=1)
    fits = (count >= 2) & (count <= 3) & (scores.abs().amin(dim=1) > 0.02)
    chosen = best[fits].mode().values
    fits = fits & (best == chosen)
    assert int(fits.sum()) >= rows
    return images[fits][:rows], labels[fits][:rows]


def goal_options(victim: str, goal: str) -> GoalOptions:
    """Options that do not depend on the other rows, so that one row alone has the same goal."""
    _, labels = images_and_labels(victim)
    relevant, absent = labels.all(dim=0).nonzero(), (~labels.any(dim=0)).nonzero()
    if goal == "person-reduction":
        return GoalOptions(label=int(relevant[0]))
    if goal == "sheep-augmentation":
        return GoalOptions(label=int(absent[0]))
    if goal == "specified-labels":
        return GoalOptions(k=1, scheme="random")
    return GoalOptions(k=1, average=2.5, n=0)
