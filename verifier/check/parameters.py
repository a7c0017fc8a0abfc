"""The parameters that a batch of leaves brings along, checked and laid out for `planes`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from verifier.check.planes import ByAlternative, ByWindow
from verifier.check.steps import MaximumStep
from verifier.check.trees import Part
from verifier.proof.errors import CertificateError
from verifier.proof.records import UNIT, GroupParameters, ParameterSet, WindowGroup


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What leaves choose at the windows of one maximum that some leaf splits or carries parameters for.

    Attributes:
        windows: int64 (n,), ascending.
        is_own: bool (batch, n): whether this very leaf does; elsewhere the region's planes count, whatever other leaves are bounded
            with it.
        alive: bool (alternatives, batch, n): the sets A.
        weights: (alternatives, batch, n) >= 0, summing to 1 over the alternatives; NaN where a leaf chooses none.
        fractions: (batch, n) in [0, 1], or NaN.
        multipliers: (alternatives, batch, n) >= 0, 0 in the padding.
    """

    windows: Int[np.ndarray, " n"]
    is_own: Bool[np.ndarray, "batch n"]
    alive: Bool[np.ndarray, "alternatives batch n"]
    weights: ByAlternative
    fractions: ByWindow
    multipliers: ByAlternative


def chosen_at(step: MaximumStep, parts: Sequence[Part], sets: Sequence[ParameterSet | None]) -> Chosen:
    """What these parts choose by these parameter sets; None chooses nothing.

    Raises:
        CertificateError: Something is out of range, or does not fit the layout.
    """
    layouts = {id(part.layout): part.layout for part in parts}
    groups = [group.windows for layout in layouts.values() for group in layout if group.operation == step.operation]
    split = [
        (row, window, mask)
        for row, part in enumerate(parts)
        for (operation, window), mask in part.masks.items()
        if operation == step.operation
    ]
    split_windows = np.array([window for _, window, _ in split], dtype=np.int64)
    windows = np.unique(np.concatenate([*groups, split_windows]))
    shape = (len(step.index), len(parts), len(windows))
    alive = np.broadcast_to(step.present[:, None, windows], shape).copy()
    is_own = np.zeros(shape[1:], dtype=np.bool_)
    if split:
        # Every part names a window once.
        at = np.array([row for row, _, _ in split]), np.searchsorted(windows, split_windows)
        alive[:, *at] &= np.stack([bits(mask, len(alive)) for _, _, mask in split], axis=1)
        is_own[at] = True
    chosen = Chosen(windows, is_own, alive, np.full(shape, np.nan), np.full(shape[1:], np.nan), np.zeros(shape))
    for layout in layouts.values():
        own = np.array([row for row, part in enumerate(parts) if part.layout is layout])
        held = {int(row): held for row in own if (held := sets[row]) is not None}
        if any(len(one.groups) != len(layout) for one in held.values()):
            raise CertificateError("a leaf's parameters do not fit the layout")
        for number, group in enumerate(layout):
            if group.operation == step.operation:
                is_own[own[:, None], np.searchsorted(windows, group.windows)[None, :]] = True
                if held:
                    _fill(chosen, group, np.array(list(held)), [one.groups[number] for one in held.values()])
    return chosen


@lru_cache(maxsize=4096)
def bits(mask: int, count: int) -> Bool[np.ndarray, " count"]:
    """A bit set as an array."""
    return np.array([bool(mask >> bit & 1) for bit in range(count)])


def _fill(chosen: Chosen, group: WindowGroup, rows: Int[np.ndarray, " rows"], held: Sequence[GroupParameters]) -> None:
    """Writes the parameters of some rows, all of one layout."""
    what = f"operation {group.operation}"
    shape, is_used = group.alternatives.shape, group.alternatives >= 0
    if any(part.weights.shape != shape or len(part.fractions) != shape[0] * group.has_fractions for part in held):
        raise CertificateError(f"parameters for {what} have another shape than the layout")
    places = np.searchsorted(chosen.windows, group.windows)
    integers = np.stack([part.weights for part in held]).astype(np.int64)
    if (integers[:, ~is_used] != 0).any() or (integers < 0).any() or (integers.sum(axis=2) != UNIT).any():
        raise CertificateError(f"weights for {what} do not sum to 1")
    window = np.nonzero(is_used)[0]
    chosen.weights[:, rows[:, None], places[None, :]] = 0.0
    chosen.weights[group.alternatives[is_used], rows[:, None], places[window]] = integers[:, is_used] / UNIT
    if group.has_fractions:
        fractions: Float[np.ndarray, "rows n"] = np.stack([part.fractions for part in held]) / UNIT
        if not ((fractions >= 0.0) & (fractions <= 1.0)).all():
            raise CertificateError(f"a fraction for {what} is larger than 1")
        chosen.fractions[rows[:, None], places[None, :]] = fractions
    if any(part.places.shape != part.multipliers.shape for part in held):
        raise CertificateError(f"multipliers for {what} have no place each")
    named, values = (np.concatenate([getattr(part, name) for part in held]) for name in ("places", "multipliers"))
    owner = np.repeat(np.arange(len(held)), [len(part.places) for part in held])
    if not (np.isfinite(values) & (values >= 0.0)).all():
        raise CertificateError(f"multipliers for {what} are negative or not finite")
    is_known = (named >= 0) & (named < is_used.size)
    if (
        not is_known.all()
        or not is_used.ravel()[named].all()
        or len(np.unique(owner * is_used.size + named)) < len(named)
    ):
        raise CertificateError(f"multipliers for {what} name no alternative, or one twice")
    at, slot = np.divmod(named, shape[1])
    chosen.multipliers[group.alternatives[at, slot], rows[owner], places[at]] = values
