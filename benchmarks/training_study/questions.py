"""The questions of the study about one image: a region, and what must hold in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import aureole
from nets.composer import ComposedImages
from verifier.network import Network

K = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question, asked at several epsilons.

    Attributes:
        name: In records.
        epsilons: Ascending; the regions are nested, so what breaks at one breaks above.
        ask: The question about the image of an index at an epsilon.
    """

    name: str
    epsilons: tuple[float, ...]
    ask: Callable[[Network, ComposedImages, int, float], aureole.Query]


def _whole(network: Network, images: ComposedImages, index: int, epsilon: float) -> aureole.Query:
    """Both labels stay in the top 2 while every pixel changes by at most epsilon."""
    region = aureole.Box.around(images.images[index].astype(np.float64), epsilon)
    return aureole.Query(network, region, aureole.keeps_top_k_set(images.labels[index].tolist(), network.labels))


def _other(network: Network, images: ComposedImages, index: int, epsilon: float) -> aureole.Query:
    """The second digit's label stays in the top 2 while the first digit's ink changes by at most epsilon."""
    ink = images.masks[index][0]
    region = aureole.Box.around(images.images[index].astype(np.float64), np.where(ink, epsilon, 0.0)[None])
    return aureole.Query(network, region, aureole.stays_in_top_k(int(images.labels[index][1]), K, network.labels))


KINDS = {
    kind.name: kind
    for kind in (Kind("whole image", (0.01, 0.02, 0.05), _whole), Kind("other object", (0.1, 0.3, 1.0), _other))
}


@dataclass(frozen=True, slots=True)
class Block:
    """Images `first` to `first + count - 1`."""

    first: int
    count: int

    @property
    def indices(self) -> Sequence[int]:
        """Of its images."""
        return range(self.first, self.first + self.count)


def blocks(images: int, size: int) -> list[Block]:
    """The first so many images in blocks of `size`; the last may be smaller."""
    return [Block(first, min(size, images - first)) for first in range(0, images, size)]
