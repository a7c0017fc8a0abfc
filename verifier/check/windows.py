"""The windows that convolutions and pools read, as views and as rows: shared by the evaluations of the checker."""

import numpy as np
from jaxtyping import Float

from verifier import network as typed

Array = Float[np.ndarray, "..."]


def windows(maps: Array, op: typed.Conv | typed.MaxPool | typed.AveragePool, fill: float) -> Array:
    """Every window of (channels, height, width) maps: (channels, height out, width out, kernel entries)."""
    kernel = op.weight.shape[2:] if isinstance(op, typed.Conv) else op.kernel
    dilations = (1, 1) if isinstance(op, typed.AveragePool) else op.dilations
    top, left, bottom, right = op.pads
    padded = np.pad(maps, ((0, 0), (top, bottom), (left, right)), constant_values=fill)
    span = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    views = views[:, :: op.strides[0], :: op.strides[1], :: dilations[0], :: dilations[1]]
    return views.reshape(*views.shape[:3], -1)


def rows(found: Array) -> Array:
    """One row per output position, one column per weight of an output channel."""
    channels, height, width, entries = found.shape
    return found.transpose(1, 2, 0, 3).reshape(height * width, channels * entries)
