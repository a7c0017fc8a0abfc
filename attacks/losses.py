"""What an attack maximises: functions of the scores, one number per row."""

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from verifier.property import Property


@runtime_checkable
class Loss(Protocol):
    """A number per row to be made large. A row's number depends on that row's scores alone."""

    def __call__(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, " rows"]:
        """The loss of each row."""


@dataclass(frozen=True, slots=True, eq=False)
class PropertyMargin:
    """The margin of a property: the count-th largest form; > 0 is a strict violation."""

    coefficients: Float[Tensor, "forms labels"]
    offsets: Float[Tensor, " forms"]
    count: int

    @classmethod
    def of(cls, goal: Property, device: torch.device) -> "PropertyMargin":
        """The margin of `goal` in float32 on `device`."""
        coefficients = torch.tensor(goal.coefficients, dtype=torch.float32, device=device)
        return cls(coefficients, torch.tensor(goal.offsets, dtype=torch.float32, device=device), goal.count)

    def forms(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, "rows forms"]:
        """The forms of each row."""
        return scores @ self.coefficients.T + self.offsets

    def __call__(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, " rows"]:
        """The count-th largest form of each row."""
        return self.of_forms(self.forms(scores))

    def of_forms(self, forms: Float[Tensor, "rows forms"]) -> Float[Tensor, " rows"]:
        """The count-th largest of each row of forms."""
        return torch.topk(forms, self.count, dim=1).values[:, -1]


@dataclass(frozen=True, slots=True, eq=False)
class SubsetMargin:
    """min over a row's own subset of forms: a smoother stand-in for the margin, which is the maximum over all subsets.

    A row whose subset is empty gets the margin itself. min over any subset of `count` forms is <= the margin, so a positive
    value always means a violation.

    Attributes:
        margin: The property's margin.
        members: bool (rows, forms), the subset of each row.
    """

    margin: PropertyMargin
    members: Bool[Tensor, "rows forms"]

    def __call__(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, " rows"]:
        """The stand-in of each row."""
        forms = self.margin.forms(scores)
        within = torch.where(self.members, forms, torch.inf).amin(dim=1)
        return torch.where(self.members.any(dim=1), within, self.margin(scores))


def likely_subsets(
    forms: Float[np.ndarray, "points forms"], count: int, limit: int
) -> Bool[np.ndarray, "subsets forms"]:
    """Up to `limit` subsets of `count` forms, those nearest to being all >= 0 at some given point first.

    With few subsets in all every one is returned. Otherwise subsets are built from the forms that reach highest, and ordered by
    max over points of the min over the subset; ties go to the lexicographically first.
    """
    total = forms.shape[1]
    pool = np.argsort(-forms.max(axis=0), kind="stable")
    size = total
    while size > count and comb(size, count) > 8 * limit:
        size -= 1
    chosen = np.array(list(combinations(sorted(pool[:size].tolist()), count)), dtype=np.int64)
    nearness = forms[:, chosen].min(axis=2).max(axis=0)
    best = chosen[np.argsort(-nearness, kind="stable")[:limit]]
    members = np.zeros((len(best), total), dtype=np.bool_)
    np.put_along_axis(members, best, True, axis=1)
    return members
