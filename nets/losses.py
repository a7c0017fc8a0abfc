"""Losses on raw scores for label sets, exact top-k accuracy, and the gradient attack that training defends against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from verifier.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def ranking_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """The batch mean of log(1 + sum over label i, other j of exp(s_j - s_i)) (Li et al. 2017, eq. 4).

    Scores (batch, classes); targets of the same shape, 1 for a label and 0 for others. An image whose loss is
    below log 2 ranks all its labels strictly above all others.
    """
    highest_other = torch.logsumexp(scores.masked_fill(targets > 0, -torch.inf), dim=1)
    lowest_label = torch.logsumexp((-scores).masked_fill(targets == 0, -torch.inf), dim=1)
    return functional.softplus(highest_other + lowest_label).mean()


def binary_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """The mean over the batch of the sum over classes of the binary cross-entropy of sigmoid(score)."""
    return functional.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(dim=1).mean()


LOSSES: Final[dict[str, Loss]] = {"ranking": ranking_loss, "bce": binary_cross_entropy}


def set_margins(scores: Tensor, targets: Tensor) -> Tensor:
    """Per image, the lowest score of a label less the highest score of another; positive iff the set is exact."""
    lowest_label = scores.masked_fill(targets == 0, torch.inf).amin(dim=1)
    highest_other = scores.masked_fill(targets > 0, -torch.inf).amax(dim=1)
    return lowest_label - highest_other


@dataclass(frozen=True, slots=True)
class ProjectedGradient:
    """Signed projected gradient ascent in an L-infinity ball (Madry et al. 2018).

    Attributes:
        epsilon: radius, images being in [0, 1].
        steps: gradient steps from a uniform random start.
        relative_step: the length of a step as a share of `epsilon`.
    """

    epsilon: float
    steps: int
    relative_step: float

    def __post_init__(self) -> None:
        """Refuse values that do not describe an attack."""
        if not (0 <= self.epsilon <= 1 and self.steps >= 1 and 0 < self.relative_step <= 1 + 1):
            raise InputError(f"{self}: wanted epsilon in [0, 1], steps of 1 or more and relative_step in (0, 2]")


def perturb(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    attack: ProjectedGradient,
    loss: Loss,
    generator: torch.Generator,
) -> Tensor:
    """Images within `attack.epsilon` of `images` and within [0, 1] that raise the loss; no promise how far.

    Only inputs are differentiated; the network's own gradients stay untouched.
    """
    lower = (images - attack.epsilon).clamp_(0, 1)
    upper = (images + attack.epsilon).clamp_(0, 1)
    start = torch.rand(images.shape, generator=generator, dtype=images.dtype)
    perturbed = lower + (upper - lower) * start
    step = attack.epsilon * attack.relative_step
    for _ in range(attack.steps):
        perturbed.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(network(perturbed), targets), perturbed)
        perturbed = torch.clamp(perturbed.detach() + step * gradient.sign(), lower, upper)
    return perturbed
