"""Bands: runs of neighbouring layers that share an epsilon."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from verifier.errors import InputError

OPEN = 10**9
"""The last layer of a band without an end."""


def parse_bands(text: str) -> list[tuple[int, int]]:
    """Bands as in "0,1,2-4,5-": first and last layer of each; the last one may be open.

    Raises:
        InputError: Not of that form, or not from 0 on without gaps.
    """
    bands: list[tuple[int, int]] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        is_open = dash == "-" and last == ""
        if not first.isdecimal() or not (last.isdecimal() or last == ""):
            raise InputError(f"bands: got {text!r}, wanted layers and ranges such as 0,1,2-4,5-")
        bands.append((int(first), OPEN if is_open else int(last or first)))
    """Each distance's band.

    Raises:
        InputError: See `check_bands`.
    """
    check_bands(bands)
    return bands


def check_bands(bands: Sequence[tuple[int, int]]) -> None:
    """Refuses bands with gaps or an end.

    Raises:
        InputError: They do not run from 0 on without gaps, or the last one ends.
    """
    expected = 0
    for first, last in bands:
        if first != expected or last < first:
            raise InputError(f"bands: got a band {first}-{last}, wanted one that starts at layer {expected}: no gaps")
        expected = last + 1
    if not bands or bands[-1][1] < OPEN:
        raise InputError(
            f"bands: they end at layer {expected - 1}, wanted a last band that is open, such as {expected}-"
        )


def band_of(
    distance: Int[np.ndarray, "height width"], bands: Sequence[tuple[int, int]]
) -> Int[np.ndarray, "height width"]:
    """Each distance's band; errors as in `check_bands`."""
    check_bands(bands)
    return np.searchsorted([last for _, last in bands], distance)
