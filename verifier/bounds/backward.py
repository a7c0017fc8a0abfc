"""CROWN's backward walk with free parameters: dense, batched over regions and rows, differentiable.

A row is a linear function of one value. The walk replaces nonlinear nodes by planes from above or below, as the signs of the
row's coefficients ask, until the row reads the input alone (Zhang et al. 2018, CROWN; Xu et al. 2021, alpha-CROWN);
coefficients are added up per value, so any directed acyclic graph works.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounds.graph import TorchGraph
from verifier.bounds.interval import Interval
from verifier.bounds.relaxation import Relaxation, relax
from verifier.canonical import Affine


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """The free parameters of one node's planes, per row.

    Attributes:
        weights: (batch, rows or 1, size, width), of the planes below.
        fractions: (batch, rows or 1, size), of the planes above; a ReLU has nothing to choose there, its chord is the least plane.
    """

    weights: Tensor
    fractions: Tensor


def relaxations(graph: TorchGraph, known: Mapping[int, Interval]) -> dict[int, Relaxation]:
    """The relaxation of every ReLU and Max node whose input's bounds, (batch, size) each, are known."""
    found = {}
    for index, windows in graph.windows.items():
        node = graph.canonical.nodes[index]
        if not isinstance(node, Affine) and node.input in known:
            found[index] = relax(windows, *known[node.input])
    return found


def first_slopes(relaxed: Mapping[int, Relaxation], *, by_lower: bool = False) -> dict[int, Slopes]:
    """CROWN's parameters: shared by all rows."""
    return {
        index: Slopes(
            relaxation.first_weights(by_lower=by_lower).unsqueeze(1), relaxation.first_fraction().unsqueeze(1)
        )
        for index, relaxation in relaxed.items()
    }


def _through_maximum(relaxation: Relaxation, slopes: Slopes, rows: Tensor, input_size: int) -> tuple[Tensor, Tensor]:
    """Rows over a maximum become rows over its input, and constants.

    A coefficient of exactly 0 takes the plane below: any choice is sound, and its gradient is then that of a falling coefficient.
    """
    above, constant = relaxation.with_row_axis().plane_above(slopes.fractions)
    rises = rows > 0
    if relaxation.windows.is_identity:
        chosen = torch.where(rises, above.squeeze(-1), slopes.weights.squeeze(-1))
        return rows * chosen, (torch.relu(rows) * constant).sum(-1)
    chosen = torch.where(rises.unsqueeze(-1), above, slopes.weights)
    spread = relaxation.windows.scatter(rows.unsqueeze(-1) * chosen, input_size)
    return spread, (torch.where(rises, rows, 0.0) * constant).sum(-1)


def planes_over_input(
    graph: TorchGraph, relaxed: Mapping[int, Relaxation], slopes: Mapping[int, Slopes], value: int, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Upper planes over the input of rows over a value.

    Args:
        graph: The network.
        relaxed: A relaxation of every ReLU and Max node before `value`.
        slopes: Parameters within range for each of them.
        value: The value that the rows read.
        rows: (batch, rows, size of the value).

    Returns:
        coefficients (batch, rows, inputs) and constants (batch, rows).

    Soundness: rows @ value(x) <= coefficients @ x + constants for every x in the region that the relaxations hold for.
    """
    pending = {value: rows}
    constants = rows.new_zeros(rows.shape[:2])
    for index in range(value - 1, -1, -1):
        current = pending.pop(index + 1, None)
        if current is None:
            continue
        node = graph.canonical.nodes[index]
        if isinstance(node, Affine):
            constants = constants + current @ graph.biases[index]
            parts = [
                (read, rules.transpose(current)) for rules, read in zip(graph.maps[index], node.inputs, strict=True)
            ]
        else:
            size = graph.canonical.value_size(node.input)
            part, constant = _through_maximum(relaxed[index], slopes[index], current, size)
            constants = constants + constant
            parts = [(node.input, part)]
        for read, part in parts:
            pending[read] = pending[read] + part if read in pending else part
    inputs = graph.canonical.input_size
    return pending.get(0, rows.new_zeros((*rows.shape[:2], inputs))), constants


def concretise(coefficients: Tensor, constants: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The maximum (batch, rows) of planes over the boxes [lower, upper], (batch, inputs) each."""
    centre, radius = (0.5 * (lower + upper)).unsqueeze(-1), (0.5 * (upper - lower)).unsqueeze(-1)
    return constants + (coefficients @ centre + coefficients.abs() @ radius).squeeze(-1)


def corners(coefficients: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Where the planes attain that maximum, (batch, rows, inputs); the centre along inputs with coefficient 0."""
    lower, upper = lower.unsqueeze(1), upper.unsqueeze(1)
    return torch.where(coefficients > 0, upper, torch.where(coefficients < 0, lower, 0.5 * (lower + upper)))
