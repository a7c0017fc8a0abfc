"""Auxiliary tasks over the same images, and networks with one head a task on a hard-shared trunk (Hyun, Park 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.label_graph import GraphHead
from nets.losses import Loss, softmax_cross_entropy
from verifier.errors import InputError

MAIN: Final = "digits"


@dataclass(frozen=True, slots=True)
class CountingTask:
    """How many of an image's digits belong to a group: a task of digits + 1 classes.

    With one digit an image these are the two-class tasks of the mixed-perturbation paper.

    Attributes:
        name: What options and records call it.
        members: The digits of the group.
    """

    name: str
    members: frozenset[int]

    def targets(self, main: Tensor, digits: int) -> Tensor:
        """Class 0 to `digits` as 1 of digits + 1, (batch, digits + 1), from label sets (batch, 10)."""
        is_member = torch.tensor([float(label in self.members) for label in range(main.shape[1])])
        counts = (main @ is_member).round().to(torch.int64)
        return functional.one_hot(counts, digits + 1).to(main.dtype)


TASKS: Final = {
    task.name: task
    for task in (
        CountingTask("odd", frozenset({1, 3, 5, 7, 9})),
        # 0 and 1 are neither prime nor composite; they count as not prime.
        CountingTask("prime", frozenset({2, 3, 5, 7})),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Goals:
    """What the heads should answer for one batch, the main task first.

    Attributes:
        targets: One tensor (batch, classes of the task) a task.
        losses: One a task.
    """

    targets: tuple[Tensor, ...]
    losses: tuple[Loss, ...]

    def total(self, scores: Sequence[Tensor]) -> Tensor:
        """The sum of the tasks' losses."""
        parts = [loss(*pair) for loss, *pair in zip(self.losses, scores, self.targets, strict=True)]
        return torch.stack(parts).sum()

    def misled(self, generator: torch.Generator) -> Goals:
        """What a targeted attack climbs: the losses negated, towards `wrong_targets` of every task."""
        wanted = tuple(wrong_targets(targets, generator) for targets in self.targets)
        return Goals(wanted, tuple(_negated(loss) for loss in self.losses))


def wrong_targets(targets: Tensor, generator: torch.Generator) -> Tensor:
    """Random label sets, (batch, classes): of each row as many labels as it has, never its own set.

    A single label is uniform among the others. Rows without labels or with all of them have no other set and stay.
    """
    order = torch.rand(targets.shape, generator=generator).argsort(dim=1)
    places = torch.arange(targets.shape[1]).expand_as(order)
    counts = targets.sum(dim=1, keepdim=True).round().to(torch.int64)
    first = torch.zeros_like(targets).scatter(1, order, (places < counts).to(targets.dtype))
    # One place further on: without the first label drawn, which is one of the row's own where the sets agree.
    second = torch.zeros_like(targets).scatter(1, order, ((places >= 1) & (places <= counts)).to(targets.dtype))
    has_others = (counts > 0) & (counts < targets.shape[1])
    return torch.where(has_others & (first == targets).all(dim=1, keepdim=True), second, first)


def _negated(loss: Loss) -> Loss:
    return lambda scores, targets: -loss(scores, targets)


def goals(main: Tensor, main_loss: Loss, auxiliaries: Sequence[str], digits: int) -> Goals:
    """The goals of the main task and of auxiliary tasks by name, on images of that many digits."""
    targets = [main, *(TASKS[name].targets(main, digits) for name in auxiliaries)]
    return Goals(tuple(targets), (main_loss, *(softmax_cross_entropy for _ in auxiliaries)))


class TaskNetwork(nn.Module):
    """A shared trunk and one head a task; the head of the main task is first."""

    def __init__(self, trunk: nn.Sequential, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The scores of every task, (batch, classes of the task) each."""
        features = self.trunk(images)
        return tuple(head(features) for head in self.heads)

    def task(self, index: int) -> nn.Sequential:
        """The network of one task; it shares all weights with this one."""
        return nn.Sequential(*self.trunk, self.heads[index])


def with_auxiliary_heads(
    network: nn.Sequential, auxiliaries: Sequence[str], digits: int, generator: torch.Generator
) -> TaskNetwork:
    """The network with a linear head a task beside its own last layer; all its layers are shared, not copied.

    New weights are drawn from `generator` alone (He et al. 2015, uniform), new biases are 0.

    Raises:
        InputError: the last layer is neither linear nor a graph head, or a task is unknown.
    """
    last = network[-1]
    if not isinstance(last, nn.Linear | GraphHead):
        raise InputError(f"auxiliary heads: the last layer is {last}; wanted a linear layer or a graph head")
    unknown = [name for name in auxiliaries if name not in TASKS]
    if unknown:
        raise InputError(f"auxiliary tasks {', '.join(unknown)}: unknown; wanted some of {', '.join(TASKS)}")
    heads = [_head(last.in_features, digits + 1, generator) for _ in auxiliaries]
    return TaskNetwork(nn.Sequential(*list(network)[:-1]), [last, *heads])


def _head(features: int, classes: int, generator: torch.Generator) -> nn.Linear:
    # On the meta device PyTorch's own initialisation draws no numbers.
    with torch.device("meta"):
        head = nn.Linear(features, classes)
    head = head.to_empty(device="cpu")
    nn.init.kaiming_uniform_(head.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(head.bias)
    return head
