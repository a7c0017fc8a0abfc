"""How far float32 inference can be from exact arithmetic, over a whole region.

Soundness: covers every evaluation of the file's operations in IEEE float32 (u = 2^-24) in any order of summation, with or without
fused multiply-add, subnormals kept or flushed, and with constants folded into neighbouring affine operations. Per value it holds

- a bound e of |computed - exact|,
- a magnitude m: a bound of the sum of all |products| that make the value up, back to the last maximum, however they are grouped,
- a count n of roundings that any of these products can have gone through.

Affine: e' = |W| e + gamma_n' (|W| (m + e) + |b|), m' = |W| m + |b|, n' = n + terms + 8, where gamma_n = n u / (1 - n u) and 8
stands for the roundings inside a normalisation, a bias, a folded constant. Maxima are exact: e' = the largest e of the alternatives
that can win, and products start anew. Not covered: products in a lower precision (TF32, bfloat16) and transforms that compute
convolutions from other products (Winograd, Fourier).
"""

import numpy as np

from verifier.check.knowledge import Knowledge, alternatives
from verifier.check.maps import INFLATION, Vector
from verifier.check.steps import AffineStep, MaximumStep
from verifier.proof.errors import CertificateError
from verifier.property import Property
from verifier.rounding import down, up

_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST = 2.0**-126
_LARGEST = 2.0**127
_EXTRA = 8


def form_errors(knowledge: Knowledge, property: Property) -> Vector:
    """(forms,): how much larger each form of float32 scores can be than that of the exact scores, at float32 images of the region.

    The forms themselves are taken exactly: a ranking compares the computed scores.

    Raises:
        CertificateError: A value can overflow float32, or a sum is too long for a bound.
    """
    steps = knowledge.steps
    error: dict[int, Vector] = {0: np.zeros(steps.sizes[0])}
    magnitude: dict[int, Vector] = {0: knowledge.magnitude[0]}
    count: dict[int, int] = {0: 0}
    for step in steps.steps[: steps.scores]:
        at = step.output
        if isinstance(step, MaximumStep):
            error[at] = _maximum(step, knowledge, error[step.source])
            magnitude[at], count[at] = knowledge.magnitude[at], 0
        else:
            _affine(step, error, magnitude, count)
        if not (magnitude[at] + error[at] < _LARGEST).all():
            raise CertificateError("float32 may overflow over this region")
    spread = np.abs(property.coefficients) @ error[steps.scores]
    return np.asarray(spread * INFLATION)


def _maximum(step: MaximumStep, knowledge: Knowledge, source: Vector) -> Vector:
    """The largest error of an alternative that can be the largest, exactly or as computed."""
    known = knowledge.lower[step.source][None], knowledge.upper[step.source][None]
    lower, upper = (end[:, 0] for end in alternatives(step, known))
    error = np.where(step.index >= 0, source[step.index], 0.0)
    can_win = up(upper + error) >= down(lower - error).max(axis=0)
    return np.where(can_win, error, 0.0).max(axis=0)


def _affine(step: AffineStep, error: dict[int, Vector], magnitude: dict[int, Vector], count: dict[int, int]) -> None:
    at = step.output
    terms = sum(linear.terms for linear, _ in step.terms) + len(step.terms) + _EXTRA
    count[at] = terms + max((count[source] for _, source in step.terms), default=0)
    share = count[at] * _UNIT_ROUNDOFF
    if share >= 0.25:
        raise CertificateError(f"a sum of {count[at]} terms is too long for a bound of its float32 rounding")
    moved, size, lost = np.zeros(1), step.bias_magnitude + step.radius, np.zeros(1)
    for linear, source in step.terms:
        moved = moved + linear.magnitude(error[source][None])[0]
        size = size + linear.magnitude(magnitude[source][None])[0]
        weights = linear.magnitude(np.ones((1, len(error[source]))))[0]
        largest = float((magnitude[source] + error[source]).max(initial=0.0))
        lost = lost + _SMALLEST * (count[at] * (2.0 + largest) + weights)
    error[at] = (moved + share / (1.0 - share) * (size + moved) + lost) * INFLATION
    magnitude[at] = size * INFLATION
