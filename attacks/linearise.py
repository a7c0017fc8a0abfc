"""The scores' first-order model at a batch of points."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.engine import Model
from attacks.goals import Goal


def jacobian(
    model: Model, values: Callable[[Tensor], Tensor], points: Float[Tensor, "rows pixels"]
) -> tuple[Float[Tensor, "rows values"], Float[Tensor, "rows values pixels"]]:
    """values(model(points)) and its derivatives: one forward pass, one backward pass for each value. Not finite means 0."""
    with torch.enable_grad():
        inputs = points.detach().requires_grad_()
        found = values(model(inputs))
        columns = found.shape[1]
        rows = [
            torch.autograd.grad(found[:, column].sum(), inputs, retain_graph=column + 1 < columns)[0]
            for column in range(columns)
        ]
    whole = torch.stack(rows, dim=1) if rows else points.new_zeros((len(points), 0, points.shape[1]))
    return torch.nan_to_num(found.detach()), torch.nan_to_num(whole, nan=0.0, posinf=0.0, neginf=0.0)


def hardest(goal: Goal, margins: Float[Tensor, "rows labels"]) -> Tensor:
    """The label of each row whose constraint has the needed-th largest margin: the next to be met."""
    ordered = margins.masked_fill(goal.sign == 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return ordered.gather(1, (goal.needed - 1).clamp(min=0)[:, None])[:, 0]
