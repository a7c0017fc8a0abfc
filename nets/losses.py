"""Losses on raw scores for label sets, exact top-k accuracy, and the gradient attack that training defends against."""

from __future__ import annotations

import math
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


def softmax_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """The mean over the batch of the mean over an image's labels of -log softmax(scores) there.

    The loss of the Double-MNIST studies, for comparison. An image without labels counts 0.
    """
    count = targets.sum(dim=1).clamp(min=1)
    return (-(functional.log_softmax(scores, dim=1) * targets).sum(dim=1) / count).mean()


@dataclass(frozen=True, slots=True)
class InstanceAndLabelRanking:
    """ML-LIW: labels ranked within an image, and images within a label (Song et al. 2018, eq. 12).

    With f = sigmoid(scores), as in the authors' networks, P_i and N_i the labels and the others of image i, and P^j and N^j the
    images of the batch with and without label j:

        instance_i = 1 / (|P_i| |N_i|) sum over p in P_i, q in N_i of exp(f_q(x_i) - f_p(x_i))
        label_j = 1 / (|P^j| |N^j|) sum over p in P^j, q in N^j of exp(f_j(x_q) - f_j(x_p))
        loss = weight * mean_i instance_i + mean_j label_j

    Images and labels with an empty side are left out of sums and means; a mean over nothing is 0.

    Attributes:
        weight: of the instance-wise part; the paper's 0.5.
        variant: "printed" for these means; "released" for sums over images and labels in their place, as in the code released with
            Liu et al.'s study, where the balance of the two parts depends on the batch size.
    """

    weight: float = 0.5
    variant: str = "printed"

    def __post_init__(self) -> None:
        """Refuse weights and variants that mean nothing."""
        if not (0 <= self.weight < math.inf):
            raise InputError(f"{self}: wanted a finite weight of 0 or more")
        if self.variant not in ("printed", "released"):
            raise InputError(f"{self}: wanted variant 'printed' or 'released'")

    def __call__(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar; scores (batch, classes), targets of the same shape, 1 for a label and 0 for others."""
        outputs = torch.sigmoid(scores)
        instances = self._gathered(*_mean_pairs(outputs, targets))
        labels = self._gathered(*_mean_pairs(outputs.T, targets.T))
        return self.weight * instances + labels

    def _gathered(self, values: Tensor, counts: Tensor) -> Tensor:
        total = (values * counts).sum()
        return total if self.variant == "released" else total / counts.sum().clamp(min=1)


def _mean_pairs(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Per row, the mean over p with target 1 and q with target 0 of exp(f_q - f_p), and 1 where both exist, 0 elsewhere.

    The double sum is a product of two sums; outputs in [0, 1] keep both within the range of floating point.
    """
    others = 1 - targets
    pairs = targets.sum(dim=1) * others.sum(dim=1)
    sums = (outputs.exp() * others).sum(dim=1) * ((-outputs).exp() * targets).sum(dim=1)
    return sums / pairs.clamp(min=1), (pairs > 0).to(outputs.dtype)


LOSSES: Final[dict[str, Loss]] = {
    "ranking": ranking_loss,
    "bce": binary_cross_entropy,
    "ml-liw": InstanceAndLabelRanking(),
    "ml-liw-released": InstanceAndLabelRanking(variant="released"),
    "softmax": softmax_cross_entropy,
}


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


Objective = Callable[[Tensor], Tensor]
"""Images to the scalar an attack raises."""


def ascend(objective: Objective, images: Tensor, attack: ProjectedGradient, generator: torch.Generator) -> Tensor:
    """Images within `attack.epsilon` of `images` and within [0, 1] that raise the objective; no promise how far.

    Only inputs are differentiated; the gradients of a network in the objective stay untouched.
    """
    lower = (images - attack.epsilon).clamp_(0, 1)
    upper = (images + attack.epsilon).clamp_(0, 1)
    start = torch.rand(images.shape, generator=generator, dtype=images.dtype)
    perturbed = lower + (upper - lower) * start
    step = attack.epsilon * attack.relative_step
    for _ in range(attack.steps):
        perturbed.requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(perturbed), perturbed)
        perturbed = torch.clamp(perturbed.detach() + step * gradient.sign(), lower, upper)
    return perturbed


def perturb(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    attack: ProjectedGradient,
    loss: Loss,
    generator: torch.Generator,
    *,
    is_targeted: bool = False,
) -> Tensor:
    """Images within the attack's ball and [0, 1] with a higher loss or, targeted, with a lower loss towards `targets`.

    As `ascend`; `targets` are the right ones, or the wrong ones that a targeted attack wants.
    """
    sign = -1.0 if is_targeted else 1.0
    return ascend(lambda pixels: sign * loss(network(pixels), targets), images, attack, generator)
