"""A goal as a classifier of two classes: any attack that changes a class then works towards any multi-label goal."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attacks.any_dtype import AnyDtype
from attacks.goals import Goal
from verifier.errors import InputError
from verifier.network import Network

MISSED, REACHED = 0, 1


class GoalHead(nn.Module):
    """Two logits for each image: c for "the goal is missed", c + margin for "it is reached", with c = |margin| + 1.

    So class 1 wins exactly where the goal is reached strictly (up to the rounding of c + margin), cross-entropy is softplus of the
    margin, and the hinge of Carlini and Wagner is that of the goal. An untargeted attack on class 0, or a targeted one on class 1,
    is an attack towards the goal. c carries no gradient; it keeps both logits positive, because torchattacks' CW multiplies logits
    by a mask before it takes their maximum, and so takes the zeros of the mask for the best of several negative logits.

    Row i of a batch is judged by row i of the goal, so an attack must hand over whole batches in their order.

    Args:
        network: One of ours, or a module or callable that maps images to logits.
        goal: One row for each image of a batch.
    """

    def __init__(self, network: Network | Callable[[Tensor], Tensor], goal: Goal) -> None:
        super().__init__()
        self.network: Any = AnyDtype(network) if isinstance(network, Network) else network
        self.goal = goal
        # Libraries read a model's device off its first parameter.
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)

    def forward(self, images: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows 2"]:
        """The two logits.

        Raises:
            InputError: Another number of images than rows of the goal.
        """
        if len(images) != self.goal.rows:
            raise InputError(
                f"goal head: got {len(images)} images for a goal of {self.goal.rows}; the attack takes batches apart: run it on one"
                " image at a time (batch=1)"
            )
        margin = self.goal.to(images.device).margin(self.network(images))
        level = margin.detach().abs() + 1.0
        return torch.stack([level, level + margin], dim=1)
