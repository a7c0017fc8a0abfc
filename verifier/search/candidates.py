"""Points met by the search, offered as counterexamples."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from verifier.property import Property
from verifier.search.climbing import climb, least_form
from verifier.search.options import SearchOptions
from verifier.search.skeleton import Skeleton

OnCandidates = Callable[[Float[np.ndarray, "n inputs"]], bool]

_SEEDS = 32
_OFFERED = 8


class Candidates:
    """Moves points uphill, offers those with a margin > 0, and remembers the best others.

    Args:
        skeleton: The problem.
        goal: The property.
        options: How many points are moved, and how far.
        on_candidates: The replay: whether it accepts one of the points it is given.

    Attributes:
        is_accepted: Whether the replay has accepted a point.
    """

    def __init__(self, skeleton: Skeleton, goal: Property, options: SearchOptions, on_candidates: OnCandidates) -> None:
        self._skeleton, self._goal, self._options, self._on_candidates = skeleton, goal, options, on_candidates
        self._seeds: list[tuple[float, Float[np.ndarray, " inputs"]]] = []
        self.is_accepted = False

    def offer(self, inputs: Tensor, members: Tensor) -> None:
        """Tries points (inputs, batch) of the box, and points uphill of the best of them towards their members (members, batch)."""
        if self.is_accepted or not inputs.shape[1]:
            return
        values = least_form(self._skeleton, inputs, members)
        start = values.argsort(descending=True)[: self._options.climbers]
        top = climb(self._skeleton, inputs[:, start], members[:, start], rounds=self._options.climbs)
        forms, _ = self._skeleton.values(top)
        margins = forms.sort(dim=0).values[-self._goal.count]
        order = margins.argsort(descending=True)[:_OFFERED]
        points, best = self._skeleton.points(top[:, order]), margins[order].tolist()
        self._seeds = sorted([*self._seeds, *zip(best, points, strict=True)], key=lambda pair: -pair[0])[:_SEEDS]
        promising = points[np.array(best) > 0]
        if len(promising):
            self.is_accepted = self._on_candidates(promising)

    def offer_one(self, inputs: Float[np.ndarray, " inputs"], members: tuple[int, ...]) -> None:
        """Tries one point, given by its free inputs."""
        column = torch.from_numpy(inputs.copy()).to(self._skeleton.lower).unsqueeze(1)
        self.offer(column, torch.tensor(members, device=column.device).unsqueeze(1))

    def seeds(self) -> Float[np.ndarray, "n inputs"]:
        """The best points, largest margin first."""
        points = [point for _, point in self._seeds]
        return np.array(points, dtype=np.float64).reshape(len(points), len(self._skeleton.base))
