"""Scores of one image as precisely as they are needed: fixed-point numbers along the network, one bound of the error a value.

Interval arithmetic in float64 multiplies every rounding error by the row sums of all later weights. After the fifty layers of a
residual network nothing is left of it (a network as large as ResNet-50 with random weights: intervals of width 1e46), and no
image could ever be shown to violate anything. Here values carry as many digits as those row sums ask for.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from verifier import network as typed
from verifier.check.fixed_point import (
    BITS,
    INFLATION,
    Array,
    Digits,
    Fixed,
    added,
    carried,
    products,
    rounded,
    scaled,
    signs,
    split,
    truncated,
    unit,
    whole,
)
from verifier.check.windows import rows, windows

Rule = Callable[[Any, Sequence[Fixed], int], Fixed]
_TOLERANCE = 2.0**-40
_FARTHEST = 40
_UNIT_ROUNDOFF, _USELESS = 2.0**-53, 2.0**-10


def evaluate_precisely(
    network: typed.Network, image: Float[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, " labels"], Float[np.ndarray, " labels"]] | None:
    """Lower and upper ends that contain the exact scores at one image, in almost all cases within 1e-12 of one another.

    None where this cannot be done: an operation without a rule (batch normalisation that the file did not fold, division), an
    image or constant that is no finite multiple of 2^-160, or numbers out of reach of float64's exponents.

    Soundness: for each value v the exact one lies within `error` of the digits, entry by entry. Affine maps act exactly on the
    digits and enlarge the error by at most the largest row sum of their weights; ReLU, maxima and means of a window do not enlarge
    it at all, being 1-Lipschitz in the largest entry. Digits that are cut off are added to the error. How many are kept is
    planned in floating point; a bad plan costs width, never truth.

    Cost: about four evaluations in float64 per 20 bits; a minute for ResNet-50 at 448 x 448.
    """
    places = _planned(network)
    if places is None:
        return None
    try:
        held = {0: Fixed(carried(split(image)), 0.0)}
        for index, (node, finished) in enumerate(zip(network.nodes, network.last_reads(), strict=True)):
            held[index + 1] = RULES[type(node.op)](node.op, [held[read] for read in node.inputs], places[index + 1])
            for read in finished:
                del held[read]
        scores = held[len(network.nodes)]
        return rounded(scores) if math.isfinite(scores.error) else None
    except OverflowError:
        return None


def _planned(network: typed.Network) -> list[int] | None:
    """For each value the lowest place kept, so that all that is cut off moves no score by more than about 2^-40."""
    if not all(type(node.op) in RULES and _is_covered(node.op) for node in network.nodes):
        return None
    growth = _growths(network)
    if not math.isfinite(sum(growth)):
        return None
    share = _TOLERANCE / len(growth)
    places = [math.floor(math.log2(share / max(each, 1.0)) / BITS) for each in growth]
    return places if min(places) >= -_FARTHEST else None


def exceeds_float64(network: typed.Network) -> bool:
    """Whether intervals in float64 are so wide, by the row sums of the weights, that they need not be tried."""
    return _growths(network)[0] * _UNIT_ROUNDOFF > _USELESS


def _growths(network: typed.Network) -> list[float]:
    """For each value at least by how much the scores' largest error exceeds an error of its entries; operations unknown count 1."""
    growth = [0.0] * len(network.nodes) + [1.0]
    for index, node in reversed(list(enumerate(network.nodes))):
        for read in node.inputs:
            growth[read] += growth[index + 1] * _growth(node.op)
    return growth


def _is_covered(op: typed.Op) -> bool:
    # Windows that count only what lies inside have counts of their own at the border.
    return not isinstance(op, typed.AveragePool) or op.count_include_pad or not any(op.pads)


def _growth(op: typed.Op) -> float:
    """By how much the operation can enlarge the largest error of an entry; never below 1, so that no error underflows."""
    match op:
        case typed.Conv() | typed.Dense():
            return max(1.0, _row_sum(op.weight))
        case typed.MulConstant():
            return max(1.0, _row_sum(op.factor.reshape(-1, 1)))
        case typed.LeakyRelu():
            return max(1.0, abs(op.slope))
        case _:
            return 1.0


def _row_sum(weight: Array) -> float:
    """At least the largest sum of magnitudes in a row."""
    sums = np.abs(weight).reshape(len(weight), -1).sum(axis=1, dtype=np.float64)
    return float(sums.max(initial=0.0)) * INFLATION


def _kept(digits: Digits, lowest: int, error: float) -> Fixed:
    """Carried digits cut off at a place, with the error that came along."""
    kept, left_out = truncated(digits, lowest)
    return Fixed(kept, (error + left_out) * INFLATION)


def _each(function: Callable[[Array], Array], value: Fixed) -> Fixed:
    """A selection of entries, the same at every place."""
    return Fixed({place: function(digit) for place, digit in value.digits.items()}, value.error)


def _conv(op: typed.Conv, inputs: Sequence[Fixed], lowest: int) -> Fixed:
    found, count = inputs[0], op.weight.shape[1]
    height, width = windows(np.zeros((1, *found.shape[1:])), op, 0.0).shape[1:3]
    parts = [
        products(_read_by(op, found, slice(group * count, (group + 1) * count)), split(weight.reshape(len(weight), -1)))
        for group, weight in enumerate(np.split(op.weight, op.groups))
    ]
    total = {}
    for place in sorted({place for part in parts for place in part}):
        columns = [part[place] if place in part else np.zeros_like(next(iter(part.values()))) for part in parts]
        total[place] = np.concatenate(columns, axis=1).T.reshape(-1, height, width)
    return _kept(added(total, split(op.bias[:, None, None])), lowest, _growth(op) * found.error)


def _read_by(op: typed.Conv, value: Fixed, channels: slice) -> Iterator[tuple[int, Array]]:
    """What a group's kernels read, one row an output position; one place at a time."""
    for place, digit in value.digits.items():
        yield place, rows(windows(digit[channels], op, 0.0))


def _dense(op: typed.Dense, inputs: Sequence[Fixed], lowest: int) -> Fixed:
    found = inputs[0]
    flat = ((place, digit.reshape(-1, digit.shape[-1])) for place, digit in found.digits.items())
    total = products(flat, split(op.weight))
    shaped = {place: digit.reshape(*found.shape[:-1], -1) for place, digit in total.items()}
    return _kept(added(shaped, split(op.bias)), lowest, _growth(op) * found.error)


def _add_constant(op: typed.AddConstant, inputs: Sequence[Fixed], lowest: int) -> Fixed:
    return _kept(added(inputs[0].digits, split(op.offset)), lowest, inputs[0].error)


def _mul_constant(op: typed.MulConstant, inputs: Sequence[Fixed], lowest: int) -> Fixed:
    return _kept(scaled(inputs[0].digits, split(op.factor)), lowest, _growth(op) * inputs[0].error)


def _relu(_op: typed.Relu, inputs: Sequence[Fixed], _lowest: int) -> Fixed:
    is_positive = signs(inputs[0].digits) > 0
    return _each(lambda digit: np.where(is_positive, digit, 0.0), inputs[0])


def _leaky_relu(op: typed.LeakyRelu, inputs: Sequence[Fixed], lowest: int) -> Fixed:
    is_negative = signs(inputs[0].digits) < 0
    above = _each(lambda digit: np.where(is_negative, 0.0, digit), inputs[0])
    below = _each(lambda digit: np.where(is_negative, digit, 0.0), inputs[0])
    total = added(above.digits, scaled(below.digits, split(np.array(op.slope))))
    return _kept(total, lowest, _growth(op) * inputs[0].error)


def _max_pool(op: typed.MaxPool, inputs: Sequence[Fixed], _lowest: int) -> Fixed:
    """The maximum of each window, found by signs of differences; padding never wins."""
    found = inputs[0]
    inside = windows(np.ones(found.shape), op, 0.0) > 0.0
    entries = {place: windows(digit, op, 0.0) for place, digit in found.digits.items()}
    best = {place: digit[..., 0] for place, digit in entries.items()}
    is_inside = inside[..., 0]
    for entry in range(1, inside.shape[3]):
        candidate = {place: digit[..., entry] for place, digit in entries.items()}
        is_larger = signs(added(candidate, best, -1.0)) > 0
        wins = inside[..., entry] & (~is_inside | is_larger)
        best = {place: np.where(wins, candidate[place], best[place]) for place in best}
        is_inside = is_inside | inside[..., entry]
    return Fixed(best, found.error)


def _average_pool(op: typed.AveragePool, inputs: Sequence[Fixed], lowest: int) -> Fixed:
    """The sum of each window times the reciprocal of its size, known to the nearest unit of a place below the lowest."""
    found, count = inputs[0], math.prod(op.kernel)
    sums = carried({place: windows(digit, op, 0.0).sum(axis=3) for place, digit in found.digits.items()})
    below = min(lowest, 0) - 3
    reciprocal = whole(((2 << (-BITS * below)) // count + 1) // 2, below)
    error = found.error + count * found.magnitude * unit(below)
    return _kept(scaled(sums, reciprocal), lowest, error * INFLATION)


def _concat(op: typed.Concat, inputs: Sequence[Fixed], _lowest: int) -> Fixed:
    places = sorted({place for value in inputs for place in value.digits})
    joined = {
        place: np.concatenate([value.digits.get(place, np.zeros(value.shape)) for value in inputs], axis=op.axis)
        for place in places
    }
    return Fixed(joined, max(value.error for value in inputs))


def _pad(op: typed.Pad, inputs: Sequence[Fixed], lowest: int) -> Fixed:
    padded = _each(lambda digit: np.pad(digit, op.amounts), inputs[0])
    border = np.pad(np.zeros(inputs[0].shape), op.amounts, constant_values=op.value)
    return _kept(added(padded.digits, split(border)), lowest, padded.error)


def _combined(sign: float) -> Rule:
    def rule(_op: typed.Add | typed.Subtract, inputs: Sequence[Fixed], lowest: int) -> Fixed:
        total = added(inputs[0].digits, inputs[1].digits, sign)
        return _kept(total, lowest, inputs[0].error + inputs[1].error)

    return rule


RULES: Mapping[type, Rule] = MappingProxyType(
    {
        typed.Conv: _conv,
        typed.Dense: _dense,
        typed.AddConstant: _add_constant,
        typed.MulConstant: _mul_constant,
        typed.Relu: _relu,
        typed.LeakyRelu: _leaky_relu,
        typed.MaxPool: _max_pool,
        typed.AveragePool: _average_pool,
        typed.Reshape: lambda op, inputs, _lowest: _each(lambda digit: digit.reshape(op.shape), inputs[0]),
        typed.Transpose: lambda op, inputs, _lowest: _each(lambda digit: digit.transpose(op.permutation), inputs[0]),
        typed.Concat: _concat,
        typed.Pad: _pad,
        typed.Add: _combined(1.0),
        typed.Subtract: _combined(-1.0),
    }
)
