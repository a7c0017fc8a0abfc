"""Exported networks answer as torch does, the same weights give the same bytes, and refusals write nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import nets.export
from nets.architectures import ARCHITECTURES, architecture, build
from nets.composer import TRIPLE_MNIST, Canvas
from nets.export import ExportError, export_onnx, to_onnx


def network(name: str) -> nn.Sequential:
    return build(architecture(name), torch.Generator().manual_seed(3)).requires_grad_(False)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_onnx_runtime_answers_as_torch_does_for_any_batch(name: str, tmp_path: Path) -> None:
    path, canvas = tmp_path / "sub" / "network.onnx", architecture(name).canvas
    sha256 = export_onnx(network(name), path, canvas)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, canvas.height, canvas.width]
    assert session.get_outputs()[0].shape == ["batch", 10]
    for batch in (1, 7):
        images = np.random.default_rng(batch).random((batch, 1, canvas.height, canvas.width), dtype=np.float32)
        (scores,) = session.run(["scores"], {"image": images})
        np.testing.assert_allclose(scores, network(name)(torch.from_numpy(images)).numpy(), rtol=1e-4, atol=1e-4)


def test_weights_are_kept_exactly_and_bytes_repeat(tmp_path: Path) -> None:
    exported = network("strided2")
    assert export_onnx(exported, tmp_path / "a.onnx") == export_onnx(exported, tmp_path / "b.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(stored["gemm_5_weight"], exported[5].weight.numpy())
    assert all(array.dtype == np.float32 for array in stored.values())
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)


def test_asymmetric_layers_are_exported_by_hand_checked_attributes() -> None:
    layers = nn.Sequential(
        nn.Conv2d(1, 2, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=False),
        nn.ReLU(),
        nn.MaxPool2d((2, 3), stride=1, padding=(0, 1)),
        nn.Flatten(),
        nn.Linear(676, 10),
    )
    conv, _, pool, *_ = to_onnx(layers, Canvas(28, 28, 1)).graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}
    assert attributes == {
        "kernel_shape": [3, 2],
        "strides": [2, 1],
        "pads": [1, 0, 1, 0],
        "dilations": [1, 2],
        "group": 1,
    }
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in pool.attribute}
    assert attributes == {"kernel_shape": [2, 3], "strides": [1, 1], "pads": [0, 1, 0, 1]}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Tanh(), r"layer 0 \(Tanh\) has no ONNX rule; supported: Conv2d, Flatten"),
        (nn.Conv2d(1, 1, 3, padding="same"), "wanted zero padding given in pixels"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "wanted zero padding"),
        (nn.MaxPool2d(2, ceil_mode=True), "without ceil_mode"),
        (nn.Flatten(2), "everything but the batch"),
    ],
)
def test_layers_without_a_rule_are_refused_and_nothing_is_written(
    layer: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export_onnx(nn.Sequential(layer), tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_does_not_take_the_canvas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not a valid ONNX graph for 84x84 images"):
        export_onnx(network("strided2"), tmp_path / "network.onnx", TRIPLE_MNIST)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_answers_differently_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = to_onnx(network("strided2"))
    bias = next(tensor for tensor in wrong.graph.initializer if tensor.name == "gemm_5_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, 1e-3, np.float32), bias.name))
    monkeypatch.setattr(nets.export, "to_onnx", lambda *_: wrong)
    kept = tmp_path / "network.onnx"
    kept.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=r"differ by 0\.001 .* Nothing was written"):
        export_onnx(network("strided2"), kept)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    assert kept.read_bytes() == b"earlier"


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = network("strided2")
    broken[5].bias[0] = float("nan")
    with pytest.raises(ExportError, match="differ by nan"):
        export_onnx(broken, tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []
