"""Reads certificates as a stream, within bounded memory, believing nothing.

Every length is compared with what is left of its block, or of the file, before anything is allocated. Whatever is wrong ends in a
`CertificateError`.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from io import BufferedIOBase
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from verifier.errors import InputError
from verifier.proof.codes import (
    MAGIC,
    MOST_AXES,
    MOST_BLOCK,
    MOST_SETS,
    NO_ALTERNATIVE,
    VERSION,
    Encoding,
    Kind,
    Tag,
)
from verifier.proof.errors import CertificateError
from verifier.proof.records import (
    UNIT,
    CrownLemma,
    GroupParameters,
    Item,
    Leaf,
    Node,
    ParameterSet,
    Refutation,
    RowClaim,
    Split,
    Statement,
    Tree,
    TreeLemma,
    WindowGroup,
)
from verifier.property import Property
from verifier.region import Box

Layout = tuple[WindowGroup, ...]
Code = TypeVar("Code", bound=IntEnum)


class CertificateReader:
    """A certificate that is read as it is used.

    Args:
        source: The file, at its start.
        size: Its size in bytes.

    Raises:
        CertificateError: It is not a certificate of this version, or its statement is damaged.

    Attributes:
        kind: What it shows.
        statement: What it states.
    """

    def __init__(self, source: BufferedIOBase, size: int) -> None:
        self._blocks = _Blocks(source, size)
        self._layout: Layout = ()
        self._expect(Tag.STATEMENT)
        self.kind = _known(Kind, self._blocks.byte())
        self.statement = self._statement()

    def image(self) -> Float[np.ndarray, "..."]:
        """The image of a counterexample, which ends the certificate."""
        self._expect(Tag.IMAGE)
        shape = self.statement.box.shape
        image = self._blocks.array("<f4", int(np.prod(shape))).astype(np.float32).reshape(shape)
        self._expect(Tag.END)
        self._blocks.finish()
        return image

    def items(self) -> Iterator[Item]:
        """The items of a proof, up to its end; nodes and claims of an item are read when they are asked for.

        Whatever of an item was not asked for when the next one is, is read and dropped.
        """
        while True:
            match self._tag():
                case Tag.CROWN:
                    yield CrownLemma(self._blocks.number("<I"))
                case Tag.LEMMA:
                    operation = self._blocks.number("<I")
                    claims = self._claims()
                    yield TreeLemma(operation, claims)
                    for claim in claims:
                        _drain(claim.tree)
                case Tag.REFUTATION:
                    count = self._blocks.number("<I")
                    members = tuple(self._blocks.array("<u4", count).tolist())
                    tree = self._tree(count)
                    yield Refutation(members, tree)
                    _drain(tree)
                case Tag.END:
                    self._blocks.finish()
                    return
                case other:
                    raise CertificateError(f"certificate: record {other.name} where an item should start")

    def _claims(self) -> Iterator[RowClaim]:
        while True:
            match self._tag():
                case Tag.LEMMA_END:
                    return
                case Tag.CLAIM:
                    sign, bound, count = self._blocks.unpack("<bdI")
                    entries = self._blocks.array("<u4", count).astype(np.int64)
                    tree = self._tree(1)
                    yield RowClaim(entries, sign, bound, tree)
                    _drain(tree)
                case other:
                    raise CertificateError(f"certificate: record {other.name} where a claim should start")

    def _tree(self, members: int) -> Tree:
        self._expect(Tag.TREE)
        clips, is_same = self._blocks.unpack("<BB")
        if clips > 1 or is_same > 1:
            raise CertificateError("certificate: a tree's flags are neither 0 nor 1")
        if not is_same:
            self._expect(Tag.LAYOUT)
            self._layout = tuple(self._group() for _ in range(self._blocks.number("<H")))
        return Tree(self._layout, self._nodes(self._layout, members), bool(clips))

    def _nodes(self, layout: Layout, members: int) -> Iterator[Node]:
        missing = 1
        while missing:
            match self._tag():
                case Tag.SPLIT:
                    operation, window, size = self._blocks.unpack("<IIB")
                    missing += 1
                    yield Split(operation, window, int.from_bytes(self._blocks.take(size), "little"))
                case Tag.LEAF:
                    count = self._blocks.byte()
                    if count > MOST_SETS:
                        raise CertificateError(
                            f"certificate: a leaf has {count} parameter sets, at most {MOST_SETS} are allowed"
                        )
                    missing -= 1
                    yield Leaf(tuple(self._parameters(layout, members) for _ in range(count)))
                case other:
                    raise CertificateError(f"certificate: record {other.name} inside a tree")

    def _group(self) -> WindowGroup:
        operation, flags, windows, slots = self._blocks.unpack("<IBIH")
        if flags > 1 or not slots:
            raise CertificateError("certificate: a layout's group is damaged")
        names = self._blocks.array("<u4", windows).astype(np.int64)
        table = self._blocks.array("<u2", windows * slots).astype(np.int64).reshape(windows, slots)
        return WindowGroup(operation, names, np.where(table == NO_ALTERNATIVE, -1, table), bool(flags))

    def _parameters(self, layout: Layout, members: int) -> ParameterSet:
        bits = self._blocks.byte()
        if bits not in (16, 32):
            raise CertificateError(f"certificate: weights of {bits} bits, wanted 16 or 32")
        if not members:
            raise CertificateError("certificate: a refutation without members")
        combination = self._integers(bits, members - 1)
        first = _rest(combination[None, :])
        groups = tuple(self._group_parameters(group, bits) for group in layout)
        return ParameterSet(np.concatenate([first, combination]).astype(np.uint32), groups)

    def _group_parameters(self, group: WindowGroup, bits: int) -> GroupParameters:
        windows = len(group.windows)
        is_stored = group.alternatives >= 0
        is_stored[:, 0] = False
        weights = np.zeros(is_stored.shape, dtype=np.int64)
        weights[is_stored] = self._integers(bits, int(is_stored.sum()))
        weights[:, 0] = _rest(weights)
        fractions = self._integers(bits, windows if group.has_fractions else 0)
        count = self._blocks.number("<I")
        places = self._blocks.array("<u4", count).astype(np.int64)
        values = self._blocks.array("<f4", count).astype(np.float32)
        return GroupParameters(weights.astype(np.uint32), fractions.astype(np.uint32), places, values)

    def _integers(self, bits: int, count: int) -> np.ndarray:
        """Weights in [0, UNIT]."""
        if bits == 16:
            values = self._blocks.array("<u2", count).astype(np.int64) << 16
        else:
            values = self._blocks.array("<u4", count).astype(np.int64)
        if (values > UNIT).any():
            raise CertificateError("certificate: a weight or fraction is larger than 1")
        return values

    def _statement(self) -> Statement:
        blocks = self._blocks
        sha256, tool, name = blocks.take(32).hex(), self._text(), self._text()
        shape = tuple(blocks.array("<u4", blocks.byte()).tolist())
        size = math.prod(shape)
        if len(shape) > MOST_AXES or not size:
            raise CertificateError(
                f"certificate: images of shape {shape[:MOST_AXES]}, wanted at most {MOST_AXES} axes, none empty"
            )
        lower, upper = (blocks.array("<f8", size).reshape(shape) for _ in range(2))
        forms, labels, count = blocks.unpack("<III")
        if not forms or not labels:
            raise CertificateError("certificate: a property without forms or labels")
        coefficients = blocks.array("<f8", forms * labels).reshape(forms, labels)
        offsets = blocks.array("<f8", forms)
        try:
            return Statement(sha256, Box(lower, upper), Property(name, coefficients, offsets, count), tool)
        except InputError as error:
            raise CertificateError(f"certificate: the statement makes no sense: {error}") from error

    def _text(self) -> str:
        encoded = self._blocks.take(self._blocks.number("<H"))
        try:
            text = encoded.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CertificateError("certificate: a text is not UTF-8") from error
        if not text.isprintable():
            raise CertificateError("certificate: a text holds characters that cannot be printed")
        return text

    def _tag(self) -> Tag:
        return _known(Tag, self._blocks.first_byte())

    def _expect(self, wanted: Tag) -> None:
        found = self._tag()
        if found is not wanted:
            raise CertificateError(f"certificate: record {found.name}, wanted {wanted.name}")


def _known(kind: type[Code], code: int) -> Code:
    try:
        return kind(code)
    except ValueError as error:
        raise CertificateError(f"certificate: {code} is no {kind.__name__.lower()}") from error


def _drain(tree: Tree) -> None:
    for _ in tree.nodes:
        pass


def _rest(weights: np.ndarray) -> np.ndarray:
    """What is missing to UNIT, by row."""
    missing = UNIT - weights.sum(axis=1)
    if (missing < 0).any():
        raise CertificateError("certificate: weights sum to more than 1")
    return np.asarray(missing)


class _Blocks:
    """The file as a sequence of blocks, of which one is held."""

    def __init__(self, source: BufferedIOBase, size: int) -> None:
        self._source, self._left = source, size
        self._block, self._at = b"", 0
        head = self._read(len(MAGIC) + 4)
        if head[: len(MAGIC)] != MAGIC:
            raise CertificateError("certificate: this file is none (its first bytes are others)")
        version, flags = struct.unpack("<HH", head[len(MAGIC) :])
        if version != VERSION or flags:
            raise CertificateError(f"certificate: version {version}.{flags}, this checker knows {VERSION}.0")

    def first_byte(self) -> int:
        """The byte that starts a record, in the next block if this one is used up."""
        if self._at == len(self._block):
            self._next()
        return self.byte()

    def byte(self) -> int:
        """One byte of the record."""
        return self.take(1)[0]

    def number(self, code: str) -> int:
        """One integer of the record."""
        return int(self.unpack(code)[0])

    def unpack(self, code: str) -> tuple[Any, ...]:
        """Some numbers of the record."""
        return struct.unpack(code, self.take(struct.calcsize(code)))

    def array(self, code: str, count: int) -> np.ndarray:
        """Numbers of the record, as an array of the machine's own kind."""
        kind = np.dtype(code)
        return np.frombuffer(self.take(kind.itemsize * count), dtype=kind).astype(kind.newbyteorder("="))

    def take(self, count: int) -> bytes:
        """Bytes of the record; a record never goes on in the next block."""
        if count > len(self._block) - self._at:
            raise CertificateError("certificate: a record is longer than its block")
        self._at += count
        return self._block[self._at - count : self._at]

    def finish(self) -> None:
        """Refuses anything after the end."""
        if self._left or self._at < len(self._block):
            raise CertificateError("certificate: something follows the end")

    def _next(self) -> None:
        code, raw, stored = struct.unpack("<BII", self._read(9))
        if not 0 < raw <= MOST_BLOCK or stored > self._left:
            raise CertificateError(
                f"certificate: truncated, or a block of {raw} bytes (at most {MOST_BLOCK} are allowed)"
            )
        data = self._read(stored)
        if code == Encoding.ZLIB:
            data = _inflated(data, raw)
        elif code != Encoding.PLAIN:
            raise CertificateError(f"certificate: unknown encoding {code}")
        if len(data) != raw:
            raise CertificateError("certificate: a block has another length than it says")
        self._block, self._at = data, 0

    def _read(self, count: int) -> bytes:
        if count > self._left:
            raise CertificateError("certificate: truncated")
        data = self._source.read(count)
        if len(data) != count:
            raise CertificateError("certificate: truncated")
        self._left -= count
        return data


def _inflated(data: bytes, size: int) -> bytes:
    """The decompressed block; stops at the size it must have."""
    machine = zlib.decompressobj()
    try:
        raw = machine.decompress(data, size)
        if not machine.eof:
            # The end marker alone may be left; one byte more would be too many.
            raw += machine.decompress(machine.unconsumed_tail, 1)
    except zlib.error as error:
        raise CertificateError(f"certificate: a block is damaged ({error})") from error
    if not machine.eof or machine.unused_data:
        raise CertificateError("certificate: a block has another length than it says")
    return raw
