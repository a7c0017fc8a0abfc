"""A canonical network prepared for torch: one rule per map and the windows of every maximum, on one device, in one dtype."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from verifier.bounds.linear_maps import TorchMap, torch_map
from verifier.bounds.relaxation import WINDOWS, Windows
from verifier.canonical import Affine, CanonicalNetwork


@dataclass(frozen=True, slots=True, eq=False)
class TorchGraph:
    """The network's constants as tensors.

    Attributes:
        canonical: The network.
        maps: By Affine node, one rule per term.
        biases: By Affine node, (size,).
        windows: By ReLU or Max node.
    """

    canonical: CanonicalNetwork
    maps: dict[int, tuple[TorchMap, ...]]
    biases: dict[int, Tensor]
    windows: dict[int, Windows]

    def tensor(self, array: object) -> Tensor:
        """The array on this graph's device and in its dtype."""
        bias = self.biases[len(self.canonical.nodes) - 1]
        return torch.tensor(array, device=bias.device, dtype=bias.dtype)


CPU = torch.device("cpu")


@lru_cache(maxsize=8)
def torch_graph(
    canonical: CanonicalNetwork, device: torch.device = CPU, dtype: torch.dtype = torch.float64
) -> TorchGraph:
    """The network as tensors, built once per network object, device and dtype.

    Raises:
        TypeError: A node or map of a type the bound rules do not know.
    """
    maps: dict[int, tuple[TorchMap, ...]] = {}
    biases: dict[int, Tensor] = {}
    windows: dict[int, Windows] = {}
    for index, node in enumerate(canonical.nodes):
        if isinstance(node, Affine):
            maps[index] = tuple(torch_map(linear, device, dtype) for linear, _ in node.terms)
            biases[index] = torch.tensor(node.bias, device=device, dtype=dtype)
        elif type(node) in WINDOWS:
            windows[index] = WINDOWS[type(node)](node, canonical.value_size(node.input), device)
        else:
            raise TypeError(f"bounds: node {index} is {type(node).__name__}, wanted Affine, Relu or Max")
    return TorchGraph(canonical, maps, biases, windows)
