"""A network under training as the bound rules see it: `verifier.bounds` graphs whose weights are the layers' own tensors.

The canonical form is taken once, from the network's ONNX form; windows, shapes and order are the verifier's. Only the weights are
live, so that interval bounds and CROWN's walk are differentiable in them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from nets.composer import DOUBLE_MNIST, Canvas
from nets.export import to_onnx
from nets.label_graph import GraphHead, folded
from verifier.bounds.graph import TorchGraph, torch_graph
from verifier.bounds.linear_maps import TorchMap
from verifier.canonical import Affine, CanonicalNetwork, ConvolutionMap, DenseMap
from verifier.errors import InputError
from verifier.lowering import lower
from verifier.onnx_import import load_network_bytes

_Layer = nn.Conv2d | nn.Linear | GraphHead


class LiveGraph:
    """Bound graphs of a sequential network, always with its present weights.

    Attributes:
        canonical: The network's canonical form; its weights are those at construction, its shapes hold.

    Raises:
        ExportError: a layer has no ONNX form.
        InputError: the layers and the canonical form do not correspond one to one.
    """

    def __init__(self, network: nn.Sequential, canvas: Canvas = DOUBLE_MNIST) -> None:
        self.canonical = lower(
            load_network_bytes(to_onnx(folded(network), canvas).SerializeToString(), "network in training")
        )
        self._windows = torch_graph(self.canonical, dtype=torch.float32).windows
        layers = [layer for layer in network if isinstance(layer, _Layer)]
        nodes = [index for index, node in enumerate(self.canonical.nodes) if isinstance(node, Affine)]
        if len(layers) != len(nodes):
            raise InputError(
                f"live graph: {len(layers)} layers with weights became {len(nodes)} affine maps; wanted equal"
            )
        self._layers = dict(zip(nodes, layers, strict=True))
        for index, layer in self._layers.items():
            _check(self.canonical, index, layer)

    def graph(self) -> TorchGraph:
        """The network as the bound rules read it; gradients flow to the layers' parameters."""
        maps: dict[int, tuple[TorchMap, ...]] = {}
        biases: dict[int, Tensor] = {}
        for index, layer in self._layers.items():
            node = self.canonical.nodes[index]
            weight, bias = _parameters(layer)
            biases[index] = bias.repeat_interleave(node.size // len(bias))
            maps[index] = (_map(node, layer, weight),)
        return TorchGraph(self.canonical, maps, biases, self._windows)


def _parameters(layer: _Layer) -> tuple[Tensor, Tensor]:
    weight = layer.weight() if isinstance(layer, GraphHead) else layer.weight
    bias = None if isinstance(layer, GraphHead) else layer.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias


def _map(node: object, layer: _Layer, weight: Tensor) -> TorchMap:
    """The layer's linear map with this weight: forward, transposed, and forward with absolute values."""
    if not isinstance(layer, nn.Conv2d):
        return TorchMap(lambda x: x @ weight.T, lambda rows: rows @ weight, lambda x: x @ weight.abs().T)
    linear = _convolution(node)
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    if isinstance(padding, str):
        raise InputError(f"live graph: {layer} has padding {padding!r}; wanted it in pixels")

    def run(kernel: Tensor, x: Tensor) -> Tensor:
        images = functional.conv2d(x.reshape(-1, *linear.in_shape), kernel, None, stride, padding, dilation, groups)
        return images.reshape(*x.shape[:-1], linear.out_size)

    def transpose(rows: Tensor) -> Tensor:
        images = rows.reshape(-1, *linear.out_shape)
        spread = conv2d_input((len(images), *linear.in_shape), weight, images, stride, padding, dilation, groups)
        return spread.reshape(*rows.shape[:-1], linear.in_size)

    return TorchMap(lambda x: run(weight, x), transpose, lambda x: run(weight.abs(), x))


def _convolution(node: object) -> ConvolutionMap:
    if isinstance(node, Affine) and len(node.terms) == 1 and isinstance(node.terms[0][0], ConvolutionMap):
        return node.terms[0][0]
    raise InputError(f"live graph: a convolution became {node}; wanted one convolution of one value")


def _check(canonical: CanonicalNetwork, index: int, layer: _Layer) -> None:
    """Refuses a node that does not compute what the layer computes."""
    node = canonical.nodes[index]
    if not isinstance(node, Affine) or len(node.terms) != 1:
        raise InputError(f"live graph: node {index} is {node}; wanted an affine map of one value")
    linear, _ = node.terms[0]
    weight, bias = (part.detach().to(torch.float64) for part in _parameters(layer))
    wanted = ConvolutionMap if isinstance(layer, nn.Conv2d) else DenseMap
    if not isinstance(linear, wanted) or not torch.equal(torch.tensor(linear.weight), weight):
        raise InputError(f"live graph: node {index} has other weights than {layer}; wanted the same")
    if not torch.equal(torch.tensor(node.bias), bias.repeat_interleave(node.size // len(bias))):
        raise InputError(f"live graph: node {index} has another bias than {layer}; wanted the same")
