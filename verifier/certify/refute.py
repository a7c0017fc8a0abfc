"""Refutes sets of forms by split trees whose leaves the checker accepts, one by one, as they are found.

The branch and bound of `verifier.search` once more, for another purpose: it keeps what it proves rather than what is open, and a
part counts as closed only when the checker has bounded it with the parameters that the certificate will hold. Splits that an
earlier search made are made again first.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.certify.vocabulary import Vocabulary
from verifier.check.judge import Judge
from verifier.deadline import Deadline
from verifier.proof import Leaf, Refutation, Tree
from verifier.proof.assemble import Way
from verifier.proof.quantise import COARSE, FINE
from verifier.proof.records import Node
from verifier.property import Property
from verifier.search import Cover
from verifier.search.branching import candidate_splits, choose_splits
from verifier.search.domain import Split
from verifier.search.goals import forms_of
from verifier.search.options import Descent
from verifier.search.record import Node as Hint
from verifier.search.record import nodes_of
from verifier.search.rows import Rows, minimise
from verifier.search.skeleton import Skeleton

_ROOT = Descent(iterations=30, decay=0.93)
_STEP = Descent(iterations=8)
_LONG = Descent(iterations=300, decay=0.985)
_MERGE = Descent(iterations=60, decay=0.95)
_CLOSED = 1e-8
"""Times the forms' scale: a bound this far below 0 in float64 is shown to the checker."""
_ROOM = 3e-4
"""Likewise: where the optimiser stops, so that rounded parameters still do."""
_MERGE_SHARE = 0.3
_LOOKAHEAD = 4
_BATCH = 64
_MOST_NUMBERS = 8_000_000

_Set = tuple[tuple[int, ...], tuple[int, ...]]
"""Forms in question together, and those they may be completed from."""


@dataclass(slots=True, eq=False)
class _Part:
    """A node of a split tree.

    Attributes:
        members: The forms, all >= 0 at a violation sought here.
        splits: What holds here.
        start: Parameters to start from, or None.
        hint: Where an earlier search's tree says how to split, or None.
        split: Its split, the side that wins; None while it is no inner node.
        sides: The parts where it wins and where it does not.
        leaf: Its evidence, once the checker has accepted it.
        bound: An upper bound of the least member here, as far as known.
    """

    members: tuple[int, ...]
    splits: tuple[Split, ...] = ()
    start: Tensor | None = None
    hint: Hint | None = None
    split: Split | None = None
    sides: "tuple[_Part, ...]" = ()
    leaf: Leaf | None = None
    bound: float = np.inf

    @property
    def is_closed(self) -> bool:
        """Whether it is a leaf, or was split; what is split is followed up."""
        return self.leaf is not None or bool(self.sides)


@dataclass(frozen=True, slots=True, eq=False)
class Refuted:
    """What refuting came to.

    Attributes:
        refutations: Of sets that every count-subset contains one of, if `is_complete`.
        is_complete: Whether all sets were refuted.
        best_bound: The largest bound of a part that is open, or -inf.
        parts: How many parts were bounded.
        reason: Why it is not complete; "" if it is.
    """

    refutations: tuple[Refutation, ...]
    is_complete: bool
    best_bound: float
    parts: int
    reason: str


class Refuter:
    """Refutes the sets of one property over one region.

    Args:
        skeleton: The region, with bounds that the judge has accepted, and the property.
        vocabulary: Of that skeleton.
        judge: Accepts leaves.
        property: The property.
        cover: Splits of an earlier search, tried first.
        deadline: When to give up.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        vocabulary: Vocabulary,
        judge: Judge,
        property: Property,
        cover: Cover | None,
        deadline: Deadline,
    ) -> None:
        self._skeleton, self._vocabulary, self._judge = skeleton, vocabulary, judge
        self._property, self._cover, self._deadline = property, cover, deadline
        self._forms = forms_of(property)
        self._error = float(judge.form_errors.max(initial=0.0))
        self._limit = -self._error - _CLOSED * skeleton.scale
        size = skeleton.columns + sum(stage.windows * stage.slots for stage in skeleton.stages)
        self._batch = max(1, min(_BATCH, _MOST_NUMBERS // max(1, size)))
        self._parts, self._began = 0, time.monotonic()
        self._pending: list[_Part] = []

    def run(self, *, splits: bool = True) -> Refuted:
        """Tries to refute sets of forms until every count-subset contains a refuted one.

        Single forms come first, then what they leave, one more member at a time; only whole subsets are split.

        Args:
            splits: Whether parts may be split; if not, this takes a moment.
        """
        count, forms = self._property.count, len(self._forms)
        refutations: list[Refutation] = []
        level: list[_Set] = [((form,), tuple(range(form + 1, forms))) for form in range(forms)]
        alive = frozenset(range(forms))
        for size in range(1, count + 1):
            roots = [_Part(members, hint=self._hint(members)) for members, _ in level]
            self._close_by_default(roots)
            if not self._close([root for root in roots if root.leaf is None], splits=splits and size == count):
                return self._given_up(refutations, is_last=size == count)
            closed = [root for root in roots if root.is_closed]
            self._merge(closed)
            refutations.extend(self._refutation(root) for root in closed)
            gone = {root.members for root in closed}
            if size == 1:
                # A form refuted alone is in no set that is left.
                alive -= {members[0] for members in gone}
            left = [(members, rest) for members, rest in level if members not in gone]
            if size == count or not left:
                bound = max((root.bound for root in roots if not root.is_closed), default=-np.inf)
                why = f"{len(left)} sets of forms are not refuted without splits" if left else ""
                return Refuted(tuple(refutations), not left, bound, self._parts, why)
            level = list(self._longer(left, alive, count))
        raise AssertionError("a property has a count of at least 1")

    def _longer(self, sets: Sequence[_Set], alive: frozenset[int], count: int) -> Iterator[_Set]:
        """The sets with one more member, where enough are left to complete them."""
        for members, rest in sets:
            possible = [form for form in rest if form in alive]
            for place, form in enumerate(possible):
                if len(members) + len(possible) - place >= count:
                    yield (*members, form), tuple(possible[place + 1 :])

    def _hint(self, members: tuple[int, ...]) -> Hint | None:
        tree = None if self._cover is None else self._cover.likely(tuple(self._forms[form] for form in members))
        return None if tree is None else nodes_of(tree)[0]

    def _given_up(self, refutations: Sequence[Refutation], *, is_last: bool) -> Refuted:
        bound = max((part.bound for part in self._pending), default=np.inf) if is_last else np.inf
        cause = "time ran out" if self._deadline.has_expired else "a part with nothing left to split stays open"
        reason = f"{cause} after {self._parts} parts, {len(self._pending)} open, bound {bound:.3g}"
        return Refuted(tuple(refutations), False, bound, self._parts, reason)

    # Closing parts.

    def _close_by_default(self, roots: Sequence[_Part]) -> None:
        """Gives evidence to the roots that the checker's own planes close: they need no parameters."""
        leaf = Leaf(())
        found = self._judge.way_bounds([root.members for root in roots], (), [((), leaf)] * len(roots))
        self._parts += len(roots)
        for root, bound in zip(roots, found.tolist(), strict=True):
            root.bound = bound
            if bound < 0.0:
                root.leaf = leaf

    def _close(self, roots: Sequence[_Part], *, splits: bool) -> bool:
        """Closes parts; False if it gave up. Without splits, what a bound alone does not close stays as it is."""
        self._pending = list(reversed(roots))
        while self._pending:
            if self._deadline.has_expired:
                return False
            batch = [self._pending.pop() for _ in range(min(self._batch, len(self._pending)))]
            held = self._optimised(batch, _ROOT if any(part.start is None for part in batch) else _STEP)
            opened = self._judged(batch, held)
            if not splits:
                continue
            self._split(batch, opened, held)
            self._pending.extend(side for column in reversed(opened) for side in reversed(batch[column].sides))
            stuck = [batch[column] for column in opened if not batch[column].sides]
            if stuck and not self._closes_slowly(stuck):
                self._pending.extend(part for part in stuck if part.leaf is None)
                return False
        return True

    def _closes_slowly(self, stuck: Sequence[_Part]) -> bool:
        """Whether many more steps close parts that have nothing left to split: there the bounds' infimum is the exact one."""
        return not self._judged(stuck, self._optimised(stuck, _LONG))

    def _merge(self, roots: Sequence[_Part]) -> None:
        """Replaces splits by leaves where a bound found with more effort closes what was split, from below."""
        started = time.monotonic()
        seconds = _MERGE_SHARE * (started - self._began)
        parents = [part for root in roots for part in _parents_of_leaves(root)]
        while parents and time.monotonic() - started < seconds and not self._deadline.has_expired:
            batch, parents = parents[: self._batch], parents[self._batch :]
            opened = set(self._judged(batch, self._optimised(batch, _MERGE)))
            for column, part in enumerate(batch):
                if column not in opened:
                    part.split, part.sides = None, ()
            if not parents:
                merged = len(batch) - len(opened)
                parents = [part for root in roots for part in _parents_of_leaves(root)] if merged else []

    def _optimised(self, batch: Sequence[_Part], descent: Descent) -> "_Optimised":
        """Parameters over the whole boxes, then, for rows that these do not close, over boxes clipped by their planes."""
        rows = Rows.of(self._skeleton, [part.members for part in batch], [part.splits for part in batch])
        start = rows.first_parameters()
        for column, part in enumerate(batch):
            if part.start is not None:
                start[:, column] = part.start
        self._parts += len(batch)
        room = -self._error - _ROOM * self._skeleton.scale
        first = minimise(rows, start, descent=descent, threshold=room, must_stop=self._is_late, clips=False)
        matrix = first.parameters
        rows.project(matrix)
        bounds = first.bounds.clone()
        left = (bounds >= self._limit).nonzero().squeeze(1)
        clipped: Rows | None = None
        finals = matrix[:, left]
        if len(left):
            narrowed = rows.selected(left)
            clipped = narrowed.clipped(narrowed.walk(finals))
            second = minimise(clipped, finals, descent=descent, threshold=room, must_stop=self._is_late, clips=False)
            finals = second.parameters
            clipped.project(finals)
            bounds[left] = torch.minimum(bounds[left], second.bounds)
        for part, bound in zip(batch, bounds.tolist(), strict=True):
            part.bound = min(part.bound, bound)
        places = {row: place for place, row in enumerate(left.tolist())}
        return _Optimised(rows, matrix, clipped, finals, places, bounds)

    def _is_late(self) -> bool:
        return self._deadline.has_expired

    def _judged(self, batch: Sequence[_Part], held: "_Optimised") -> list[int]:
        """Gives parts the evidence that the checker accepts; the columns of the others."""
        candidates = [column for column in range(len(batch)) if float(held.bounds[column]) < self._limit]
        opened = sorted(set(range(len(batch))) - set(candidates))
        for bits in (COARSE, FINE):
            if not candidates:
                break
            leaves = [self._evidence(held, column, bits) for column in candidates]
            found = self._judge.way_bounds(
                [batch[column].members for column in candidates],
                self._vocabulary.layout,
                [(self._way(batch[column]), leaf) for column, leaf in zip(candidates, leaves, strict=True)],
            )
            for column, leaf, bound in zip(candidates, leaves, found.tolist(), strict=True):
                if bound < 0.0:
                    batch[column].leaf, batch[column].start = leaf, None
            candidates = [column for column in candidates if batch[column].leaf is None]
        return sorted([*opened, *candidates])

    def _evidence(self, held: "_Optimised", column: int, bits: int) -> Leaf:
        if bool(torch.isneginf(held.bounds[column])):
            return Leaf(())
        first = self._vocabulary.parameters(held.rows, held.matrix, column, bits)
        place = held.places.get(column)
        if place is None or held.clipped is None:
            return Leaf((first,))
        return Leaf((first, self._vocabulary.parameters(held.clipped, held.finals, place, bits)))

    def _way(self, part: _Part) -> Way:
        return tuple(self._vocabulary.split(split) for split in part.splits)

    # Splitting.

    def _split(self, batch: Sequence[_Part], opened: Sequence[int], held: "_Optimised") -> None:
        fresh = []
        for column in opened:
            part = batch[column]
            # A leaf's parameters over its clipped box are the better start.
            place = held.places.get(column)
            part.start = held.matrix[:, column].clone() if place is None else held.finals[:, place].clone()
            if not self._follow(part):
                fresh.append(column)
        if not fresh:
            return
        index = torch.tensor(fresh)
        rows, matrix = held.rows.selected(index), held.matrix[:, index]
        candidates, _ = candidate_splits(rows.walk(matrix), _LOOKAHEAD)
        regular = [place for place, listed in enumerate(candidates) if listed]
        if not regular:
            return
        chosen = choose_splits(
            rows.selected(torch.tensor(regular)),
            matrix[:, regular],
            [batch[fresh[place]].splits for place in regular],
            [candidates[place] for place in regular],
            chunk=2 * self._batch,
            deadline=self._deadline,
        )
        for place, split in zip(regular, chosen, strict=True):
            self._halve(batch[fresh[place]], split, (None, None))

    def _follow(self, part: _Part) -> bool:
        """Splits a part as the hint says; False where it says nothing more."""
        hint = part.hint
        while hint is not None and hint.split is not None and hint.sides:
            split = self._vocabulary.naming.proposed(part.splits, hint.split)
            if isinstance(split, Split):
                self._halve(part, split, hint.sides)
                return True
            hint = hint.sides[0 if split else 1]
        return False

    def _halve(self, part: _Part, split: Split, hints: Sequence[Hint | None]) -> None:
        part.split = split
        part.sides = tuple(
            _Part(part.members, (*part.splits, side), part.start, hint, bound=part.bound)
            for side, hint in zip((split, split.opposite), hints, strict=True)
        )
        part.start = None

    # Trees.

    def _refutation(self, root: _Part) -> Refutation:
        has_parameters = root.leaf is None or bool(root.leaf.sets)
        return Refutation(
            root.members, Tree(self._vocabulary.layout if has_parameters else (), tuple(self._nodes(root)))
        )

    def _nodes(self, root: _Part) -> Iterator[Node]:
        waiting = [root]
        while waiting:
            part = waiting.pop()
            if part.leaf is not None:
                yield part.leaf
            elif part.split is not None:
                yield self._vocabulary.split(part.split)[0]
                waiting.extend(reversed(part.sides))
            else:
                raise AssertionError("a refuted tree has an open part")


def _parents_of_leaves(root: _Part) -> Iterator[_Part]:
    """Inner nodes both of whose sides are leaves."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if part.sides and all(side.leaf is not None for side in part.sides):
            yield part
        waiting.extend(part.sides)


@dataclass(frozen=True, slots=True, eq=False)
class _Optimised:
    """Rows with the parameters found for them.

    Attributes:
        rows, matrix: Over their boxes.
        clipped, finals: Those of some rows, over boxes clipped by the planes that `matrix` gives them.
        places: By column of `rows`: where it is in `clipped`, if it is.
        bounds: (batch,), the least found.
    """

    rows: Rows
    matrix: Tensor
    clipped: Rows | None
    finals: Tensor
    places: dict[int, int]
    bounds: Tensor
