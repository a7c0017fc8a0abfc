"""Output properties. All have one shape: violated iff at least `count` linear forms of the scores are >= 0."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from verifier.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Property:
    """Violated at scores s iff at least `count` of the forms `coefficients @ s + offsets` are >= 0.

    The margin at s is the count-th largest form: the property holds strictly iff the margin is < 0, and a tie (margin 0)
    is a violation. Coefficients are small integers and offsets doubles, so that forms are exact up to one inner product.

    Attributes:
        name: What is asked, in words, for reports.
        coefficients: float64 (forms, labels).
        offsets: float64 (forms,).
        count: 1 <= count <= forms.
    """

    name: str
    # Shapes are checked below, with a message.
    coefficients: Float[np.ndarray, "..."]
    offsets: Float[np.ndarray, "..."]
    count: int

    def __post_init__(self) -> None:
        coefficients = np.array(self.coefficients, dtype=np.float64)
        offsets = np.array(self.offsets, dtype=np.float64)
        if coefficients.ndim != 2 or offsets.shape != coefficients.shape[:1]:
            raise InputError(
                f"property {self.name!r}: coefficients {coefficients.shape} do not match offsets {offsets.shape}"
            )
        if not (np.isfinite(coefficients).all() and np.isfinite(offsets).all()):
            raise InputError(f"property {self.name!r}: a coefficient or offset is not finite")
        if not 1 <= self.count <= len(offsets):
            raise InputError(f"property {self.name!r}: got count {self.count}, wanted 1 to {len(offsets)} (its forms)")
        coefficients.setflags(write=False)
        offsets.setflags(write=False)
        object.__setattr__(self, "coefficients", coefficients)
        object.__setattr__(self, "offsets", offsets)

    @property
    def labels(self) -> int:
        """The number of labels of the scores it reads."""
        return int(self.coefficients.shape[1])

    @property
    def is_ranking(self) -> bool:
        """Whether every form compares two scores, F_a - F_b up to a factor > 0: then only the order of the scores matters."""
        rows = self.coefficients
        compares_two = ((rows != 0.0).sum(axis=1) == 2).all() and (rows.max(axis=1) == -rows.min(axis=1)).all()
        return bool(compares_two and not self.offsets.any())

    def forms(self, scores: Float[np.ndarray, "*batch labels"]) -> Float[np.ndarray, "*batch forms"]:
        """The linear forms at each score row."""
        return np.asarray(scores, dtype=np.float64) @ self.coefficients.T + self.offsets

    def margin(self, scores: Float[np.ndarray, "*batch labels"]) -> Float[np.ndarray, "*batch"]:
        """The count-th largest form at each score row; >= 0 is a violation."""
        return np.sort(self.forms(scores), axis=-1)[..., -self.count]


def _check_label(label: int, labels: int) -> None:
    if not 0 <= label < labels:
        raise InputError(f"label: got {label}, wanted 0 to {labels - 1} for a network of {labels} labels")


def check_k(k: int, labels: int) -> None:
    """Refuses a k for which "the top k" says nothing.

    Raises:
        InputError: k < 1 or k >= labels.
    """
    if not 1 <= k < labels:
        raise InputError(
            f"k: got {k}, wanted 1 to {labels - 1} for a network of {labels} labels (with k = labels every label is always in)"
        )


def _differences(plus: Sequence[int], minus: Sequence[int], labels: int) -> Float[np.ndarray, "forms labels"]:
    rows = np.zeros((len(plus), labels))
    rows[np.arange(len(plus)), plus] += 1.0
    rows[np.arange(len(minus)), minus] -= 1.0
    return rows


def stays_in_top_k(label: int, k: int, labels: int) -> Property:
    """`label` is among the k highest scores, strictly: violated iff k others reach it (forms F_c - F_t, count k).

    Raises:
        InputError: label or k out of range.
    """
    _check_label(label, labels)
    check_k(k, labels)
    others = [c for c in range(labels) if c != label]
    rows = _differences(others, [label] * len(others), labels)
    return Property(f"label {label} stays in the top {k}", rows, np.zeros(len(others)), k)


def stays_out_of_top_k(label: int, k: int, labels: int) -> Property:
    """`label` is below the k highest scores, strictly: violated iff it reaches all but k - 1 of the others.

    Forms F_t - F_c for c != t, count C - k.

    Raises:
        InputError: label or k out of range.
    """
    _check_label(label, labels)
    check_k(k, labels)
    others = [c for c in range(labels) if c != label]
    rows = _differences([label] * len(others), others, labels)
    return Property(f"label {label} stays out of the top {k}", rows, np.zeros(len(others)), labels - k)


def keeps_top_k_set(members: Sequence[int], labels: int) -> Property:
    """The labels in `members` keep strictly outranking all others (forms F_o - F_i, count 1).

    Raises:
        InputError: A member out of range or repeated, no member, or no label outside.
    """
    inside = sorted(members)
    for label in inside:
        _check_label(label, labels)
    if len(set(inside)) != len(inside):
        raise InputError(f"members: got {list(members)}, wanted different labels")
    check_k(len(inside), labels)
    pairs = [(o, i) for o in range(labels) if o not in inside for i in inside]
    rows = _differences([o for o, _ in pairs], [i for _, i in pairs], labels)
    return Property(f"the top {len(inside)} stay {{{', '.join(map(str, inside))}}}", rows, np.zeros(len(pairs)), 1)


def keeps_thresholds(signs: Sequence[int], thresholds: Sequence[float], flips: int = 0) -> Property:
    """At most `flips` labels cross their threshold, all measured on logits.

    Label c is required strictly above `thresholds[c]` where `signs[c]` is +1 and strictly below where it is -1; 0 leaves it
    free. Forms sign_c (tau_c - F_c), count flips + 1.

    Raises:
        InputError: Lengths differ, a sign is not -1, 0 or 1, or `flips` is not in 0 .. constrained labels - 1.
    """
    if len(signs) != len(thresholds):
        raise InputError(f"thresholds: got {len(thresholds)} thresholds for {len(signs)} signs, wanted one each")
    if any(sign not in (-1, 0, 1) for sign in signs):
        raise InputError(f"signs: got {list(signs)}, wanted -1 (off), 0 (free) or 1 (on) per label")
    constrained = [c for c, sign in enumerate(signs) if sign]
    if not 0 <= flips < len(constrained):
        raise InputError(f"flips: got {flips}, wanted 0 to {len(constrained) - 1} (constrained labels - 1)")
    rows = np.zeros((len(constrained), len(signs)))
    offsets = np.zeros(len(constrained))
    for row, label in enumerate(constrained):
        rows[row, label] = -signs[label]
        offsets[row] = signs[label] * thresholds[label]
    name = f"at most {flips} of {len(constrained)} labels cross their threshold"
    return Property(name, rows, offsets, flips + 1)
