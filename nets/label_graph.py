"""ML-GCN: classifier weights produced by a graph convolution over the labels (Chen et al. 2019), folded away at export.

The graph says which labels occur together in training. It reads no image, so that after training the weights it produces are
constants: the head becomes one linear layer, and the network one that can be verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from verifier.errors import InputError

_LEAK: Final = 0.2


@dataclass(frozen=True, slots=True)
class LabelGraph:
    """The choices of an ML-GCN head.

    Attributes:
        threshold: label j is a neighbour of label i if P(j | i) is at least this (the paper's tau, eq. 7).
        neighbour_weight: what all neighbours of a label weigh together, the label itself weighing the rest (its p, eq. 8).
        hidden: the width between the two graph convolutions.
        embedding: the width of learned label embeddings; 0 for one-hot ones.
    """

    threshold: float = 0.05
    neighbour_weight: float = 0.2
    hidden: int = 32
    embedding: int = 0

    def __post_init__(self) -> None:
        """Refuse values that describe no graph."""
        if not (0 < self.threshold <= 1 and 0 <= self.neighbour_weight < 1):
            raise InputError(f"{self}: wanted threshold in (0, 1] and neighbour_weight in [0, 1)")
        if self.hidden < 1 or self.embedding < 0:
            raise InputError(f"{self}: wanted hidden of 1 or more and embedding of 0 or more")


def conditional_occurrence(targets: Tensor) -> Tensor:
    """P(j | i), (classes, classes): of the images with label i, the share that have label j; 0 for a label without images.

    Args:
        targets: (images, classes), 1 for a label and 0 for others.
    """
    together = targets.T @ targets
    return together / together.diagonal().clamp(min=1).unsqueeze(1)


def label_adjacency(targets: Tensor, options: LabelGraph) -> Tensor:
    """The normalised graph D^-1/2 A' D^-1/2, (classes, classes), of training targets (Chen et al. 2019, eqs. 2, 7 and 8).

    A'_ij is neighbour_weight over the number of i's neighbours for each neighbour j, 1 - neighbour_weight for i itself and 0
    elsewhere; D holds the sums of A's rows. Nobody is a neighbour of itself.
    """
    is_neighbour = (conditional_occurrence(targets) >= options.threshold).to(targets.dtype).fill_diagonal_(0)
    shared = options.neighbour_weight / is_neighbour.sum(dim=1, keepdim=True).clamp(min=1)
    weighted = is_neighbour * shared + (1 - options.neighbour_weight) * torch.eye(len(is_neighbour))
    scale = weighted.sum(dim=1).rsqrt()
    return scale.unsqueeze(1) * weighted * scale


class GraphHead(nn.Module):
    """Scores from features, with classifier weights that two graph convolutions make of label embeddings.

    W = A leaky(A E W1) W2 with slope 0.2, and scores = features W^T, without a bias (Chen et al. 2019, eqs. 2 to 4).
    """

    adjacency: Tensor

    def __init__(self, features: int, adjacency: Tensor, options: LabelGraph, generator: torch.Generator) -> None:
        super().__init__()
        classes = len(adjacency)
        self.in_features = features
        self.register_buffer("adjacency", adjacency.clone())
        is_learned = options.embedding > 0
        start = torch.randn(classes, options.embedding, generator=generator) if is_learned else torch.eye(classes)
        self.embeddings = nn.Parameter(start, requires_grad=is_learned)
        self.first = _drawn_linear(options.embedding or classes, options.hidden, generator)
        self.second = _drawn_linear(options.hidden, features, generator)

    def weight(self) -> Tensor:
        """The classifier weights (classes, features)."""
        hidden = functional.leaky_relu(self.adjacency @ self.first(self.embeddings), _LEAK)
        return self.adjacency @ self.second(hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Scores (batch, classes) of features (batch, features)."""
        return functional.linear(features, self.weight())

    def folded(self) -> nn.Linear:
        """The linear layer that gives the same scores now; it does not follow later changes of this head."""
        weight = self.weight().detach()
        with torch.device("meta"):
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer = layer.to_empty(device="cpu")
        layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
        return layer


def _drawn_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Weights uniform within 1 / sqrt(outputs), as graph convolutions are usually begun; no bias."""
    with torch.device("meta"):
        layer = nn.Linear(inputs, outputs, bias=False)
    layer = layer.to_empty(device="cpu")
    bound = outputs**-0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    return layer


def with_graph_head(
    network: nn.Sequential, targets: Tensor, options: LabelGraph, generator: torch.Generator
) -> nn.Sequential:
    """The network with its last linear layer replaced by an ML-GCN head over the graph of these training targets.

    Its other layers are shared, not copied.

    Raises:
        InputError: the last layer is not linear, or has another number of classes than the targets.
    """
    last = network[-1]
    if not isinstance(last, nn.Linear) or last.out_features != targets.shape[1]:
        raise InputError(f"graph head: the last layer is {last}; wanted a linear one with {targets.shape[1]} outputs")
    adjacency = label_adjacency(targets, options)
    return nn.Sequential(*list(network)[:-1], GraphHead(last.in_features, adjacency, options, generator))


def folded(network: nn.Sequential) -> nn.Sequential:
    """The network with every graph head folded into a linear layer; other layers are shared. The scores are the same."""
    return nn.Sequential(*(layer.folded() if isinstance(layer, GraphHead) else layer for layer in network))
