"""The table of ONNX operations: type -> (rule, the attributes it understands). What is not in it is refused by name."""

from collections.abc import Mapping
from types import MappingProxyType

from verifier.network import Head
from verifier.onnx_import import elementwise, linear, pooling, shaping
from verifier.onnx_import.call import Call, Known, Rule
from verifier.runtime import first_line

RULES: Mapping[str, tuple[Rule, frozenset[str]]] = MappingProxyType(
    {**linear.RULES, **elementwise.RULES, **pooling.RULES, **shaping.RULES}
)

HEADS: Mapping[str, Head] = MappingProxyType(
    {"Softmax": Head.SOFTMAX, "LogSoftmax": Head.LOG_SOFTMAX, "Sigmoid": Head.SIGMOID}
)

SUPPORTED_OPS = tuple(sorted({*RULES, *HEADS, "Constant"}))


def translate(call: Call) -> Known:
    """What this node produces, its network nodes appended to the graph.

    Raises:
        UnsupportedOpError: The type has no rule, an attribute is unknown, or the rule refuses.
    """
    if call.op_type in HEADS:
        raise call.unsupported("supported only as the last operation, over the labels")
    if call.op_type not in RULES:
        raise call.unsupported(
            f"not supported on values that depend on the image; supported: {', '.join(SUPPORTED_OPS)}"
        )
    rule, understood = RULES[call.op_type]
    unknown = sorted(set(call.attributes) - understood)
    if unknown:
        raise call.unsupported(
            f"attribute '{unknown[0]}' is not supported; understood: {', '.join(sorted(understood)) or 'none'}"
        )
    try:
        return rule(call)
    except (ValueError, IndexError) as error:
        raise call.unsupported(f"its inputs or attributes do not fit: {first_line(error)}") from error
