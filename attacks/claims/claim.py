"""What people say about attacks, and what a check of it may conclude."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np

from attacks.claims.aim import Aim
from attacks.metrics import Norm
from verifier.errors import ContradictionError
from verifier.region import Box
from verifier.verdict import Counterexample


class ClaimKind(StrEnum):
    """What is claimed."""

    SUCCESS = "success"
    """An attack reaches the aim within the bound: with its image, or without (then only that it can be done is checked)."""
    FAILURE = "failure"
    """The aim cannot be reached within the bound. "Attack X fails at epsilon" claims it only as far as X can be believed."""
    ROBUST_ACCURACY = "robust-accuracy"
    """On the images of a group, the share for which the aim cannot be reached within the bound."""


class ClaimVerdict(StrEnum):
    """What became of a claim."""

    CONFIRMED = "confirmed"
    REFUTED_BY_CERTIFICATE = "refuted (certificate)"
    REFUTED_BY_COUNTEREXAMPLE = "refuted (counterexample)"
    NOT_VALID = "not valid"
    UNDECIDED = "undecided"
    CONTRADICTION = "contradiction"
    """An image reaches the aim inside a region proved robust: something here is wrong, and a bug report is due."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One claim, as read; images may hold anything, and are checked when the claim is.

    Attributes:
        name: Unique in its table.
        kind: What is claimed.
        attack: Who made it, for reports.
        image: The clean image; None for a robust accuracy, or where it cannot be read.
        adversarial: The adversarial image, or None.
        aim: What the attack is to reach; None for a robust accuracy, or where it cannot be read.
        norm: In which the bound is measured; None where there is no bound.
        bound: The largest change claimed.
        certificate: A file that is to prove a failure, or None.
        group: Images that a robust accuracy is about.
        value: The robust accuracy claimed, in [0, 1].
        problem: Why the claim cannot be read, or empty.
        source: The record it was read from, for reports.
    """

    name: str
    kind: ClaimKind
    attack: str = ""
    image: np.ndarray | None = None
    adversarial: np.ndarray | None = None
    aim: Aim | None = None
    norm: Norm | None = None
    bound: float | None = None
    certificate: Path | None = None
    group: str = ""
    value: float | None = None
    problem: str = ""
    source: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What was found out about a claim.

    Attributes:
        claim: The claim.
        verdict: What became of it.
        reason: Why, in one sentence.
        size: The change of the adversarial image in the claim's norm, rounded to nearest; None without one.
        margin: Rigorous bounds of the aim's margin at the adversarial image; None where it was not evaluated.
        counterexample: An image that reaches the aim within the bound, replayed; None without one.
        is_exact: Whether the counterexample lies within the bound exactly, not only up to the rounding of float32.
        engine: Who proved that none does; empty without a proof.
        trusted: What that proof takes on trust.
        region: Where the proof or the search for a counterexample took place; None where there was neither.
        interval: Of a robust accuracy: what is certified, and what the counterexamples leave.
        contradiction: What a bug report needs, where the verdict is `CONTRADICTION`.
        seconds: Wall time.
    """

    claim: Claim
    verdict: ClaimVerdict
    reason: str
    size: float | None = None
    margin: tuple[float, float] | None = None
    counterexample: Counterexample | None = None
    is_exact: bool = True
    engine: str = ""
    trusted: tuple[str, ...] = ()
    region: Box | None = None
    interval: tuple[float, float] | None = None
    contradiction: ContradictionError | None = None
    seconds: float = 0.0

    @property
    def stands(self) -> bool:
        """Whether the claim is true."""
        return self.verdict is ClaimVerdict.CONFIRMED
