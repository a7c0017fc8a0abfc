"""What a goal is made from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attacks.goals import GoalOptions

Mask = Bool[Tensor, "rows labels"]


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """What a scenario is made from.

    Attributes:
        labels: The relevant labels Y.
        scores: Clean logits.
        options: What the caller asked for.
        draws: One source of randomness for each row.
    """

    labels: Mask
    scores: Float[Tensor, "rows labels"]
    options: GoalOptions
    draws: Sequence[np.random.Generator]

    def correct(self) -> Bool[Tensor, " rows"]:
        """Rows with every label on the right side of the threshold, or all rows if that does not matter."""
        right = ((self.scores > self.options.threshold) == self.labels).all(dim=1)
        return right if self.options.require_correct else torch.ones_like(right)

    def ranked(self) -> Bool[Tensor, " rows"]:
        """Rows with every relevant label strictly above every other one, or all rows if that does not matter."""
        lowest = self.scores.masked_fill(~self.labels, torch.inf).amin(dim=1)
        highest = self.scores.masked_fill(self.labels, -torch.inf).amax(dim=1)
        return (lowest > highest) if self.options.require_correct else torch.ones_like(self.labels[:, 0])

    def drawn(self, among: Mask, size: int = 1) -> Mask:
        """`size` labels of each row drawn from `among`; all of them where there are fewer."""
        chosen = torch.zeros_like(among)
        for row, draw in enumerate(self.draws):
            places = among[row].nonzero()[:, 0].numpy()
            chosen[row, torch.from_numpy(draw.permutation(places)[:size])] = True
        return chosen
