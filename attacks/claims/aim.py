"""What an attack on one image is said to reach, as properties that the verifier understands.

An aim is one row of `attacks.goals.Goal`: labels that must be on (or in the top k), labels that must be off (or out of it), and
how many of these constraints must hold strictly.
"""

from dataclasses import dataclass
from itertools import combinations, islice
from math import comb

import numpy as np
from jaxtyping import Float

from attacks.goals import Goal
from verifier.errors import InputError
from verifier.property import Property, check_k, keeps_thresholds, stays_in_top_k, stays_out_of_top_k


@dataclass(frozen=True, slots=True)
class Way:
    """One way to reach an aim.

    Attributes:
        constraints: The labels whose constraints each have to hold for it; empty where no single one has to.
        property: Violated where the aim is reached in this way.
    """

    constraints: tuple[int, ...]
    property: Property


@dataclass(frozen=True, slots=True)
class Aim:
    """At least `needed` of these constraints hold strictly, on logits.

    Attributes:
        labels: How many labels the network has.
        on: Labels that must be above the threshold, or among the k highest.
        off: Labels that must be below the threshold, or not among the k highest.
        needed: How many of the constraints count as success.
        k: The k of the top k, or None.
        threshold: The logit above which a label is on, or None; exactly one of the two is given.

    Raises:
        InputError: A label is out of range or named twice, `needed` or k is out of range, not one of k and threshold is given, or
            no ranking meets so many constraints.
    """

    labels: int
    on: tuple[int, ...]
    off: tuple[int, ...]
    needed: int
    k: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        named = (*self.on, *self.off)
        if len(set(named)) != len(named) or any(not 0 <= label < self.labels for label in named):
            raise InputError(
                f"aim: got on {self.on} and off {self.off}, wanted different labels from 0 to {self.labels - 1}"
            )
        if not 1 <= self.needed <= len(named):
            raise InputError(f"aim: got needed {self.needed}, wanted 1 to {len(named)}, the labels in on and off")
        if (self.k is None) == (self.threshold is None):
            raise InputError(f"aim: got k {self.k} and threshold {self.threshold}, wanted exactly one of them")
        if self.k is not None:
            check_k(self.k, self.labels)
            possible = min(len(self.on), self.k) + min(len(self.off), self.labels - self.k)
            if self.needed > possible:
                raise InputError(
                    f"aim: got needed {self.needed}, wanted at most {possible}: no ranking meets more with k {self.k}"
                )
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise InputError(f"aim: got threshold {self.threshold}, wanted a finite logit")

    @classmethod
    def of_goal(cls, goal: Goal, row: int) -> "Aim":
        """The aim of one row of a goal; `kappa` is left out, since a claim of success needs no more than a strict one."""
        signs = goal.sign[row].tolist()
        return cls(
            labels=len(signs),
            on=tuple(label for label, sign in enumerate(signs) if sign > 0),
            off=tuple(label for label, sign in enumerate(signs) if sign < 0),
            needed=int(goal.needed[row]),
            k=goal.k,
            threshold=goal.threshold if goal.k is None else None,
        )

    @property
    def text(self) -> str:
        """The aim in words."""
        words = (
            ("on", f"off (threshold {self.threshold:g})")
            if self.k is None
            else (f"in the top {self.k}", f"out of the top {self.k}")
        )
        if self.k is None and not self.off:
            words = (f"on (threshold {self.threshold:g})", "")
        parts = [
            f"{' '.join(map(str, chosen))} {word}"
            for chosen, word in zip((self.on, self.off), words, strict=True)
            if chosen
        ]
        count = len(self.on) + len(self.off)
        return " and ".join(parts) + ("" if self.needed == count else f" (at least {self.needed} of {count})")

    @property
    def constrained(self) -> tuple[int, ...]:
        """The labels with a constraint, in the order of `obstacles`."""
        return (*self.on, *self.off)

    def obstacles(self) -> tuple[Property, ...]:
        """One property for each constraint, violated wherever that constraint holds.

        Where `len(obstacles) - needed + 1` of them hold throughout a region, the aim is out of reach there.
        """
        if self.threshold is not None:
            return tuple(self._threshold_property((label,), 1) for label in (*self.on, *self.off))
        k = self.k or 0
        return (
            *(stays_out_of_top_k(label, k, self.labels) for label in self.on),
            *(stays_in_top_k(label, k, self.labels) for label in self.off),
        )

    def ways(self, limit: int) -> tuple["Way", ...] | None:
        """Properties such that the aim is reached strictly exactly where one of them is violated strictly; None if above `limit`.

        Under a threshold there is one. For the top k there is one for each choice of constraints and of a set T of k labels that
        contains those wanted in and none of those wanted out: T beats every label that must be out, and every label that must be
        in beats all labels outside T. T is the top k itself where the aim is reached. A single constraint is one property.
        """
        everything = self.constrained
        if self.threshold is not None:
            return (Way((), self._threshold_property(everything, self.needed)),)
        if len(everything) == 1:
            return (Way(everything, self.obstacles()[0]),)
        choices = list(islice(combinations(everything, self.needed), limit + 1))
        if len(choices) > limit or sum(self._tops(choice) for choice in choices) > limit:
            return None
        return tuple(
            Way(choice, self._way(choice, frozenset((*self._inside(choice), *rest))))
            for choice in choices
            if len(self._inside(choice)) <= (self.k or 0)
            for rest in combinations(self._free(choice), (self.k or 0) - len(self._inside(choice)))
        )

    def way_at(self, scores: Float[np.ndarray, " labels"]) -> Property:
        """One property whose strict violation reaches the aim, and which scores near these violate if they reach it at all."""
        if self.threshold is not None:
            return self._threshold_property((*self.on, *self.off), self.needed)
        margins = {
            label: prop.margin(scores) for label, prop in zip((*self.on, *self.off), self.obstacles(), strict=True)
        }
        ranked = sorted(margins, key=lambda label: -margins[label])
        # No more than k labels can be in, and no more than labels - k out.
        possible = [
            *[c for c in ranked if c in self.on][: self.k],
            *[c for c in ranked if c in self.off][: self.labels - (self.k or 0)],
        ]
        choice = tuple(sorted(possible, key=lambda label: -margins[label])[: self.needed])
        inside, free = self._inside(choice), self._free(choice)
        best = sorted(free, key=lambda label: (-scores[label], label))[: (self.k or 0) - len(inside)]
        return self._way(choice, frozenset((*inside, *best)))

    def _threshold_property(self, choice: tuple[int, ...], needed: int) -> Property:
        # keeps_thresholds wants the opposite signs: it is violated where enough labels cross to the side asked for here.
        signs = [0] * self.labels
        for label in choice:
            signs[label] = -1 if label in self.on else 1
        return keeps_thresholds(signs, [self.threshold or 0.0] * self.labels, needed - 1)

    def _inside(self, choice: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(label for label in choice if label in self.on)

    def _free(self, choice: tuple[int, ...]) -> list[int]:
        return [label for label in range(self.labels) if label not in choice]

    def _tops(self, choice: tuple[int, ...]) -> int:
        inside, free = len(self._inside(choice)), len(self._free(choice))
        return comb(free, (self.k or 0) - inside) if inside <= (self.k or 0) else 0

    def _way(self, choice: tuple[int, ...], top: frozenset[int]) -> Property:
        outside = [label for label in range(self.labels) if label not in top]
        pairs = {(t, o) for o in choice if o in self.off for t in top}
        pairs |= {(i, r) for i in choice if i in self.on for r in outside}
        rows = np.zeros((len(pairs), self.labels))
        for row, (high, low) in enumerate(sorted(pairs)):
            rows[row, high], rows[row, low] = 1.0, -1.0
        name = f"not: {self.text}, with top {{{', '.join(map(str, sorted(top)))}}}"
        return Property(name, rows, np.zeros(len(rows)), len(rows))
