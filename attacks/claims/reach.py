"""Whether an aim can be reached at all within a bound: the verifier's word, put together from its answers to single properties."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from attacks.claims.aim import Aim, Way
from attacks.claims.distance import is_within
from attacks.claims.success import reached
from attacks.face import run
from attacks.goals import Goal, Rule
from attacks.metrics import Norm
from verifier.certificate import Certificate
from verifier.deadline import Deadline
from verifier.evaluation import evaluate
from verifier.network import Network
from verifier.property import Property
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Counterexample, Robust, Unknown, UnknownReason, Verdict, Vulnerable
from verifier.verify import Outcome

MAX_WAYS = 64
"""How many ways to reach an aim are decided one by one; with more, only single constraints can prove it out of reach."""

_BALL_METHODS = {Norm.L1: (("slide", True),), Norm.L2: (("pgd", True), ("ml-cw", False))}
"""Attacks that stay in the ball, and one that looks for the smallest change."""


@runtime_checkable
class Decide(Protocol):
    """The verifier, with engines and attacks chosen."""

    def __call__(self, query: Query, starts: Float[np.ndarray, "n ..."], deadline: Deadline) -> Outcome:
        """A sound verdict; `starts` are images worth trying, `deadline` is when to stop."""


@dataclass(frozen=True, slots=True, eq=False)
class Territory:
    """Where an aim is to be reached.

    Attributes:
        network: The network.
        clean: The clean image.
        box: Holds every image within the bound.
        norm, bound: The bound, or None for the whole range of images.
    """

    network: Network
    clean: Float[np.ndarray, "..."]
    box: Box
    norm: Norm | None
    bound: float | None

    def holds(self, image: Float[np.ndarray, "..."]) -> bool:
        """Whether an image lies within the bound, exactly."""
        if not self.box.contains(image):
            return False
        return self.norm is None or self.bound is None or is_within(self.clean, image, self.norm, self.bound)


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The answer.

    Attributes:
        counterexample: An image within the bound that reaches the aim; or None.
        certificates: Together they prove that no image does; empty if nothing was proved.
        reason: Why neither was found; empty otherwise.
    """

    counterexample: Counterexample | None = None
    certificates: tuple[Certificate, ...] = ()
    reason: str = ""


def decide_reach(
    territory: Territory, aim: Aim, decide: Decide, starts: Sequence[Float[np.ndarray, "..."]], deadline: Deadline
) -> Reach:
    """Whether the aim can be reached strictly within the bound.

    First the images given; then, one by one, the constraints: where so many cannot be met that too few are left, the aim is out of
    reach. Then every way of reaching it that no such proof rules out. In an L1 or L2 ball that stays open our attacks are tried.

    Soundness: a counterexample is replayed, and lies within the bound in exact arithmetic. A proof covers the box, which holds all
    images within the bound, for every way of reaching the aim.

    Raises:
        InputError: The aim speaks of a threshold and the file ends in a softmax.
        ContradictionError: Two engines contradict each other.
        KeyboardInterrupt: Also where the verifier was interrupted.
    """
    case = _Case(territory, aim, decide, list(starts), deadline)
    given = case.first_that_reaches([territory.clean.astype(np.float32), *starts])
    if given is not None:
        return Reach(given)
    ways = aim.ways(MAX_WAYS)
    if ways is not None and len(ways) == 1:
        return case.all_ways(ways, {})
    proofs = case.blocked_constraints()
    if len(aim.constrained) - len(proofs) < aim.needed:
        return Reach(certificates=tuple(proofs.values()))
    if ways is None:
        known = f"{len(proofs)} of {len(aim.constrained)} constraints cannot be met"
        return Reach(
            reason=f"{known}; the rest can be combined in more than {MAX_WAYS} ways, too many to decide one by one"
        )
    return case.all_ways(ways, proofs)


def _goal(aim: Aim) -> Goal:
    """The aim as the goal of one row."""
    sign = torch.zeros((1, aim.labels), dtype=torch.int64)
    sign[0, list(aim.on)] = 1
    sign[0, list(aim.off)] = -1
    asked, nothing = sign != 0, torch.zeros_like(sign, dtype=torch.bool)
    return Goal(
        "claim",
        Rule.TOP_K if aim.k is not None else Rule.THRESHOLD,
        sign < 0,
        sign,
        torch.tensor([aim.needed]),
        torch.ones(1, dtype=torch.bool),
        asked,
        nothing,
        k=aim.k,
        threshold=aim.threshold or 0.0,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """One question, and the images met so far."""

    territory: Territory
    aim: Aim
    decide: Decide
    images: list[Float[np.ndarray, "..."]]
    deadline: Deadline

    def first_that_reaches(
        self, images: Sequence[Float[np.ndarray, "..."]], found_by: str = "a given image"
    ) -> Counterexample | None:
        """The first float32 image that lies within the bound and reaches the aim, replayed."""
        for image in images:
            if self.territory.holds(image):
                found = reached(self.territory.network, image, self.aim, found_by).counterexample
                if found is not None:
                    return found
        return None

    def blocked_constraints(self) -> dict[int, Certificate]:
        """The constraints that are proved to hold nowhere in the box, each with its proof."""
        proofs = {}
        for label, obstacle in zip(self.aim.constrained, self.aim.obstacles(), strict=True):
            verdict = self._ask(obstacle)
            if isinstance(verdict, Robust):
                proofs[label] = verdict.certificate
        return proofs

    def all_ways(self, ways: Sequence[Way], blocked: Mapping[int, Certificate]) -> Reach:
        """Decides every way that no blocked constraint rules out, those nearest to the clean image first."""
        scores = evaluate(self.territory.network, self.territory.clean[None].astype(np.float64))[0]
        open_ways = [way for way in ways if not blocked.keys() & set(way.constraints)]
        certificates = list(blocked.values())
        reasons: list[str] = []
        for way in sorted(open_ways, key=lambda way: -float(way.property.margin(scores))):
            verdict = self._ask(way.property)
            match verdict:
                case Robust(certificate):
                    certificates.append(certificate)
                case Vulnerable(counterexample):
                    if self.territory.holds(counterexample.image):
                        return Reach(counterexample)
                    reasons.append(
                        f"only the box around the {self.territory.norm} ball was decided: it can be reached there, further away"
                    )
                case Unknown(reason):
                    reasons.append(reason.value)
                case _:
                    assert_never(verdict)
        if not reasons:
            return Reach(certificates=tuple(certificates))
        found = self._within_ball()
        return Reach(found) if found is not None else Reach(reason="; ".join(dict.fromkeys(reasons)))

    def _within_ball(self) -> Counterexample | None:
        """What our attacks find in an L1 or L2 ball, where the verifier's own search goes through the box around it."""
        territory, norm = self.territory, self.territory.norm
        methods = _BALL_METHODS.get(norm, ()) if norm is not None else ()
        goal, clean = _goal(self.aim), torch.from_numpy(territory.clean.astype(np.float32).copy())[None]
        for method, has_ball in methods:
            if self.deadline.has_expired:
                return None
            result = run(
                territory.network,
                clean,
                goal.labels,
                method=method,
                goal=goal,
                norm="l1" if norm is Norm.L1 and has_ball else "l2" if has_ball else None,
                eps=territory.bound if has_ball else None,
                deadline=self.deadline,
            )
            found = self.first_that_reaches([result.images[0].numpy()], f"attack {method}")
            if found is not None:
                return found
        return None

    def _ask(self, goal: Property) -> Verdict:
        """The verdict over the box; its counterexample, if it has one, is kept for later questions."""
        starts = np.array(self.images, dtype=np.float64).reshape(-1, *self.territory.clean.shape)
        query = Query(self.territory.network, self.territory.box, goal)
        verdict = self.decide(query, starts, self.deadline).verdict
        if isinstance(verdict, Vulnerable):
            self.images.append(verdict.counterexample.image)
        if isinstance(verdict, Unknown) and verdict.reason is UnknownReason.INTERRUPTED:
            raise KeyboardInterrupt
        return verdict
