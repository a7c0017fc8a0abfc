"""From the search's windows, splits and parameters to those of certificates."""

import numpy as np
import torch
from torch import Tensor

from verifier.bounds import RegionBounds
from verifier.canonical import Affine
from verifier.network import Network
from verifier.proof import ParameterSet, Split, WindowGroup
from verifier.proof.quantise import group_parameters, parameter_set
from verifier.proof.records import operation_numbers
from verifier.search.domain import Split as SearchSplit
from verifier.search.naming import Naming
from verifier.search.planes import ReluPlanes
from verifier.search.rows import Rows
from verifier.search.skeleton import Skeleton


class Vocabulary:
    """Translates one skeleton's terms.

    Attributes:
        layout: The skeleton's windows, one group per stage; every tree shares this one object.
        naming: The skeleton's windows as those of the network.

    Raises:
        ValueError: A window comes from no operation of the file.
    """

    def __init__(self, network: Network, region: RegionBounds, skeleton: Skeleton) -> None:
        self.naming = Naming(region, skeleton)
        self._skeleton = skeleton
        operations = operations_of(network, region)
        self.layout = tuple(
            WindowGroup(
                operations[stage.node],
                np.asarray(stage.entries, dtype=np.int64),
                np.asarray(positions, dtype=np.int64),
                has_fractions=not stage.is_relu,
            )
            for stage, positions in zip(skeleton.stages, self.naming.positions, strict=True)
        )

    def split(self, split: SearchSplit) -> tuple[Split, bool]:
        """A split, and which of its sides this one is."""
        group = self.layout[split.stage]
        (named,) = self.naming.names([split])
        return Split(group.operation, int(group.windows[split.window]), named.alternatives), split.wins

    def parameters(self, rows: Rows, matrix: Tensor, column: int, bits: int) -> ParameterSet:
        """One row's parameters, which must lie in range.

        Args:
            rows: The rows.
            matrix: (size, batch).
            column: Which row.
            bits: As in `verifier.proof.quantise`.
        """
        held, groups = rows.layout.held(self._skeleton, matrix), []
        for planes, part in zip(rows.planes, held, strict=True):
            if isinstance(planes, ReluPlanes):
                on_z = torch.where(planes.free[:, column], part.weights[:, column], planes.below[:, column])
                beta, sign = part.multipliers[:, column], planes.sign[:, column]
                # A ReLU kept active has y - 0 >= 0 as its constraint, one kept inactive y - z >= 0.
                slots = torch.stack([torch.where(sign < 0, beta, 0.0), torch.where(sign > 0, beta, 0.0)], dim=1)
                groups.append(
                    group_parameters(_array(torch.stack([on_z, 1.0 - on_z], dim=1)), None, _array(slots), bits)
                )
            else:
                weights, fractions, multipliers = (
                    _array(tensor)
                    for tensor in (
                        part.weights[:, :, column],
                        part.fractions[:, column],
                        part.multipliers[:, :, column],
                    )
                )
                groups.append(group_parameters(weights, fractions, multipliers, bits))
        return parameter_set(_array(matrix[: rows.layout.members, column]), groups, bits)


def operations_of(network: Network, region: RegionBounds) -> dict[int, int]:
    """The operation's number of every ReLU and Max among the canonical network's nodes.

    Raises:
        ValueError: One comes from no operation of the file.
    """
    numbers = operation_numbers(network)
    found = {}
    for index, node in enumerate(region.canonical.nodes):
        if not isinstance(node, Affine):
            if node.origin not in numbers:
                raise ValueError(f"node {index} of the canonical network comes from no operation of {network.path}")
            found[index] = numbers[node.origin]
    return found


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().double().numpy())
