"""Goals about the k highest labels: Hu et al. 2021, Sun et al. 2023, Mour 2023."""

from dataclasses import replace

import torch
from torch import Tensor

from attacks.goals import Goal, Rule, rivals, top_k_mask
from attacks.situation import Mask, Situation
from verifier.errors import InputError
from verifier.property import check_k


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


def top_k_untargeted(at: Situation) -> Goal:
    """No relevant label in the top k."""
    k = _k(at, "top-k-untargeted")
    eligible = at.ranked() & at.labels.any(dim=1) & ((~at.labels).sum(dim=1) >= k)
    requirement = f"relevant labels ranked first, one of them or more, and {k} irrelevant labels to take their place"
    sign = torch.where(at.labels, -1, 0)
    return _top_k_goal(at, "top-k-untargeted", sign, k, eligible=eligible, requirement=requirement)


def top_k_targeted(at: Situation) -> Goal:
    """The top k are the given labels, or some irrelevant ones."""
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


def specified_labels(at: Situation) -> Goal:
    """The labels S leave the top k, or as many of them as `drop` says."""
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


def target_miss(at: Situation) -> Goal:
    """One label leaves the top k."""
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
