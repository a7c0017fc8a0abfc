"""How far adversarial images are from their originals, and how often attacks succeed."""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from verifier.errors import InputError

Images = Float[np.ndarray, "rows ..."]
Rows = Float[np.ndarray, " rows"]
Changes = Float[np.ndarray, "rows entries"]
PIXEL_SCALE = 255.0
_ENTRIES_TOGETHER = 2**23


class Norm(StrEnum):
    """How the size of a perturbation is measured."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"
    L0 = "l0"


def norms(clean: Images, adversarial: Images, norm: Norm) -> Rows:
    """The size of each row's change, over all its entries, in units of [0, 1] images (L0: a count of entries).

    The differences are formed in float64; multiply by 255 for 8-bit units.

    Raises:
        InputError: The shapes differ.
    """
    return _by_rows(lambda change: _size(change, norm), clean, adversarial)


def _size(change: Changes, norm: Norm) -> Rows:
    match norm:
        case Norm.LINF:
            return np.abs(change).max(axis=1, initial=0.0)
        case Norm.L2:
            return np.linalg.norm(change, axis=1)
        case Norm.L1:
            return np.abs(change).sum(axis=1)
        case Norm.L0:
            return (change != 0.0).sum(axis=1, dtype=np.float64)


def rmsd(clean: Images, adversarial: Images) -> Rows:
    """The root mean square change of an entry, on the scale 0 to 255 (Song et al. 2018).

    Raises:
        InputError: The shapes differ.
    """
    return PIXEL_SCALE * np.sqrt(_by_rows(lambda change: np.square(change).mean(axis=1), clean, adversarial))


def average_perturbation(sizes: Rows, succeeded: Bool[np.ndarray, " rows"], over: Literal["successes", "all"]) -> float:
    """APer: the mean size over the successful rows (the released code) or over all rows (Sun et al. 2023, eq. 13).

    NaN where there is no such row.
    """
    chosen = sizes[succeeded] if over == "successes" else sizes
    return float(chosen.mean()) if len(chosen) else float("nan")


def success_rate(succeeded: Bool[np.ndarray, " rows"]) -> float:
    """The share of rows that succeeded; NaN without rows."""
    return float(succeeded.mean()) if len(succeeded) else float("nan")


def success_within(
    sizes: Rows, succeeded: Bool[np.ndarray, " rows"], caps: Float[np.ndarray, " caps"]
) -> Float[np.ndarray, " caps"]:
    """The share of rows that succeeded with a change of at most each cap; NaN without rows."""
    if not len(sizes):
        return np.full(len(caps), np.nan)
    return (succeeded[:, None] & (sizes[:, None] <= caps)).mean(axis=0)


def _by_rows(measure: Callable[[Changes], Rows], clean: Images, adversarial: Images) -> Rows:
    """The measure of each row's change in float64, a few rows at a time: a thousand large images would fill the memory.

    Raises:
        InputError: The shapes differ.
    """
    if clean.shape != adversarial.shape:
        raise InputError(f"images: got shapes {clean.shape} and {adversarial.shape}, wanted one shape")
    entries = math.prod(clean.shape[1:])
    together = max(1, _ENTRIES_TOGETHER // max(1, entries))
    parts = [np.zeros(0)]
    for start in range(0, len(clean), together):
        rows = slice(start, start + together)
        change = adversarial[rows].astype(np.float64) - clean[rows].astype(np.float64)
        parts.append(measure(change.reshape(len(change), entries)))
    return np.concatenate(parts)
