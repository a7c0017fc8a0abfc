"""What tells networks and questions apart, as short text."""

import hashlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import numpy as np
from scipy import sparse

from verifier.bounds import RegionBounds
from verifier.canonical import CanonicalNetwork
from verifier.property import Property


def network_fingerprint(canonical: CanonicalNetwork) -> str:
    """Equal for networks with the same nodes and weights; different ones share it with negligible probability."""
    return digest([canonical.input_size, *canonical.nodes])


def question_fingerprint(network: str, region: RegionBounds, goal: Property) -> str:
    """Equal for the same network (by its fingerprint), box, forms and count; the bounds inside the network do not enter."""
    return digest([network, region.lower, region.upper, goal.coefficients, goal.offsets, goal.count])


def digest(parts: object) -> str:
    """A short text that differs for different nested lists of numbers, text, arrays, sparse matrices and dataclasses of them."""
    held = hashlib.blake2b(digest_size=20)
    for piece in _bytes(parts):
        held.update(piece)
    return held.hexdigest()


def _bytes(part: object) -> Iterator[bytes]:
    """Every piece begins with its kind and size, so that different parts never read alike."""
    if isinstance(part, list | tuple):
        yield f"[{len(part)}".encode()
        for item in part:
            yield from _bytes(item)
    elif isinstance(part, np.ndarray):
        yield f"{part.dtype.str}{part.shape}".encode()
        yield np.ascontiguousarray(part).tobytes()
    elif isinstance(part, sparse.csr_array):
        coordinates = part.tocoo()
        yield from _bytes([list(coordinates.shape), coordinates.row, coordinates.col, coordinates.data])
    elif is_dataclass(part) and not isinstance(part, type):
        yield type(part).__name__.encode()
        yield from _bytes([getattr(part, item.name) for item in fields(part) if item.compare])
    elif isinstance(part, np.generic):
        yield from _bytes(part.item())
    elif isinstance(part, bool | int | float | str):
        yield f"{type(part).__name__}:{part!r};".encode()
    else:
        raise TypeError(f"fingerprint: {type(part).__name__} has no rule")
