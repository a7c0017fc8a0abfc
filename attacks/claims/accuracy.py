"""Robust accuracy as an interval: what proofs leave below, what counterexamples leave above."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from attacks.claims.claim import Claim, ClaimKind, ClaimVerdict, Judgement
from attacks.metrics import Norm
from verifier.errors import ContradictionError, InputError

PRECISION = 5e-4
"""Half of the last digit of a robust accuracy printed in per cent with one decimal."""


@dataclass(frozen=True, slots=True)
class RobustAccuracy:
    """What is known about a robust accuracy.

    Attributes:
        group, norm, bound: What it is about.
        images: How many pairs of an image and an aim.
        certified: For how many of them the aim is proved out of reach.
        broken: For how many an image reaches it, the clean image included.
    """

    group: str
    norm: Norm | None
    bound: float | None
    images: int
    certified: int
    broken: int

    @property
    def interval(self) -> tuple[float, float]:
        """The certified share, and the share that no counterexample breaks."""
        return self.certified / self.images, 1.0 - self.broken / self.images


def robust_accuracies(judgements: Iterable[Judgement]) -> tuple[RobustAccuracy, ...]:
    """An interval for each group, norm and bound that claims about single images speak of.

    Images of claims that are not valid count as open, unreadable ones too.

    Raises:
        ContradictionError: An image and aim are both certified and broken.
    """
    groups: dict[tuple[str, Norm | None, float | None], list[Judgement]] = {}
    for judgement in judgements:
        claim = judgement.claim
        if claim.kind is not ClaimKind.ROBUST_ACCURACY:
            groups.setdefault((claim.group, claim.norm, claim.bound), []).append(judgement)
    return tuple(_count(*key, members) for key, members in groups.items())


def judge_accuracy(claim: Claim, judged: Sequence[Judgement], decide: Callable[[Claim], Judgement]) -> Judgement:
    """A claimed robust accuracy, from the claims about single images of its group at the same norm and bound.

    Images that a claimed success did not break are put to `decide`. The claim is refuted where counterexamples leave less than its
    value or proofs guarantee more, confirmed where the interval is that value, and undecided in between.

    Raises:
        ContradictionError: An image and aim are both certified and broken.
        InputError: No value in [0, 1], or no claim about a single image in the group at this norm and bound.
    """
    if claim.value is None or not 0.0 <= claim.value <= 1.0:
        raise InputError(f"claim {claim.name}: got robust accuracy {claim.value}, wanted a number from 0 to 1")
    about = (claim.group, claim.norm, claim.bound)
    members = [item for item in judged if (item.claim.group, item.claim.norm, item.claim.bound) == about]
    members = [item for item in members if item.claim.kind is not ClaimKind.ROBUST_ACCURACY]
    if not members:
        raise InputError(
            f"claim {claim.name}: no claim about a single image of group {claim.group!r} at {claim.norm} {claim.bound};"
            " list the images it is about, one claim each"
        )
    complete = [*members, *(decide(_as_failure(item.claim)) for item in _open(members))]
    counted = _count(*about, complete)
    low, high = counted.interval
    text = f"between {low:.4f} (certified) and {high:.4f} (attacked), of {counted.images} images"
    judgement = Judgement(claim, ClaimVerdict.UNDECIDED, f"it lies {text}", interval=(low, high))
    if high < claim.value - PRECISION:
        return replace(judgement, verdict=ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE)
    if low > claim.value + PRECISION:
        return replace(judgement, verdict=ClaimVerdict.REFUTED_BY_CERTIFICATE)
    if counted.certified + counted.broken == counted.images:
        return replace(judgement, verdict=ClaimVerdict.CONFIRMED)
    return judgement


def _identity(claim: Claim) -> tuple[bytes | str, object]:
    """What tells pairs of an image and an aim apart; a claim that cannot be read stands for itself."""
    if claim.image is None or claim.aim is None:
        return claim.name, None
    return claim.image.astype(np.float32).tobytes(), claim.aim


def _count(group: str, norm: Norm | None, bound: float | None, members: Sequence[Judgement]) -> RobustAccuracy:
    everything = {_identity(item.claim) for item in members}
    broken = {_identity(item.claim) for item in members if _is_broken(item)}
    certified = {_identity(item.claim) for item in members if _is_certified(item)}
    if certified & broken:
        raise ContradictionError(
            f"group {group!r}: {len(certified & broken)} images are both certified and broken at {norm} {bound}"
        )
    return RobustAccuracy(group, norm, bound, len(everything), len(certified), len(broken))


def _is_broken(item: Judgement) -> bool:
    return (
        item.counterexample is not None
        and item.is_exact
        and item.verdict
        in (
            ClaimVerdict.CONFIRMED,
            ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE,
        )
    )


def _is_certified(item: Judgement) -> bool:
    return bool(item.engine) and item.verdict in (ClaimVerdict.CONFIRMED, ClaimVerdict.REFUTED_BY_CERTIFICATE)


def _open(members: Sequence[Judgement]) -> list[Judgement]:
    """One judgement for each image and aim that no claim of failure or success has settled or asked about."""
    done = {_identity(item.claim) for item in members if _is_broken(item) or item.claim.kind is ClaimKind.FAILURE}
    return list({key: item for item in members if (key := _identity(item.claim)) not in done}.values())


def _as_failure(claim: Claim) -> Claim:
    return replace(claim, kind=ClaimKind.FAILURE, adversarial=None)
