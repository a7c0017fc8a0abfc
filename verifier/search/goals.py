"""Several properties of one region as forms of one block, each distinct form once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verifier.errors import InputError
from verifier.property import Property
from verifier.search.frontier import Cover, Frontier


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """One question about a region: whether some count-subset of a property's forms reaches 0 together.

    Attributes:
        property: The property.
        open_subsets: Count-subsets of forms that may be violated together, all others refuted before. None or empty: not listed,
            so every subset counts as open.
        start: A Frontier resumes a search of this very question; a Cover only proposes how to split. None starts afresh.
    """

    property: Property
    open_subsets: Sequence[tuple[int, ...]] | None = None
    start: Frontier | Cover | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FormBlock:
    """The forms of several properties, each distinct one once.

    Attributes:
        property: All of them as one property; its count says nothing.
        places: By goal: where in the block each of its forms is.
    """

    property: Property
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, goals: Sequence[Goal]) -> "FormBlock":
        """The block of these goals' forms, in order of first appearance.

        Raises:
            InputError: There is no goal, or the properties read different numbers of scores.
        """
        if len({goal.property.labels for goal in goals}) != 1:
            raise InputError("goals: wanted at least one, all about the same scores")
        rows: dict[tuple[float, ...], int] = {}
        places = tuple(tuple(rows.setdefault(form, len(rows)) for form in forms_of(goal.property)) for goal in goals)
        table = np.array(list(rows), dtype=np.float64)
        return cls(Property("all goals", table[:, :-1], table[:, -1], 1), places)


def forms_of(goal: Property) -> list[tuple[float, ...]]:
    """Each form as its coefficients and offset; equal forms are equal tuples."""
    table = np.concatenate([goal.coefficients, goal.offsets[:, None]], axis=1) + 0.0  # -0.0 becomes 0.0
    return [tuple(row) for row in table.tolist()]


def subsets_of(goal: Goal) -> tuple[tuple[int, ...], ...] | None:
    """The open subsets as sorted tuples, or None where they are not listed."""
    if not goal.open_subsets:
        return None
    return tuple(tuple(sorted(map(int, subset))) for subset in goal.open_subsets)
