"""Files of both torch exporters, of a network that uses what people write in torch."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from verifier.evaluation import apply_head, evaluate
from verifier.network import Add, AveragePool, Conv, Head, MaxPool, Pad
from verifier.onnx_import import load_network, load_network_bytes

# Warnings of the exporters about themselves, and nothing else.
EXPORTERS_OWN_WARNINGS = [
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Constant folding - Only steps=1 can be constant folded:UserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
]


class Residual(nn.Module):
    """Conv, batch norm, padding, a residual sum, both poolings, a mean over the plane, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2)
        self.normalise = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.average = nn.AvgPool2d(2, stride=1, padding=1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4 * 16 + 4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        value = nn.functional.pad(image, (1, 2, 0, 1))
        value = torch.relu(self.normalise(self.first(value)))
        value = value + nn.functional.leaky_relu(self.second(value), 0.2)
        value = self.average(self.pool(value - 0.25))
        flat = value.view(value.size(0), -1)
        means = value.mean((2, 3))
        return self.last(self.drop(torch.cat([flat, means / 3.0], dim=1)))


def export(module: nn.Module, image: torch.Tensor, *, is_dynamo: bool, is_dynamic: bool) -> bytes:
    buffer = io.BytesIO()
    if is_dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if is_dynamic else None
        program = torch.onnx.export(module, (image,), dynamo=True, dynamic_shapes=shapes, verbose=False)
        program.save(buffer, external_data=False)
    else:
        axes = {"image": {0: "batch"}, "scores": {0: "batch"}} if is_dynamic else None
        torch.onnx.export(
            module, (image,), buffer, dynamo=False, input_names=["image"], output_names=["scores"], dynamic_axes=axes
        )
    return buffer.getvalue()


def check(module: nn.Module, shape: tuple[int, ...], *, is_dynamo: bool, is_dynamic: bool, head: Head = Head.NONE):
    module.eval()
    images = torch.rand((3, *shape), generator=torch.Generator().manual_seed(0))
    data = export(module, images[: 2 if is_dynamic else 1], is_dynamo=is_dynamo, is_dynamic=is_dynamic)
    network = load_network_bytes(data, "torch.onnx")
    with torch.no_grad():
        expected = module(images).numpy()
    actual = apply_head(network.head, evaluate(network, images.numpy()))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert network.head is head
    return network


def seeded(build):
    torch.manual_seed(0)
    module = build()
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return module


class TestTorch:
    pytestmark = EXPORTERS_OWN_WARNINGS

    @pytest.mark.parametrize("is_dynamic", [False, True])
    @pytest.mark.parametrize("is_dynamo", [False, True])
    def test_residual_network(self, is_dynamo, is_dynamic) -> None:
        network = check(seeded(Residual), (1, 10, 9), is_dynamo=is_dynamo, is_dynamic=is_dynamic)
        kinds = {type(entry.op) for entry in network.nodes}
        assert {Add, AveragePool, MaxPool} <= kinds
        # The newer exporter merges the padding into the convolution.
        assert Pad in kinds or any(
            isinstance(entry.op, Conv) and entry.op.pads == (0, 1, 1, 2) for entry in network.nodes
        )

    @pytest.mark.parametrize("is_dynamo", [False, True])
    def test_sequential_with_softmax(self, is_dynamo) -> None:
        layers = [
            nn.Conv2d(1, 2, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2, 3),
            nn.Softmax(dim=1),
        ]
        check(
            seeded(lambda: nn.Sequential(*layers)), (1, 6, 6), is_dynamo=is_dynamo, is_dynamic=True, head=Head.SOFTMAX
        )


PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "published"


@pytest.mark.published
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published networks are not here")
def test_published_networks_load_and_rank_both_digits_first() -> None:
    archive = np.load(PUBLISHED / "dmnist-images.npz")
    images = (archive["images"] / 255.0).astype(np.float32)
    files = sorted(PUBLISHED.glob("*.onnx"))
    assert len(files) == 3
    for file in files:
        network = load_network(file)
        assert network.input_shape == (1, 64, 64)
        assert [type(entry.op).__name__ for entry in network.nodes] == [
            *["Conv", "Relu"] * 2, "MaxPool", "Reshape", "Dense"
        ]  # fmt: skip
        top = np.argsort(evaluate(network, images), axis=1)[:, -2:]
        truth = [set(map(int, pair)) for pair in onnx_labels(archive)]
        assert [set(map(int, pair)) for pair in top] == truth


def onnx_labels(archive) -> list[list[int]]:
    return json.loads(str(archive["labels"]))
