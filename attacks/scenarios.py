"""The goals of the literature by name: which labels must change, and which images are eligible.

Sources: Song et al. 2018 (random, extreme, reduction, augmentation), Zhou et al. 2021 (hiding), Liu et al. 2023 (showing
many), Hu et al. 2021 (top k), Sun et al. 2023 (specified labels), Mour 2023 (target miss).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attacks.goals import Goal, GoalOptions, Rule, rivals, top_k_mask
from verifier.errors import InputError
from verifier.property import check_k

Mask = Bool[Tensor, "rows labels"]


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """What a scenario is made from.

    Attributes:
        labels: The relevant labels Y.
        scores: Clean logits.
        options: What the caller asked for.
        draws: One source of randomness for each row.
    """

    labels: Mask
    scores: Float[Tensor, "rows labels"]
    options: GoalOptions
    draws: Sequence[np.random.Generator]

    def correct(self) -> Bool[Tensor, " rows"]:
        """Rows with every label on the right side of the threshold, or all rows if that does not matter."""
        right = ((self.scores > self.options.threshold) == self.labels).all(dim=1)
        return right if self.options.require_correct else torch.ones_like(right)

    def ranked(self) -> Bool[Tensor, " rows"]:
        """Rows with every relevant label strictly above every other one, or all rows if that does not matter."""
        lowest = self.scores.masked_fill(~self.labels, torch.inf).amin(dim=1)
        highest = self.scores.masked_fill(self.labels, -torch.inf).amax(dim=1)
        return (lowest > highest) if self.options.require_correct else torch.ones_like(self.labels[:, 0])

    def drawn(self, among: Mask, size: int = 1) -> Mask:
        """`size` labels of each row drawn from `among`; all of them where there are fewer."""
        chosen = torch.zeros_like(among)
        for row, draw in enumerate(self.draws):
            places = among[row].nonzero()[:, 0].numpy()
            chosen[row, torch.from_numpy(draw.permutation(places)[:size])] = True
        return chosen


@dataclass(frozen=True, slots=True)
class Scenario:
    """A goal by name.

    Attributes:
        name: As on the command line.
        rule: How scores become labels.
        summary: One line for listings.
        source: Who proposed it.
        build: Makes the goal.
    """

    name: str
    rule: Rule
    summary: str
    source: str
    build: Callable[[Situation], Goal]


def make_goal(
    name: str,
    labels: Mask,
    scores: Float[Tensor, "rows labels"],
    options: GoalOptions | None = None,
    *,
    keys: Sequence[int] | None = None,
    seed: int = 0,
) -> Goal:
    """The goal `name` for images with these labels and clean logits, on the CPU.

    Args:
        name: A key of `GOALS`.
        labels: The relevant labels of each row.
        scores: The clean logits of each row.
        options: What the scenario is told.
        keys: A number for each row that its random choices come from, together with the seed; default its position.
        seed: The other half.

    Raises:
        InputError: Unknown name, a label or k out of range, S outside the labels, or an option that is missing.
    """
    if name not in GOALS:
        raise InputError(f"goal: got {name!r}, wanted one of {', '.join(GOALS)}")
    if labels.shape != scores.shape:
        raise InputError(
            f"labels: got shape {tuple(labels.shape)}, wanted {tuple(scores.shape)}, one row of 0 and 1 an image"
        )
    given = options if options is not None else GoalOptions()
    for label in (*given.members, *(() if given.label is None else (given.label,))):
        if not 0 <= label < labels.shape[1]:
            raise InputError(f"goal {name}: label {label} is outside the network's labels 0 to {labels.shape[1] - 1}")
    draws = [np.random.default_rng([seed, key]) for key in (range(len(labels)) if keys is None else keys)]
    return GOALS[name].build(Situation(labels.cpu(), scores.detach().cpu(), given, draws))


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


def _hiding_single(at: Situation) -> Goal:
    eligible = at.correct() & (at.labels.sum(dim=1) >= 2)
    requirement = "all labels right, two relevant labels or more"
    return _threshold_goal(
        at, "hiding-single", at.drawn(at.labels), hold=True, eligible=eligible, requirement=requirement
    )


def _hiding_all(at: Situation) -> Goal:
    eligible = at.correct() & at.labels.any(dim=1)
    requirement = "all labels right, one relevant label or more"
    return _threshold_goal(at, "hiding-all", at.labels, hold=True, eligible=eligible, requirement=requirement)


def _random(at: Situation) -> Goal:
    flip = at.drawn(at.labels) | at.drawn(~at.labels)
    eligible = at.correct() & at.labels.any(dim=1) & ~at.labels.all(dim=1)
    requirement = "all labels right, a relevant and an irrelevant label"
    return _threshold_goal(at, "random", flip, hold=True, eligible=eligible, requirement=requirement)


def _extreme(at: Situation) -> Goal:
    flip = torch.ones_like(at.labels)
    return _threshold_goal(at, "extreme", flip, hold=True, eligible=at.correct(), requirement="all labels right")


def _one_label(at: Situation, default: int) -> Mask:
    flip = torch.zeros_like(at.labels)
    flip[:, default if at.options.label is None else at.options.label] = True
    return flip


def _reduction(at: Situation) -> Goal:
    flip = _one_label(at, int(at.labels.sum(dim=0).argmax()))
    eligible = at.correct() & (at.labels.sum(dim=1) >= 2) & (at.labels & flip).any(dim=1)
    requirement = "all labels right, the label is relevant and not the only one"
    return _threshold_goal(at, "person-reduction", flip, hold=True, eligible=eligible, requirement=requirement)


def _augmentation(at: Situation) -> Goal:
    flip = _one_label(at, int(at.labels.sum(dim=0).argmin()))
    eligible = at.correct() & ~(at.labels & flip).any(dim=1)
    requirement = "all labels right, the label is not relevant"
    return _threshold_goal(at, "sheep-augmentation", flip, hold=True, eligible=eligible, requirement=requirement)


def _showing_many(at: Situation) -> Goal:
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


def _k(at: Situation, name: str) -> int:
    k = at.options.k
    if k is None:
        raise InputError(f"goal {name}: needs k; give k=1, 2, ...")
    check_k(k, at.labels.shape[1])
    return k


def _top_k_goal(
    at: Situation, name: str, sign: Tensor, k: int, *, eligible: Tensor, requirement: str, hold: Mask | None = None
) -> Goal:
    flip = sign != 0
    held = torch.zeros_like(flip) if hold is None else hold
    return Goal(name, Rule.TOP_K, at.labels, sign, flip.sum(dim=1), eligible, flip, held, requirement, k)


def _top_k_untargeted(at: Situation) -> Goal:
    k = _k(at, "top-k-untargeted")
    eligible = at.ranked() & at.labels.any(dim=1) & ((~at.labels).sum(dim=1) >= k)
    requirement = f"relevant labels ranked first, one of them or more, and {k} irrelevant labels to take their place"
    sign = torch.where(at.labels, -1, 0)
    return _top_k_goal(at, "top-k-untargeted", sign, k, eligible=eligible, requirement=requirement)


def _top_k_targeted(at: Situation) -> Goal:
    k, options = _k(at, "top-k-targeted"), at.options
    if options.members:
        if len(set(options.members)) != k:
            raise InputError(f"goal top-k-targeted: got {len(set(options.members))} target labels, wanted k = {k}")
        target = torch.zeros_like(at.labels)
        target[:, list(options.members)] = True
        eligible = (top_k_mask(at.scores, k) != target).any(dim=1)
        requirement = "the target labels are not the top k already"
    else:
        target = _targets(at, k)
        eligible = at.ranked() & ((~at.labels).sum(dim=1) >= k)
        requirement = f"relevant labels ranked first, {k} irrelevant labels or more"
    sign = torch.where(target, 1, 0)
    return _top_k_goal(at, "top-k-targeted", sign, k, eligible=eligible, requirement=requirement)


def _targets(at: Situation, k: int) -> Mask:
    """As many irrelevant labels as k of each row: the highest, the lowest, or any."""
    if at.options.pick == "random":
        return at.drawn(~at.labels, k)
    ordered = at.scores if at.options.pick == "best" else -at.scores
    places = ordered.masked_fill(at.labels, -torch.inf).topk(k, dim=1).indices
    return torch.zeros_like(at.labels).scatter(1, places, True) & ~at.labels


def _specified_labels(at: Situation) -> Goal:
    k, options = _k(at, "specified-labels"), at.options
    in_top = top_k_mask(at.scores, k)
    if options.scheme == "random":
        pool = at.labels & in_top if options.eligibility == "code" else at.labels
        chosen = at.drawn(pool, options.size)
        whole = torch.full((len(at.labels),), options.size)
        is_full = pool.sum(dim=1) >= options.size
    else:
        if not options.members:
            raise InputError(
                "goal specified-labels: needs the labels S; give members=(...), or scheme='random' and a size"
            )
        members = torch.zeros_like(at.labels)
        members[:, list(options.members)] = True
        chosen = members & at.labels
        whole = torch.full((len(at.labels),), len(set(options.members)))
        is_full = torch.ones_like(at.labels[:, 0])
    relevant, before = at.labels.sum(dim=1), (chosen & in_top).sum(dim=1)
    is_large = relevant >= k + chosen.sum(dim=1) if options.eligibility == "code" else relevant > k + whole
    drop = before if options.drop is None else torch.full_like(before, options.drop)
    # Delta-l >= d: at most before - d of S are left in the top k.
    needed = chosen.sum(dim=1) - (before - drop).clamp(min=0)
    eligible = is_full & is_large & (before >= drop.clamp(min=1)) & ((~chosen).sum(dim=1) >= k)
    count = "|Y| >= k + |S and Y|" if options.eligibility == "code" else "|Y| > k + |S|"
    goal = _top_k_goal(
        at,
        "specified-labels",
        torch.where(chosen, -1, 0),
        k,
        eligible=eligible,
        requirement=f"{count}, and enough labels of S in the clean top {k} to lose",
        hold=at.labels & ~chosen,
    )
    return replace(goal, needed=needed)


def _target_miss(at: Situation) -> Goal:
    k = _k(at, "target-miss")
    target = torch.zeros_like(at.labels)
    if at.options.label is not None:
        target[:, at.options.label] = True
    else:
        best = at.scores.masked_fill(~at.labels, -torch.inf).argmax(dim=1)
        target[torch.arange(len(target)), best] = at.labels.any(dim=1)
    eligible = (target & (at.scores > rivals(at.scores, k))).any(dim=1)
    requirement = f"the target is strictly in the clean top {k}"
    return _top_k_goal(at, "target-miss", torch.where(target, -1, 0), k, eligible=eligible, requirement=requirement)


_ENTRIES = (
    Scenario(
        "hiding-single",
        Rule.THRESHOLD,
        "one random relevant label off, the rest held",
        "Zhou et al. 2021",
        _hiding_single,
    ),
    Scenario("hiding-all", Rule.THRESHOLD, "every relevant label off, the rest held", "Zhou et al. 2021", _hiding_all),
    Scenario(
        "random", Rule.THRESHOLD, "one relevant label off, one other on, the rest held", "Song et al. 2018", _random
    ),
    Scenario("extreme", Rule.THRESHOLD, "every label inverted", "Song et al. 2018", _extreme),
    Scenario(
        "person-reduction",
        Rule.THRESHOLD,
        "one given relevant label off, the rest held",
        "Song et al. 2018",
        _reduction,
    ),
    Scenario(
        "sheep-augmentation", Rule.THRESHOLD, "one given label on, the rest held", "Song et al. 2018", _augmentation
    ),
    Scenario("showing-many", Rule.THRESHOLD, "at least expected_labels(n) labels on", "Liu et al. 2023", _showing_many),
    Scenario("top-k-untargeted", Rule.TOP_K, "no relevant label in the top k", "Hu et al. 2021", _top_k_untargeted),
    Scenario("top-k-targeted", Rule.TOP_K, "the top k are k given labels", "Hu et al. 2021", _top_k_targeted),
    Scenario(
        "specified-labels",
        Rule.TOP_K,
        "the labels S leave the top k, others stay",
        "Sun et al. 2023",
        _specified_labels,
    ),
    Scenario("target-miss", Rule.TOP_K, "one label leaves the top k", "Mour 2023", _target_miss),
)

GOALS: Mapping[str, Scenario] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
