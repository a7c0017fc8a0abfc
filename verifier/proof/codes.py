"""The constants of the certificate format; docs/certificate-format.md describes it in full."""

from enum import IntEnum

MAGIC = b"AURCERT\x1a"
VERSION = 1

MOST_BLOCK = 1 << 26
"""Bytes of a block before compression; a reader never holds more than one block."""

MOST_AXES = 8
"""Of an image."""

MOST_SETS = 16
"""Parameter sets of a leaf."""

NO_ALTERNATIVE = 0xFFFF
"""Fills unused slots of a layout."""


class Encoding(IntEnum):
    """How a block is stored."""

    PLAIN = 0
    ZLIB = 1


class Kind(IntEnum):
    """What a certificate shows."""

    PROOF = 0
    COUNTEREXAMPLE = 1


class Tag(IntEnum):
    """The first byte of a record."""

    STATEMENT = 0x01
    CROWN = 0x02
    LEMMA = 0x03
    CLAIM = 0x04
    LEMMA_END = 0x05
    REFUTATION = 0x06
    TREE = 0x07
    LAYOUT = 0x08
    SPLIT = 0x10
    LEAF = 0x11
    IMAGE = 0x20
    END = 0x7F
