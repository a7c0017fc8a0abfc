"""Which count-subsets are settled, and whether one by one or in one model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from verifier.milp.options import MilpOptions
from verifier.milp.topk import FormVector
from verifier.property import Property

Subset = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to settle: the listed subsets one by one, or (subsets None) `count` of the members in one model.

    Attributes:
        members: Forms of the subsets.
        subsets: Those listed whose forms can all reach the proof threshold.
        excluded: An upper bound of the least form in every other subset; -inf if there is none.
    """

    members: Subset
    subsets: tuple[Subset, ...] | None
    excluded: float


def make_plan(
    prop: Property, open_subsets: Sequence[Subset] | None, upper: FormVector, least: float, options: MilpOptions
) -> Plan:
    """The plan for open subsets, listed or (None or empty) not.

    Args:
        prop: The property.
        open_subsets: As in `decide`.
        upper: float64 (forms,), an upper bound of every form.
        least: Subsets whose forms cannot all reach this are left out.
        options: Says when there are too many to settle one by one.
    """
    if open_subsets:
        tops = {tuple(subset): float(upper[list(subset)].min()) for subset in open_subsets}
        listed: tuple[Subset, ...] | None = tuple(subset for subset, top in tops.items() if top >= least)
        members = tuple(sorted({form for subset in listed or () for form in subset}))
        excluded = max((top for top in tops.values() if top < least), default=-np.inf)
    else:
        members = tuple(np.flatnonzero(upper >= least).tolist())
        few = comb(len(members), prop.count) <= options.subset_cap
        listed = tuple(combinations(members, prop.count)) if few else None
        excluded = float(np.max(upper, initial=-np.inf, where=upper < least))
    if listed and (not options.pipeline or len(listed) > options.subset_cap):
        listed = None
    return Plan(members, listed, excluded)
