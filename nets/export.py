"""Writes a trained network as ONNX, or nothing at all when ONNX Runtime and torch disagree about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nets.architectures import CLASSES
from nets.composer import DOUBLE_MNIST, Canvas
from nets.files import write_bytes
from verifier.errors import AureoleError

OPSET: Final = 17
IR_VERSION: Final = 8
INPUT_NAME: Final = "image"
OUTPUT_NAME: Final = "scores"
TOLERANCE: Final = 1e-4
_TRIALS: Final = 16
_TRIAL_SEED: Final = 0


class ExportError(AureoleError):
    """A network cannot be written as ONNX, or its ONNX form answers differently; no file was written."""


def export_onnx(network: nn.Sequential, path: Path, canvas: Canvas = DOUBLE_MNIST) -> str:
    """Write `network` to `path` and return the SHA-256 of the file.

    The file is one ONNX graph (opset 17, float32, weights inside), input `image` [batch, 1, height, width],
    output `scores` [batch, 10], any batch size. Before anything is written, ONNX Runtime and torch agree within
    1e-4 (absolute, plus 1e-4 relative) on 16 random images. The file appears whole or not at all, and the
    same weights give the same bytes.

    Raises:
        ExportError: a layer has no ONNX rule, or the two disagree; `path` is left as it was.
    """
    content = to_onnx(network, canvas).SerializeToString(deterministic=True)
    _compare(network, content, canvas)
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def to_onnx(network: nn.Sequential, canvas: Canvas = DOUBLE_MNIST) -> onnx.ModelProto:
    """The ONNX form of a sequential network, checked for validity by onnx, compared with nothing.

    Raises:
        ExportError: a layer has no ONNX rule, or the network does not fit the canvas and ten scores.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    current = INPUT_NAME
    for index, layer in enumerate(network):
        rule = _RULES.get(type(layer))
        if rule is None:
            supported = ", ".join(sorted(kind.__name__ for kind in _RULES))
            raise ExportError(
                f"layer {index} ({type(layer).__name__}) has no ONNX rule; supported: {supported}. "
                "Add a rule to nets/export.py"
            )
        is_last = index == len(network) - 1
        produced = OUTPUT_NAME if is_last else f"{type(layer).__name__.lower()}_{index}_output"
        node, tensors = rule(layer, index, current, produced)
        nodes.append(node)
        weights.extend(tensors)
        current = produced
    graph = helper.make_graph(
        nodes,
        "aureole",
        [_value(INPUT_NAME, ["batch", 1, canvas.height, canvas.width])],
        [_value(OUTPUT_NAME, ["batch", CLASSES])],
        initializer=weights,
    )
    model = helper.make_model(
        graph, producer_name="aureole", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"not a valid ONNX graph for {canvas.height}x{canvas.width} images with {CLASSES} scores: {error}"
        ) from error
    return model


_Node = tuple[onnx.NodeProto, list[onnx.TensorProto]]
_Rule = Callable[[nn.Module, int, str, str], _Node]


def _pair(size: int | tuple[int, ...]) -> list[int]:
    """A torch size argument, an integer or a pair, as a pair."""
    return [size, size] if isinstance(size, int) else list(size)


def _with_weights(layer: nn.Module, index: int, op: str, source: str, produced: str, **attributes: Any) -> _Node:
    name = f"{op.lower()}_{index}"
    tensors = [
        numpy_helper.from_array(parameter.detach().to(torch.float32).numpy().copy(), f"{name}_{key}")
        for key, parameter in layer.named_parameters()
    ]
    inputs = [source, *(tensor.name for tensor in tensors)]
    return helper.make_node(op, inputs, [produced], name=name, **attributes), tensors


def _conv(layer: nn.Module, index: int, source: str, produced: str) -> _Node:
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ExportError(f"layer {index} ({layer}): wanted zero padding given in pixels")
    return _with_weights(
        layer,
        index,
        "Conv",
        source,
        produced,
        kernel_shape=_pair(layer.kernel_size),
        strides=_pair(layer.stride),
        pads=_pair(layer.padding) * 2,
        dilations=_pair(layer.dilation),
        group=layer.groups,
    )


def _linear(layer: nn.Module, index: int, source: str, produced: str) -> _Node:
    return _with_weights(layer, index, "Gemm", source, produced, transB=1)


def _relu(layer: nn.Module, index: int, source: str, produced: str) -> _Node:  # noqa: ARG001
    return helper.make_node("Relu", [source], [produced], name=f"relu_{index}"), []


def _flatten(layer: nn.Module, index: int, source: str, produced: str) -> _Node:
    if not isinstance(layer, nn.Flatten) or (layer.start_dim, layer.end_dim) != (1, -1):
        raise ExportError(f"layer {index} ({layer}): wanted Flatten of everything but the batch")
    return helper.make_node("Flatten", [source], [produced], name=f"flatten_{index}", axis=1), []


def _max_pool(layer: nn.Module, index: int, source: str, produced: str) -> _Node:
    if not isinstance(layer, nn.MaxPool2d) or layer.ceil_mode or _pair(layer.dilation) != [1, 1]:
        raise ExportError(f"layer {index} ({layer}): wanted MaxPool without ceil_mode and dilation")
    return (
        helper.make_node(
            "MaxPool",
            [source],
            [produced],
            name=f"maxpool_{index}",
            kernel_shape=_pair(layer.kernel_size),
            strides=_pair(layer.stride),
            pads=_pair(layer.padding) * 2,
        ),
        [],
    )


_RULES: Final[dict[type[nn.Module], _Rule]] = {
    nn.Conv2d: _conv,
    nn.Flatten: _flatten,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: _relu,
}


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _compare(network: nn.Sequential, content: bytes, canvas: Canvas) -> None:
    """Raise unless torch and ONNX Runtime agree on random images; a score that is not finite disagrees."""
    import onnxruntime

    draws = np.random.default_rng(_TRIAL_SEED)
    images = draws.random((_TRIALS, 1, canvas.height, canvas.width), dtype=np.float32)
    with torch.no_grad():
        ours = network(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (theirs,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
    if ours.shape != theirs.shape:
        raise ExportError(f"torch gives scores {ours.shape}, ONNX Runtime {theirs.shape}; nothing was written")
    gap = np.abs(ours - theirs)
    if not (gap <= TOLERANCE * (1 + np.abs(ours))).all():
        raise ExportError(
            f"torch and ONNX Runtime differ by {gap.max():.3g} on random images; wanted at most {TOLERANCE} "
            "(relative to scores above 1). Nothing was written: report this with the network"
        )
