"""Rules of the operations that multiply by a weight matrix or kernel: Conv, Gemm, MatMul."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from verifier.network import AddConstant, Array32, Conv, Dense, MulConstant, Transpose
from verifier.onnx_import.call import Call, Traced, frozen32
from verifier.onnx_import.window import resolve_window


def conv(call: Call) -> Traced:
    """Conv with any groups, strides, dilations and pads, over two spatial axes."""
    image, weight = call.traced(0), call.weight(1)
    if weight.ndim != 4 or len(image.shape) != 3:
        raise call.unsupported(
            f"kernel of {weight.ndim - 2} spatial axes over an image of shape {image.shape}; only 2-D convolutions are supported"
        )
    groups = call.integer("group", 1)
    outputs, per_group, *kernel = weight.shape
    if groups < 1 or per_group * groups != image.shape[0] or outputs % groups:
        raise call.unsupported(f"weights {weight.shape} in {groups} groups do not fit {image.shape[0]} channels")
    if call.integers("kernel_shape", tuple(kernel)) != tuple(kernel):
        raise call.unsupported(f"kernel_shape {call.integers('kernel_shape', ())} contradicts weights {weight.shape}")
    window = resolve_window(call, image.shape[1:], (kernel[0], kernel[1]))
    bias = call.weight(2) if call.has_input(2) else frozen32(np.zeros(outputs))
    if bias.shape != (outputs,):
        raise call.unsupported(f"bias {bias.shape} does not fit {outputs} output channels")
    op = Conv(weight, bias, window.strides, window.pads, window.dilations, groups)
    return call.emit(op, (image,), (outputs, *window.output))


def gemm(call: Call) -> Traced:
    """Gemm: alpha A B + beta C with constant B and C, alpha and beta kept exactly."""
    rows = call.traced(0)
    if len(rows.shape) != 1 or call.integer("transA", 0):
        raise call.unsupported(
            f"A has shape {(1, *rows.shape)}, transA {call.integer('transA', 0)}; wanted (1, n) and 0"
        )
    weight = call.weight(1) if call.integer("transB", 0) else call.weight(1).T
    if weight.ndim != 2 or weight.shape[1] != rows.shape[0]:
        raise call.unsupported(f"B of shape {call.weight(1).shape} does not fit rows of {rows.shape[0]} entries")
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    scaled = _exact_product(weight, alpha)
    high, low = _split_product(call, _gemm_offset(call, len(weight)), beta)
    if scaled is not None and not low.any():
        return call.emit(Dense(frozen32(scaled), high), (rows,), (len(weight),))
    zeros = frozen32(np.zeros(len(weight)))
    result = call.emit(Dense(frozen32(weight if scaled is None else scaled), zeros), (rows,), (len(weight),))
    if scaled is None:
        result = call.emit(MulConstant(frozen32(np.array(alpha))), (result,), result.shape)
    for part in (high, low):
        if part.any():
            result = call.emit(AddConstant(part), (result,), result.shape)
    return result


def _gemm_offset(call: Call, outputs: int) -> Float32[np.ndarray, " outputs"]:
    if not call.has_input(2):
        return frozen32(np.zeros(outputs))
    offset = call.weight(2)
    if offset.ndim > 2 or (offset.ndim == 2 and len(offset) != 1) or offset.size not in (1, outputs):
        raise call.unsupported(f"C of shape {offset.shape} does not fit (1, {outputs})")
    return np.broadcast_to(offset.reshape(-1), (outputs,))


def _exact_product(array: Array32, factor: float) -> Array32 | None:
    """Array * factor if float32 holds it exactly, else None. The product of two float32 is exact in float64."""
    exact = array.astype(np.float64) * factor
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    return rounded if (rounded == exact).all() else None


def _split_product(call: Call, array: Array32, factor: float) -> tuple[Array32, Array32]:
    """Two float32 arrays whose exact sum is array * factor."""
    exact = array.astype(np.float64) * factor
    with np.errstate(over="ignore"):
        high = exact.astype(np.float32)
        low = (exact - high).astype(np.float32)
    if not (np.isfinite(high).all() and (high.astype(np.float64) + low == exact).all()):
        raise call.unsupported(f"beta {factor} times C is not a sum of two float32 numbers; use beta 1")
    return frozen32(high), frozen32(low)


def matmul(call: Call) -> Traced:
    """MatMul by a constant matrix, on either side; on the left only where it does not mix images."""
    if isinstance(call.inputs[0], Traced):
        value, matrix = call.traced(0), _matrix(call, 1, call.traced(0))
        if matrix.shape[0] != value.shape[-1]:
            raise call.unsupported(f"a matrix {matrix.shape} does not fit rows of {value.shape[-1]} entries")
        return _dense(call, value, frozen32(matrix.T))
    value = call.traced(1)
    matrix = _matrix(call, 0, value)
    if len(value.shape) < 2 or matrix.shape[1] != value.shape[-2]:
        raise call.unsupported(f"a constant {matrix.shape} from the left does not fit values {(1, *value.shape)}")
    return _swap_last(call, _dense(call, _swap_last(call, value), matrix))


def _matrix(call: Call, index: int, value: Traced) -> Float32[np.ndarray, "rows columns"]:
    matrix = call.weight(index)
    while matrix.ndim > 2 and len(matrix) == 1 and matrix.ndim <= len(value.shape) + 1:
        matrix = matrix[0]
    if matrix.ndim != 2 or not value.shape:
        raise call.unsupported(f"a constant of shape {call.weight(index).shape}, wanted a matrix")
    return matrix


def _dense(call: Call, value: Traced, weight: Float32[np.ndarray, "out in"]) -> Traced:
    zeros = frozen32(np.zeros(len(weight)))
    return call.emit(Dense(weight, zeros), (value,), (*value.shape[:-1], len(weight)))


def _swap_last(call: Call, value: Traced) -> Traced:
    *kept, last, before = range(len(value.shape))
    permutation = (*kept, before, last)
    return call.emit(Transpose(permutation), (value,), tuple(value.shape[axis] for axis in permutation))


RULES: dict[str, tuple[Callable[[Call], Traced], frozenset[str]]] = {
    "Conv": (conv, frozenset({"kernel_shape", "strides", "pads", "auto_pad", "dilations", "group"})),
    "Gemm": (gemm, frozenset({"alpha", "beta", "transA", "transB"})),
    "MatMul": (matmul, frozenset()),
}
