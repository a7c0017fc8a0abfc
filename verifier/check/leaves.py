"""Leaves of split trees, bounded in batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from verifier.check.coefficients import Coefficients
from verifier.check.knowledge import Bounds, Knowledge
from verifier.check.maps import Rows, Vector
from verifier.check.parameters import bits, chosen_at
from verifier.check.steps import Steps
from verifier.check.trees import Part
from verifier.check.walk import Bounded, RegionPlanes, bound_rows
from verifier.proof.errors import CertificateError
from verifier.proof.records import UNIT, ParameterSet
from verifier.rounding import down, inner_product_error, up

_ENTRIES_PER_BATCH = 400_000
_LARGEST_BATCH = 4096


def batch_size(steps: Steps) -> int:
    """How many rows are walked at a time, so that memory stays bounded."""
    widest = max(*steps.sizes, *(step.index.size for step in steps.maxima.values()), 1)
    return max(1, min(_LARGEST_BATCH, _ENTRIES_PER_BATCH // widest))


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """A box that some inputs must lie in."""

    inputs: Int[np.ndarray, " n"]
    lower: Vector
    upper: Vector


class LeafBounder:
    """Bounds parts of the region, with what is known of all of it.

    Args:
        knowledge: The facts used.
        planes: By operation, the region's planes.
    """

    def __init__(self, knowledge: Knowledge, planes: Mapping[int, RegionPlanes]) -> None:
        self._knowledge, self._planes = knowledge, planes
        self._region = knowledge.lower[0][None], knowledge.upper[0][None]
        self._batch = batch_size(knowledge.steps)
        self._clips: dict[tuple[int, int, int], list[_Clip]] = {}

    def bounds(self, parts: Iterable[Part]) -> Iterator[tuple[Part, float]]:
        """Every part with an upper bound of its goal's least member there, -inf where it is empty and inf where none was found.

        The goals must all be about one value.
        """
        held: list[Part] = []
        for part in parts:
            held.append(part)
            if len(held) == self._batch:
                yield from zip(held, self._bound(held).tolist(), strict=True)
                held = []
        if held:
            yield from zip(held, self._bound(held).tolist(), strict=True)

    def _bound(self, parts: list[Part]) -> Vector:
        """For each part the least bound that any of its sets gives, each set clipping the box for those after it."""
        best = np.full(len(parts), np.inf)
        lower, upper = self._phase_boxes(parts)
        best[(lower > upper).any(axis=1)] = -np.inf
        counts = np.array([max(1, len(part.leaf.sets)) for part in parts])
        for number in range(counts.max()):
            left = np.flatnonzero((number < counts) & ~(best < 0.0))
            if len(left):
                found, is_empty = self._set_bounds([parts[i] for i in left], number, (lower[left], upper[left]))
                reached = np.where(np.isfinite(found.bounds), found.bounds, np.inf)
                best[left] = np.where(is_empty, -np.inf, np.minimum(best[left], reached))
                if (counts[left] > number + 1).any():
                    lower[left], upper[left] = _clipped(found.bounds, found.slopes, lower[left], upper[left])
        return best

    def _set_bounds(self, parts: list[Part], number: int, box: Bounds) -> tuple[Bounded, Bool[np.ndarray, " parts"]]:
        """What the sets of this number give over boxes, and which parts are seen to be empty."""
        value, steps = parts[0].goal.value, self._knowledge.steps
        sets = [part.leaf.sets[number] if part.leaf.sets else None for part in parts]
        entries = np.unique(np.concatenate([part.goal.columns for part in parts]))
        rows, constants, size = (np.zeros(shape) for shape in ((len(parts), len(entries)), len(parts), len(parts)))
        for row, (part, held) in enumerate(zip(parts, sets, strict=True)):
            weights = _combination(held, len(part.goal.columns))
            rows[row, np.searchsorted(entries, part.goal.columns)] = weights * part.goal.factors
            constants[row], size[row] = weights @ part.goal.constants, weights @ np.abs(part.goal.constants)
        constants = up(constants + inner_product_error(size, steps.sizes[value]))
        is_clipped = not all((end == whole).all() for end, whole in zip(box, self._region, strict=True))
        shallow = self._knowledge.shallow_bounds(*box) if is_clipped else {}
        chosen = {
            operation: chosen_at(step, parts, sets) for operation, step in steps.maxima.items() if step.output <= value
        }
        return bound_rows(
            self._knowledge,
            self._planes,
            value,
            Coefficients(entries, rows),
            constants,
            box=box,
            chosen=chosen,
            shallow=shallow,
        )

    def _phase_boxes(self, parts: list[Part]) -> Bounds:
        """The region's box for every part, clipped by what its splits say about values affine in the input."""
        lower, upper = (np.tile(end, (len(parts), 1)) for end in self._region)
        for row, part in enumerate(parts):
            for (operation, window), mask in part.masks.items() if part.clips else ():
                for clip in self._phase_clips(operation, window, mask):
                    lower[row, clip.inputs] = np.maximum(lower[row, clip.inputs], clip.lower)
                    upper[row, clip.inputs] = np.minimum(upper[row, clip.inputs], clip.upper)
        return lower, upper

    def _phase_clips(self, operation: int, window: int, mask: int) -> list[_Clip]:
        """Of a window whose floor can win: z >= 0 where A is {z}, every z <= 0 where A is the floor alone."""
        key = (operation, window, mask)
        if key not in self._clips:
            step = self._knowledge.steps.maxima[operation]
            kept = self._planes[operation].planes.kept[:, 0, window]
            alive = bits(mask, len(kept)) & kept
            signed: list[tuple[int, float]] = []
            if step.has_floor and kept[-1] and step.source in self._knowledge.steps.shallow and alive.sum() == 1:
                others = [(int(z), -1.0) for z in np.flatnonzero(kept[:-1])]
                signed = others if alive[-1] else [(int(alive.argmax()), 1.0)]
            self._clips[key] = [self._clip(step.source, int(step.index[z, window]), sign) for z, sign in signed]
        return self._clips[key]

    def _clip(self, value: int, entry: int, sign: float) -> _Clip:
        """Where sign * z >= 0 can hold."""
        rows = Coefficients(np.array([entry]), np.full((1, 1), sign))
        found, _ = bound_rows(self._knowledge, {}, value, rows, np.zeros(1), box=self._region)
        slopes = found.slopes
        inputs = np.flatnonzero(slopes[0])
        lower, upper = (end[:, inputs] for end in self._region)
        if found.bounds[0] < 0.0:
            return _Clip(inputs, np.full(len(inputs), np.inf), np.full(len(inputs), -np.inf))
        lower, upper = _clipped(found.bounds, slopes[:, inputs], lower, upper)
        return _Clip(inputs, lower[0], upper[0])


def _clipped(bounds: Vector, slopes: Rows, lower: Rows, upper: Rows) -> Bounds:
    """The part of each box where its plane can be >= 0, as a box.

    The plane a @ x + c has its maximum over the box, at most B >= 0, where every input lies at the end that its a_i favours; an
    input away from that end by more than B / |a_i| makes it negative. Bounds that are not finite clip nothing.
    """
    with np.errstate(all="ignore"):
        room = up(np.maximum(bounds, 0.0)[:, None] / np.abs(slopes))
        low = np.where(slopes > 0.0, down(upper - room), lower)
        high = np.where(slopes < 0.0, up(lower + room), upper)
    is_usable = np.isfinite(bounds)[:, None] & np.isfinite(room)
    return np.where(is_usable, np.maximum(lower, low), lower), np.where(is_usable, np.minimum(upper, high), upper)


def _combination(held: ParameterSet | None, members: int) -> Vector:
    """The members' weights; for a leaf that brings none, equal ones up to the rounding of UNIT / members."""
    if held is None:
        share = UNIT // members
        integers = np.array([UNIT - share * (members - 1), *[share] * (members - 1)], dtype=np.int64)
    else:
        integers = held.combination.astype(np.int64)
    if integers.shape != (members,) or (integers < 0).any() or int(integers.sum()) != UNIT:
        raise CertificateError("a leaf's weights of the members do not fit, or do not sum to 1")
    return integers / UNIT
