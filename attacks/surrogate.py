"""A network with its kinks smoothed, so that gradients reach what the winner of a window or a dead ReLU hides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from attacks.engine import Model
from attacks.steps import per_row
from verifier import network as typed
from verifier.network import Network
from verifier.torch_network import RULES

_COLDEST = 1e-3
_NARROWEST = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Smoothing:
    """How each row of a batch is smoothed.

    Attributes:
        slopes: For each ReLU, by the node's index, the slope below 0 of every unit, (rows, *shape).
        favours: For each MaxPool what is added to a candidate before the softmax, as a share of its window's spread,
            (rows, channels, candidates, windows).
        temperature: Of the softmax, as a share of the window's spread, (rows,).
    """

    slopes: Mapping[int, Float[Tensor, "rows ..."]]
    favours: Mapping[int, Float[Tensor, "rows channels candidates windows"]]
    temperature: Float[Tensor, " rows"]

    def times(self, share: float) -> "Smoothing":
        """Everything multiplied by `share`: nearer to the network itself if that is below 1."""
        return Smoothing(
            {index: share * slopes for index, slopes in self.slopes.items()},
            {index: share * favours for index, favours in self.favours.items()},
            share * self.temperature,
        )


class SurrogateNetwork:
    """A network in which dead ReLUs leak and pool windows mix their candidates instead of taking the largest.

    A window's value is the mean of its candidates weighted by a softmax, and only the candidates are differentiated, not the
    weights. Random slopes and favoured candidates make rows, and windows in a row, prefer different winners. With nothing to
    smooth it is the network itself.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        self.network, self.device = network, device
        self._steps = tuple(RULES[type(node.op)](node.op, self._constant) for node in network.nodes)

    def _constant(self, array: np.ndarray) -> Tensor:
        return torch.tensor(np.array(array), dtype=torch.float32, device=self.device)

    def draw(
        self,
        leak: Float[Tensor, " rows"],
        temperature: Float[Tensor, " rows"],
        noise: Float[Tensor, " rows"],
        generator: torch.Generator,
    ) -> Smoothing:
        """Slopes uniform in [0, 2 leak] and Gumbel-distributed favours of scale `noise`, one of each row on the CPU."""
        slopes: dict[int, Tensor] = {}
        favours: dict[int, Tensor] = {}
        for index, node in enumerate(self.network.nodes):
            if isinstance(node.op, typed.Relu):
                uniform = torch.rand((len(leak), *node.shape), generator=generator)
                slopes[index] = (2.0 * per_row(leak, uniform) * uniform).to(self.device)
            elif isinstance(node.op, typed.MaxPool):
                candidates = node.op.kernel[0] * node.op.kernel[1]
                shape = (len(leak), node.shape[0], candidates, node.shape[1] * node.shape[2])
                gumbel = -torch.log(torch.empty(shape).exponential_(generator=generator))
                favours[index] = (per_row(noise, gumbel) * gumbel).to(self.device)
        return Smoothing(slopes, favours, temperature.to(self.device))

    def smoothed(self, smoothing: Smoothing) -> Model:
        """The stand-in for batches of exactly the rows of `smoothing`, on the device; rows do not influence one another."""

        def scores(images: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows labels"]:
            values = [images]
            for index, node in enumerate(self.network.nodes):
                values.append(self._value(index, [values[value] for value in node.inputs], smoothing))
            return values[-1]

        return scores

    def _value(self, index: int, inputs: Sequence[Tensor], smoothing: Smoothing) -> Tensor:
        match self.network.nodes[index].op:
            case typed.Relu():
                return _leaky(inputs[0], smoothing.slopes[index])
            case typed.MaxPool() as op:
                mixed = _mixed(_candidates(inputs[0], op), smoothing.favours[index], smoothing.temperature)
                return mixed.reshape(len(mixed), *self.network.nodes[index].shape)
            case _:
                return self._steps[index](inputs)


def _leaky(inputs: Float[Tensor, "rows ..."], slopes: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """max(x, slope x) for slopes in [0, 1]."""
    with torch.no_grad():
        factors = torch.where(inputs > 0, 1.0, slopes)
    return inputs * factors


def _candidates(
    maps: Float[Tensor, "rows channels height width"], op: typed.MaxPool
) -> Float[Tensor, "rows channels candidates windows"]:
    """The entries of each window, -inf for padding."""
    top, left, bottom, right = op.pads
    padded = functional.pad(maps, (left, right, top, bottom), value=-torch.inf) if any(op.pads) else maps
    columns = functional.unfold(padded.flatten(0, 1).unsqueeze(1), op.kernel, op.dilations, 0, op.strides)
    return columns.reshape(*maps.shape[:2], *columns.shape[1:])


def _mixed(
    candidates: Float[Tensor, "rows channels candidates windows"],
    favours: Float[Tensor, "rows channels candidates windows"],
    temperature: Float[Tensor, " rows"],
) -> Float[Tensor, "rows channels windows"]:
    """The softmax-weighted mean of each window; padding has no weight."""
    with torch.no_grad():
        is_padding = candidates == -torch.inf
        largest = candidates.amax(dim=2, keepdim=True)
        spread = largest - torch.where(is_padding, torch.inf, candidates).amin(dim=2, keepdim=True)
        heights = (candidates - largest) / spread.clamp(min=_NARROWEST) + favours
        weights = torch.softmax(heights / per_row(temperature, heights).clamp(min=_COLDEST), dim=2)
    return (weights * torch.where(is_padding, 0.0, candidates)).sum(dim=2)
