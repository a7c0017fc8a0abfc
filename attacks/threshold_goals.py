"""Goals about labels on or off: Song et al. 2018, Zhou et al. 2021, and showing many (Liu et al. 2023)."""

from math import ceil, floor

import torch
from torch import Tensor

from attacks.goals import Goal, Rule
from attacks.situation import Mask, Situation


def expected_labels(n: int, labels: int, average: float, rounding: str = "ceil") -> int:
    """How many labels must be on at level n: min(labels, ceil(average + 2^n)).

    Liu et al. 2023, eq. 3, prints a case distinction whose test n < ceil(log2(average + 2^n)) holds for every n, so that the
    bound by the number of labels is never used and 34 of 20 labels are asked for (VOC, n = 5). The bound is used here. The
    authors' code rounds down ("floor"), which makes every level one label easier; at n = 0 it is then often met already.
    """
    exact = average + 2.0**n
    return min(labels, ceil(exact) if rounding == "ceil" else floor(exact))


def _threshold_goal(at: Situation, name: str, flip: Mask, *, hold: bool, eligible: Tensor, requirement: str) -> Goal:
    """Flips `flip` and, if asked, holds all the rest."""
    now = torch.where(at.labels, 1, -1)
    sign = torch.where(flip, -now, now if hold else 0)
    held = ~flip if hold else torch.zeros_like(flip)
    needed = (sign != 0).sum(dim=1)
    return Goal(
        name, Rule.THRESHOLD, at.labels, sign, needed, eligible, flip, held, requirement, threshold=at.options.threshold
    )


def hiding_single(at: Situation) -> Goal:
    """One random relevant label off, the rest held."""
    eligible = at.correct() & (at.labels.sum(dim=1) >= 2)
    requirement = "all labels right, two relevant labels or more"
    return _threshold_goal(
        at, "hiding-single", at.drawn(at.labels), hold=True, eligible=eligible, requirement=requirement
    )


def hiding_all(at: Situation) -> Goal:
    """Every relevant label off, the rest held."""
    eligible = at.correct() & at.labels.any(dim=1)
    requirement = "all labels right, one relevant label or more"
    return _threshold_goal(at, "hiding-all", at.labels, hold=True, eligible=eligible, requirement=requirement)


def random(at: Situation) -> Goal:
    """One random relevant label off, one other on, the rest held."""
    flip = at.drawn(at.labels) | at.drawn(~at.labels)
    eligible = at.correct() & at.labels.any(dim=1) & ~at.labels.all(dim=1)
    requirement = "all labels right, a relevant and an irrelevant label"
    return _threshold_goal(at, "random", flip, hold=True, eligible=eligible, requirement=requirement)


def extreme(at: Situation) -> Goal:
    """Every label inverted."""
    flip = torch.ones_like(at.labels)
    return _threshold_goal(at, "extreme", flip, hold=True, eligible=at.correct(), requirement="all labels right")


def _one_label(at: Situation, default: int) -> Mask:
    flip = torch.zeros_like(at.labels)
    flip[:, default if at.options.label is None else at.options.label] = True
    return flip


def reduction(at: Situation) -> Goal:
    """The given label off, by default the most frequent one, the rest held."""
    flip = _one_label(at, int(at.labels.sum(dim=0).argmax()))
    eligible = at.correct() & (at.labels.sum(dim=1) >= 2) & (at.labels & flip).any(dim=1)
    requirement = "all labels right, the label is relevant and not the only one"
    return _threshold_goal(at, "person-reduction", flip, hold=True, eligible=eligible, requirement=requirement)


def augmentation(at: Situation) -> Goal:
    """The given label on, by default the least frequent one, the rest held."""
    flip = _one_label(at, int(at.labels.sum(dim=0).argmin()))
    eligible = at.correct() & ~(at.labels & flip).any(dim=1)
    requirement = "all labels right, the label is not relevant"
    return _threshold_goal(at, "sheep-augmentation", flip, hold=True, eligible=eligible, requirement=requirement)


def showing_many(at: Situation) -> Goal:
    """At least `expected_labels(n)` labels on; the relevant ones need not be among them."""
    options, labels = at.options, at.labels.shape[1]
    eligible = at.correct() & at.labels.any(dim=1)
    average = options.average
    if average is None:
        average = float(at.labels.sum(dim=1).double().mean()) if len(at.labels) else 0.0
    sign = torch.ones_like(at.labels, dtype=torch.int64)
    needed = torch.full((len(at.labels),), expected_labels(options.n, labels, average, options.rounding))
    nothing = torch.zeros_like(at.labels)
    requirement = "all labels right, one relevant label or more"
    return Goal(
        "showing-many",
        Rule.THRESHOLD,
        at.labels,
        sign,
        needed,
        eligible,
        ~at.labels,
        nothing,
        requirement,
        threshold=options.threshold,
    )
