"""A network's values at given images, by NumPy alone: a table from operation to rule under a generic walk.

Every rule computes in the floating-point type of the value it reads. `evaluate` walks in float64, where float32 weights are
exact, so only the arithmetic rounds; the importer also walks in float32 to learn how much float32 rounding matters.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from verifier.errors import InputError
from verifier.network import (
    Add,
    AddConstant,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DivConstant,
    Head,
    LeakyRelu,
    MaxPool,
    MulConstant,
    Network,
    Pad,
    Relu,
    Reshape,
    Subtract,
    Transpose,
)

Value = Float[np.ndarray, "batch ..."]
Maps = Float[np.ndarray, "batch _ _ _"]
Rule = Callable[[Any, Sequence[np.ndarray]], np.ndarray]
_ENTRIES_TOGETHER = 2**26


def _windows(
    padded: Maps, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> Float[np.ndarray, "batch channels height width kh kw"]:
    """A view of every window of already padded maps."""
    spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    return views[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def _padded(maps: Maps, pads: tuple[int, int, int, int], value: float) -> Maps:
    top, left, bottom, right = pads
    return np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _conv(op: Conv, inputs: Sequence[Maps]) -> Maps:
    weight = op.weight.astype(inputs[0].dtype)
    windows = _windows(_padded(inputs[0], op.pads, 0.0), weight.shape[2:], op.strides, op.dilations)
    per_group_in, per_group_out = weight.shape[1], weight.shape[0] // op.groups
    parts = [
        np.tensordot(
            windows[:, group * per_group_in : (group + 1) * per_group_in],
            weight[group * per_group_out : (group + 1) * per_group_out],
            axes=((1, 4, 5), (1, 2, 3)),
        )
        for group in range(op.groups)
    ]
    joined = np.concatenate(parts, axis=-1) + op.bias.astype(weight.dtype)
    return np.moveaxis(joined, -1, 1)


def _dense(op: Dense, inputs: Sequence[Value]) -> Value:
    return inputs[0] @ op.weight.T.astype(inputs[0].dtype) + op.bias.astype(inputs[0].dtype)


def _batch_norm(op: BatchNorm, inputs: Sequence[Value]) -> Value:
    shape = (-1,) + (1,) * (inputs[0].ndim - 2)
    parts = (op.scale, op.shift, op.mean, op.variance)
    scale, shift, mean, variance = (part.astype(inputs[0].dtype).reshape(shape) for part in parts)
    return scale * (inputs[0] - mean) / np.sqrt(variance + inputs[0].dtype.type(op.epsilon)) + shift


def _leaky_relu(op: LeakyRelu, inputs: Sequence[Value]) -> Value:
    return np.where(inputs[0] >= 0.0, inputs[0], inputs[0].dtype.type(op.slope) * inputs[0])


def _max_pool(op: MaxPool, inputs: Sequence[Maps]) -> Maps:
    padded = _padded(inputs[0], op.pads, -math.inf)
    return _windows(padded, op.kernel, op.strides, op.dilations).max(axis=(4, 5))


def _average_pool(op: AveragePool, inputs: Sequence[Maps]) -> Maps:
    total = _windows(_padded(inputs[0], op.pads, 0.0), op.kernel, op.strides, (1, 1)).sum(axis=(4, 5))
    if op.count_include_pad:
        return total / total.dtype.type(math.prod(op.kernel))
    inside = _padded(np.ones_like(inputs[0][:1, :1]), op.pads, 0.0)
    return total / _windows(inside, op.kernel, op.strides, (1, 1)).sum(axis=(4, 5))


def _transpose(op: Transpose, inputs: Sequence[Value]) -> Value:
    return inputs[0].transpose((0, *(axis + 1 for axis in op.permutation)))


def _pad(op: Pad, inputs: Sequence[Value]) -> Value:
    return np.pad(inputs[0], ((0, 0), *op.amounts), constant_values=op.value)


RULES: Mapping[type, Rule] = MappingProxyType(
    {
        Conv: _conv,
        Dense: _dense,
        AddConstant: lambda op, inputs: inputs[0] + op.offset.astype(inputs[0].dtype),
        MulConstant: lambda op, inputs: inputs[0] * op.factor.astype(inputs[0].dtype),
        DivConstant: lambda op, inputs: inputs[0] / op.divisor.astype(inputs[0].dtype),
        BatchNorm: _batch_norm,
        Relu: lambda _, inputs: np.maximum(inputs[0], 0.0),
        LeakyRelu: _leaky_relu,
        MaxPool: _max_pool,
        AveragePool: _average_pool,
        Reshape: lambda op, inputs: inputs[0].reshape((len(inputs[0]), *op.shape)),
        Transpose: _transpose,
        Concat: lambda op, inputs: np.concatenate(inputs, axis=op.axis + 1),
        Pad: _pad,
        Add: lambda _, inputs: inputs[0] + inputs[1],
        Subtract: lambda _, inputs: inputs[0] - inputs[1],
    }
)


def walk_values(network: Network, images: Value) -> Iterator[Value]:
    """Every value at each image, the images first, in the images' own floating-point type; each let go after its last reader.

    Args:
        network: The network.
        images: float64 or float32, one image a row of the network's input shape.

    Yields:
        Arrays (batch, *network.value_shape(i)) for i = 0, 1, ...

    Raises:
        InputError: The images have another shape.
    """
    if images.shape[1:] != network.input_shape:
        raise InputError(
            f"images: got shape {images.shape}, wanted (batch, {', '.join(map(str, network.input_shape))})"
        )
    held = {0: images}
    yield images
    for index, (node, finished) in enumerate(zip(network.nodes, network.last_reads(), strict=True)):
        value = RULES[type(node.op)](node.op, [held[read] for read in node.inputs])
        held[index + 1] = value
        for read in finished:
            del held[read]
        yield value


def evaluate_values(network: Network, images: Value) -> list[Value]:
    """As `walk_values`, all values in one list; entry 0 is `images` itself."""
    return list(walk_values(network, images))


def evaluate(network: Network, images: Value) -> Float[np.ndarray, "batch labels"]:
    """The scores at each image, float64, before the network's head; every operation rounds to nearest.

    As many images at once as have 2^26 values in all, one at least: memory does not grow with the batch.

    Args:
        network: The network.
        images: One image a row; converted to float64, which is exact for float32.

    Raises:
        InputError: The images have another shape than the network's input.
    """
    images = np.asarray(images)
    together = max(1, _ENTRIES_TOGETHER // network.entries)
    parts = [_scores(network, images[start : start + together]) for start in range(0, max(1, len(images)), together)]
    return np.concatenate(parts)


def _scores(network: Network, images: Value) -> Float[np.ndarray, "batch labels"]:
    return deque(walk_values(network, images.astype(np.float64)), maxlen=1)[0]


def apply_head(head: Head, scores: Float[np.ndarray, "batch labels"]) -> Float[np.ndarray, "batch labels"]:
    """What the file returns for these scores: its trailing activation over the labels, free of overflow."""
    match head:
        case Head.NONE:
            return scores
        case Head.SOFTMAX:
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            return weights / weights.sum(axis=1, keepdims=True)
        case Head.LOG_SOFTMAX:
            shifted = scores - scores.max(axis=1, keepdims=True)
            return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        case Head.SIGMOID:
            decay = np.exp(-np.abs(scores))
            return np.where(scores >= 0.0, 1.0, decay) / (1.0 + decay)
