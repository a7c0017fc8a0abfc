"""The good points of one query, with their forms, for every subset of forms that is climbed."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attacks.climber import Climber

_BEST_SUBSETS, _OF_EACH = 6, 4


class Population:
    """Points inside the box and the forms at each; it alone changes.

    It begins with those of the points given that there is time to evaluate.

    Attributes:
        points: (points, ...).
        forms: (points, forms), all finite.
        subsets: bool (subsets, forms).
    """

    def __init__(self, climber: Climber, points: Float[Tensor, "new ..."]) -> None:
        self._climber = climber
        forms = climber.forms(points[:0])
        self.points, self.forms = points[:0], forms
        self.subsets: Tensor = torch.zeros((0, forms.shape[1]), dtype=torch.bool, device=forms.device)
        self.add(points)

    def add(self, points: Float[Tensor, "new ..."]) -> int:
        """Evaluates and takes in points; the number that had time and finite forms, which are now the last ones."""
        return self.take(points, self._climber.forms(points))

    def take(self, points: Float[Tensor, "new ..."], forms: Float[Tensor, "evaluated forms"]) -> int:
        """Takes in the first points, whose forms are known."""
        is_finite = forms.isfinite().all(dim=1)
        self.points = torch.cat([self.points, points[: len(forms)][is_finite]])
        self.forms = torch.cat([self.forms, forms[is_finite]])
        return int(is_finite.sum())

    @property
    def margins(self) -> Float[Tensor, " points"]:
        """The property's margin at each point."""
        return self._climber.margin.of_forms(self.forms)

    @property
    def has_success(self) -> bool:
        """Whether some margin is clearly positive."""
        return bool((self.margins > self._climber.clear).any())

    def within(self) -> Float[Tensor, "points subsets"]:
        """The least form of each subset at each point."""
        return torch.where(self.subsets[None], self.forms[:, None], torch.inf).amin(dim=2)

    def ranked_subsets(self) -> list[int]:
        """The subsets, the one with the best point first."""
        return _descending(self.within().amax(dim=0))

    def elite(self, subset: int, size: int) -> tuple[Float[Tensor, "elite ..."], Float[Tensor, "elite forms"]]:
        """Up to `size` best points of a subset and their forms, the best first."""
        best = _descending(self.within()[:, subset])[:size]
        return self.points[best], self.forms[best]

    def trim(self, subset: int, size: int, keep: int) -> None:
        """Forgets what is neither among the `size` best of this subset, nor the best of the best subsets, nor of the margin."""
        within = self.within()
        kept = {*_descending(within[:, subset])[:size], *_descending(self.margins)[:keep]}
        for good in self.ranked_subsets()[:_BEST_SUBSETS]:
            kept.update(_descending(within[:, good])[:_OF_EACH])
        rows = sorted(kept)
        self.points, self.forms = self.points[rows], self.forms[rows]

    def images(self, count: int) -> list[Float[np.ndarray, "..."]]:
        """Up to `count` different points, sorted by margin."""
        images: dict[bytes, np.ndarray] = {}
        for row in _descending(self.margins):
            if len(images) == count:
                break
            image = self.points[row].cpu().numpy().astype(np.float32)
            images.setdefault(image.tobytes(), image)
        return list(images.values())


def _descending(values: Float[Tensor, " n"]) -> list[int]:
    return torch.argsort(values, descending=True, stable=True).tolist()
