"""The set an attack on one image may use: the valid pixels within a ball around it, each row with its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.steps import per_row

Norm = Literal["l1", "l2", "linf"]
NORMS: tuple[Norm, ...] = ("l1", "l2", "linf")
_INWARD = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """Flat images within `radius` of the clean ones and within [lower, upper]; with norm None only the latter.

    Attributes:
        clean: (rows, pixels), inside [lower, upper].
        lower, upper: The valid range of each pixel, an l_inf ball already taken into account.
        norm: The ball; None for the pixels' range alone.
        radius: Of each row, in float64; infinite for norm None, the largest half width for "linf".
    """

    clean: Float[Tensor, "rows pixels"]
    lower: Float[Tensor, "rows pixels"]
    upper: Float[Tensor, "rows pixels"]
    norm: Norm | None
    radius: Float[Tensor, " rows"]

    @classmethod
    def around(cls, clean: Float[Tensor, "rows pixels"], norm: Norm | None, eps: float | Tensor | None) -> "Ball":
        """The ball of radius `eps` around images in [0, 1]; for "linf" eps may be one number per row or per pixel."""
        exact = clean.double()
        lower, upper = torch.zeros_like(exact), torch.ones_like(exact)
        radius = torch.as_tensor(torch.inf if eps is None else eps, dtype=torch.float64, device=clean.device)
        if norm is None or eps is None:
            return cls(clean, lower.to(clean), upper.to(clean), None, radius.expand(len(clean)))
        if norm == "linf":
            widths = (radius.reshape(-1, 1) if radius.ndim == 1 else radius).expand_as(exact)
            # Rounded inward, so that no bound computed in float32 exceeds eps.
            lower, upper = _up((exact - widths).clamp(min=0.0)), _down((exact + widths).clamp(max=1.0))
            radius = widths.amax(dim=1)
        return cls(clean, lower.to(clean), upper.to(clean), norm, radius.expand(len(clean)))

    @property
    def widths(self) -> Float[Tensor, "rows pixels"]:
        """How far each pixel can move from side to side."""
        return self.upper - self.lower

    def project(self, points: Float[Tensor, "rows pixels"]) -> Float[Tensor, "rows pixels"]:
        """Points of the set: moved into the ball, then clipped, which only shortens the difference to the clean image.

        For l_inf and for no ball this is the nearest point; points already inside stay.
        """
        if self.norm in ("l1", "l2"):
            delta = points - self.clean
            size, radius = norms(delta, self.norm), self.radius.to(points.dtype)
            inside = _onto_l1(delta, radius) if self.norm == "l1" else _shrunk(delta, radius, size)
            points = torch.where((size > radius)[:, None], self.clean + inside, points)
        return torch.clamp(points, self.lower, self.upper)

    def random(self, rows: int, generator: torch.Generator) -> Float[Tensor, "rows pixels"]:
        """One point of each row's set, all from one generator; `rows` is the number of rows there are."""
        return self.drawn([generator] * rows)

    def drawn(self, generators: Sequence[torch.Generator]) -> Float[Tensor, "rows pixels"]:
        """One point of each row's set from the row's own generator: uniform in the box, or, then projected, around the ball."""
        draws = torch.stack([torch.rand(self.clean.shape[1], generator=each) for each in generators]).to(self.clean)
        if self.norm in (None, "linf"):
            return self.project(self.lower + draws * self.widths)
        directions = 2.0 * draws - 1.0
        lengths = norms(directions, self.norm).clamp(min=torch.finfo(draws.dtype).tiny)
        return self.project(self.clean + per_row(self.radius.to(draws.dtype) / lengths, draws) * directions)

    def scaled(self, share: Float[Tensor, " rows"]) -> "Ball":
        """The same set with each row's ball multiplied by a share in [0, 1] of its own."""
        if self.norm in (None, "linf"):
            part = share[:, None].to(self.clean.dtype)
            lower = torch.maximum(self.lower, self.clean - part * (self.clean - self.lower))
            upper = torch.minimum(self.upper, self.clean + part * (self.upper - self.clean))
            return replace(self, lower=lower, upper=upper, radius=share * self.radius)
        return replace(self, radius=share * self.radius)

    def at(self, rows: Tensor) -> "Ball":
        """The sets of some rows."""
        return Ball(self.clean[rows], self.lower[rows], self.upper[rows], self.norm, self.radius[rows])

    def float32(self, points: Float[Tensor, "rows pixels"]) -> Float[Tensor, "rows pixels"]:
        """The points as float32 images whose exact difference to the clean float32 image keeps the ball and the range."""
        clean, radius = self.clean.double(), self.radius.double()
        images = _inside(self, points.float().double())
        if self.norm in ("l1", "l2"):
            share = torch.ones_like(radius)
            for _ in range(30):
                size = norms(images - clean, self.norm)
                is_outside = size > radius
                if not bool(is_outside.any()):
                    break
                share = torch.where(is_outside, share * (1 - _INWARD) * radius / size, share)
                moved = clean + share[:, None] * (points.double() - clean)
                images = torch.where(is_outside[:, None], _inside(self, moved.float().double()), images)
            else:
                images = torch.where((norms(images - clean, self.norm) > radius)[:, None], clean, images)
        return images.float()


def _inside(ball: Ball, images: Float[Tensor, "rows pixels"]) -> Float[Tensor, "rows pixels"]:
    """The images clipped to the pixels' ranges, these rounded inward to float32."""
    lower, upper = _up(ball.lower).double(), _down(ball.upper).double()
    return torch.minimum(torch.maximum(images, lower), upper)


def _up(values: Tensor) -> Tensor:
    rounded = values.float()
    if values.dtype == torch.float32:
        return rounded
    # The float32 number above is the next integer, the one below for negative ones; nextafter takes as long as a convolution.
    bits = rounded.view(torch.int32)
    above = torch.where(rounded > 0, bits + 1, torch.where(rounded < 0, bits - 1, 1)).view(torch.float32)
    return torch.where(rounded.double() < values, above, rounded)


def _down(values: Tensor) -> Tensor:
    return -_up(-values)


def norms(deltas: Float[Tensor, "rows pixels"], norm: str | None) -> Float[Tensor, " rows"]:
    """The norm of each row; l2 for None."""
    if deltas.shape[1] == 0:
        return deltas.new_zeros(len(deltas))
    if norm == "linf":
        # Twenty times as fast as vector_norm on a CPU.
        return torch.maximum(deltas.amax(dim=1), -deltas.amin(dim=1))
    return torch.linalg.vector_norm(deltas, ord=1.0 if norm == "l1" else 2.0, dim=1)


def _shrunk(delta: Tensor, radius: Tensor, size: Tensor) -> Tensor:
    return delta * (radius / size.clamp(min=torch.finfo(delta.dtype).tiny))[:, None]


def _onto_l1(delta: Float[Tensor, "rows pixels"], radius: Float[Tensor, " rows"]) -> Float[Tensor, "rows pixels"]:
    """The nearest point of the l1 ball for rows outside it (Duchi et al. 2008: soft thresholding found by sorting)."""
    ordered = delta.abs().sort(dim=1, descending=True).values
    counts = torch.arange(1, delta.shape[1] + 1, dtype=delta.dtype, device=delta.device)
    thresholds = (ordered.cumsum(dim=1) - radius[:, None]) / counts
    last = (ordered > thresholds).sum(dim=1, keepdim=True).clamp(min=1) - 1
    threshold = thresholds.gather(1, last).clamp(min=0)
    return delta.sign() * (delta.abs() - threshold).clamp(min=0)
