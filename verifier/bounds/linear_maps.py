"""Linear maps on batches of torch vectors, forwards and transposed: a table from map type to its two rules.

All tensors are (..., size) with the value's flat vector last; both directions are differentiable in the vector.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from verifier.canonical import ConvolutionMap, DenseMap, LinearMap, SparseMap

Rule = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class TorchMap:
    """One linear map on one device and in one dtype.

    Attributes:
        forward: (..., in) -> (..., out).
        transpose: (..., out) -> (..., in): row vectors times the matrix.
        forward_absolute: As `forward` with the entries' absolute values.
    """

    forward: Rule
    transpose: Rule
    forward_absolute: Rule


def _convolution(linear: ConvolutionMap, device: torch.device, dtype: torch.dtype) -> TorchMap:
    weight = torch.tensor(linear.weight, device=device, dtype=dtype)
    absolute = weight.abs()
    top, left, bottom, right = linear.pads
    stride, dilation, groups = linear.strides, linear.dilations, linear.groups
    height, width = linear.in_shape[1:]
    spans = [
        (out - 1) * step + gap * (size - 1) + 1
        for out, step, gap, size in zip(linear.out_shape[1:], stride, dilation, weight.shape[2:], strict=True)
    ]

    def run(kernel: Tensor, x: Tensor) -> Tensor:
        images = functional.pad(x.reshape(-1, *linear.in_shape), (left, right, top, bottom))
        result = functional.conv2d(images, kernel, stride=stride, dilation=dilation, groups=groups)
        return result.reshape(*x.shape[:-1], linear.out_size)

    def transpose(rows: Tensor) -> Tensor:
        images = rows.reshape(-1, *linear.out_shape)
        spread = functional.conv_transpose2d(images, weight, stride=stride, dilation=dilation, groups=groups)
        # Negative amounts crop the padding away; positive ones add the input rows that no window reaches.
        cropped = functional.pad(spread, (-left, width + left - spans[1], -top, height + top - spans[0]))
        return cropped.reshape(*rows.shape[:-1], linear.in_size)

    return TorchMap(lambda x: run(weight, x), transpose, lambda x: run(absolute, x))


def _dense(linear: DenseMap, device: torch.device, dtype: torch.dtype) -> TorchMap:
    weight = torch.tensor(linear.weight, device=device, dtype=dtype)
    absolute = weight.abs()
    return TorchMap(lambda x: x @ weight.T, lambda rows: rows @ weight, lambda x: x @ absolute.T)


def _sparse_rule(matrix: sparse.csr_array, device: torch.device, dtype: torch.dtype) -> Rule:
    """Vectors x -> matrix @ x."""
    entries = matrix.tocoo()
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64)).to(device)
    values = torch.tensor(entries.data, device=device, dtype=dtype)
    held = torch.sparse_coo_tensor(index, values, entries.shape, check_invariants=True).coalesce()

    def run(x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        return torch.sparse.mm(held, flat.T).T.reshape(*x.shape[:-1], entries.shape[0])

    return run


def _sparse(linear: SparseMap, device: torch.device, dtype: torch.dtype) -> TorchMap:
    entries = linear.entries
    rules = [_sparse_rule(matrix, device, dtype) for matrix in (entries, entries.T.tocsr(), abs(entries))]
    return TorchMap(*rules)


RULES: dict[type, Callable[..., TorchMap]] = {ConvolutionMap: _convolution, DenseMap: _dense, SparseMap: _sparse}


def torch_map(linear: LinearMap, device: torch.device, dtype: torch.dtype) -> TorchMap:
    """The map's rules on this device and in this dtype."""
    return RULES[type(linear)](linear, device, dtype)
