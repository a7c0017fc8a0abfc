"""A canonical network as a torch module of the layers that auto-LiRPA knows: convolutions, linear maps, ReLU, max pooling, sums."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from verifier.canonical import Affine, CanonicalNetwork, ConvolutionMap, LinearMap, Max, Relu
from verifier.errors import SolverUnavailableError

_MOST_DENSE_ENTRIES = 8_000_000

Shape = tuple[int, ...]


def _refuse(index: int, what: str) -> SolverUnavailableError:
    return SolverUnavailableError(f"engine auto-lirpa: node {index} {what}; use --engine bounds, auto or milp")


class LirpaModule(nn.Module):
    """The network on one image at a time, shaped as its first convolution reads it; the scores come out as (1, labels).

    Raises:
        SolverUnavailableError: A node has no counterpart that auto-LiRPA bounds.
    """

    def __init__(self, canonical: CanonicalNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self._canonical = canonical
        self._shapes = value_shapes(canonical)
        self._layers = nn.ModuleDict()
        self._kernels: dict[int, tuple[int, int]] = {}
        for index, node in enumerate(canonical.nodes):
            if isinstance(node, Affine):
                self._add_affine(index, node, dtype)
            elif isinstance(node, Max):
                self._kernels[index] = _pooling_kernel(index, node, self._shapes[node.input])

    @property
    def input_shape(self) -> Shape:
        """The shape of the image that `forward` takes, without the batch axis."""
        return self._shapes[0]

    def _add_affine(self, index: int, node: Affine, dtype: torch.dtype) -> None:
        if not node.terms:
            raise _refuse(index, "is constant")
        for term, (linear, _) in enumerate(node.terms):
            layer = _layer(index, linear, np.asarray(node.bias) if term == 0 else np.zeros(node.size), dtype)
            self._layers[f"{index}_{term}"] = layer

    def forward(self, image: Tensor) -> Tensor:
        """The scores (1, labels) of an image (1, *input_shape)."""
        values = {0: image}
        for index, node in enumerate(self._canonical.nodes):
            if isinstance(node, Affine):
                parts = [
                    self._term(index, term, linear, values[read]) for term, (linear, read) in enumerate(node.terms)
                ]
                total = parts[0]
                for part in parts[1:]:
                    total = total + part
                values[index + 1] = total
            else:
                values[index + 1] = self._maximum(index, node, values[node.input])
        return values[len(self._canonical.nodes)]

    def _term(self, index: int, term: int, linear: LinearMap, value: Tensor) -> Tensor:
        layer = self._layers[f"{index}_{term}"]
        wanted = linear.in_shape if isinstance(layer, nn.Conv2d) and isinstance(linear, ConvolutionMap) else (-1,)
        result = layer(_shaped(value, wanted))
        return _shaped(result, self._shapes[index + 1])

    def _maximum(self, index: int, node: Relu | Max, value: Tensor) -> Tensor:
        if isinstance(node, Relu):
            return torch.relu(value)
        pooled = torch.relu(value) if node.has_floor else value
        return torch.max_pool2d(pooled, self._kernels[index], self._kernels[index])


def _shaped(value: Tensor, shape: Shape) -> Tensor:
    """The value under another shape; left alone where nothing changes, since each reshape costs auto-LiRPA a node."""
    if shape == (-1,):
        return value if value.ndim == 2 else value.flatten(1)
    return value if tuple(value.shape[1:]) == shape else value.reshape(1, *shape)


def value_shapes(canonical: CanonicalNetwork) -> dict[int, Shape]:
    """A shape for every value: that of a convolution which makes or reads it, kept by ReLU; flat otherwise."""
    shapes: dict[int, Shape] = {0: (canonical.input_size,)}
    for node in canonical.nodes:
        if isinstance(node, Affine) and 0 in node.inputs:
            readers = [
                linear.in_shape for linear, read in node.terms if read == 0 and isinstance(linear, ConvolutionMap)
            ]
            shapes[0] = readers[0] if readers else shapes[0]
    for index, node in enumerate(canonical.nodes):
        shapes[index + 1] = (node.size,)
        if isinstance(node, Affine):
            makers = [linear.out_shape for linear, _ in node.terms if isinstance(linear, ConvolutionMap)]
            shapes[index + 1] = makers[0] if makers else (node.size,)
        elif isinstance(node, Relu):
            shapes[index + 1] = shapes[node.input]
        elif len(shapes[node.input]) == 3:
            channels, height, width = shapes[node.input]
            factor = channels * height * width // node.size
            side = round(factor**0.5)
            if side and height % side == 0 and width % side == 0 and side * side == factor:
                shapes[index + 1] = (channels, height // side, width // side)
    return shapes


def _pooling_kernel(index: int, node: Max, shape: Shape) -> tuple[int, int]:
    """The square kernel of a pooling without overlap or padding whose windows these are."""
    side = round(node.windows.shape[1] ** 0.5)
    if len(shape) != 3 or not np.array_equal(np.sort(node.windows, axis=1), _square_windows(shape, side)):
        raise _refuse(index, "is a maximum other than square max pooling with stride = kernel and without padding")
    return side, side


def _square_windows(shape: Shape, side: int) -> Int[np.ndarray, "size width"]:
    channels, height, width = shape
    if not side or height % side or width % side:
        return np.zeros((0, 0), dtype=np.int64)
    grid = np.arange(channels * height * width).reshape(channels, height // side, side, width // side, side)
    return grid.transpose(0, 1, 3, 2, 4).reshape(-1, side * side)


def _layer(index: int, linear: LinearMap, bias: np.ndarray, dtype: torch.dtype) -> nn.Module:
    if isinstance(linear, ConvolutionMap):
        per_channel = bias.reshape(linear.out_shape[0], -1)
        is_symmetric = linear.pads[:2] == linear.pads[2:]
        if is_symmetric and (per_channel == per_channel[:, :1]).all():
            return _convolution(linear, per_channel[:, 0], dtype)
    if linear.in_size * linear.out_size > _MOST_DENSE_ENTRIES:
        raise _refuse(
            index, f"is a linear map of {linear.out_size} x {linear.in_size} entries without a layer of its own"
        )
    layer = nn.Linear(linear.in_size, linear.out_size, dtype=dtype)
    _set(layer, linear.matrix().toarray(), bias)
    return layer


def _convolution(linear: ConvolutionMap, bias: np.ndarray, dtype: torch.dtype) -> nn.Conv2d:
    layer = nn.Conv2d(
        linear.in_shape[0],
        linear.out_shape[0],
        (int(linear.weight.shape[2]), int(linear.weight.shape[3])),
        stride=linear.strides,
        padding=linear.pads[:2],
        dilation=linear.dilations,
        groups=linear.groups,
        dtype=dtype,
    )
    _set(layer, linear.weight, bias)
    return layer


def _set(layer: nn.Linear | nn.Conv2d, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(bias))
