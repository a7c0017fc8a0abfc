"""The images tried in one region, with their scores: every query on the region may use them."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from verifier import check
from verifier.evaluation import evaluate
from verifier.network import Network
from verifier.property import Property
from verifier.region import Box
from verifier.torch_network import TorchNetwork
from verifier.verify.float64 import score_roundings

_log = logging.getLogger(__name__)
_LINEAR_ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A float32 image inside the region.

    Attributes:
        image: The image.
        scores: Its float64 scores, rounded to nearest: good for choosing, not for claiming.
        origin: Who proposed it.
    """

    image: Float[np.ndarray, "..."]
    scores: Float[np.ndarray, " labels"]
    origin: str


class Evidence:
    """A growing list of points of one region. What is not a finite image inside the box never enters."""

    def __init__(self, network: Network, region: Box) -> None:
        self.network, self.region = network, region
        self.points: list[Point] = []
        self._seen: set[bytes] = set()
        self._model: TorchNetwork | None = None
        self._roundings: Float[np.ndarray, " labels"] | None = None

    @property
    def roundings(self) -> Float[np.ndarray, " labels"]:
        """By score: how far float64 rounding can move it in the region (`float64.score_roundings`)."""
        if self._roundings is None:
            self._roundings = score_roundings(self.network, self.region)
        return self._roundings

    def offer(self, images: Iterable[object], origin: str) -> int:
        """Adds the float32 images that lie inside the box, each once; returns how many had to be refused."""
        fresh: list[np.ndarray] = []
        refused = 0
        for candidate in images:
            image = np.asarray(candidate)
            if image.dtype != np.float32 or not self.region.contains(image):
                refused += 1
            elif (key := image.tobytes()) not in self._seen:
                self._seen.add(key)
                fresh.append(np.array(image))
        if refused:
            _log.warning("%s: %d proposed images are not float32 images inside the box; dropped", origin, refused)
        self._score(fresh, origin)
        return refused

    def offer_near(self, points: Float[np.ndarray, "n ..."], origin: str) -> None:
        """Adds float32 images nearest to float64 points (flat or shaped), moved into the box; skips what is not finite."""
        shaped = np.asarray(points, dtype=np.float64).reshape(-1, *self.region.shape)
        images = (self.nearest(point) for point in shaped)
        self.offer([image for image in images if image is not None], origin)

    def nearest(self, point: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."] | None:
        """The float32 image inside the box nearest to a float64 point; None if it is not finite or the box holds none."""
        return check.inside_box_float32(self.region, point) if np.isfinite(point).all() else None

    def _score(self, images: list[np.ndarray], origin: str) -> None:
        if not images:
            return
        scores = evaluate(self.network, np.stack(images).astype(np.float64))
        for image, row in zip(images, scores, strict=True):
            if np.isfinite(row).all():
                image.setflags(write=False)
                row.setflags(write=False)
                self.points.append(Point(image, row, origin))

    def climb_linearly(self, goal: Property, starts: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "m ..."]:
        """Corners of the box met by jumping to where the linearised margin is largest, a few times from each start.

        A margin gradient and no step size (Frank and Wolfe 1956, with full steps): the cheapest attack there is, and it finds
        most easy counterexamples.
        """
        if self._model is None:
            self._model = TorchNetwork(self.network, torch.device("cpu"), torch.float64)
        coefficients = torch.tensor(np.array(goal.coefficients))
        offsets = torch.tensor(np.array(goal.offsets))
        lower, upper = torch.tensor(np.array(self.region.lower)), torch.tensor(np.array(self.region.upper))
        points, corners = torch.tensor(np.array(starts, dtype=np.float64)), []
        for _ in range(_LINEAR_ROUNDS):
            with torch.enable_grad():
                inputs = points.requires_grad_()
                forms = self._model(inputs) @ coefficients.T + offsets
                total = torch.topk(forms, goal.count, dim=1).values[:, -1].sum()
                slope = torch.autograd.grad(total, inputs)[0]
            points = torch.where(slope > 0, upper, torch.where(slope < 0, lower, points.detach()))
            corners.append(points)
        return torch.cat(corners).detach().numpy()
