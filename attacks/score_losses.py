"""The losses of the multi-label attacks: one number per row to be made large, from the scores and the goal.

The papers print quantities to be made small; here each has the opposite sign. Under a threshold rule the threshold takes the
place of the order statistics of the top-k losses, so that every loss is defined for every goal. Empty sets contribute 0.
"""

from dataclasses import dataclass, replace
from math import exp

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from attacks.goals import Goal, Rule

Scores = Float[Tensor, "rows labels"]
Values = Float[Tensor, " rows"]
Mask = Bool[Tensor, "rows labels"]


def highest(values: Scores, among: Mask) -> Values:
    """The maximum over a set; -inf where it is empty."""
    return values.masked_fill(~among, -torch.inf).amax(dim=1)


def lowest(values: Scores, among: Mask) -> Values:
    """The minimum over a set; +inf where it is empty."""
    return values.masked_fill(~among, torch.inf).amin(dim=1)


def _hinge(high: Values, low: Values, *, clamp: bool = True) -> Values:
    """[high - low]_+, and 0 where either side comes from an empty set."""
    is_known = high.isfinite() & low.isfinite()
    gap = torch.where(is_known, high, 0.0) - torch.where(is_known, low, 0.0)
    return gap.clamp(min=0.0) if clamp else gap


def in_probabilities(goal: Goal, scores: Scores) -> Scores:
    """The goal's margins when the scores are replaced by probabilities, as in the released code."""
    same = replace(goal, threshold=1.0 / (1.0 + exp(-goal.threshold)), kappa=0.0)
    return same.margins(scores.sigmoid())


@dataclass(frozen=True, slots=True, eq=False)
class LabelLoss:
    """Binary cross-entropy towards the labels that the goal asks for: sum_i log sigmoid(m_i) over its search margins m_i.

    Under a threshold 0 and with all constraints needed that is exactly minus the cross-entropy with logits; it is computed
    without saturation. Where only a number of labels is needed, it is taken over the easiest ones. About the top k it is taken
    over the goal's pairs, log sigmoid(s_i - s_j) for each i that must pass j, where these are known: against the k-th label
    alone, which changes from step to step, sign steps go to and fro.

    Attributes:
        goal: What is asked.
        is_clamped: Probabilities clamped to [1e-6, 1 - 1e-6] and compared with 1/2 whatever the rule, as in the released
            code: labels beyond a logit of 13.8 lose their gradient.
    """

    goal: Goal
    is_clamped: bool = False

    def at(self, rows: Tensor) -> "LabelLoss":
        """The loss of some rows."""
        return replace(self, goal=self.goal.at(rows))

    def __call__(self, scores: Scores, points: Tensor) -> Values:  # noqa: ARG002
        """The negative loss of each row."""
        if not self.is_clamped:
            return -self._entropies(scores).sum(dim=1)
        towards = (self.goal.sign * scores).sigmoid().clamp(1e-6, 1 - 1e-6)
        return towards.log().masked_fill(self.goal.sign == 0, 0.0).sum(dim=1)

    def _entropies(self, scores: Scores) -> Scores:
        """Of each label."""
        goal = self.goal
        if goal.k is None:
            return functional.softplus(-goal.search_margins(scores))
        pairs = goal.pairs(scores)
        apart = goal.sign[:, :, None] * (scores[:, :, None] - scores[:, None, :]) - goal.kappa
        by_pair = functional.softplus(-apart).masked_fill(~pairs, 0.0).sum(dim=2)
        is_known = pairs.any(dim=2) | (goal.sign == 0)
        if bool(is_known.all()):
            return by_pair
        return torch.where(is_known, by_pair, functional.softplus(-goal.search_margins(scores)))


@dataclass(frozen=True, slots=True, eq=False)
class HingeLoss:
    """-sum_i [kappa - m_i]_+ over the constraints (Song et al. 2018, eq. 5; for the top k Hu et al. 2021, targeted).

    Attributes:
        goal: What is asked.
        kappa: The margin aimed at.
        of_probabilities: Margins of probabilities instead of logits, as released.
    """

    goal: Goal
    kappa: float = 0.0
    of_probabilities: bool = False

    def at(self, rows: Tensor) -> "HingeLoss":
        """The loss of some rows."""
        return replace(self, goal=self.goal.at(rows))

    def __call__(self, scores: Scores, points: Tensor) -> Values:  # noqa: ARG002
        """The negative loss of each row."""
        margins = in_probabilities(self.goal, scores) if self.of_probabilities else self.goal.search_margins(scores)
        return -(self.kappa - margins).clamp(min=0.0).sum(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class MarginLoss:
    """The goal's search margin: the least of those asked for, > 0 iff the row has succeeded."""

    goal: Goal

    def at(self, rows: Tensor) -> "MarginLoss":
        """The loss of some rows."""
        return MarginLoss(self.goal.at(rows))

    def __call__(self, scores: Scores, points: Tensor) -> Values:  # noqa: ARG002
        """The margin of each row."""
        return self.goal.search_margin(scores)


@dataclass(frozen=True, slots=True, eq=False)
class TopKLoss:
    """The losses of the top-k attacks: the labels that must leave against an order statistic of the others.

    With the labels that must leave U, the labels to keep H, and c labels in all:
    "average": max_U s - mean of the c - k smallest s (TkML-AP-U, and TkMIA's first term);
    "lowest": max_U s - min of the others (ML-CW-U as printed);
    "k-th": max_U s - the k-th largest of the others (sufficient and necessary).
    With `keeps`: plus mean of the k largest s - min_H s (TkMIA's second term). Labels that must enter add
    sum [s_[k] - s_i]_+ (TkML-AP-T).

    Attributes:
        goal: What is asked.
        scope: U.
        statistic: Which of the three.
        keeps: Whether labels to hold count.
        is_hinged: Differences below 0 count as 0 (papers); without it the loss has no end (released code).
        kappa: The margin aimed at, under "k-th" and for entering labels.
    """

    goal: Goal
    scope: Mask
    statistic: str = "average"
    keeps: bool = False
    is_hinged: bool = True
    kappa: float = 0.0

    def at(self, rows: Tensor) -> "TopKLoss":
        """The loss of some rows."""
        return replace(self, goal=self.goal.at(rows), scope=self.scope[rows])

    def __call__(self, scores: Scores, points: Tensor) -> Values:  # noqa: ARG002
        """The negative loss of each row."""
        return -(self._leaving(scores) + self._entering(scores) + (self._holding(scores) if self.keeps else 0.0))

    def _clamped(self, values: Tensor) -> Tensor:
        return values.clamp(min=0.0) if self.is_hinged else values

    def _leaving(self, scores: Scores) -> Values:
        top = highest(scores, self.scope)
        is_asked = self.scope.any(dim=1)
        top = torch.where(is_asked, top, 0.0)
        k = self.goal.k
        if k is None:
            loss = self._clamped(top - self.goal.threshold + self.kappa)
        elif self.statistic == "average":
            smallest = scores.topk(scores.shape[1] - k, dim=1, largest=False).values
            loss = self._clamped(top[:, None] - smallest).mean(dim=1)
        elif self.statistic == "lowest":
            others = lowest(scores, ~self.scope)
            loss = self._clamped(top - torch.where(others.isfinite(), others, top))
        else:
            others = scores.masked_fill(self.scope, -torch.inf).topk(k, dim=1).values[:, -1]
            # With fewer than k others the highest labels of U must beat each other: nothing can be asked of them.
            loss = self._clamped(top - torch.where(others.isfinite(), others, top) + self.kappa)
        return torch.where(is_asked, loss, 0.0)

    def _entering(self, scores: Scores) -> Values:
        margins = self.goal.search_margins(scores).masked_fill(~self.goal.on, torch.inf)
        return (self.kappa - margins).clamp(min=0.0).sum(dim=1)

    def _holding(self, scores: Scores) -> Values:
        least = lowest(scores, self.goal.hold & self.goal.labels)
        is_asked = least.isfinite()
        least = torch.where(is_asked, least, 0.0)
        if self.goal.k is None:
            loss = self._clamped(self.goal.threshold - least)
        else:
            loss = self._clamped(scores.topk(self.goal.k, dim=1).values - least[:, None]).mean(dim=1)
        return torch.where(is_asked, loss, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class RankLoss:
    """Rank I and Rank II (Song et al. 2018, eqs 9 and 11): labels to be off ranked below labels to be on.

    [max_{O-} - min_{O+}]_+, or, where some labels do not matter (O0), [max_{O-} - min_{O0}]_+ + [max_{O0} - min_{O+}]_+. For
    the top k, min_{O0} is relaxed to the k-th largest of O0, which is all that leaving the top k asks. Rank II adds
    [max_{A1} - min_{B-1}]_+ + [max_{B1} - min_{A-1}]_+. The paper compares exp of probabilities; logits order labels in
    the same way and do not saturate. Where every label must be on there is nothing to rank, and the loss is 0.

    Attributes:
        goal: What is asked.
        is_second: Rank II.
        is_released: Probabilities without exp, O0 ignored, 0 and 1 for the maximum and minimum of an empty set, and
            Rank II without its last term.
    """

    goal: Goal
    is_second: bool = False
    is_released: bool = False

    def at(self, rows: Tensor) -> "RankLoss":
        """The loss of some rows."""
        return replace(self, goal=self.goal.at(rows))

    def __call__(self, scores: Scores, points: Tensor) -> Values:  # noqa: ARG002
        """The negative loss of each row."""
        goal = self.goal
        falling, standing = goal.flip & goal.labels, goal.hold & ~goal.labels
        kept, rising = goal.hold & goal.labels, goal.flip & ~goal.labels
        if self.is_released:
            values = scores.sigmoid()
            total = (_or(highest(values, goal.off), 0.0) - _or(lowest(values, goal.on), 1.0)).clamp(min=0.0)
            if self.is_second:
                total = total + (_or(highest(values, falling), 0.0) - _or(lowest(values, standing), 1.0)).clamp(min=0.0)
            return -total
        free = goal.sign == 0
        together = _hinge(highest(scores, goal.off), lowest(scores, goal.on))
        apart = _hinge(highest(scores, goal.off), self._free_bound(scores, free)) + _hinge(
            highest(scores, free), lowest(scores, goal.on)
        )
        total = torch.where(free.any(dim=1), apart, together)
        if self.is_second:
            total = total + _hinge(highest(scores, falling), lowest(scores, standing))
            total = total + _hinge(highest(scores, kept), lowest(scores, rising))
        return -total

    def _free_bound(self, scores: Scores, free: Mask) -> Values:
        if self.goal.rule is Rule.TOP_K and self.goal.k is not None:
            return scores.masked_fill(~free, -torch.inf).topk(self.goal.k, dim=1).values[:, -1]
        return lowest(scores, free)


def _or(values: Values, default: float) -> Values:
    return torch.where(values.isfinite(), values, default)


def rank_agreement(goal: Goal, scores: Scores) -> Values:
    """Kendall's tau-b between the scores and the wished order -2 (A1), -1 (B-1), 0, 1 (B1), 2 (A-1); 0 if either is constant."""
    wished = _wished_levels(goal)
    by_score = (scores[:, :, None] - scores[:, None, :]).sign().double()
    by_wish = (wished[:, :, None] - wished[:, None, :]).sign().double()
    pairs = (by_score**2).sum(dim=(1, 2)) * (by_wish**2).sum(dim=(1, 2))
    return (by_score * by_wish).sum(dim=(1, 2)) / pairs.clamp(min=1.0).sqrt()


def cosine_agreement(goal: Goal, scores: Scores) -> Values:
    """The cosine of probabilities and wished levels: what the released Rank II selects by."""
    return functional.cosine_similarity(scores.double().sigmoid(), _wished_levels(goal).double(), dim=1)


def _wished_levels(goal: Goal) -> Float[Tensor, "rows labels"]:
    now = torch.where(goal.labels, 1.0, -1.0)
    return torch.where(goal.flip, -2.0 * now, torch.where(goal.hold, now, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Penalised:
    """A loss minus a penalty on the squared l2 distance to the clean image.

    Attributes:
        loss: What is climbed.
        clean: The clean images.
        distance: The penalty's weight.
        weight: The loss's weight, one for each row.
    """

    loss: "LabelLoss | HingeLoss | MarginLoss | TopKLoss | RankLoss"
    clean: Float[Tensor, "rows pixels"]
    distance: float
    weight: Values

    def at(self, rows: Tensor) -> "Penalised":
        """The loss of some rows."""
        return Penalised(self.loss.at(rows), self.clean[rows], self.distance, self.weight[rows])

    def __call__(self, scores: Scores, points: Float[Tensor, "rows pixels"]) -> Values:
        """The penalised loss of each row."""
        squared = ((points - self.clean) ** 2).sum(dim=1)
        return self.weight * self.loss(scores, points) - self.distance * squared
