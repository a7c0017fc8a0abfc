"""The label graph by its formulas, the head by plain NumPy, and the folded network in ONNX Runtime and in the verifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from nets.architectures import architecture, build
from nets.export import export_onnx
from nets.label_graph import GraphHead, LabelGraph, conditional_occurrence, folded, label_adjacency, with_graph_head
from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.lowering import lower
from verifier.onnx_import import load_network

# Label 0 in three images, with label 1 in two of them; label 2 in one image alone; label 3 never.
TARGETS = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_conditional_occurrence_by_hand() -> None:
    found = conditional_occurrence(TARGETS)
    torch.testing.assert_close(
        found, torch.tensor([[1.0, 2 / 3, 0, 0], [1.0, 1, 0, 0], [0.0, 0, 1, 0], [0.0, 0, 0, 0]])
    )


def test_the_threshold_makes_the_graph_directed_and_rows_are_reweighted() -> None:
    # At 0.7 label 0 is a neighbour of label 1 (probability 1), not the other way round (2/3).
    found = label_adjacency(TARGETS, LabelGraph(threshold=0.7, neighbour_weight=0.25))
    scale = [0.75**-0.5, 1.0, 0.75**-0.5, 0.75**-0.5]
    weighted = np.diag([0.75] * 4)
    weighted[1, 0] = 0.25
    np.testing.assert_allclose(found.numpy(), np.diag(scale) @ weighted @ np.diag(scale), rtol=1e-6)


@pytest.mark.parametrize("embedding", [0, 5])
def test_the_head_is_its_formula_and_folds_into_one_linear_layer(embedding: int) -> None:
    options = LabelGraph(threshold=0.5, hidden=6, embedding=embedding)
    head = GraphHead(7, label_adjacency(TARGETS, options), options, seeded())
    graph = head.adjacency.numpy().astype(np.float64)
    start = head.embeddings.detach().numpy() if embedding else np.eye(4)
    hidden = graph @ start @ head.first.weight.detach().numpy().T
    weight = graph @ np.where(hidden > 0, hidden, 0.2 * hidden) @ head.second.weight.detach().numpy().T
    features = torch.randn(3, 7, generator=seeded(1))
    np.testing.assert_allclose(head(features).detach().numpy(), features.numpy() @ weight.T, rtol=1e-4, atol=1e-5)
    assert torch.equal(head(features), head.folded()(features))
    head(features).sum().backward()
    learned = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert all(parameter.grad.any() for name, parameter in head.named_parameters() if name in learned)
    assert learned == {"first.weight", "second.weight", *(["embeddings"] if embedding else [])}


@pytest.mark.parametrize("name", ["cnn4k", "strided3"])
def test_the_folded_file_answers_as_the_torch_network_everywhere(name: str, tmp_path: Path) -> None:
    targets = (torch.rand(50, 10, generator=seeded(2)) < 0.3).float()
    options = LabelGraph(threshold=0.3, embedding=8)
    network = with_graph_head(build(architecture(name), seeded()), targets, options, seeded(1))
    path = tmp_path / "network.onnx"
    export_onnx(folded(network), path)
    assert [node.op_type for node in onnx.load(path).graph.node].count("Gemm") == 1
    images = np.random.default_rng(0).random((5, 1, 64, 64), dtype=np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(images)).numpy()
    (scores,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": images})
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    typed = load_network(path)
    np.testing.assert_allclose(evaluate(typed, images.astype(np.float64)), wanted, atol=1e-5)
    canonical = lower(typed)
    np.testing.assert_allclose(canonical.evaluate(images.reshape(5, -1))[-1], wanted, atol=1e-5)


def test_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="wanted threshold"):
        LabelGraph(threshold=0.0)
    with pytest.raises(InputError, match="neighbour_weight"):
        LabelGraph(neighbour_weight=1.0)
    with pytest.raises(InputError, match="hidden of 1 or more"):
        LabelGraph(hidden=0)
    with pytest.raises(InputError, match="wanted a linear one with 4 outputs"):
        with_graph_head(nn.Sequential(nn.Linear(3, 5)), TARGETS, LabelGraph(), seeded())
