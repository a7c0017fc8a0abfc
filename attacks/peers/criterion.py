"""Our attacks called as foolbox's are: `attack(model, inputs, criterion, epsilons=...)`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attacks.ball import Norm
from attacks.face import run
from attacks.goals import Goal, Rule
from verifier.errors import InputError
from verifier.network import Network

Raw = tuple[list[Tensor], list[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class CriterionAttack:
    """One of our attacks, with the call of a foolbox attack.

    The criterion is one of our goals (top k, thresholds, several labels), a tensor of labels, or an object with `labels`
    (foolbox's Misclassification: the label leaves the top 1) or `target_classes` (TargetedMisclassification: the class becomes it).

    Attributes:
        method: A name in `attacks.METHODS`.
        norm: The ball; the method's own if None.
        options: The method's own options.
        variant: "fixed" or "released".
        seed: Of all randomness.
    """

    method: str = "pgd"
    norm: Norm | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    variant: str = "fixed"
    seed: int = 0

    def __call__(
        self, model: Any, inputs: Any, criterion: Any, *, epsilons: Sequence[float | None] | float | None
    ) -> tuple[Any, Any, Tensor]:
        """Images, the same images (ours never leave the ball), and which rows succeeded.

        With a sequence of epsilons: lists of images, one entry each, and success of shape (epsilons, rows); robust accuracy as a
        curve. Where an epsilon is None the method's own ball, or none, holds.

        Args:
            model: One of our networks, a torch module, or a foolbox model with bounds (0, 1), which is run in float32.
            inputs: (rows, ...) in [0, 1]; a tensor, or eagerpy's.
            criterion: See above.
            epsilons: One radius or several.

        Raises:
            InputError: A model with other bounds, or a criterion that says nothing we know.
        """
        images, network = _raw(inputs), _as_network(model)
        with torch.no_grad():
            count = _labels_of(network, images)
        goal = as_goal(criterion, len(images), count)
        radii = list(epsilons) if isinstance(epsilons, Sequence) else [epsilons]
        results = [
            run(
                network,
                images,
                goal.labels,
                method=self.method,
                variant=self.variant,
                goal=goal,
                norm=self.norm,
                eps=radius,
                options=self.options,
                seed=self.seed,
            )
            for radius in radii
        ]
        found = [result.images.to(images) for result in results]
        success = torch.stack([result.success for result in results])
        if isinstance(epsilons, Sequence):
            return found, list(found), success
        return found[0], found[0], success[0]


def as_goal(criterion: Any, rows: int, labels: int) -> Goal:
    """The goal that a criterion stands for.

    Raises:
        InputError: It is none of the kinds known, or does not fit the images.
    """
    if isinstance(criterion, Goal):
        return criterion
    target = getattr(criterion, "target_classes", None)
    classes = torch.as_tensor(_raw(target if target is not None else getattr(criterion, "labels", criterion)))
    if classes.shape != (rows,) or classes.is_floating_point() or not bool(((classes >= 0) & (classes < labels)).all()):
        raise InputError(
            f"criterion: got {tuple(classes.shape)} {classes.dtype}, wanted a goal, or one class from 0 to {labels - 1} an image"
        )
    chosen = torch.zeros((rows, labels), dtype=torch.bool).scatter(1, classes.long().cpu()[:, None], True)
    nothing, every = torch.zeros_like(chosen), torch.ones(rows, dtype=torch.bool)
    sign = torch.where(chosen, 1 if target is not None else -1, 0)
    name = "target-class" if target is not None else "misclassification"
    relevant = nothing if target is not None else chosen
    return Goal(name, Rule.TOP_K, relevant, sign, sign.abs().sum(dim=1), every, chosen, nothing, "one class", k=1)


class _Float32(nn.Module):
    """A foolbox model, which runs in float32 whatever is asked."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(_raw(self._model(images.float()))).to(images.dtype)

    def __deepcopy__(self, _memo: object) -> "_Float32":
        # The model belongs to somebody else, and stays as it is.
        return self


def _as_network(model: Any) -> Network | nn.Module:
    if isinstance(model, Network | nn.Module):
        return model
    bounds = getattr(model, "bounds", None)
    if not callable(model) or bounds is None:
        raise InputError(f"model: got {type(model).__name__}, wanted a Network, a torch module or a foolbox model")
    if tuple(bounds) != (0, 1):
        raise InputError(f"model: got bounds {tuple(bounds)}, wanted (0, 1); foolbox's transform_bounds changes them")
    return _Float32(model)


def _labels_of(network: Network | nn.Module, images: Tensor) -> int:
    return network.labels if isinstance(network, Network) else int(network(images[:1]).shape[1])


def _raw(tensor: Any) -> Any:
    """What eagerpy wraps, or the object itself."""
    return getattr(tensor, "raw", tensor)
