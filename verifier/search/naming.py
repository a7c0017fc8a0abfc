"""Splits in the terms of one region's skeleton, and in those of the network."""

from collections.abc import Iterable

import numpy as np

from verifier.bounds import RegionBounds
from verifier.canonical import Affine, Relu
from verifier.milp.windows import Windows, reduce_windows
from verifier.search.domain import Split
from verifier.search.fingerprint import digest
from verifier.search.frontier import NamedSplit, NamedSplits
from verifier.search.skeleton import Skeleton


class Naming:
    """Translates splits both ways between a skeleton and the network behind its region.

    Attributes:
        layout: A fingerprint of the windows and their alternatives: equal ones have the same splits and parameters.
        inside: One of these and their bounds.
        positions: By stage, int64 (windows, slots): the position of each slot among its window's alternatives, -1 where absent.
    """

    def __init__(self, region: RegionBounds, skeleton: Skeleton) -> None:
        self._region, self._skeleton = region, skeleton
        self._reduced: dict[int, Windows] = {}
        self._homes: dict[int, dict[int, tuple[int, int]]] = {}
        for index, stage in enumerate(skeleton.stages):
            here = self._homes.setdefault(stage.node, {})
            here.update({int(entry): (index, window) for window, entry in enumerate(stage.entries)})
        self.positions = [self._slots(index) for index in range(len(skeleton.stages))]
        self._names: dict[Split, NamedSplit] = {}
        self._sides: dict[NamedSplit, tuple[tuple[int, int], int, int]] = {}
        self.layout = digest(
            [
                [stage.node, stage.entries, stage.is_relu, stage.has_floor, positions]
                for stage, positions in zip(skeleton.stages, self.positions, strict=True)
            ]
        )
        bounds = [[stage.lower.cpu().numpy(), stage.upper.cpu().numpy()] for stage in skeleton.stages]
        self.inside = digest([self.layout, bounds])

    def names(self, splits: Iterable[Split]) -> NamedSplits:
        """The splits in the network's terms."""
        return tuple(self._names.get(split) or self._name(split) for split in splits)

    def splits(self, named: NamedSplits) -> tuple[Split, ...] | None:
        """The part that named splits describe, as at most one split per window; None if the part is redundant.

        Soundness: parts that cover what is left of this region still do after translation, redundant ones left out.
        Take the tree that the parts are leaves of. At a node, let A be the alternatives of a window that the region's bounds and
        the splits so far leave, and S, not-S the sides of the next split. If A meets both, the two sides of A are a split here. If
        it meets only one, that side is the whole node, in which case its child alone covers it, and the other child, whose A is
        empty, is redundant with all below it. What is decided is only whether A is empty, so splits need not be looked at in
        order, and their two sides agree about what S is, since S is a set of candidates of the network.
        """
        left: dict[tuple[int, int], tuple[int, int]] = {}
        for split in named:
            window, possible, side = self._sides.get(split) or self._side(split)
            before = left.get(window, (possible, possible))[1]
            left[window] = (possible, before & side)
        found = []
        for (node, entry), (possible, alive) in left.items():
            if not alive:
                return None
            if alive != possible:
                stage, place = self._homes[node][entry]
                found.append(Split(stage, place, self._slots_at(stage, place, alive), wins=True))
        return tuple(found)

    def proposed(self, splits: tuple[Split, ...], named: NamedSplit) -> Split | bool:
        """A named split of a part: the side that wins; or, where one side is the whole part, whether it is that one.

        Soundness: whatever is proposed, the caller takes both sides of a split, or keeps the part as it is.
        """
        window, alive, _ = self._sides.get(named) or self._side(named)
        stage, place = self._homes.get(window[0], {}).get(window[1], (-1, -1))
        for split in splits:
            if split.stage == stage and split.window == place:
                (own,) = self.names([split])
                alive &= own.alternatives if own.wins else ~own.alternatives
        chosen = alive & named.alternatives
        if chosen in (0, alive):
            return bool(chosen)
        return Split(stage, place, self._slots_at(stage, place, named.alternatives), wins=True)

    def _slots_at(self, stage: int, window: int, alternatives: int) -> int:
        positions = self.positions[stage][window]
        return sum(1 << slot for slot, place in enumerate(positions) if place >= 0 and alternatives >> int(place) & 1)

    def _name(self, split: Split) -> NamedSplit:
        stage = self._skeleton.stages[split.stage]
        positions = self.positions[split.stage][split.window]
        chosen = sum(1 << int(place) for slot, place in enumerate(positions) if place >= 0 and split.slots >> slot & 1)
        named = NamedSplit(stage.node, int(stage.entries[split.window]), chosen, split.wins)
        self._names[split] = named
        return named

    def _side(self, split: NamedSplit) -> tuple[tuple[int, int], int, int]:
        """The window, its alternatives that the region's bounds leave, and those on this side, as bit sets."""
        reduced = self._windows(split.node)
        candidates = reduced.candidates[split.entry]
        possible = sum(1 << int(position) for position in np.flatnonzero(candidates >= 0))
        possible |= int(np.isfinite(reduced.floors[split.entry])) << len(candidates)
        side = possible & (split.alternatives if split.wins else ~split.alternatives)
        self._sides[split] = (split.node, split.entry), possible, side
        return self._sides[split]

    def _windows(self, node: int) -> Windows:
        """A node's windows without the alternatives that the region's bounds exclude; positions are the network's."""
        if node not in self._reduced:
            held, bounds = self._region.canonical.nodes[node], self._region.node_bounds
            if isinstance(held, Affine):
                raise TypeError(f"splits: node {node} is affine and has no windows")
            if isinstance(held, Relu):
                windows = Windows(np.arange(held.size, dtype=np.int64)[:, None], np.zeros(held.size))
            else:
                windows = Windows(held.windows, np.full(held.size, 0.0 if held.has_floor else -np.inf))
            self._reduced[node] = reduce_windows(windows, bounds.lower[held.input], bounds.upper[held.input])
        return self._reduced[node]

    def _slots(self, index: int) -> np.ndarray:
        """The position in its window of each slot of a stage, int64 (windows, slots), -1 where absent.

        The skeleton lists a window's candidates from the last entry of the value to the first, then the floor.
        """
        stage = self._skeleton.stages[index]
        listed = self._windows(stage.node).candidates[stage.entries]
        order = np.argsort(-listed, axis=1, kind="stable")[:, : stage.index.shape[1]]
        places = np.where(np.take_along_axis(listed, order, axis=1) >= 0, order, -1)
        if stage.has_floor:
            places = np.concatenate([places, np.full((len(places), 1), listed.shape[1])], axis=1)
        if not np.array_equal(places >= 0, stage.alive.cpu().numpy()):
            # An alternative without a name would be in no part of a translated cover.
            raise RuntimeError(f"splits: the slots of node {stage.node} are not its window's candidates; please report")
        return places
