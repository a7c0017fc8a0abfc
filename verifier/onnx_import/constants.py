"""Constants computed in the file from other constants, folded by ONNX's reference implementation.

Old exporters write chains such as Shape, Gather, Concat, Reshape. The batch axis has size one, so they are plain integers.
Arithmetic between float constants rounds to float32, as the file asks: its result is a weight of the network.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

# Deterministic and independent of the run-time environment.
# fmt: off
FOLDABLE_OPS = frozenset(
    {
        "Abs", "Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand",
        "Flatten", "Floor", "Gather", "Identity", "Mod", "Mul", "Neg", "Pad", "Range", "ReduceMax",
        "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Shape", "Size", "Slice", "Split", "Sqrt",
        "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
    }
)
# fmt: on


def fold(node: onnx.NodeProto, opset: int, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a node whose inputs are all constants.

    Args:
        node: A node whose type is in `FOLDABLE_OPS`.
        opset: Of the file.
        arrays: One per input that is given, in order.

    Returns:
        One array per output.

    Raises:
        Exception: Whatever the reference implementation raises when the inputs do not fit.
    """
    names = [name for name in node.input if name]
    types = onnx.helper.np_dtype_to_tensor_dtype
    inputs = {
        name: onnx.helper.make_tensor_value_info(name, types(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
    }
    outputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
    graph = onnx.helper.make_graph([node], "constant", list(inputs.values()), outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    return [np.asarray(result) for result in results]
