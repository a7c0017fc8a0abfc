"""Lemmas: what a region's bounds inside the network rest on, as items of a proof that the checker has accepted."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from verifier.bounds import RegionBounds
from verifier.bounds.shallow_evidence import ShallowProof, SplitLeaves
from verifier.canonical import Affine, CanonicalNetwork, Max, Relu, Vector
from verifier.check.judge import Judge
from verifier.deadline import Deadline
from verifier.network import Network
from verifier.proof.assemble import Way, depth_first
from verifier.proof.errors import CertificateError
from verifier.proof.quantise import COARSE, FINE, shares
from verifier.proof.records import (
    UNIT,
    CrownLemma,
    GroupParameters,
    Item,
    Leaf,
    ParameterSet,
    RowClaim,
    Split,
    Tree,
    TreeLemma,
    WindowGroup,
    operation_numbers,
)

_log = logging.getLogger(__name__)
_LEAST_GAIN = 0.01
"""A claim that narrows a bound by a smaller share of the interval is not worth its bytes, unless it rules out an alternative."""
_LEEWAY = 1e-5
"""How much a bound may be raised, as a share of its magnitude, before finer parameters are tried."""
_NO_FRACTIONS = np.zeros(0, dtype=np.uint32)
_BLOCK = 4
"""Claims about entries in a block of so many pixels a side follow each other: they read the same ReLUs."""


def lemmas(network: Network, region: RegionBounds, judge: Judge, deadline: Deadline) -> Iterator[Item]:
    """The lemmas of a region, each accepted by the judge before it is yielded.

    In the order of the operations, for each whose input is not affine in the image (or whose intervals are wider in the checker):
    its CROWN lemma, then, if the region has proofs about what it reads, one lemma (or two) with those that narrow a bound.

    Claims whose trees show less than what the region says are weakened to what they do show, or left out. When the deadline has
    passed no more lemmas come; those yielded stand.

    Args:
        network: The network.
        region: Bounds of its canonical form over the judge's box.
        judge: Of the same network and box; `judge.region_bounds` says afterwards what a proof may use.
        deadline: Checked before every lemma.
    """
    numbers = operation_numbers(network)
    affine = _affine_values(region.canonical)
    for node in region.canonical.nodes:
        if isinstance(node, Affine) or node.origin not in numbers:
            continue
        if deadline.has_expired:
            return
        operation = numbers[node.origin]
        if node.input in affine and not _is_looser(judge.region_bounds(operation), region, node.input):
            continue
        yield _accepted(judge, CrownLemma(operation))
        proofs = [proof for proof in region.shallow if proof.value == node.input]
        if proofs and not deadline.has_expired:
            yield from _ShallowClaims(network, region.canonical, judge, node).lemmas(proofs)


def _is_looser(known: tuple[Vector, Vector], region: RegionBounds, value: int) -> bool:
    """Whether the checker's intervals are: it goes step by step where the canonical form has one affine map."""
    lower, upper = region.node_bounds.lower[value], region.node_bounds.upper[value]
    excess = np.maximum(known[1] - upper, lower - known[0])
    return bool((excess > _LEAST_GAIN * (known[1] - known[0])).any())


def _accepted(judge: Judge, lemma: CrownLemma) -> CrownLemma:
    judge.judge(lemma)
    return lemma


def _affine_values(canonical: CanonicalNetwork) -> frozenset[int]:
    affine = {0}
    for index, node in enumerate(canonical.nodes):
        if isinstance(node, Affine) and affine.issuperset(node.inputs):
            affine.add(index + 1)
    return frozenset(affine)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Entries that share a claim.

    Attributes:
        proof: Where they come from.
        members: int64 (members,), by position among the proof's entries; the first one's ReLUs are named in the tree.
        bound: Of all of them.
        most: A larger bound would say nothing new.
    """

    proof: ShallowProof
    members: Int[np.ndarray, " members"]
    bound: float
    most: float


class _ShallowClaims:
    """Claims about what one operation reads.

    Args:
        network: The network.
        canonical: Its canonical form.
        judge: Accepts them.
        node: The operation.
    """

    def __init__(self, network: Network, canonical: CanonicalNetwork, judge: Judge, node: Relu | Max) -> None:
        numbers = operation_numbers(network)
        self._judge, self._node, self._operation = judge, node, numbers[node.origin]
        self._shape = _shape_read(network, node, canonical.value_size(node.input))
        self._operations = {
            index: numbers[other.origin]
            for index, other in enumerate(canonical.nodes)
            if isinstance(other, Relu) and other.origin in numbers
        }

    def lemmas(self, proofs: Sequence[ShallowProof]) -> Iterator[TreeLemma]:
        """One lemma with coarse parameters, and one with fine ones for what needs them."""
        left = self._groups(
            [proof for proof in proofs if self._operations.keys() >= set(np.unique(proof.nodes).tolist())]
        )
        for bits in (COARSE, FINE):
            if not left:
                return
            claims = tuple(self._claim(group, bits) for group in left)
            close = np.array([group.bound + _LEEWAY * max(1.0, abs(group.bound)) for group in left])
            most = np.array([group.most for group in left])
            limits = np.minimum(close, most) if bits == COARSE else most
            try:
                lemma, is_in = self._judge.settle(TreeLemma(self._operation, claims), limits)
            except CertificateError as error:
                _log.warning("claims about operation %d are left out: %s", self._operation, error)
                return
            left = [group for group, accepted in zip(left, is_in.tolist(), strict=True) if not accepted]
            if is_in.any():
                yield lemma
        if left:
            _log.info(
                "%d claims about operation %d are left out: their trees show too little", len(left), self._operation
            )

    def _groups(self, proofs: Sequence[ShallowProof]) -> list[_Group]:
        """The entries whose bounds are worth a claim, by claim."""
        known = self._judge.region_bounds(self._operation)
        groups = []
        for proof, members in zip(proofs, worthwhile(self._node, known, proofs), strict=True):
            pending = [members]
            while pending:
                left = pending.pop()
                if not len(left):
                    continue
                try:
                    is_same = self._judge.same_as_first(self._operation, proof.entries[left])
                except CertificateError:
                    # Too many to be compared at once; a single one always passes.
                    pending += [left[len(left) // 2 :], left[: len(left) // 2]]
                    continue
                here = left[is_same]
                pending.append(left[~is_same])
                lower, upper = (side[proof.entries[here]] for side in known)
                before = upper if proof.sign > 0 else -lower
                groups.append(_Group(proof, here, float(proof.bounds[here].max()), float(before.max())))
        return sorted(groups, key=self._place)

    def _place(self, group: _Group) -> tuple[int, ...]:
        """Orders groups so that neighbours are near each other in the image."""
        entry = int(group.proof.entries[group.members[0]])
        if len(self._shape) != 3:
            return (entry,)
        _, row, column = (int(at) for at in np.unravel_index(entry, self._shape))
        return row // _BLOCK, column // _BLOCK, row, column

    def _claim(self, group: _Group, bits: int) -> RowClaim:
        """The claim, with parameters of so many bits."""
        proof, leaves, first = group.proof, group.proof.leaves, int(group.members[0])
        nodes, places = proof.nodes[first], proof.places[first]
        weights = np.where(leaves.phase == 0, leaves.slopes, leaves.phase > 0).astype(np.float64)
        default = np.array([self._default(int(node), int(place)) for node, place in zip(nodes, places, strict=True)])
        is_other = (leaves.phase == 0) & (weights != default)
        # The rest keeps the checker's defaults, which are the same.
        carries = (is_other & leaves.needs_slope).any(axis=0) | (leaves.multipliers > 0).any(axis=0)
        columns = [np.flatnonzero(carries & (nodes == node)) for node in np.unique(nodes[carries])]
        layout = tuple(
            WindowGroup(self._operations[int(nodes[units[0]])], places[units], np.tile([0, 1], (len(units), 1)), False)
            for units in columns
        )
        integers, combination = (
            shares(np.stack([weights.ravel(), 1.0 - weights.ravel()], axis=1), bits),
            np.array([UNIT]),
        )
        integers = integers.reshape(*weights.shape, 2)
        is_active = leaves.phase > 0
        evidence = []
        for row in range(len(weights)):
            parts = []
            for units in columns:
                bound_by = leaves.multipliers[row, units]
                held = np.flatnonzero(bound_by > 0)
                # A fixed ReLU says z >= 0, by y - 0 >= 0 where y = z, or z <= 0, by y - z >= 0 where y = 0.
                slots = 2 * held + is_active[row, units[held]]
                parts.append(GroupParameters(integers[row, units], _NO_FRACTIONS, slots, bound_by[held]))
            leaf = Leaf((ParameterSet(combination.astype(np.uint32), tuple(parts)),))
            evidence.append((self._way(leaves, row, nodes, places), leaf))
        tree = Tree(layout, tuple(depth_first(evidence)), clips=False)
        return RowClaim(proof.entries[group.members], proof.sign, group.bound, tree)

    def _default(self, node: int, place: int) -> float:
        """The slope below a ReLU by the checker's default rule."""
        lower, upper = self._judge.region_bounds(self._operations[node])
        return float(lower[place] + upper[place] > 0.0)

    def _way(
        self, leaves: SplitLeaves, row: int, nodes: Int[np.ndarray, " units"], places: Int[np.ndarray, " units"]
    ) -> Way:
        units = leaves.order[row]
        return tuple(
            (Split(self._operations[int(nodes[unit])], int(places[unit]), 1), bool(leaves.phase[row, unit] > 0))
            for unit in units[units >= 0].tolist()
        )


def _shape_read(network: Network, node: Relu | Max, size: int) -> tuple[int, ...]:
    """The shape of what an operation reads; of a merged pair, what the earlier one reads."""
    value = network.nodes[node.origin].inputs[0]
    while value and math.prod(network.value_shape(value)) != size:
        value = network.nodes[value - 1].inputs[0]
    shape = network.value_shape(value)
    return shape if math.prod(shape) == size else (size,)


def worthwhile(
    node: Relu | Max, known: tuple[Vector, Vector], proofs: Sequence[ShallowProof]
) -> list[Int[np.ndarray, " members"]]:
    """For every proof the members (by position) whose bounds are worth a claim.

    A bound is worth one if it rules out an alternative of a window, or narrows the interval of one that stays in a window which
    stays undecided.

    Args:
        node: The operation.
        known: Bounds of what it reads without the proofs.
        proofs: About what it reads.
    """
    lower, upper = known[0].copy(), known[1].copy()
    for proof in proofs:
        if proof.sign > 0:
            upper[proof.entries] = np.minimum(upper[proof.entries], proof.bounds)
        else:
            lower[proof.entries] = np.maximum(lower[proof.entries], -proof.bounds)
    was_alive, _ = _alive(node, *known)
    is_alive, is_open = _alive(node, lower, upper)
    gap = known[1] - known[0]
    answers = []
    for proof in proofs:
        at = proof.entries
        before = known[1][at] if proof.sign > 0 else -known[0][at]
        gains = before - proof.bounds > _LEAST_GAIN * gap[at]
        rules_out = (
            was_alive[at] & ~is_alive[at] & (proof.bounds < before) if proof.sign > 0 else np.zeros(len(at), bool)
        )
        answers.append(np.flatnonzero(rules_out | (gains & (is_open[at] | (proof.sign < 0)))))
    return answers


def _alive(node: Relu | Max, lower: Vector, upper: Vector) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Which entries may be the largest of a window, and which may be of one that is undecided."""
    windows = np.arange(node.size)[:, None] if isinstance(node, Relu) else node.windows
    has_floor = isinstance(node, Relu) or node.has_floor
    is_there = windows >= 0
    least = np.where(is_there, lower[windows], -np.inf).max(axis=1)
    forced = np.maximum(least, 0.0) if has_floor else least
    alive = is_there & (upper[windows] >= forced[:, None])
    count = alive.sum(axis=1) + (has_floor & (least <= 0.0))
    undecided = alive & (count > 1)[:, None]
    answers = np.zeros(len(lower), dtype=np.bool_), np.zeros(len(lower), dtype=np.bool_)
    answers[0][windows[alive]] = True
    answers[1][windows[undecided]] = True
    return answers
