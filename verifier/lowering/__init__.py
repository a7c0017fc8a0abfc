"""The one lowering pass: from the typed graph of an ONNX file to affine maps, ReLU and Max."""

from verifier.lowering.graph import lower

__all__ = ["lower"]
