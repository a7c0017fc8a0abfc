"""Rigorous enclosures of a network's exact scores: a table from typed operation to interval rule under a generic walk."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from verifier import network as typed
from verifier.check import interval
from verifier.check.interval import Interval
from verifier.errors import InputError, UnsupportedOpError

Rule = Callable[[Any, Sequence[Interval]], Interval]
Array = Float[np.ndarray, "..."]


def _each_end(function: Callable[[Array], Array], value: Interval) -> Interval:
    """The image under a function that is increasing in every entry and computed without rounding."""
    return Interval(function(value.lower), function(value.upper))


def _windows(maps: Array, op: typed.Conv | typed.MaxPool | typed.AveragePool, fill: float) -> Array:
    """Every window of (channels, height, width) maps: (channels, height out, width out, kernel entries)."""
    kernel = op.weight.shape[2:] if isinstance(op, typed.Conv) else op.kernel
    dilations = (1, 1) if isinstance(op, typed.AveragePool) else op.dilations
    top, left, bottom, right = op.pads
    padded = np.pad(maps, ((0, 0), (top, bottom), (left, right)), constant_values=fill)
    span = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    views = views[:, :: op.strides[0], :: op.strides[1], :: dilations[0], :: dilations[1]]
    return views.reshape(*views.shape[:3], -1)


def _conv(op: typed.Conv, inputs: Sequence[Interval]) -> Interval:
    windows = _each_end(lambda end: _windows(end, op, 0.0), inputs[0])
    weights, biases = (np.split(part.astype(np.float64), op.groups) for part in (op.weight, op.bias))
    lowers, uppers = (np.split(end, op.groups) for end in (windows.lower, windows.upper))
    parts = [
        interval.affine(Interval(_rows(lower), _rows(upper)), weight.reshape(len(weight), -1), bias)
        for lower, upper, weight, bias in zip(lowers, uppers, weights, biases, strict=True)
    ]
    height, width = windows.lower.shape[1:3]
    return Interval(
        np.concatenate([part.lower.T for part in parts]).reshape(-1, height, width),
        np.concatenate([part.upper.T for part in parts]).reshape(-1, height, width),
    )


def _rows(windows: Array) -> Array:
    """One row per output position, one column per weight of an output channel."""
    channels, height, width, entries = windows.shape
    return windows.transpose(1, 2, 0, 3).reshape(height * width, channels * entries)


def _dense(op: typed.Dense, inputs: Sequence[Interval]) -> Interval:
    return interval.affine(inputs[0], op.weight.astype(np.float64), op.bias.astype(np.float64))


def _batch_norm(op: typed.BatchNorm, inputs: Sequence[Interval]) -> Interval:
    shape = (-1,) + (1,) * (inputs[0].lower.ndim - 1)
    scale, shift, mean, variance = (
        interval.point(part.reshape(shape)) for part in (op.scale, op.shift, op.mean, op.variance)
    )
    deviation = interval.square_root(interval.add(variance, interval.point(np.array(op.epsilon))))
    factor = interval.divide(scale, deviation)
    return interval.add(interval.multiply(interval.subtract(inputs[0], mean), factor), shift)


def _leaky_relu(op: typed.LeakyRelu, inputs: Sequence[Interval]) -> Interval:
    lower, upper = inputs[0].lower, inputs[0].upper
    negative = _each_end(lambda end: np.minimum(end, 0.0), inputs[0])
    scaled = interval.multiply(interval.point(np.array(op.slope)), negative)
    # Values <= 0 land in `scaled`, which then contains 0, and values >= 0 stay what they are.
    low = np.where(lower >= 0.0, lower, scaled.lower)
    high = np.where(upper < 0.0, scaled.upper, np.where(lower >= 0.0, upper, np.maximum(scaled.upper, upper)))
    return Interval(low, high)


def _max_pool(op: typed.MaxPool, inputs: Sequence[Interval]) -> Interval:
    return _each_end(lambda end: _windows(end, op, -np.inf).max(axis=3), inputs[0])


def _average_pool(op: typed.AveragePool, inputs: Sequence[Interval]) -> Interval:
    counts = _windows(np.ones_like(inputs[0].lower), op, 1.0 if op.count_include_pad else 0.0).sum(axis=3)
    sums = interval.total(_each_end(lambda end: _windows(end, op, 0.0), inputs[0]), axis=3)
    return interval.divide(sums, interval.point(counts))


def _concat(op: typed.Concat, inputs: Sequence[Interval]) -> Interval:
    return Interval(
        np.concatenate([value.lower for value in inputs], axis=op.axis),
        np.concatenate([value.upper for value in inputs], axis=op.axis),
    )


RULES: Mapping[type, Rule] = MappingProxyType(
    {
        typed.Conv: _conv,
        typed.Dense: _dense,
        typed.AddConstant: lambda op, inputs: interval.add(inputs[0], interval.point(op.offset)),
        typed.MulConstant: lambda op, inputs: interval.multiply(inputs[0], interval.point(op.factor)),
        typed.DivConstant: lambda op, inputs: interval.divide(inputs[0], interval.point(op.divisor)),
        typed.BatchNorm: _batch_norm,
        typed.Relu: lambda _op, inputs: _each_end(lambda end: np.maximum(end, 0.0), inputs[0]),
        typed.LeakyRelu: _leaky_relu,
        typed.MaxPool: _max_pool,
        typed.AveragePool: _average_pool,
        typed.Reshape: lambda op, inputs: _each_end(lambda end: end.reshape(op.shape), inputs[0]),
        typed.Transpose: lambda op, inputs: _each_end(lambda end: end.transpose(op.permutation), inputs[0]),
        typed.Concat: _concat,
        typed.Pad: lambda op, inputs: _each_end(
            lambda end: np.pad(end, op.amounts, constant_values=op.value), inputs[0]
        ),
        typed.Add: lambda _op, inputs: interval.add(inputs[0], inputs[1]),
        typed.Subtract: lambda _op, inputs: interval.subtract(inputs[0], inputs[1]),
    }
)


def enclose(network: typed.Network, images: Interval) -> Interval:
    """Contains the exact scores (before the head) of every image in the interval.

    Soundness: each rule encloses its operation in exact real arithmetic, float32 constants taken as they are; ends that
    overflow or divide by zero become infinite, never tighter. The result is interval arithmetic, far from tight on wide boxes.

    Raises:
        UnsupportedOpError: An operation has no rule; raised before any work, the message names the node.
    """
    for node in network.nodes:
        if type(node.op) not in RULES:
            supported = ", ".join(sorted(op.__name__ for op in RULES))
            raise UnsupportedOpError(
                f"node {node.name!r} ({type(node.op).__name__}) has no enclosure rule; supported: {supported}"
            )
    values = [images]
    with np.errstate(all="ignore"):
        for node in network.nodes:
            value = RULES[type(node.op)](node.op, [values[read] for read in node.inputs])
            values.append(interval.without_nan(value))
    return values[-1]


def evaluate_enclosure(
    network: typed.Network, image: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, " labels"], Float[np.ndarray, " labels"]]:
    """Lower and upper ends, float64, that contain the network's exact scores at one image.

    Exact means: real arithmetic on the file's float32 weights and the image's own floating-point numbers, before the head.

    Args:
        network: The network.
        image: float32 or float64, the network's input shape without the batch axis.

    Raises:
        InputError: Another shape or type, or a pixel is not finite.
        UnsupportedOpError: An operation has no rule.
    """
    if image.shape != network.input_shape or image.dtype not in (np.float32, np.float64):
        raise InputError(
            f"image: got {image.dtype} of shape {image.shape}, wanted float32 or float64 of shape {network.input_shape}"
        )
    if not np.isfinite(image).all():
        raise InputError("image: a pixel is NaN or infinite, wanted finite numbers")
    scores = enclose(network, interval.point(image))
    return scores.lower, scores.upper
