"""A network's scores in exact rational arithmetic, by naive loops over arrays of fractions: the oracle for rigorous bounds."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from verifier.network import (
    Add,
    AddConstant,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DivConstant,
    LeakyRelu,
    MaxPool,
    MulConstant,
    Network,
    Op,
    Pad,
    Relu,
    Reshape,
    Subtract,
    Transpose,
)


def exact(array: np.ndarray | float) -> np.ndarray:
    """The numbers of an array as fractions."""
    numbers = np.asarray(array)
    result = np.empty(numbers.shape, dtype=object)
    for index in np.ndindex(numbers.shape):
        result[index] = Fraction(float(numbers[index]))
    return result


def square_root(value: Fraction) -> Fraction:
    """Correct to about 60 digits."""
    with localcontext() as context:
        context.prec = 70
        return Fraction((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


def exact_scores(network: Network, image: np.ndarray) -> np.ndarray:
    """The exact scores at one image, as fractions."""
    values = [exact(image)]
    for node in network.nodes:
        values.append(_value(node.op, [values[read] for read in node.inputs], node.shape))
        assert values[-1].shape == node.shape
    return values[-1]


def _value(op: Op, inputs: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    first = inputs[0]
    match op:
        case Conv():
            return _conv(op, first, shape)
        case Dense():
            return (first[..., None, :] * exact(op.weight)).sum(axis=-1) + exact(op.bias)
        case AddConstant():
            return first + exact(op.offset)
        case MulConstant():
            return first * exact(op.factor)
        case DivConstant():
            return first / exact(op.divisor)
        case BatchNorm():
            axes = (-1,) + (1,) * (first.ndim - 1)
            scale, shift, mean, variance = (
                exact(part).reshape(axes) for part in (op.scale, op.shift, op.mean, op.variance)
            )
            deviation = np.vectorize(square_root, otypes=[object])(variance + Fraction(op.epsilon))
            return scale * (first - mean) / deviation + shift
        case Relu():
            return np.maximum(first, Fraction(0))
        case LeakyRelu():
            return np.where(first >= 0, first, Fraction(op.slope) * first)
        case MaxPool() | AveragePool():
            return _pool(op, first, shape)
        case Reshape():
            return first.reshape(op.shape)
        case Transpose():
            return first.transpose(op.permutation)
        case Concat():
            return np.concatenate(inputs, axis=op.axis)
        case Pad():
            return np.pad(first, op.amounts, constant_values=Fraction(op.value))
        case Add():
            return inputs[0] + inputs[1]
        case Subtract():
            return inputs[0] - inputs[1]


def _conv(op: Conv, maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    weight, bias, result = exact(op.weight), exact(op.bias), np.empty(shape, dtype=object)
    per_group = weight.shape[1]
    for o, y, x in np.ndindex(shape):
        first = o // (shape[0] // op.groups) * per_group
        total = bias[o]
        for c, i, j in np.ndindex(weight.shape[1:]):
            row = y * op.strides[0] + i * op.dilations[0] - op.pads[0]
            column = x * op.strides[1] + j * op.dilations[1] - op.pads[1]
            if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                total += weight[o, c, i, j] * maps[first + c, row, column]
        result[o, y, x] = total
    return result


def _pool(op: MaxPool | AveragePool, maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    result = np.empty(shape, dtype=object)
    dilations = op.dilations if isinstance(op, MaxPool) else (1, 1)
    for c, y, x in np.ndindex(shape):
        window = []
        for i, j in np.ndindex(op.kernel):
            row = y * op.strides[0] + i * dilations[0] - op.pads[0]
            column = x * op.strides[1] + j * dilations[1] - op.pads[1]
            if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                window.append(maps[c, row, column])
        if isinstance(op, MaxPool):
            result[c, y, x] = max(window)
        else:
            count = math.prod(op.kernel) if op.count_include_pad else len(window)
            result[c, y, x] = sum(window, Fraction(0)) / count
    return result
