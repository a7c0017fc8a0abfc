"""Rules of the operations that summarise windows or axes: MaxPool, AveragePool, GlobalAveragePool, ReduceMean."""

import math
from collections.abc import Callable

from verifier.network import AveragePool, MaxPool, Pad, Transpose
from verifier.onnx_import.call import Call, Traced
from verifier.onnx_import.window import ResolvedWindow, resolve_window


def _plane(call: Call) -> Traced:
    value = call.traced(0)
    if len(value.shape) != 3:
        raise call.unsupported(
            f"pools a value of shape {(1, *value.shape)}; only (batch, channels, height, width) is supported"
        )
    return value


def _kernel(call: Call) -> tuple[int, int]:
    kernel = call.integers("kernel_shape", ())
    if len(kernel) != 2 or min(kernel) < 1:
        raise call.unsupported(f"kernel_shape {kernel}, wanted two sizes >= 1")
    return kernel[0], kernel[1]


def _refuse_empty_windows(call: Call, window: ResolvedWindow, kernel: tuple[int, int], sizes: tuple[int, ...]) -> None:
    for axis in (0, 1):
        for index in range(window.output[axis]):
            start = index * window.strides[axis] - window.pads[axis]
            taps = range(start, start + kernel[axis] * window.dilations[axis], window.dilations[axis])
            if not any(0 <= tap < sizes[axis] for tap in taps):
                raise call.unsupported(f"window {index} along axis {axis + 2} lies in the padding entirely")


def max_pool(call: Call) -> Traced:
    """MaxPool with any pads, strides, dilations and ceil_mode."""
    value, kernel = _plane(call), _kernel(call)
    window = resolve_window(call, value.shape[1:], kernel)
    _refuse_empty_windows(call, window, kernel, value.shape[1:])
    op = MaxPool(kernel, window.strides, window.pads, window.dilations)
    return call.emit(op, (value,), (value.shape[0], *window.output))


def average_pool(call: Call) -> Traced:
    """AveragePool; with count_include_pad the stated padding counts, the overhang that ceil_mode adds does not."""
    value, kernel = _plane(call), _kernel(call)
    window = resolve_window(call, value.shape[1:], kernel)
    if window.dilations != (1, 1):
        raise call.unsupported(f"dilations {window.dilations}; only dense windows are supported")
    _refuse_empty_windows(call, window, kernel, value.shape[1:])
    counts_pads, pads = bool(call.integer("count_include_pad", 0)), window.pads
    if counts_pads and (pads[2] > window.stated_pads[2] or pads[3] > window.stated_pads[3]):
        value = _zero_padded(call, value, window.stated_pads)
        overhang = [max(0, reached - stated) for reached, stated in zip(pads, window.stated_pads, strict=True)]
        pads = (0, 0, overhang[2], overhang[3])
        counts_pads = False
    op = AveragePool(kernel, window.strides, pads, counts_pads)
    return call.emit(op, (value,), (value.shape[0], *window.output))


def _zero_padded(call: Call, value: Traced, pads: tuple[int, int, int, int]) -> Traced:
    if not any(pads):
        return value
    amounts = ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    shape = tuple(size + sum(pair) for size, pair in zip(value.shape, amounts, strict=True))
    return call.emit(Pad(amounts, 0.0), (value,), shape)


def global_average_pool(call: Call) -> Traced:
    """GlobalAveragePool over two spatial axes."""
    value = _plane(call)
    op = AveragePool((value.shape[1], value.shape[2]), (1, 1), (0, 0, 0, 0), count_include_pad=False)
    return call.emit(op, (value,), (value.shape[0], 1, 1))


def reduce_mean(call: Call) -> Traced:
    """ReduceMean over any axes but the batch: the reduced axes move to the end and are pooled as one."""
    value = call.traced(0)
    rank = len(value.shape) + 1
    stated = call.axes(1, 18, ()) or ()
    if not stated and call.integer("noop_with_empty_axes", 0):
        return value
    axes = sorted({call.axis(axis, rank) for axis in stated} or range(rank))
    if axes[0] == 0:
        raise call.unsupported("takes the mean over the batch axis")
    reduced = [axis - 1 for axis in axes]
    kept = [axis for axis in range(rank - 1) if axis not in reduced]
    if kept + reduced != list(range(rank - 1)):
        moved = tuple(value.shape[axis] for axis in kept + reduced)
        value = call.emit(Transpose(tuple(kept + reduced)), (value,), moved)
    size, rows = math.prod(value.shape[len(kept) :]), math.prod(value.shape[: len(kept)])
    flat = call.reshape(value, (1, 1, rows, size))
    op = AveragePool((1, size), (1, 1), (0, 0, 0, 0), count_include_pad=False)
    means = call.emit(op, (flat,), (1, rows, 1))
    shape = iter(value.shape)
    keep = bool(call.integer("keepdims", 1))
    sizes = [next(shape) if axis in kept else 1 for axis in range(rank - 1) if axis in kept or keep]
    return call.reshape(means, (1, *sizes))


_WINDOW = frozenset({"kernel_shape", "strides", "pads", "auto_pad", "ceil_mode", "dilations"})

RULES: dict[str, tuple[Callable[[Call], Traced], frozenset[str]]] = {
    "MaxPool": (max_pool, _WINDOW | {"storage_order"}),
    "AveragePool": (average_pool, _WINDOW | {"count_include_pad"}),
    "GlobalAveragePool": (global_average_pool, frozenset()),
    "ReduceMean": (reduce_mean, frozenset({"axes", "keepdims", "noop_with_empty_axes"})),
}
