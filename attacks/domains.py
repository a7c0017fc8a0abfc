"""Where an attack may go: sets of images with an exact projection."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from verifier.region import Box


@runtime_checkable
class Domain(Protocol):
    """A set of images an attack stays in."""

    @property
    def widths(self) -> Float[Tensor, "..."]:
        """How far each entry can move from side to side; the unit that steps are measured in."""

    def project(self, points: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """The points moved into the set; points already inside stay bit for bit."""

    def random(self, rows: int, generator: torch.Generator) -> Float[Tensor, "rows ..."]:
        """Points drawn from the set."""

    def at(self, rows: Tensor) -> "Domain":
        """The set for some rows, given by index."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxDomain:
    """The images of one dtype inside a box.

    Attributes:
        lower: The smallest image of this dtype in the box, without a row axis.
        upper: The largest one.
    """

    lower: Float[Tensor, "..."]
    upper: Float[Tensor, "..."]

    @classmethod
    def inside(cls, box: Box, device: torch.device) -> "BoxDomain | None":
        """The float32 images of `box`: bounds rounded towards the inside, so that no rounding leaves it.

        Returns:
            None if some pixel's interval holds no float32 number at all.
        """
        lower, upper = float32_bounds(box)
        if (lower > upper).any():
            return None
        return cls(torch.from_numpy(lower).to(device), torch.from_numpy(upper).to(device))

    @property
    def widths(self) -> Float[Tensor, "..."]:
        """The difference upper - lower; 0 for pixels that must not move."""
        return self.upper - self.lower

    def project(self, points: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """The nearest points of the box."""
        return torch.minimum(torch.maximum(points, self.lower), self.upper)

    def random(self, rows: int, generator: torch.Generator) -> Float[Tensor, "rows ..."]:
        """Uniform points of the box."""
        return self.project(self.lower + self._uniform(rows, generator) * self.widths)

    def at(self, rows: Tensor) -> "BoxDomain":  # noqa: ARG002
        """The same box, which all rows share."""
        return self

    def random_corners(self, rows: int, generator: torch.Generator) -> Float[Tensor, "rows ..."]:
        """Uniformly drawn corners of the box."""
        return torch.where(self._uniform(rows, generator) < 0.5, self.lower, self.upper)

    def _uniform(self, rows: int, generator: torch.Generator) -> Float[Tensor, "rows ..."]:
        draws = torch.rand((rows, *self.lower.shape), generator=generator, dtype=self.lower.dtype)
        return draws.to(self.lower.device)


def float32_bounds(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The least float32 >= lower and the greatest float32 <= upper, entry by entry; they cross where there is none between."""
    lower = box.lower.astype(np.float32)
    upper = box.upper.astype(np.float32)
    lower = np.where(lower.astype(np.float64) < box.lower, np.nextafter(lower, np.float32(np.inf)), lower)
    upper = np.where(upper.astype(np.float64) > box.upper, np.nextafter(upper, np.float32(-np.inf)), upper)
    return lower, upper
