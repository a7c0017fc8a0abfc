"""Mutants of certificates: records with a field changed, dropped, doubled or moved, or blocks with other bytes."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from verifier.proof.reader import CertificateReader
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
from verifier.proof.writer import write_proof
from verifier.property import Property
from verifier.region import Box

HEAD = 12
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-9, 1e9, np.inf, -np.inf, np.nan, 2.0**-1074, 1.7e308)


class Records:
    """A proof in memory, trees and all."""

    def __init__(self, data: bytes) -> None:
        reader = CertificateReader(io.BytesIO(data), len(data))
        self.statement = reader.statement
        self.items = tuple(_held(item) for item in reader.items())

    def written(self, statement: Statement, items: tuple[Item, ...]) -> bytes:
        target = io.BytesIO()
        write_proof(target, statement, items)
        return target.getvalue()


def _held(item: Item) -> Item:
    match item:
        case TreeLemma():
            return replace(item, claims=tuple(replace(claim, tree=_held_tree(claim.tree)) for claim in item.claims))
        case Refutation():
            return replace(item, tree=_held_tree(item.tree))
        case CrownLemma():
            return item


def _held_tree(tree: Tree) -> Tree:
    return replace(tree, nodes=tuple(tree.nodes))


def blocks_of(data: bytes) -> list[bytes]:
    """The uncompressed blocks."""
    found, at = [], HEAD
    while at < len(data):
        code, raw, stored = struct.unpack("<BII", data[at : at + 9])
        part = data[at + 9 : at + 9 + stored]
        found.append(zlib.decompress(part) if code else part)
        assert len(found[-1]) == raw
        at += 9 + stored
    return found


def from_blocks(blocks: list[bytes]) -> bytes:
    head = b"AURCERT\x1a" + struct.pack("<HH", 1, 0)
    return head + b"".join(struct.pack("<BII", 0, len(block), len(block)) + block for block in blocks if block)


def other_bytes(data: bytes, pick: np.random.Generator) -> bytes:
    """Up to three changes to the uncompressed bytes."""
    blocks = [bytearray(block) for block in blocks_of(data)]
    for _ in range(pick.integers(1, 4)):
        content = blocks[pick.integers(len(blocks))]
        if not content:
            continue
        place, length = int(pick.integers(len(content))), int(pick.integers(1, 60))
        match pick.integers(6):
            case 0:
                content[place] = pick.integers(256)
            case 1:
                content[place] ^= 1 << int(pick.integers(8))
            case 2:
                content[place : place + 8] = struct.pack("<d", pick.choice(NUMBERS))[: len(content) - place]
            case 3:
                content[place : place + 4] = pick.integers(0, 2**32, dtype=np.uint32).tobytes()[: len(content) - place]
            case 4:
                del content[place : place + length]
            case _:
                content[place:place] = content[place : place + length]
    return from_blocks([bytes(block) for block in blocks])


def damaged(data: bytes, pick: np.random.Generator) -> bytes:
    """The file as a disk or a stranger may leave it: cut, lengthened, or with other bytes, compressed blocks included."""
    place = int(pick.integers(len(data)))
    match pick.integers(4):
        case 0:
            return data[:place]
        case 1:
            return data + pick.bytes(int(pick.integers(1, 20)))
        case 2:
            return data[:place] + bytes([data[place] ^ int(pick.integers(1, 256))]) + data[place + 1 :]
        case _:
            other = int(pick.integers(len(data)))
            return data[:place] + data[other : other + int(pick.integers(1, 200))] + data[place:]


def other_fields(records: Records, pick: np.random.Generator) -> bytes:
    """One field of one record is another one; everything else, lengths included, stays consistent."""
    statement, items = records.statement, records.items
    kind = pick.integers(8)
    if kind == 0:
        return records.written(_other_statement(statement, pick), items)
    if kind == 1:
        return records.written(statement, _other_order(items, pick))
    place = int(pick.integers(len(items)))
    return records.written(statement, (*items[:place], _other_item(items[place], pick), *items[place + 1 :]))


def _other_statement(about: Statement, pick: np.random.Generator) -> Statement:
    goal, box = about.property, about.box
    lower, upper = np.array(box.lower), np.array(box.upper)
    coefficients, offsets, count = np.array(goal.coefficients), np.array(goal.offsets), goal.count
    by = float(pick.choice([1e-9, 1e-3, 0.1, 1.0])) * float(pick.choice([-1.0, 1.0]))
    sha256 = about.network_sha256
    match pick.integers(6):
        case 0:
            entry = np.unravel_index(pick.integers(lower.size), lower.shape)
            lower[entry] = min(max(lower[entry] + by, 0.0), upper[entry])
        case 1:
            entry = np.unravel_index(pick.integers(upper.size), upper.shape)
            upper[entry] = max(min(upper[entry] + by, 1.0), lower[entry])
        case 2:
            coefficients[pick.integers(len(coefficients)), pick.integers(coefficients.shape[1])] += by
        case 3:
            offsets[pick.integers(len(offsets))] += by
        case 4:
            count = int(pick.integers(1, len(offsets) + 1))
        case _:
            sha256 = sha256[::-1]
    return Statement(sha256, Box(lower, upper), Property(goal.name, coefficients, offsets, count), about.tool)


def _other_order(items: tuple[Item, ...], pick: np.random.Generator) -> tuple[Item, ...]:
    listed = list(items)
    place = int(pick.integers(len(listed)))
    match pick.integers(3):
        case 0:
            del listed[place]
        case 1:
            listed.insert(int(pick.integers(len(listed) + 1)), listed[place])
        case _:
            listed.insert(int(pick.integers(len(listed))), listed.pop(place))
    return tuple(listed)


def _other_item(item: Item, pick: np.random.Generator) -> Item:
    match item:
        case CrownLemma():
            return CrownLemma(int(pick.integers(0, 6)))
        case TreeLemma() if not item.claims or pick.integers(4) == 0:
            return replace(item, operation=int(pick.integers(0, 6)))
        case TreeLemma():
            claims = list(item.claims)
            place = int(pick.integers(len(claims)))
            claims[place] = _other_claim(claims[place], pick)
            return replace(item, claims=tuple(claims))
        case Refutation() if pick.integers(4) == 0:
            return replace(item, members=_other_members(item.members, pick))
        case Refutation():
            return replace(item, tree=_other_tree(item.tree, pick))


def _other_members(members: tuple[int, ...], pick: np.random.Generator) -> tuple[int, ...]:
    listed = list(members)
    match pick.integers(3):
        case 0:
            listed[pick.integers(len(listed))] = int(pick.integers(0, 12))
        case 1:
            listed.append(int(pick.integers(0, 12)))
        case _:
            listed = listed[1:] if len(listed) > 1 else [listed[0], listed[0]]
    return tuple(listed)


def _other_claim(claim: RowClaim, pick: np.random.Generator) -> RowClaim:
    match pick.integers(4):
        case 0:
            return replace(claim, sign=-claim.sign)
        case 1:
            return replace(claim, bound=claim.bound - float(pick.choice([1e-12, 1e-6, 1e-2, 1.0])))
        case 2:
            entries = np.array(claim.entries)
            entries[pick.integers(len(entries))] = pick.integers(0, max(8, 2 * int(entries.max())))
            return replace(claim, entries=entries)
        case _:
            return replace(claim, tree=_other_tree(claim.tree, pick))


def _other_tree(tree: Tree, pick: np.random.Generator) -> Tree:
    nodes = list(tree.nodes)
    match pick.integers(6):
        case 0:
            return replace(tree, clips=not tree.clips)
        case 1 if tree.layout:
            return replace(tree, layout=_other_layout(tree.layout, pick))
        case 2:
            return replace(tree, nodes=_other_shape(nodes, pick))
        case _:
            place = int(pick.integers(len(nodes)))
            nodes[place] = _other_node(nodes[place], tree.layout, pick)
            return replace(tree, nodes=tuple(nodes))


def _other_layout(layout: tuple[WindowGroup, ...], pick: np.random.Generator) -> tuple[WindowGroup, ...]:
    groups = list(layout)
    place = int(pick.integers(len(groups)))
    group = groups[place]
    windows, alternatives = np.array(group.windows), np.array(group.alternatives)
    if not len(windows):
        groups[place] = replace(group, operation=int(pick.integers(0, 6)))
        return tuple(groups)
    row, slot = int(pick.integers(len(windows))), int(pick.integers(alternatives.shape[1]))
    match pick.integers(3):
        case 0:
            groups[place] = replace(group, operation=int(pick.integers(0, 6)))
        case 1:
            windows[row] = pick.integers(0, 2 * int(windows.max()) + 4)
            groups[place] = replace(group, windows=windows)
        case _:
            # An unused slot must stay one, or the leaves would not fit the file.
            alternatives[row, slot] = pick.integers(0, 12) if alternatives[row, slot] >= 0 else -1
            groups[place] = replace(group, alternatives=alternatives)
    return tuple(groups)


def _other_shape(nodes: list[Node], pick: np.random.Generator) -> tuple[Node, ...]:
    """Leaves and splits in another order, or one more or less."""
    first, second = (int(place) for place in pick.integers(len(nodes), size=2))
    match pick.integers(4):
        case 0:
            nodes[first], nodes[second] = nodes[second], nodes[first]
        case 1:
            del nodes[first]
        case 2:
            nodes.insert(first, nodes[second])
        case _:
            # A split with everything below it, closed by its first leaf alone.
            leaves = [node for node in nodes if isinstance(node, Leaf)]
            nodes = [leaves[int(pick.integers(len(leaves)))]]
    return tuple(nodes)


def _other_node(node: Node, layout: tuple[WindowGroup, ...], pick: np.random.Generator) -> Node:
    match node:
        case Split():
            match pick.integers(3):
                case 0:
                    return replace(node, operation=int(pick.integers(0, 6)))
                case 1:
                    return replace(node, window=int(pick.integers(0, 2 * node.window + 4)))
                case _:
                    return replace(node, alternatives=int(pick.integers(0, 1 << 12)))
        case Leaf() if not node.sets or pick.integers(5) == 0:
            return Leaf(()) if node.sets else node
        case Leaf():
            sets = list(node.sets)
            place = int(pick.integers(len(sets)))
            match pick.integers(6):
                case 0:
                    sets.insert(0, sets[place])
                case 1:
                    sets = sets[::-1] if len(sets) > 1 else sets * 17
                case _:
                    sets[place] = _other_parameters(sets[place], layout, pick)
            return Leaf(tuple(sets))


def _other_parameters(held: ParameterSet, layout: tuple[WindowGroup, ...], pick: np.random.Generator) -> ParameterSet:
    groups = [group for group in range(len(held.groups)) if held.groups[group].weights.size]
    if not groups or (len(held.combination) > 1 and pick.integers(4) == 0):
        combination = np.array(held.combination)
        combination[pick.integers(len(combination))] = pick.integers(0, 2 * UNIT)
        return replace(held, combination=combination)
    place = groups[int(pick.integers(len(groups)))]
    changed = list(held.groups)
    changed[place] = _other_group(held.groups[place], layout[place], pick)
    return replace(held, groups=tuple(changed))


def _other_group(group: GroupParameters, about: WindowGroup, pick: np.random.Generator) -> GroupParameters:
    changes: list[Callable[[], GroupParameters]] = [lambda: _other_weight(group, about, pick)]
    if len(group.fractions):
        changes.append(lambda: replace(group, fractions=_with(group.fractions, pick.integers(0, 2 * UNIT), pick)))
    if len(group.places):
        value = pick.choice([0.0, -1.0, 1e-3, 1e3, 1e38, np.inf, np.nan])
        changes += [
            lambda: replace(group, multipliers=_with(group.multipliers, value, pick)),
            lambda: replace(group, places=_with(group.places, pick.integers(0, 2 * group.weights.size), pick)),
        ]
    else:
        values = np.array([pick.choice([1e-3, 1.0, -1.0, np.inf])], dtype=np.float32)
        places = pick.integers(0, group.weights.size + 2, size=1)
        changes.append(lambda: replace(group, places=places, multipliers=values))
    return changes[int(pick.integers(len(changes)))]()


def _other_weight(group: GroupParameters, about: WindowGroup, pick: np.random.Generator) -> GroupParameters:
    """Another distribution over a window's slots, half of the time one in range."""
    weights = np.array(group.weights)
    row = int(pick.integers(len(weights)))
    used = np.flatnonzero(about.alternatives[row] >= 0)
    if pick.integers(2):
        weights[row] = 0
        weights[row, used[int(pick.integers(len(used)))]] = UNIT
    else:
        weights[row, used[int(pick.integers(len(used)))]] = pick.integers(0, 2 * UNIT)
    return replace(group, weights=weights)


def _with(array: np.ndarray, value: float, pick: np.random.Generator) -> np.ndarray:
    changed = np.array(array)
    changed[pick.integers(len(changed))] = value
    return changed
