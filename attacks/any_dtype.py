"""Our networks where torch asks for one precision or another."""

import torch
from torch import Tensor

from verifier.network import Network
from verifier.torch_network import TorchNetwork


class AnyDtype:
    """One of our networks on images of any floating-point type and device."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._made: dict[tuple[torch.device, torch.dtype], TorchNetwork] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """The scores."""
        place = (images.device, images.dtype)
        if place not in self._made:
            self._made[place] = TorchNetwork(self._network, *place)
        return self._made[place](images)

    def __deepcopy__(self, _memo: object) -> "AnyDtype":
        # Networks are frozen, so a copy of a module may share this one.
        return self
