"""Judges the items of a proof, one after the other, and what they add up to."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from jaxtyping import Bool, Float, Int

from verifier.check.coefficients import Coefficients
from verifier.check.cover import covers_every_subset
from verifier.check.float32 import form_errors
from verifier.check.knowledge import Bounds, Knowledge
from verifier.check.leaves import LeafBounder, batch_size
from verifier.check.maps import Vector
from verifier.check.sameness import same_as_first
from verifier.check.steps import MaximumStep, steps_of, with_forms
from verifier.check.trees import Goal, Part, part_at, parts_of
from verifier.check.walk import RegionPlanes, bound_rows
from verifier.network import Network
from verifier.proof.assemble import Way
from verifier.proof.errors import CertificateError
from verifier.proof.records import CrownLemma, Item, Leaf, Refutation, RowClaim, Tree, TreeLemma, WindowGroup
from verifier.property import Property
from verifier.region import Box
from verifier.rounding import up

_BLOCK = 4
"""A convolution's units are walked back in blocks of so many pixels a side, because those read the same part of the image."""
_MARGIN = 1e-11
"""Of a bound that was raised, times the magnitude of what it is about."""


class Judge:
    """What is proved so far about one network over one box.

    Soundness: an item is accepted only for what it shows; a rejected one raises and leaves the judge as it was.

    Args:
        network: The network.
        box: The region.
        property: The property.
        covers_float32: Whether refutations must hold for the scores of every float32 evaluation too (`verifier.check.float32`).

    Raises:
        CertificateError: Shapes do not fit, or the network's values overflow over the region.
        UnsupportedOpError: The checker has no rule for an operation.
    """

    def __init__(self, network: Network, box: Box, property: Property, *, covers_float32: bool = False) -> None:
        if box.shape != network.input_shape or property.labels != network.labels:
            raise CertificateError(
                f"the statement is about images of shape {box.shape} and {property.labels} labels, the network has "
                f"{network.input_shape} and {network.labels}"
            )
        self._property, self._covers_float32 = property, covers_float32
        self._steps = with_forms(steps_of(network), property)
        self._lower, self._upper = box.lower.ravel(), box.upper.ravel()
        self._stated: dict[int, Bounds] = {}
        self._refuted: set[frozenset[int]] = set()
        self._learn({})
        self.lemmas = self.refutations = self.leaves = 0
        self.largest_bound = -np.inf

    def _learn(self, facts: dict[int, Bounds]) -> None:
        stated = dict(self._stated)
        for value, (low, high) in facts.items():
            before = stated.get(value, (np.full_like(low, -np.inf), np.full_like(high, np.inf)))
            stated[value] = np.maximum(before[0], low), np.minimum(before[1], high)
        self._knowledge = Knowledge.of(self._steps, self._lower, self._upper, stated)
        self._stated = stated
        self._planes = {
            operation: RegionPlanes.of(step, self._knowledge) for operation, step in self._steps.maxima.items()
        }
        self._bounder = LeafBounder(self._knowledge, self._planes)
        self._offsets = np.zeros(len(self._property.offsets))
        if self._covers_float32:
            self._offsets = form_errors(self._knowledge, self._property)

    def judge(self, item: Item) -> None:
        """Accepts an item.

        Raises:
            CertificateError: It does not prove what it claims; the message says where.
        """
        match item:
            case CrownLemma():
                self._crown(self._step(item.operation))
                self.lemmas += 1
            case TreeLemma():
                self._trees(self._step(item.operation), item.claims)
                self.lemmas += 1
            case Refutation():
                self._refute(item)
                self.refutations += 1

    @property
    def is_proved(self) -> bool:
        """Whether the items accepted so far prove the property.

        Raises:
            CertificateError: That takes too long to decide.
        """
        return covers_every_subset(self._refuted, len(self._property.offsets), self._property.count)

    def leaf_bounds(self, members: Sequence[int], tree: Tree) -> Float[np.ndarray, " leaves"]:
        """The bounds of a refutation's leaves, depth first, -inf for an empty one; nothing is accepted."""
        parts = parts_of(self._goal(members), tree, self._steps.maxima)
        return np.array([bound for _, bound in self._bounder.bounds(parts)])

    def way_bounds(
        self, members: Sequence[Sequence[int]], layout: tuple[WindowGroup, ...], leaves: Sequence[tuple[Way, Leaf]]
    ) -> Float[np.ndarray, " leaves"]:
        """The bounds of single leaves, each of some members and at the end of its way down a tree that clips.

        -inf for an empty leaf; nothing is accepted. The layout is checked when a tree is judged.
        """
        parts = (
            part_at(self._goal(forms), layout, way, leaf, self._steps.maxima)
            for forms, (way, leaf) in zip(members, leaves, strict=True)
        )
        return np.array([bound for _, bound in self._bounder.bounds(parts)])

    @property
    def form_errors(self) -> Vector:
        """What is added to every form so that refutations cover float32 inference; zeros if they need not."""
        return self._offsets

    def region_bounds(self, operation: int) -> tuple[Vector, Vector]:
        """What is known of the value that an operation reads."""
        value = self._step(operation).source
        return self._knowledge.lower[value], self._knowledge.upper[value]

    def same_as_first(self, operation: int, entries: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which entries of what an operation reads are the first one's function, shifted: these can share one claim.

        Raises:
            CertificateError: They are too many to be compared.
        """
        if len(entries) == 1:
            return np.ones(1, dtype=np.bool_)
        return same_as_first(self._steps, self._lower, self._upper, self._step(operation).source, entries)

    def settle(
        self, lemma: TreeLemma, most: Float[np.ndarray, " claims"]
    ) -> tuple[TreeLemma, Bool[np.ndarray, " claims"]]:
        """Accepts claims with their bounds raised, where their trees show less, to what the trees do show.

        Claims whose bounds would have to be larger than `most` are left out. So claims whose proofs come from rounded arithmetic
        need to be judged only once.

        Returns:
            The lemma accepted (its claims are none if all are left out), and which claims are in it.

        Raises:
            CertificateError: A claim is malformed, or is one about different functions. Nothing is accepted.

        Soundness: where a leaf bounds sign * z - bound by an excess, sign * z is at most bound + excess.
        """
        step, claims = self._step(lemma.operation), tuple(lemma.claims)
        goals = [self._goal_of(step, claim) for claim in claims]
        numbers = {id(goal): number for number, goal in enumerate(goals)}
        trees = (parts_of(goal, claim.tree, self._steps.maxima) for goal, claim in zip(goals, claims, strict=True))
        excess, leaves = np.full(len(claims), -np.inf), np.zeros(len(claims), dtype=np.int64)
        for part, bound in self._bounder.bounds(chain.from_iterable(trees)):
            number = numbers[id(part.goal)]
            excess[number], leaves[number] = max(excess[number], bound), leaves[number] + 1
        bounds = np.array([claim.bound for claim in claims])
        # Sums in another order, by whoever judges the lemma next, may differ in the last digits.
        margin = _MARGIN * np.maximum(1.0, np.abs(bounds) + self._knowledge.magnitude[step.source].max())
        raised = np.where(excess + margin > 0.0, up(bounds + np.maximum(excess, 0.0) + 2.0 * margin), bounds)
        is_in = np.isfinite(raised) & (raised <= most)
        accepted = tuple(
            replace(claim, bound=float(bound)) for claim, bound, fits in zip(claims, raised, is_in, strict=True) if fits
        )
        if accepted:
            facts = self._nothing_about(step)
            for claim in accepted:
                _note(claim, facts)
            self._learn({step.source: facts})
            self.lemmas += 1
            self.leaves += int(leaves[is_in].sum())
        return TreeLemma(lemma.operation, accepted), is_in

    def _step(self, operation: int) -> MaximumStep:
        if operation not in self._steps.maxima:
            raise CertificateError(f"a lemma names operation {operation}: there is none")
        return self._steps.maxima[operation]

    def _goal(self, members: Sequence[int]) -> Goal:
        columns = np.array(members, dtype=np.int64)
        forms = len(self._property.offsets)
        if not len(columns) or columns.min() < 0 or columns.max() >= forms or len(set(members)) != len(members):
            raise CertificateError(
                f"members {tuple(members)[:10]} of a refutation are not different forms out of {forms}"
            )
        return Goal(len(self._steps.steps), columns, np.ones(len(columns)), self._offsets[columns])

    def _refute(self, item: Refutation) -> None:
        largest = -np.inf
        for part, bound in self._bounder.bounds(parts_of(self._goal(item.members), item.tree, self._steps.maxima)):
            if not bound < 0.0:
                raise CertificateError(f"{_where(part)} of members {item.members}: the bound is {bound:g}, not < 0")
            largest = max(largest, bound)
            self.leaves += 1
        self.largest_bound = max(self.largest_bound, largest)
        self._refuted.add(frozenset(item.members))

    def _trees(self, step: MaximumStep, claims: Iterable[RowClaim]) -> None:
        facts = self._nothing_about(step)
        for part, bound in self._bounder.bounds(self._claim_parts(step, claims, facts)):
            if not bound <= 0.0:
                entry = int(part.goal.columns[0])
                raise CertificateError(f"{_where(part)} of a claim about entry {entry}: exceeded by {bound:g}")
            self.leaves += 1
        self._learn({step.source: facts})

    def _claim_parts(self, step: MaximumStep, claims: Iterable[RowClaim], facts: Bounds) -> Iterator[Part]:
        """The leaves of all claims; what they claim is noted in `facts`, which count once all leaves are accepted."""
        for claim in claims:
            yield from parts_of(self._goal_of(step, claim), claim.tree, self._steps.maxima)
            _note(claim, facts)

    def _nothing_about(self, step: MaximumStep) -> Bounds:
        size = self._steps.sizes[step.source]
        return np.full((1, size), -np.inf), np.full((1, size), np.inf)

    def _goal_of(self, step: MaximumStep, claim: RowClaim) -> Goal:
        """What the leaves of a claim are to show <= 0."""
        entries, size = claim.entries, self._steps.sizes[step.source]
        if not len(entries) or not (0 <= entries.min() <= entries.max() < size):
            raise CertificateError(f"a claim names entries that operation {step.operation} does not read")
        if claim.sign not in (-1, 1) or not np.isfinite(claim.bound):
            raise CertificateError(f"a claim about entry {entries[0]} makes no sense")
        if not self.same_as_first(step.operation, entries).all():
            raise CertificateError(f"a claim about {len(entries)} entries: they are different functions")
        return Goal(step.source, entries[:1], np.array([float(claim.sign)]), np.array([-float(claim.bound)]))

    def _crown(self, step: MaximumStep) -> None:
        """Bounds every alternative of an undecided window, both ways, over the region's default planes."""
        kept = self._planes[step.operation].planes.kept[:, 0]
        wanted = step.index[kept & (kept.sum(axis=0) > 1) & (step.index >= 0)]
        entries = _by_block(np.unique(wanted), self._steps.shapes[step.source])
        box, (lower, upper) = (self._lower[None], self._upper[None]), self._nothing_about(step)
        half = max(1, batch_size(self._steps) // 2)
        for first in range(0, len(entries), half):
            part = entries[first : first + half]
            held = np.sort(part)
            values = np.zeros((2 * len(part), len(part)))
            values[np.arange(len(part)), np.searchsorted(held, part)] = 1.0
            values[np.arange(len(part)) + len(part), np.searchsorted(held, part)] = -1.0
            rows = Coefficients(held, values)
            found, _ = bound_rows(self._knowledge, self._planes, step.source, rows, np.zeros(len(values)), box=box)
            bounds = np.where(np.isfinite(found.bounds), found.bounds, np.inf)
            upper[0, part], lower[0, part] = bounds[: len(part)], -bounds[len(part) :]
        self._learn({step.source: (lower, upper)})


def _by_block(entries: Int[np.ndarray, " n"], shape: tuple[int, ...]) -> Int[np.ndarray, " n"]:
    """The entries of a (channels, height, width) value ordered by blocks of neighbouring pixels; others as they are."""
    if len(shape) != 3 or not len(entries):
        return entries
    _, row, column = np.unravel_index(entries, shape)
    return np.asarray(entries[np.lexsort((column, row, column // _BLOCK, row // _BLOCK))])


def _note(claim: RowClaim, facts: Bounds) -> None:
    """Writes what a claim says into bounds (1, size)."""
    lower, upper = facts
    if claim.sign > 0:
        upper[0, claim.entries] = np.minimum(upper[0, claim.entries], claim.bound)
    else:
        lower[0, claim.entries] = np.maximum(lower[0, claim.entries], -claim.bound)


def _where(part: Part) -> str:
    return f"a leaf below {len(part.masks)} split windows"
