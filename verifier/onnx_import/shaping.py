"""Rules of the operations that move entries: Flatten, Reshape, Transpose, Squeeze, Unsqueeze, Concat, Pad, Shape."""

import math
from collections.abc import Callable

import numpy as np

from verifier.errors import ImportedNetworkError
from verifier.network import Concat, Pad, Transpose
from verifier.onnx_import.call import Call, Known, Traced


def flatten(call: Call) -> Traced:
    """Flatten to two axes, the first of which must stay the batch."""
    value = call.traced(0)
    full = (1, *value.shape)
    axis = call.integer("axis", 1)
    axis = axis if axis == len(full) else call.axis(axis, len(full))
    return call.reshape(value, (math.prod(full[:axis]), math.prod(full[axis:])))


def reshape(call: Call) -> Traced:
    """Reshape with 0 (copy), -1 (infer) and allowzero."""
    value = call.traced(0)
    full = (1, *value.shape)
    target = [int(size) for size in call.constant(1).reshape(-1)]
    if not call.integer("allowzero", 0):
        if any(size == 0 and axis >= len(full) for axis, size in enumerate(target)):
            raise call.unsupported(f"shape {target} copies an axis that {full} does not have")
        target = [full[axis] if size == 0 else size for axis, size in enumerate(target)]
    if target.count(-1) > 1 or min(target, default=0) < -1:
        raise call.unsupported(f"shape {target} has several unknown or negative sizes")
    known = math.prod(size for size in target if size != -1)
    inferred = math.prod(full) // known if known else 0
    return call.reshape(value, tuple(inferred if size == -1 else size for size in target))


def transpose(call: Call) -> Traced:
    """Transpose of all axes but the batch."""
    value = call.traced(0)
    rank = len(value.shape) + 1
    permutation = call.integers("perm", tuple(reversed(range(rank))))
    if sorted(permutation) != list(range(rank)) or permutation[0] != 0:
        raise call.unsupported(f"permutation {permutation}; wanted one of {rank} axes that leaves the batch first")
    inner = tuple(axis - 1 for axis in permutation[1:])
    if inner == tuple(range(rank - 1)):
        return value
    return call.emit(Transpose(inner), (value,), tuple(value.shape[axis] for axis in inner))


def squeeze(call: Call) -> Traced:
    """Squeeze of named axes of size 1, not the batch."""
    value = call.traced(0)
    full = (1, *value.shape)
    stated = call.axes(1, 13, None)
    if not stated:
        raise call.unsupported("names no axes, so it would drop the batch axis of a single image; name the axes")
    axes = {call.axis(axis, len(full)) for axis in stated}
    if 0 in axes or any(full[axis] != 1 for axis in axes):
        raise call.unsupported(f"drops axes {sorted(axes)} of {full}; wanted axes of size 1, not the batch")
    return call.reshape(value, tuple(size for axis, size in enumerate(full) if axis not in axes))


def unsqueeze(call: Call) -> Traced:
    """Unsqueeze at any axes but the batch's."""
    value = call.traced(0)
    stated = call.axes(1, 13, ()) or ()
    rank = len(value.shape) + 1 + len(stated)
    axes = {call.axis(axis, rank) for axis in stated}
    if 0 in axes or len(axes) != len(stated):
        raise call.unsupported(f"axes {stated}; wanted different ones, none before the batch")
    sizes = iter((1, *value.shape))
    return call.reshape(value, tuple(1 if axis in axes else next(sizes) for axis in range(rank)))


def concat(call: Call) -> Traced:
    """Concat of values that depend on the image, not along the batch."""
    values = [call.traced(index) for index in range(len(call.inputs))]
    rank = len(values[0].shape) + 1
    axis = call.axis(call.integer("axis", 1), rank) - 1
    others = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in values}
    if axis < 0 or len(others) != 1 or any(len(value.shape) + 1 != rank for value in values):
        raise call.unsupported(
            f"joins {[value.shape for value in values]} along axis {axis + 1}; wanted matching shapes, not the batch"
        )
    first = values[0].shape
    joined = sum(value.shape[axis] for value in values)
    return call.emit(Concat(axis), tuple(values), (*first[:axis], joined, *first[axis + 1 :]))


def pad(call: Call) -> Traced:
    """Pad with a constant, stated as attributes (before opset 11) or inputs."""
    value = call.traced(0)
    rank = len(value.shape) + 1
    mode = call.text("mode", "constant")
    if mode != "constant":
        raise call.unsupported(f"mode '{mode}'; only constant padding is supported")
    stated = call.integers("pads", ()) if call.opset < 11 else tuple(int(size) for size in call.constant(1).reshape(-1))
    axes = call.axes(3, 18, None) if call.opset >= 18 else None
    places = [call.axis(axis, rank) for axis in (range(rank) if axes is None else axes)]
    if len(stated) != 2 * len(places) or len(set(places)) != len(places):
        raise call.unsupported(f"{len(stated)} pads for {len(places)} axes, wanted two per axis")
    amounts = [(0, 0)] * rank
    for order, axis in enumerate(places):
        amounts[axis] = (stated[order], stated[order + len(places)])
    if amounts[0] != (0, 0) or min(map(min, amounts)) < 0:
        raise call.unsupported(f"pads {amounts}; wanted none for the batch and no negative ones")
    if not any(map(any, amounts)):
        return value
    shape = tuple(size + sum(pair) for size, pair in zip(value.shape, amounts[1:], strict=True))
    return call.emit(Pad(tuple(amounts[1:]), _pad_value(call)), (value,), shape)


def _pad_value(call: Call) -> float:
    if call.opset < 11:
        return call.number("value", 0.0)
    if not call.has_input(2):
        return 0.0
    values = call.weight(2).reshape(-1)
    if len(values) != 1:
        raise ImportedNetworkError(f"{call.title}: got {len(values)} padding values, wanted one")
    return float(values[0])


def shape(call: Call) -> Known:
    """The shape of a value as a constant: one image, so the batch axis has size 1."""
    full = (1, *call.traced(0).shape)
    return np.array(full[call.integer("start", 0) : call.integer("end", len(full))], dtype=np.int64)


RULES: dict[str, tuple[Callable[[Call], Known], frozenset[str]]] = {
    "Flatten": (flatten, frozenset({"axis"})),
    "Reshape": (reshape, frozenset({"allowzero"})),
    "Transpose": (transpose, frozenset({"perm"})),
    "Squeeze": (squeeze, frozenset({"axes"})),
    "Unsqueeze": (unsqueeze, frozenset({"axes"})),
    "Concat": (concat, frozenset({"axis"})),
    "Pad": (pad, frozenset({"mode", "pads", "value"})),
    "Shape": (shape, frozenset({"start", "end"})),
}
