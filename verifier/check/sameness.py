"""Entries of a value that are the same function of the image, shifted: around an image most patches are alike."""

import numpy as np
from jaxtyping import Bool, Int

from verifier.check.maps import Vector
from verifier.check.steps import AffineStep, Steps
from verifier.proof.errors import CertificateError

_MOST_READ = 20_000_000


def same_as_first(
    steps: Steps, lower: Vector, upper: Vector, value: int, entries: Int[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which entries of a value are the first one's function of other inputs, with the same ranges.

    Written out down to the inputs, an entry is a formula: constants, maxima, and places where inputs stand. All entries are written
    out side by side, place by place.

    Soundness: where constants and maxima are equal, and the first entry's input at a place determines the other's (a map p of
    inputs) with an equal range, the other is f(x) = first(x') with x'_j = x_p(j), and x' is in the box for every x in it. So every
    bound of the first over the box is one of the other.

    Raises:
        CertificateError: The formulas are too long to be compared.
    """
    count = len(entries)
    is_same = np.ones(count, dtype=np.bool_)
    pending: dict[int, list[Int[np.ndarray, "n places"]]] = {value: [entries[:, None]]}

    def agree(numbers: np.ndarray) -> None:
        rows = numbers.reshape(count, -1)
        is_same[(rows != rows[0]).any(axis=1)] = False

    def check_size(places: int) -> None:
        if places > _MOST_READ:
            raise CertificateError(f"a claim about {count} entries: their formulas are too long to compare")

    for step in reversed(steps.steps[:value]):
        if step.output not in pending:
            continue
        here = np.concatenate(pending.pop(step.output), axis=1)
        is_there, flat = here >= 0, np.maximum(here, 0).ravel()
        agree(is_there)
        if isinstance(step, AffineStep):
            agree(step.bias[flat])
            agree(step.radius[flat])
            read = []
            for linear, source in step.terms:
                check_size(flat.size * linear.terms)
                index, constants = linear.taps(flat)
                agree(constants)
                read.append((source, index))
        else:
            check_size(flat.size * len(step.index))
            agree(step.present[:, flat].T)
            read = [(step.source, step.index[:, flat].T)]
        for source, index in read:
            places = np.where(is_there.reshape(-1, 1), index, -1).reshape(count, -1)
            pending.setdefault(source, []).append(places)
    inputs = np.concatenate(pending.get(0, [np.full((count, 1), -1)]), axis=1)
    agree(inputs >= 0)
    inputs = np.maximum(inputs, 0)
    agree(lower[inputs])
    agree(upper[inputs])
    for row in np.flatnonzero(is_same):
        moved = np.zeros(len(lower), dtype=np.int64)
        moved[inputs[0]] = inputs[row]
        is_same[row] = bool((moved[inputs[0]] == inputs[row]).all())
    return is_same
