"""The typed graph on torch tensors: differentiable, batched, on any device and in any floating-point type.

For search only: torch rounds as it likes, so nothing computed here is a claim.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from verifier import network as typed
from verifier.errors import InputError, UnsupportedOpError

Maps = Float[torch.Tensor, "_ _ _ _"]
Constant = Callable[[np.ndarray], torch.Tensor]
Step = Callable[[Sequence[torch.Tensor]], torch.Tensor]


def _padded(maps: Maps, pads: tuple[int, int, int, int], value: float) -> Maps:
    top, left, bottom, right = pads
    return functional.pad(maps, (left, right, top, bottom), value=value) if any(pads) else maps


def _conv(op: typed.Conv, constant: Constant) -> Step:
    weight, bias = constant(op.weight), constant(op.bias)

    def step(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        padded = _padded(inputs[0], op.pads, 0.0)
        return functional.conv2d(padded, weight, bias, op.strides, (0, 0), op.dilations, op.groups)

    return step


def _dense(op: typed.Dense, constant: Constant) -> Step:
    weight, bias = constant(op.weight), constant(op.bias)
    return lambda inputs: functional.linear(inputs[0], weight, bias)


def _add_constant(op: typed.AddConstant, constant: Constant) -> Step:
    offset = constant(op.offset)
    return lambda inputs: inputs[0] + offset


def _mul_constant(op: typed.MulConstant, constant: Constant) -> Step:
    factor = constant(op.factor)
    return lambda inputs: inputs[0] * factor


def _div_constant(op: typed.DivConstant, constant: Constant) -> Step:
    divisor = constant(op.divisor)
    return lambda inputs: inputs[0] / divisor


def _batch_norm(op: typed.BatchNorm, constant: Constant) -> Step:
    scale = op.scale.astype(np.float64) / np.sqrt(op.variance.astype(np.float64) + op.epsilon)
    factor, mean, shift = constant(scale), constant(op.mean), constant(op.shift)

    def step(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        channelwise = (-1,) + (1,) * (inputs[0].dim() - 2)
        return (inputs[0] - mean.view(channelwise)) * factor.view(channelwise) + shift.view(channelwise)

    return step


def _max_pool(op: typed.MaxPool, _constant: Constant) -> Step:
    def step(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        padded = _padded(inputs[0], op.pads, -torch.inf)
        return functional.max_pool2d(padded, op.kernel, op.strides, 0, op.dilations)

    return step


def _average_pool(op: typed.AveragePool, _constant: Constant) -> Step:
    def step(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        means = functional.avg_pool2d(_padded(inputs[0], op.pads, 0.0), op.kernel, op.strides)
        if op.count_include_pad or not any(op.pads):
            return means
        inside = _padded(torch.ones_like(inputs[0][:1, :1]), op.pads, 0.0)
        return means / functional.avg_pool2d(inside, op.kernel, op.strides)

    return step


def _pad(op: typed.Pad, _constant: Constant) -> Step:
    # torch lists the last axis first.
    flat = [amount for pair in reversed(op.amounts) for amount in pair]
    return lambda inputs: functional.pad(inputs[0], flat, value=op.value)


def _transpose(op: typed.Transpose, _constant: Constant) -> Step:
    axes = (0, *(axis + 1 for axis in op.permutation))
    return lambda inputs: inputs[0].permute(axes)


RULES: Mapping[type, Callable[[Any, Constant], Step]] = MappingProxyType(
    {
        typed.Conv: _conv,
        typed.Dense: _dense,
        typed.AddConstant: _add_constant,
        typed.MulConstant: _mul_constant,
        typed.DivConstant: _div_constant,
        typed.BatchNorm: _batch_norm,
        typed.Relu: lambda _op, _constant: lambda inputs: torch.relu(inputs[0]),
        typed.LeakyRelu: lambda op, _constant: lambda inputs: functional.leaky_relu(inputs[0], op.slope),
        typed.MaxPool: _max_pool,
        typed.AveragePool: _average_pool,
        typed.Reshape: lambda op, _constant: lambda inputs: inputs[0].reshape(len(inputs[0]), *op.shape),
        typed.Transpose: _transpose,
        typed.Concat: lambda op, _constant: lambda inputs: torch.cat(list(inputs), dim=op.axis + 1),
        typed.Pad: _pad,
        typed.Add: lambda _op, _constant: lambda inputs: inputs[0] + inputs[1],
        typed.Subtract: lambda _op, _constant: lambda inputs: inputs[0] - inputs[1],
    }
)


class TorchNetwork:
    """A network's scores (before its head) on torch tensors, differentiable in the images.

    Weights are moved to the device once, at construction, and need no gradient.

    Attributes:
        network: The typed graph.
        device, dtype: Of the weights; images must have both.

    Raises:
        UnsupportedOpError: An operation has no rule; raised at construction, the message names the node.
        InputError: The type is not a floating-point type.
    """

    __slots__ = ("_steps", "device", "dtype", "network")

    def __init__(
        self, network: typed.Network, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if not dtype.is_floating_point:
            raise InputError(f"dtype: got {dtype}, wanted a floating-point type such as torch.float32")
        self.network, self.device, self.dtype = network, torch.device(device), dtype
        self._steps = tuple((self._step(node), node.inputs) for node in network.nodes)

    def _step(self, node: typed.Node) -> Step:
        rule = RULES.get(type(node.op))
        if rule is None:
            supported = ", ".join(sorted(op.__name__ for op in RULES))
            raise UnsupportedOpError(
                f"node {node.name!r} ({type(node.op).__name__}) has no torch rule; supported: {supported}"
            )
        return rule(node.op, self._constant)

    def _constant(self, array: np.ndarray) -> torch.Tensor:
        # A copy, because torch warns about sharing memory with a read-only array.
        return torch.tensor(np.array(array), device=self.device).to(self.dtype)

    def __call__(self, images: Float[torch.Tensor, "batch ..."]) -> Float[torch.Tensor, "batch labels"]:
        """The scores at each image; a batch of 0 is allowed.

        Args:
            images: (batch, *network.input_shape), on this device and of this type.

        Raises:
            InputError: Another shape or type.
        """
        if tuple(images.shape[1:]) != self.network.input_shape or images.dtype != self.dtype:
            wanted = ", ".join(map(str, self.network.input_shape))
            raise InputError(f"images: got {images.dtype} {tuple(images.shape)}, wanted {self.dtype} (batch, {wanted})")
        # A value is let go after its last reader, so that search without gradients needs little memory.
        values: dict[int, torch.Tensor] = {0: images}
        last_reader = {value: index for index, (_, inputs) in enumerate(self._steps) for value in inputs}
        for index, (step, inputs) in enumerate(self._steps):
            values[index + 1] = step([values[value] for value in inputs])
            for value in inputs:
                if last_reader[value] == index:
                    values.pop(value, None)
        return values[len(self._steps)]
