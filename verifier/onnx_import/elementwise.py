"""Rules of the operations that act entry by entry: arithmetic with constants, residual sums, normalisation, activations."""

from collections.abc import Callable

import numpy as np
import onnx
from jaxtyping import Float32

from verifier.errors import ImportedNetworkError
from verifier.network import (
    Add,
    AddConstant,
    BatchNorm,
    DivConstant,
    LeakyRelu,
    MulConstant,
    Op,
    Relu,
    Subtract,
)
from verifier.onnx_import.call import Call, Traced, frozen32
from verifier.onnx_import.source import type_name


def _aligned(call: Call, index: int, value: Traced) -> Float32[np.ndarray, "..."]:
    """The constant input, without its batch axis, checked to broadcast to the value's shape."""
    constant = call.weight(index)
    fitted = constant[0] if constant.ndim == len(value.shape) + 1 and len(constant) == 1 else constant
    try:
        fits = np.broadcast_shapes(fitted.shape, value.shape) == value.shape
    except ValueError:
        fits = False
    if not fits:
        raise call.unsupported(f"a constant of shape {constant.shape} does not broadcast to {(1, *value.shape)}")
    return frozen32(np.asarray(fitted))


def _unary(call: Call, op: Op, value: Traced) -> Traced:
    return call.emit(op, (value,), value.shape)


def _residual(call: Call, op: Add | Subtract) -> Traced:
    first, second = call.traced(0), call.traced(1)
    if first.shape != second.shape:
        raise call.unsupported(f"values of shapes {first.shape} and {second.shape}; wanted equal shapes")
    return call.emit(op, (first, second), first.shape)


def _constant_index(call: Call) -> int | None:
    """Which of two inputs is a constant; None if both depend on the image."""
    return next((index for index in (0, 1) if not isinstance(call.inputs[index], Traced)), None)


def add(call: Call) -> Traced:
    """Add of a constant, or of two values of one shape."""
    index = _constant_index(call)
    if index is None:
        return _residual(call, Add())
    value = call.traced(1 - index)
    return _unary(call, AddConstant(_aligned(call, index, value)), value)


def subtract(call: Call) -> Traced:
    """X - c as x + (-c), c - x as (-1) x + c, or two values of one shape; all exact."""
    index = _constant_index(call)
    if index is None:
        return _residual(call, Subtract())
    value = call.traced(1 - index)
    constant = _aligned(call, index, value)
    if index == 1:
        return _unary(call, AddConstant(frozen32(np.asarray(-constant))), value)
    return _unary(call, AddConstant(constant), negate_value(call, value))


def multiply(call: Call) -> Traced:
    """Mul by a constant."""
    index = _constant_index(call)
    if index is None:
        raise call.unsupported("the product of two values that depend on the image is not piecewise linear")
    value = call.traced(1 - index)
    return _unary(call, MulConstant(_aligned(call, index, value)), value)


def divide(call: Call) -> Traced:
    """Div by a constant without zeros."""
    if isinstance(call.inputs[1], Traced):
        raise call.unsupported("a divisor that depends on the image is not piecewise linear")
    value = call.traced(0)
    divisor = _aligned(call, 1, value)
    if not divisor.all():
        raise ImportedNetworkError(
            f"{call.title}: '{call.input_names[1]}' holds a zero, wanted a divisor without zeros"
        )
    return _unary(call, DivConstant(divisor), value)


def negate_value(call: Call, value: Traced) -> Traced:
    """(-1) x."""
    return _unary(call, MulConstant(frozen32(np.array(-1.0))), value)


def negate(call: Call) -> Traced:
    """Neg."""
    return negate_value(call, call.traced(0))


def batch_normalization(call: Call) -> Traced:
    """BatchNormalization with its stored statistics."""
    if call.integer("training_mode", 0):
        raise call.unsupported("training_mode is 1; export the network in evaluation mode")
    if call.integer("spatial", 1) != 1:
        raise call.unsupported("spatial is 0; only one mean and variance per channel are supported")
    value = call.traced(0)
    scale, shift, mean, variance = (call.weight(index) for index in range(1, 5))
    channels = value.shape[0] if value.shape else 0
    if any(part.shape != (channels,) for part in (scale, shift, mean, variance)):
        raise call.unsupported(f"parameters of shape {scale.shape} do not fit {channels} channels")
    epsilon = call.number("epsilon", 1e-5)
    if float(variance.min(initial=np.inf)) + epsilon <= 0.0:
        raise ImportedNetworkError(f"{call.title}: a variance plus epsilon is not positive")
    return _unary(call, BatchNorm(scale, shift, mean, variance, epsilon), value)


def relu(call: Call) -> Traced:
    """Relu."""
    return _unary(call, Relu(), call.traced(0))


def leaky_relu(call: Call) -> Traced:
    """LeakyRelu."""
    return _unary(call, LeakyRelu(call.number("alpha", 0.01)), call.traced(0))


def identity(call: Call) -> Traced:
    """Identity."""
    return call.traced(0)


def dropout(call: Call) -> Traced:
    """Dropout, which does nothing at inference."""
    if call.has_input(2) and call.constant(2).any():
        raise call.unsupported("training_mode is true; export the network in evaluation mode")
    return call.traced(0)


def cast(call: Call) -> Traced:
    """Cast from float32 to float32."""
    target = call.integer("to", 0)
    if target != onnx.TensorProto.FLOAT:
        raise call.unsupported(
            f"casts values that depend on the image to {type_name(target)}; only float32 is supported"
        )
    return call.traced(0)


RULES: dict[str, tuple[Callable[[Call], Traced], frozenset[str]]] = {
    "Add": (add, frozenset()),
    "Sub": (subtract, frozenset()),
    "Mul": (multiply, frozenset()),
    "Div": (divide, frozenset()),
    "Neg": (negate, frozenset()),
    "BatchNormalization": (batch_normalization, frozenset({"epsilon", "momentum", "spatial", "training_mode"})),
    "Relu": (relu, frozenset()),
    "LeakyRelu": (leaky_relu, frozenset({"alpha"})),
    "Identity": (identity, frozenset()),
    "Dropout": (dropout, frozenset({"ratio", "seed"})),
    "Cast": (cast, frozenset({"to", "saturate", "round_mode"})),
}
