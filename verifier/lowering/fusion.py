"""Rewrites that make a canonical graph small without changing what it computes (up to float64 rounding of constants)."""

from collections import Counter
from dataclasses import replace

import numpy as np

from verifier.canonical import Affine, CanonicalNode, LinearMap, Max, Relu, SparseMap
from verifier.lowering.maps import compose, identity_map, is_identity, read_only, reads_one_entry_per_row, sparse_map

Term = tuple[LinearMap, int]


def fuse(nodes: list[CanonicalNode], output: int, input_size: int) -> list[CanonicalNode]:
    """An equal graph whose last node is an `Affine` that produces the output value.

    Affine nodes absorb an affine node that only they read, where the composition stays a map of the same kind; identities
    vanish; a ReLU right before (read by nobody else) or right after a Max (likewise) becomes the Max's floor; nodes that the
    output does not depend on vanish.
    """
    fusion = _Fusion(list(nodes), output)
    for index in range(len(nodes)):
        fusion.visit(index)
    kept, end = _pruned(fusion.nodes, fusion.alias[output])
    if end == 0 or not isinstance(kept[end - 1], Affine):
        size = kept[end - 1].size if end else input_size
        kept.append(Affine(((identity_map(size), end),), read_only(np.zeros(size))))
    return kept


class _Fusion:
    """One forward walk over the nodes; those already visited are final unless they lose their last reader."""

    def __init__(self, nodes: list[CanonicalNode], output: int) -> None:
        self.nodes = nodes
        self.alias = list(range(len(nodes) + 1))
        self.readers = Counter(value for node in nodes for value in node.inputs)
        self.readers[output] += 1

    def visit(self, index: int) -> None:
        """Rewrites one node, all nodes before it being rewritten already."""
        node = _renumbered(self.nodes[index], self.alias)
        match node:
            case Affine():
                while (absorbed := self._absorb(node)) is not node:
                    node = absorbed
                if len(node.terms) == 1 and is_identity(node.terms[0][0]) and not node.bias.any():
                    self._drop(index + 1, node.terms[0][1])
            case Relu():
                node = self._relu(index + 1, node)
            case Max():
                before = self._only_read_here(node.input)
                if isinstance(before, Relu):
                    node = replace(node, input=before.input, has_floor=True)
        self.nodes[index] = node

    def _only_read_here(self, value: int) -> CanonicalNode | None:
        return self.nodes[value - 1] if value and self.readers[value] == 1 else None

    def _drop(self, value: int, same_as: int) -> None:
        """Lets the readers of `value` read `same_as`; `value` itself was one reader of it."""
        self.alias[value] = same_as
        self.readers[same_as] += self.readers[value] - 1

    def _relu(self, value: int, node: Relu) -> Relu | Max:
        before = self.nodes[node.input - 1] if node.input else None
        if isinstance(before, Relu) or (isinstance(before, Max) and before.has_floor):
            self._drop(value, node.input)
        elif isinstance(before, Max) and self.readers[node.input] == 1:
            return replace(before, has_floor=True, origin=node.origin)
        return node

    def _absorb(self, node: Affine) -> Affine:
        """Replaces each term over an affine node that nobody else reads by that node's own terms, where these compose.

        The node itself is returned when there is nothing to replace.
        """
        terms: list[Term] = []
        bias = np.array(node.bias)
        changed = False
        for outer, value in node.terms:
            inner = self._only_read_here(value)
            composed = _composed(outer, inner) if isinstance(inner, Affine) else None
            if composed is None or not isinstance(inner, Affine):
                terms.append((outer, value))
                continue
            changed = True
            terms += composed
            if inner.bias.any():
                bias += outer.times(inner.bias)
        merged = _merged(terms)
        if not changed and len(merged) == len(terms):
            return node
        self.readers.subtract(Counter(value for _, value in terms) - Counter(value for _, value in merged))
        return Affine(tuple(merged), read_only(bias))


def _composed(outer: LinearMap, inner: Affine) -> list[Term] | None:
    """The inner node's terms under the outer map, or None if one does not compose or work would be repeated."""
    if not isinstance(outer, SparseMap) and not _covers_entries_once(inner):
        return None
    terms: list[Term] = []
    for linear, value in inner.terms:
        combined = compose(outer, linear)
        if combined is None:
            return None
        terms.append((combined, value))
    return terms


def _covers_entries_once(node: Affine) -> bool:
    """Whether the node's terms write disjoint entries (one term, or a concatenation)."""
    if len(node.terms) == 1:
        return True
    maps = [linear for linear, _ in node.terms]
    if not all(isinstance(linear, SparseMap) and reads_one_entry_per_row(linear) for linear in maps):
        return False
    return sum(linear.matrix().nnz for linear in maps) <= node.size


def _merged(terms: list[Term]) -> list[Term]:
    """Sparse terms over the same value added up."""
    result: list[Term] = []
    for linear, value in terms:
        for position, (other, read) in enumerate(result):
            if read == value and isinstance(other, SparseMap) and isinstance(linear, SparseMap):
                result[position] = (sparse_map(other.entries + linear.entries), value)
                break
        else:
            result.append((linear, value))
    return result


def _renumbered(node: CanonicalNode, numbers: list[int] | dict[int, int]) -> CanonicalNode:
    match node:
        case Affine():
            return Affine(tuple((linear, numbers[value]) for linear, value in node.terms), node.bias)
        case Relu():
            return replace(node, input=numbers[node.input])
        case Max():
            return replace(node, input=numbers[node.input])


def _pruned(nodes: list[CanonicalNode], output: int) -> tuple[list[CanonicalNode], int]:
    """The nodes that `output` depends on, renumbered, and its new number."""
    needed = {output}
    for value in range(output, 0, -1):
        if value in needed:
            needed.update(nodes[value - 1].inputs)
    kept = [value for value in sorted(needed) if value]
    numbers = {0: 0} | {value: position + 1 for position, value in enumerate(kept)}
    return [_renumbered(nodes[value - 1], numbers) for value in kept], numbers[output]
