"""From an engine's floating-point parameters to the integers that proofs hold."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt32

from verifier.proof.records import UNIT, GroupParameters, ParameterSet

FINE, COARSE = 32, 16
"""Bits a stored weight takes; COARSE ones are multiples of 2^-15, half the size."""


def shares(weights: Float[np.ndarray, "rows slots"], bits: int = FINE) -> UInt32[np.ndarray, "rows slots"]:
    """Weights >= 0 as integers that sum to UNIT in every row; what rounding leaves goes to the largest.

    Rows are scaled to sum to 1 first; a row without a positive weight gives everything to its first slot.
    """
    grid = 1 << (bits - 1)
    clean = np.maximum(np.nan_to_num(np.asarray(weights, dtype=np.float64)), 0.0)
    clean = np.where(clean.sum(axis=1, keepdims=True) > 0, clean, np.eye(1, clean.shape[1]))
    exact = clean / clean.sum(axis=1, keepdims=True)
    rounded = np.floor(exact * grid).astype(np.int64)
    rows = np.arange(len(rounded))
    rounded[rows, rounded.argmax(axis=1)] += grid - rounded.sum(axis=1)
    return (rounded * (UNIT // grid)).astype(np.uint32)


def fractions(values: Float[np.ndarray, " n"], bits: int = FINE) -> UInt32[np.ndarray, " n"]:
    """Numbers in [0, 1] as integers; what lies outside is moved in."""
    grid = 1 << (bits - 1)
    inside = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64)), 0.0, 1.0)
    return (np.floor(inside * grid + 0.5) * (UNIT // grid)).astype(np.uint32)


def group_parameters(
    weights: Float[np.ndarray, "windows slots"],
    fraction: Float[np.ndarray, " fractions"] | None = None,
    multipliers: Float[np.ndarray, "windows slots"] | None = None,
    bits: int = FINE,
) -> GroupParameters:
    """One leaf's parameters for a group from floating-point ones in range: see `GroupParameters`.

    Args:
        weights: Sum to 1 up to rounding, 0 at filled slots.
        fraction: One per window, or None for a group without.
        multipliers: >= 0; None for none.
        bits: FINE or COARSE.
    """
    places: Int[np.ndarray, " n"] = np.zeros(0, dtype=np.int64)
    values = np.zeros(0, dtype=np.float32)
    if multipliers is not None:
        flat = np.maximum(np.asarray(multipliers, dtype=np.float64).ravel(), 0.0).astype(np.float32)
        places = np.flatnonzero(flat > 0)
        values = flat[places]
    held = np.zeros(0, dtype=np.uint32) if fraction is None else fractions(fraction, bits)
    return GroupParameters(shares(weights, bits), held, places, values)


def parameter_set(
    combination: Float[np.ndarray, " members"], groups: Sequence[GroupParameters], bits: int = FINE
) -> ParameterSet:
    """One linear bound, its combination from floating-point weights on the simplex."""
    return ParameterSet(shares(np.asarray(combination)[None, :], bits)[0], tuple(groups))


def alternatives_of(
    windows: Int[np.ndarray, "windows kernel"], candidates: Int[np.ndarray, "windows slots"]
) -> Int[np.ndarray, "windows slots"]:
    """The alternatives that candidates are: from entries of the value read to positions in the kernel.

    Args:
        windows: The entries that each window reads, kernel entry by kernel entry, -1 in the padding: rows of a canonical `Max`.
        candidates: Entries of the same value, -1 where a slot is not used.

    Raises:
        ValueError: A candidate is no entry of its window.
    """
    matches = (candidates[:, :, None] == windows[:, None, :]) & (candidates[:, :, None] >= 0)
    if not (matches.any(axis=2) == (candidates >= 0)).all():
        raise ValueError("alternatives_of: a candidate is no entry of its window")
    return np.where(candidates >= 0, matches.argmax(axis=2), -1)
