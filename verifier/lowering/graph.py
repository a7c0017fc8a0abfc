"""From the typed graph to the canonical form."""

import math
from functools import lru_cache

from verifier.canonical import CanonicalNetwork
from verifier.errors import UnsupportedOpError
from verifier.lowering.fusion import fuse
from verifier.lowering.rules import RULES, Builder, Step
from verifier.network import Network


@lru_cache(maxsize=8)
def lower(network: Network) -> CanonicalNetwork:
    """The canonical form of a network's scores (before its head): equal to the typed graph as a real function.

    Reshapes vanish, everything linear becomes a term of an `Affine`, LeakyReLU is slope * x + (1 - slope) * max(x, 0), a
    MaxPool and the ReLU next to it are one `Max` with a floor. The usual conv-relu-maxpool-flatten-gemm network has exactly the
    nodes Affine, Relu, Affine, Max, Affine.

    Soundness: weights that are kept are exact. These constants are rounded to nearest in float64, so that the canonical form
    differs from the file by a relative 2^-53 each: a BatchNormalization's factor and offset, what it, a Mul or a Div scales
    (weights and biases of the neighbouring affine maps), a Div's reciprocal, the 1 / n of an average, 1 - slope of a LeakyReLU,
    and sums of biases. Proofs on this form list `TrustedClaim.FLOAT64_ROUNDING` for it; `verifier.check` works on the typed
    graph instead.

    Args:
        network: Any imported network. The result is cached for the last few network objects.

    Raises:
        UnsupportedOpError: An operation has no rule, or a pooling window lies entirely in its padding; the message names
            the node.
    """
    for node in network.nodes:
        if type(node.op) not in RULES:
            supported = ", ".join(sorted(op.__name__ for op in RULES))
            raise UnsupportedOpError(
                f"node {node.name!r} ({type(node.op).__name__}) has no canonical form; supported: {supported}"
            )
    builder = Builder()
    values = [0]
    for index, node in enumerate(network.nodes):
        in_shapes = tuple(network.value_shape(value) for value in node.inputs)
        step = Step(index, node.name, tuple(values[value] for value in node.inputs), in_shapes, node.shape)
        values.append(RULES[type(node.op)](node.op, step, builder))
    input_size = math.prod(network.input_shape)
    return CanonicalNetwork(input_size, tuple(fuse(builder.nodes, values[-1], input_size)))
