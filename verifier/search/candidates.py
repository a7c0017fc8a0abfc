"""Points met by the search, offered as counterexamples."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from verifier.search.climbing import climb, least_form
from verifier.search.goals import FormBlock, Goal
from verifier.search.options import SearchOptions
from verifier.search.skeleton import Skeleton

OnCandidates = Callable[[Float[np.ndarray, "n inputs"]], bool]
OnCandidatesOf = Callable[[int, Float[np.ndarray, "n inputs"]], bool]

_SEEDS = 32
_OFFERED = 8


class Candidates:
    """Moves points uphill, offers those with a margin > 0, and remembers the best others, for every goal.

    Args:
        skeleton: The problem.
        goals: The goals, and `block`, their forms.
        options: How many points are moved, and how far.
        on_candidates: The replay: whether it accepts one of the points it is given, for the goal of that number.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        goals: Sequence[Goal],
        block: FormBlock,
        options: SearchOptions,
        on_candidates: OnCandidatesOf,
    ) -> None:
        self._skeleton, self._options, self._on_candidates = skeleton, options, on_candidates
        device = skeleton.lower.device
        self._places = [torch.tensor(places, device=device) for places in block.places]
        self._counts = [goal.property.count for goal in goals]
        self._seeds: list[list[tuple[float, Float[np.ndarray, " inputs"]]]] = [[] for _ in goals]
        self._is_accepted = [False for _ in goals]

    def is_accepted(self, goal: int) -> bool:
        """Whether the replay has accepted a point for a goal."""
        return self._is_accepted[goal]

    def offer(self, inputs: Tensor, members: Tensor) -> None:
        """Tries points (inputs, batch) of the box, and points uphill of the best of them towards their members (members, batch)."""
        if not inputs.shape[1]:
            return
        values = least_form(self._skeleton, inputs, members)
        start = values.argsort(descending=True)[: self._options.climbers]
        top = climb(self._skeleton, inputs[:, start], members[:, start], rounds=self._options.climbs)
        forms, _ = self._skeleton.values(top)
        points = self._skeleton.points(top)
        for goal, places in enumerate(self._places):
            # Refuted goals too: a violation there is a contradiction that somebody should see.
            if not self._is_accepted[goal]:
                self._offer_to(goal, forms.index_select(0, places), points)

    def _offer_to(self, goal: int, forms: Tensor, points: Float[np.ndarray, "n inputs"]) -> None:
        margins = forms.sort(dim=0).values[-self._counts[goal]]
        order = margins.argsort(descending=True)[:_OFFERED].cpu().numpy()
        chosen, best = points[order], margins.cpu().numpy()[order]
        listed = [*self._seeds[goal], *zip(best.tolist(), chosen, strict=True)]
        self._seeds[goal] = sorted(listed, key=lambda pair: -pair[0])[:_SEEDS]
        if (best > 0).any():
            self._is_accepted[goal] = self._on_candidates(goal, chosen[best > 0])

    def offer_one(self, inputs: Float[np.ndarray, " inputs"], members: tuple[int, ...]) -> None:
        """Tries one point, given by its free inputs."""
        column = torch.from_numpy(inputs.copy()).to(self._skeleton.lower).unsqueeze(1)
        self.offer(column, torch.tensor(members, device=column.device).unsqueeze(1))

    def seeds(self, goal: int) -> Float[np.ndarray, "n inputs"]:
        """The best points for a goal, largest margin first."""
        points = [point for _, point in self._seeds[goal]]
        return np.array(points, dtype=np.float64).reshape(len(points), len(self._skeleton.base))
