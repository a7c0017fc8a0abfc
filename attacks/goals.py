"""What an attack must reach: one signed constraint per label, and how many of them count.

Every goal of the literature has this shape. `sign` says what each label must do: +1 must be on (or in the top k), -1 must be
off (or out of it), 0 does not matter. A row has succeeded once at least `needed` of its constraints hold strictly, so that no
way of breaking ties takes a success back. Scores are always logits.
"""

from dataclasses import dataclass, replace
from enum import Enum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from verifier.errors import InputError
from verifier.property import check_k


class Rule(Enum):
    """How scores become labels."""

    THRESHOLD = "threshold"
    TOP_K = "top-k"


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """What each row must reach.

    Attributes:
        name: The scenario's name, such as `hiding-all`.
        rule: How scores become labels.
        labels: The relevant labels Y of each row.
        sign: +1 must be on, -1 must be off, 0 does not matter.
        needed: How many constraints of each row must hold; at most the number of non-zero signs.
        eligible: Rows for which the goal makes sense; the others are not attacked.
        flip: A: the labels whose state is to change.
        hold: B: the labels whose state is to stay; under `specified-labels` Y without S, which is wished for, not needed.
        requirement: What makes a row eligible, in words.
        k: The k of the top k; None under a threshold.
        threshold: The logit above which a label is on.
        kappa: By how much a constraint must hold.
    """

    name: str
    rule: Rule
    labels: Bool[Tensor, "rows labels"]
    sign: Int[Tensor, "rows labels"]
    needed: Int[Tensor, " rows"]
    eligible: Bool[Tensor, " rows"]
    flip: Bool[Tensor, "rows labels"]
    hold: Bool[Tensor, "rows labels"]
    requirement: str = ""
    k: int | None = None
    threshold: float = 0.0
    kappa: float = 0.0

    def __post_init__(self) -> None:
        if self.rule is Rule.TOP_K:
            if self.k is None:
                raise InputError(f"goal {self.name}: a goal about the top k needs k; give k=1, 2, ...")
            check_k(self.k, self.labels.shape[1])
        if bool((self.needed > (self.sign != 0).sum(dim=1)).any()):
            raise InputError(f"goal {self.name}: more constraints needed than there are")

    @property
    def rows(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def off(self) -> Bool[Tensor, "rows labels"]:
        """Labels that must be off, or out of the top k (Omega-)."""
        return self.sign < 0

    @property
    def on(self) -> Bool[Tensor, "rows labels"]:
        """Labels that must be on, or in the top k (Omega+)."""
        return self.sign > 0

    def margins(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, "rows labels"]:
        """How far each constraint holds: > 0 strictly satisfied; +inf where the label does not matter.

        Under a threshold sign * (s - threshold). Under top k sign * (s - r), where r is the k-th largest score of the other
        labels: s > r iff the label is among the k highest however ties are broken. Differentiable in the scores.
        """
        reference: Tensor | float = self.threshold if self.k is None else rivals(scores, self.k)
        return (self.sign * (scores - reference) - self.kappa).masked_fill(self.sign == 0, torch.inf)

    def search_margins(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, "rows labels"]:
        """Margins to climb: a row has succeeded iff all of its own are > 0; +inf where nothing is asked for now.

        Where fewer constraints are needed than there are, only the easiest ones are asked for. Where all are needed, labels
        that must leave the top k together are compared with the k-th largest score of the labels that need not leave, and
        labels that must enter together with the score they have to beat for all to fit: by `margins`, two labels that must
        leave would count each other as the rival that keeps them out, which leads a search in circles.
        """
        are_all = self.needed == (self.sign != 0).sum(dim=1)
        if self.k is None:
            margins = self.margins(scores)
        else:
            together, is_known = self._rivals_of_sets(scores, self.k)
            by_set = (self.sign * (scores - together) - self.kappa).masked_fill(self.sign == 0, torch.inf)
            is_used = are_all[:, None] & is_known
            if bool(is_used.all()):
                return by_set
            margins = torch.where(is_used, by_set, self.margins(scores))
        if bool(are_all.all()):
            return margins
        return margins.masked_fill(~easiest(self, self.margins(scores).detach()), torch.inf)

    def _rivals_of_sets(self, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """What all of `off` must be below and all of `on` above, and where that is known; 0 where it is not."""
        entering = self.on.sum(dim=1, keepdim=True)
        rival = scores.masked_fill(self.off, -torch.inf).topk(k, dim=1).values[:, k - 1 :].expand_as(scores)
        if bool(entering.any()):
            others = scores.masked_fill(self.on, -torch.inf).topk(k, dim=1).values
            rival = torch.where(self.off, rival, others.gather(1, (k - entering).clamp(0, k - 1)))
        # More labels than k never fit into the top k, whatever is said of each.
        is_known = rival.isfinite() & (self.off | (entering <= k))
        return torch.where(is_known, rival, 0.0), is_known

    def pairs(self, scores: Float[Tensor, "rows labels"]) -> Bool[Tensor, "rows labels labels"]:
        """Which label must pass which, the last axis being the one passed; only about the top k, and empty where nothing is known.

        Where all constraints are needed, a label that must leave the top k must fall below each of the k highest labels that
        need not, and a label that must enter must rise above each label but the highest that have room beside those that
        must enter. A row has succeeded iff all its pairs hold. Nothing is known of a label where fewer constraints are needed
        than there are, or where those asked for cannot all fit.
        """
        k = self.k or 0
        entering = self.on.sum(dim=1, keepdim=True)
        is_whole = (self.needed == (self.sign != 0).sum(dim=1))[:, None]
        falls = self.off & is_whole & ((~self.off).sum(dim=1, keepdim=True) >= k)
        rises = self.on & is_whole & (entering <= k)
        found = torch.zeros((*scores.shape, scores.shape[1]), dtype=torch.bool, device=scores.device)
        # Most goals ask for one of the two only, and the places are what takes time.
        if bool(falls.any()):
            above = top_places(scores.masked_fill(self.off, -torch.inf)) < k
            found |= falls[:, :, None] & above[:, None, :]
        if bool(rises.any()):
            below = (top_places(scores.masked_fill(self.on, -torch.inf)) >= k - entering) & ~self.on
            found |= rises[:, :, None] & below[:, None, :]
        return found

    def search_margin(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, " rows"]:
        """The least of the search margins: > 0 iff the row has succeeded; 0 where nothing is needed."""
        return torch.where(self.needed > 0, self.search_margins(scores).amin(dim=1), 0.0)

    def met(self, scores: Float[Tensor, "rows labels"]) -> Int[Tensor, " rows"]:
        """How many constraints of each row hold strictly."""
        return ((self.margins(scores) > 0) & (self.sign != 0)).sum(dim=1)

    def satisfied(self, scores: Float[Tensor, "rows labels"]) -> Bool[Tensor, " rows"]:
        """Which rows have enough constraints that hold strictly; never where a score is not finite."""
        return (self.met(scores) >= self.needed) & scores.isfinite().all(dim=1)

    def margin(self, scores: Float[Tensor, "rows labels"]) -> Float[Tensor, " rows"]:
        """The needed-th largest margin of each row: > 0 iff the row has succeeded; 0 where nothing is needed."""
        ordered = self.margins(scores).masked_fill(self.sign == 0, -torch.inf).sort(dim=1, descending=True).values
        reached = ordered.gather(1, (self.needed - 1).clamp(min=0)[:, None])[:, 0]
        return torch.where(self.needed > 0, reached, 0.0)

    def at(self, rows: Tensor) -> "Goal":
        """The goal of some rows, given by index or mask."""
        fields = ("labels", "sign", "needed", "eligible", "flip", "hold")
        return replace(self, **{name: getattr(self, name)[rows] for name in fields})

    def to(self, device: torch.device | str) -> "Goal":
        """The same goal on another device."""
        fields = ("labels", "sign", "needed", "eligible", "flip", "hold")
        return replace(self, **{name: getattr(self, name).to(device) for name in fields})


@dataclass(frozen=True, slots=True)
class GoalOptions:
    """What a scenario may be told; each reads what concerns it and refuses what it lacks.

    Attributes:
        k: The k of the top k.
        label: The label of person-reduction (default the most frequent one), sheep-augmentation (the least frequent one) and
            target-miss (the highest of each image's true labels).
        n: Showing many: the level; success means at least `expected_labels(n)` labels on.
        rounding: Showing many: "ceil" as intended, "floor" as the authors' code.
        average: Showing many: labels per image; default the mean over the images given.
        pick: Top-k targeted: "best", "random" or "worst" irrelevant labels become the top k.
        members: The set S of specified-labels ("global"), or the set T of top-k targeted.
        scheme: Specified labels: "global" (S intersected with each image's labels) or "random" (drawn for each image).
        size: Specified labels, random: how many labels are drawn.
        drop: Specified labels: how many of S must leave the top k; default all that were in it.
        eligibility: "code" or "paper" where they differ.
        threshold: The logit above which a label is on.
        require_correct: Whether only images are eligible whose labels the network gets right.
    """

    k: int | None = None
    label: int | None = None
    n: int = 0
    rounding: str = "ceil"
    average: float | None = None
    pick: str = "best"
    members: tuple[int, ...] = ()
    scheme: str = "global"
    size: int = 1
    drop: int | None = None
    eligibility: str = "code"
    threshold: float = 0.0
    require_correct: bool = True

    def __post_init__(self) -> None:
        allowed = {
            "rounding": ("ceil", "floor"),
            "pick": ("best", "random", "worst"),
            "scheme": ("global", "random"),
            "eligibility": ("code", "paper"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise InputError(f"goal option {name}: got {getattr(self, name)!r}, wanted {' or '.join(values)}")
        if self.n < 0 or self.size < 1 or (self.drop is not None and self.drop < 1):
            raise InputError("goal options: wanted n >= 0, size >= 1 and drop >= 1")
        if self.average is not None and not 0 <= self.average < float("inf"):
            raise InputError(f"goal option average: got {self.average}, wanted a number >= 0")


def easiest(goal: Goal, margins: Float[Tensor, "rows labels"]) -> Bool[Tensor, "rows labels"]:
    """As many constraints of each row as it needs, those with the largest margins; ties go to the lower label."""
    ordered = margins.masked_fill(goal.sign == 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(margins.shape[1], device=margins.device) < goal.needed[:, None]
    return torch.zeros_like(goal.labels).scatter(1, ordered, places) & (goal.sign != 0)


def rivals(scores: Float[Tensor, "rows labels"], k: int) -> Float[Tensor, "rows labels"]:
    """For each label the k-th largest score among the others."""
    highest = scores.topk(k + 1, dim=1).values
    return torch.where(scores >= highest[:, k - 1 : k], highest[:, k : k + 1], highest[:, k - 1 : k])


def top_places(scores: Float[Tensor, "rows labels"]) -> Int[Tensor, "rows labels"]:
    """The place of each label, 0 for the highest; ties go to the lower label."""
    return scores.detach().argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def top_k_mask(scores: Float[Tensor, "rows labels"], k: int) -> Bool[Tensor, "rows labels"]:
    """Which labels are strictly among the k highest: a label that ties with the next one is not."""
    return scores > rivals(scores, k)
