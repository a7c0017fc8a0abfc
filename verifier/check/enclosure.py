"""Rigorous enclosures of a network's exact scores: a table from typed operation to interval rule under a generic walk."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from verifier import network as typed
from verifier.check import interval
from verifier.check.interval import Interval
from verifier.check.precise import evaluate_precisely, exceeds_float64
from verifier.check.windows import rows, windows
from verifier.errors import InputError, UnsupportedOpError

Rule = Callable[[Any, Sequence[Interval]], Interval]
Array = Float[np.ndarray, "..."]


def _each_end(function: Callable[[Array], Array], value: Interval) -> Interval:
    """The image under a function that is increasing in every entry and computed without rounding."""
    return Interval(function(value.lower), function(value.upper))


def _conv(op: typed.Conv, inputs: Sequence[Interval]) -> Interval:
    read = _each_end(lambda end: windows(end, op, 0.0), inputs[0])
    weights, biases = (np.split(part.astype(np.float64), op.groups) for part in (op.weight, op.bias))
    lowers, uppers = (np.split(end, op.groups) for end in (read.lower, read.upper))
    parts = [
        interval.affine(Interval(rows(lower), rows(upper)), weight.reshape(len(weight), -1), bias)
        for lower, upper, weight, bias in zip(lowers, uppers, weights, biases, strict=True)
    ]
    height, width = read.lower.shape[1:3]
    return Interval(
        np.concatenate([part.lower.T for part in parts]).reshape(-1, height, width),
        np.concatenate([part.upper.T for part in parts]).reshape(-1, height, width),
    )


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
    return _each_end(lambda end: windows(end, op, -np.inf).max(axis=3), inputs[0])


def _average_pool(op: typed.AveragePool, inputs: Sequence[Interval]) -> Interval:
    counts = windows(np.ones_like(inputs[0].lower), op, 1.0 if op.count_include_pad else 0.0).sum(axis=3)
    sums = interval.total(_each_end(lambda end: windows(end, op, 0.0), inputs[0]), axis=3)
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
    held, value = {0: images}, images
    with np.errstate(all="ignore"):
        for index, (node, finished) in enumerate(zip(network.nodes, network.last_reads(), strict=True)):
            value = interval.without_nan(RULES[type(node.op)](node.op, [held[read] for read in node.inputs]))
            held[index + 1] = value
            for read in finished:
                del held[read]
    return value


def evaluate_enclosure(
    network: typed.Network, image: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, " labels"], Float[np.ndarray, " labels"]]:
    """Lower and upper ends, float64, that contain the network's exact scores at one image.

    Interval arithmetic in float64 where that is sharp, fixed-point arithmetic of more digits where it is not and can be.

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
    tries_digits = exceeds_float64(network)
    found = _precise(network, image.tobytes(), image.dtype.name) if tries_digits else None
    if found is not None:
        return found
    scores = enclose(network, interval.point(image))
    if not tries_digits and not _is_sharp(scores):
        found = _precise(network, image.tobytes(), image.dtype.name)
    return (scores.lower, scores.upper) if found is None else found


@lru_cache(maxsize=1)
def _precise(network: typed.Network, pixels: bytes, dtype: str) -> tuple[Array, Array] | None:
    """The last image's answer is kept, networks told apart by identity: a replay asks twice, and large networks take a minute."""
    found = evaluate_precisely(network, np.frombuffer(pixels, dtype).reshape(network.input_shape))
    if found is not None:
        for ends in found:
            ends.setflags(write=False)
    return found


def _is_sharp(scores: Interval) -> bool:
    """Whether float64 was precise enough: widths below a millionth of the largest score."""
    ends = np.abs(np.concatenate([scores.lower, scores.upper]))
    if not np.isfinite(ends).all():
        return False
    return bool((scores.upper - scores.lower).max() <= 2.0**-20 * max(1.0, float(ends.max())))
