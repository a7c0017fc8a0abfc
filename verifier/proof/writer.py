"""Writes certificates, record by record, so that a proof never has to be held whole."""

import struct
import zlib
from collections.abc import Iterable
from io import BufferedIOBase

import numpy as np

from verifier.proof.codes import MAGIC, MOST_BLOCK, NO_ALTERNATIVE, VERSION, Encoding, Kind, Tag
from verifier.proof.errors import CertificateError
from verifier.proof.records import (
    Counterexample,
    CrownLemma,
    GroupParameters,
    Item,
    Leaf,
    ParameterSet,
    Refutation,
    Split,
    Statement,
    Tree,
    TreeLemma,
    WindowGroup,
)

_BLOCK = 1 << 20
_COARSE = 1 << 16


def write_proof(target: BufferedIOBase, statement: Statement, items: Iterable[Item]) -> int:
    """Writes a proof and returns its size in bytes. Items, trees and claims are read once, as they are written.

    Raises:
        CertificateError: A record does not fit the format.
    """
    blocks = _Blocks(target)
    blocks.add(_statement(statement, Kind.PROOF))
    layout: tuple[WindowGroup, ...] | None = None
    for item in items:
        match item:
            case CrownLemma():
                blocks.add(struct.pack("<BI", Tag.CROWN, item.operation))
            case TreeLemma():
                blocks.add(struct.pack("<BI", Tag.LEMMA, item.operation))
                for claim in item.claims:
                    entries = claim.entries.astype("<u4").tobytes()
                    blocks.add(struct.pack("<BbdI", Tag.CLAIM, claim.sign, claim.bound, len(claim.entries)) + entries)
                    layout = _add_tree(blocks, claim.tree, layout)
                blocks.add(bytes([Tag.LEMMA_END]))
            case Refutation():
                members = np.array(item.members, dtype="<u4")
                blocks.add(struct.pack("<BI", Tag.REFUTATION, len(members)) + members.tobytes())
                layout = _add_tree(blocks, item.tree, layout)
    return blocks.close()


def write_counterexample(target: BufferedIOBase, counterexample: Counterexample) -> int:
    """Writes a counterexample and returns its size in bytes."""
    blocks = _Blocks(target)
    blocks.add(_statement(counterexample.statement, Kind.COUNTEREXAMPLE))
    blocks.add(bytes([Tag.IMAGE]) + np.asarray(counterexample.image).astype("<f4").tobytes())
    return blocks.close()


class _Blocks:
    """Records, gathered into blocks; a record never crosses from one into the next."""

    def __init__(self, target: BufferedIOBase) -> None:
        self._target, self._held, self._size = target, bytearray(), 0
        self._write(MAGIC + struct.pack("<HH", VERSION, 0))

    def add(self, record: bytes) -> None:
        """Appends a record."""
        if len(record) > MOST_BLOCK:
            raise CertificateError(f"a record of {len(record)} bytes is larger than a block may be, {MOST_BLOCK}")
        if self._held and len(self._held) + len(record) > _BLOCK:
            self._flush()
        self._held += record

    def close(self) -> int:
        """Ends the certificate."""
        self.add(bytes([Tag.END]))
        self._flush()
        return self._size

    def _flush(self) -> None:
        raw = bytes(self._held)
        packed = zlib.compress(raw, 6)
        encoding, stored = (Encoding.ZLIB, packed) if len(packed) < len(raw) else (Encoding.PLAIN, raw)
        self._write(struct.pack("<BII", encoding, len(raw), len(stored)) + stored)
        self._held.clear()

    def _write(self, data: bytes) -> None:
        self._target.write(data)
        self._size += len(data)


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8")[:1000].decode("utf-8", errors="ignore").encode("utf-8")
    return struct.pack("<H", len(encoded)) + encoded


def _statement(statement: Statement, kind: Kind) -> bytes:
    box, goal = statement.box, statement.property
    return b"".join(
        [
            bytes([Tag.STATEMENT, kind]),
            bytes.fromhex(statement.network_sha256),
            _text(statement.tool),
            _text(goal.name),
            struct.pack(f"<B{len(box.shape)}I", len(box.shape), *box.shape),
            box.lower.astype("<f8").tobytes(),
            box.upper.astype("<f8").tobytes(),
            struct.pack("<III", *goal.coefficients.shape, goal.count),
            goal.coefficients.astype("<f8").tobytes(),
            goal.offsets.astype("<f8").tobytes(),
        ]
    )


def _add_tree(blocks: _Blocks, tree: Tree, previous: tuple[WindowGroup, ...] | None) -> tuple[WindowGroup, ...]:
    blocks.add(bytes([Tag.TREE, tree.clips, tree.layout is previous]))
    if tree.layout is not previous:
        blocks.add(_layout(tree.layout))
    for node in tree.nodes:
        blocks.add(_split(node) if isinstance(node, Split) else _leaf(node, tree.layout))
    return tree.layout


def _layout(layout: tuple[WindowGroup, ...]) -> bytes:
    parts = [struct.pack("<BH", Tag.LAYOUT, len(layout))]
    for group in layout:
        windows, slots = group.alternatives.shape
        filled = np.where(group.alternatives >= 0, group.alternatives, NO_ALTERNATIVE)
        parts.append(struct.pack("<IBIH", group.operation, group.has_fractions, windows, slots))
        parts += [group.windows.astype("<u4").tobytes(), filled.astype("<u2").tobytes()]
    return b"".join(parts)


def _split(split: Split) -> bytes:
    size = max(1, (split.alternatives.bit_length() + 7) // 8)
    head = struct.pack("<BIIB", Tag.SPLIT, split.operation, split.window, size)
    return head + split.alternatives.to_bytes(size, "little")


def _leaf(leaf: Leaf, layout: tuple[WindowGroup, ...]) -> bytes:
    return bytes([Tag.LEAF, len(leaf.sets)]) + b"".join(_parameters(held, layout) for held in leaf.sets)


def _parameters(held: ParameterSet, layout: tuple[WindowGroup, ...]) -> bytes:
    """The combination but for its first weight; by group the weights but for slot 0, the fractions, the multipliers."""
    integers = [held.combination[1:]]
    for group, part in zip(layout, held.groups, strict=True):
        is_stored = group.alternatives >= 0
        is_stored[:, 0] = False
        integers += [part.weights[is_stored], part.fractions]
    is_coarse = not any((values % _COARSE).any() for values in integers)
    packed = [(values // _COARSE).astype("<u2") if is_coarse else values.astype("<u4") for values in integers]
    parts = [bytes([16 if is_coarse else 32]), packed[0].tobytes()]
    for number, part in enumerate(held.groups):
        parts += [packed[1 + 2 * number].tobytes(), packed[2 + 2 * number].tobytes(), _multipliers(part)]
    return b"".join(parts)


def _multipliers(part: GroupParameters) -> bytes:
    places, values = part.places.astype("<u4"), part.multipliers.astype("<f4")
    return struct.pack("<I", len(places)) + places.tobytes() + values.tobytes()
