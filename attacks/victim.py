"""The network under attack: fast scores to search with, float64 scores to decide with."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from verifier.errors import InputError
from verifier.network import Head, Network
from verifier.torch_network import TorchNetwork

HEADS = tuple(head.value for head in Head)
_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """A network as the engine sees it. Images are flat, (rows, pixels).

    Attributes:
        search: Scores in float32 (float64 for a module in float64), differentiable.
        exact: Scores in float64.
        shape: Of one image.
        device: Where both run.
        head: What follows the scores in the file, or what the caller said.
        network: The typed graph, if there is one.
    """

    search: Callable[[Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    head: Head
    network: Network | None

    def scores(self, images: Float[Tensor, "rows pixels"], batch: int) -> Float[Tensor, "rows labels"]:
        """The float64 scores, on the CPU."""
        with torch.no_grad():
            parts = [self.exact(part.to(self.device, torch.float64)).cpu() for part in images.split(batch)]
        return torch.cat(parts)

    def is_softmax(self, scores: Float[Tensor, "rows labels"]) -> bool:
        """Whether thresholds on single scores say nothing: a softmax head, or scores that are themselves a softmax."""
        if self.head in (Head.SOFTMAX, Head.LOG_SOFTMAX):
            return True
        sums = scores.sum(dim=1)
        looks = bool((scores >= 0).all()) and bool(((sums - 1).abs() < _SUM_TOLERANCE).all())
        return self.network is None and len(scores) > 0 and scores.shape[1] > 1 and looks


def prepare(
    network: Network | TorchNetwork | nn.Module, shape: tuple[int, ...], device: torch.device, head: str | None = None
) -> Victim:
    """A victim for images of this shape. A module is copied; the copy is in evaluation mode and needs no gradients.

    Args:
        network: One of ours, or a torch module that maps (rows, *shape) in [0, 1] to logits (rows, labels).
        shape: Of one image.
        device: Where to run.
        head: For a module, what turns its logits into probabilities: "sigmoid", "softmax", "log-softmax" or "none".

    Raises:
        InputError: Another kind of object, an unknown head, or images that do not fit.
    """
    if head is not None and head not in HEADS:
        raise InputError(f"head: got {head!r}, wanted one of {', '.join(HEADS)}")
    if isinstance(network, TorchNetwork):
        network = network.network
    if isinstance(network, Network):
        if shape != network.input_shape:
            raise InputError(f"images: got shape (n, {shape}), wanted (n, {network.input_shape}) for this network")
        fast, exact = (TorchNetwork(network, device, dtype) for dtype in (torch.float32, torch.float64))
        return Victim(_flat(fast, shape), _flat(exact, shape), shape, device, torch.float32, network.head, network)
    if not isinstance(network, nn.Module):
        raise InputError(f"network: got {type(network).__name__}, wanted a verifier.Network or a torch.nn.Module")
    doubled = _frozen(network).to(device, torch.float64)
    is_double = any(weight.dtype == torch.float64 for weight in network.parameters())
    searched = doubled if is_double else _frozen(network).to(device, torch.float32)
    dtype = torch.float64 if is_double else torch.float32
    given = Head(head) if head is not None else Head.NONE
    return Victim(_flat(searched, shape), _flat(_explained(doubled), shape), shape, device, dtype, given, None)


def _explained(module: nn.Module) -> Callable[[Tensor], object]:
    """Somebody else's module; where it does not run on the images, which its first scores show, that is said."""

    def scores(images: Tensor) -> object:
        try:
            return module(images)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"network: the module does not run on images of shape {tuple(images.shape[1:])} in float64 ({reason}); wanted"
                " one that maps (rows, channels, height, width) in [0, 1] to logits (rows, labels)"
            ) from error

    return scores


def _frozen(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval().requires_grad_(False)


def _flat(model: Callable[[Tensor], object], shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    def scores(images: Tensor) -> Tensor:
        answer = model(images.reshape(len(images), *shape))
        if not isinstance(answer, Tensor):
            raise InputError(
                f"network: got output of type {type(answer).__name__}, wanted a tensor ({len(images)}, labels)"
            )
        if answer.ndim != 2 or len(answer) != len(images):
            raise InputError(f"network: got output of shape {tuple(answer.shape)}, wanted ({len(images)}, labels)")
        return answer

    return scores
