"""ONNX files become typed networks here, or are refused by the name of the node that does not fit.

The file is read for one image: its batch axis has size one, so shape arithmetic folds to constants. What the importer returns was
compared with ONNX Runtime on that file.

- `source`: bytes to a checked model with one float32 input and one float32 output.
- `call`: one ONNX node as a rule sees it; the graph under construction.
- `linear`, `elementwise`, `window`, `pooling`, `shaping`: rules, one ONNX op each.
- `rules`: the table of them. `constants`: folding. `head`: the trailing softmax or sigmoid.
- `replay`: the comparison with ONNX Runtime. `loading`: the walk that puts these together.
"""

from verifier.onnx_import.loading import load_network, load_network_bytes
from verifier.onnx_import.rules import SUPPORTED_OPS
from verifier.onnx_import.source import NEWEST_OPSET, OLDEST_OPSET

__all__ = ["NEWEST_OPSET", "OLDEST_OPSET", "SUPPORTED_OPS", "load_network", "load_network_bytes"]
