"""ONNX Runtime replays: what the file itself answers, in float32, without graph optimisations.

Images run one at a time, so that the scores of an image never depend on the images beside it and files with a fixed batch of
one work like all others.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import onnxruntime
from jaxtyping import Float32

from verifier.errors import ImportedNetworkError, InputError
from verifier.network import Network

_SESSIONS_KEPT = 16
_NO_LOGS = 4


@dataclass(frozen=True, slots=True)
class _File:
    """A file compared by its hash alone, so that the cache of sessions never compares megabytes."""

    sha256: str
    onnx_bytes: bytes = field(compare=False, repr=False)
    path: str = field(compare=False)


def first_line(error: Exception) -> str:
    """The first line of an error's text, for messages that stay one line long."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@lru_cache(maxsize=_SESSIONS_KEPT)
def _session(file: _File) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _NO_LOGS
    try:
        return onnxruntime.InferenceSession(file.onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ImportedNetworkError(f"{file.path}: ONNX Runtime cannot load it: {first_line(error)}") from error


def run(network: Network, images: Float32[np.ndarray, "batch *shape"]) -> Float32[np.ndarray, "batch labels"]:
    """The file's own output at each image as ONNX Runtime computes it, its head (softmax, sigmoid) included.

    Args:
        network: The network; its session is kept, by the file's hash, until 16 other files were run.
        images: One image a row of the network's input shape.

    Raises:
        InputError: The images are not float32 or have another shape.
        ImportedNetworkError: ONNX Runtime cannot load or run the file, or returns another shape than one score per label.
    """
    if images.dtype != np.float32 or images.shape[1:] != network.input_shape:
        wanted = ", ".join(map(str, network.input_shape))
        raise InputError(f"images: got {images.dtype} with shape {images.shape}, wanted float32 (batch, {wanted})")
    session = _session(_File(network.sha256, network.onnx_bytes, network.path))
    name = session.get_inputs()[0].name
    rows = np.empty((len(images), network.labels), dtype=np.float32)
    for row, image in zip(rows, images, strict=True):
        try:
            output = session.run(None, {name: image[None]})[0]
        except Exception as error:  # as above
            raise ImportedNetworkError(f"{network.path}: ONNX Runtime cannot run it: {first_line(error)}") from error
        if output.shape != (1, network.labels) or output.dtype != np.float32:
            raise ImportedNetworkError(
                f"{network.path}: ONNX Runtime returns {output.dtype} {output.shape}, wanted float32 (1, {network.labels})"
            )
        row[:] = output[0]
    return rows
