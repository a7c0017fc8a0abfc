"""The certificate format: what is written is read again, and damaged or malicious files end in one clean error."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import random_dense_network

from verifier.lowering import lower
from verifier.network import Head, MaxPool, Network, Relu
from verifier.proof.codes import MAGIC, MOST_BLOCK, Tag
from verifier.proof.errors import CertificateError
from verifier.proof.quantise import COARSE, FINE, alternatives_of, group_parameters, parameter_set, shares
from verifier.proof.reader import CertificateReader
from verifier.proof.records import (
    UNIT,
    Counterexample,
    CrownLemma,
    Leaf,
    Refutation,
    RowClaim,
    Split,
    Statement,
    Tree,
    TreeLemma,
    WindowGroup,
    operation_numbers,
)
from verifier.proof.writer import write_counterexample, write_proof
from verifier.property import Property
from verifier.region import Box

SEEDS = st.integers(0, 2**31)


def random_statement(generator: np.random.Generator) -> Statement:
    shape = tuple(generator.integers(1, 4, generator.integers(1, 4)).tolist())
    lower = generator.random(shape) * 0.5
    goal = Property("näme 1", generator.normal(size=(3, 2)), generator.normal(size=3), 2)
    return Statement(generator.bytes(32).hex(), Box(lower, lower + 0.25), goal, "tests 1")


def random_layout(generator: np.random.Generator) -> tuple[WindowGroup, ...]:
    groups = []
    for operation in range(generator.integers(0, 3)):
        windows, slots = int(generator.integers(0, 5)), int(generator.integers(1, 5))
        table = (
            np.stack([generator.permutation(9)[:slots] for _ in range(windows)])
            if windows
            else np.zeros((0, slots), int)
        )
        filled = np.where((generator.random(table.shape) < 0.3) & (np.arange(slots) > 0), -1, table)
        groups.append(WindowGroup(operation, generator.permutation(50)[:windows], filled, bool(generator.integers(2))))
    return tuple(groups)


def random_leaf(generator: np.random.Generator, layout: tuple[WindowGroup, ...], members: int) -> Leaf:
    sets = []
    for _ in range(generator.integers(0, 3)):
        bits = int(generator.choice([FINE, COARSE]))
        groups = []
        for group in layout:
            used = group.alternatives >= 0
            fractions = generator.random(len(used)) if group.has_fractions else None
            multipliers = generator.random(used.shape) * (generator.random(used.shape) < 0.4) * used
            groups.append(group_parameters(generator.random(used.shape) * used, fractions, multipliers, bits))
        sets.append(parameter_set(generator.random(members), groups, bits))
    return Leaf(tuple(sets))


def random_tree(generator: np.random.Generator, members: int, layout=None) -> Tree:
    layout = random_layout(generator) if layout is None else layout
    nodes: list[Split | Leaf] = []
    missing = 1
    while missing:
        if len(nodes) < 12 and generator.random() < 0.5:
            alternatives = int.from_bytes(generator.bytes(int(generator.integers(0, 12))), "little")
            nodes.append(Split(int(generator.integers(9)), int(generator.integers(99)), alternatives))
            missing += 1
        else:
            nodes.append(random_leaf(generator, layout, members))
            missing -= 1
    return Tree(layout, tuple(nodes), bool(generator.integers(2)))


def random_items(generator: np.random.Generator) -> list:
    items: list = []
    for _ in range(generator.integers(0, 6)):
        match generator.integers(3):
            case 0:
                items.append(CrownLemma(int(generator.integers(2**32))))
            case 1:
                shared = random_layout(generator)
                claims = tuple(
                    RowClaim(
                        generator.integers(0, 2**32, generator.integers(1, 4)),
                        int(generator.choice([-1, 1])),
                        float(generator.normal()),
                        tree,
                    )
                    for tree in (random_tree(generator, 1, shared) for _ in range(generator.integers(0, 4)))
                )
                items.append(TreeLemma(int(generator.integers(9)), claims))
            case _:
                members = tuple(generator.permutation(9)[: generator.integers(1, 4)].tolist())
                items.append(Refutation(members, random_tree(generator, len(members))))
    return items


def written(about: Statement, items: list) -> bytes:
    target = io.BytesIO()
    assert write_proof(target, about, items) == len(target.getvalue())
    return target.getvalue()


def reader_of(data: bytes) -> CertificateReader:
    return CertificateReader(io.BytesIO(data), len(data))


def read_all(data: bytes) -> list:
    """Everything, each tree and claim as a tuple."""
    found: list = []
    for item in reader_of(data).items():
        match item:
            case Refutation():
                found.append(Refutation(item.members, whole(item.tree)))
            case TreeLemma():
                claims = [
                    RowClaim(c.entries, c.sign, c.bound, Tree(c.tree.layout, tuple(c.tree.nodes), c.tree.clips))
                    for c in item.claims
                ]
                found.append(TreeLemma(item.operation, tuple(claims)))
            case _:
                found.append(item)
    return found


def whole(tree: Tree) -> Tree:
    return Tree(tree.layout, tuple(tree.nodes), tree.clips)


def plain(value) -> object:
    """Records as nested tuples that compare by content."""
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tolist())
    if isinstance(value, tuple | list):
        return tuple(plain(part) for part in value)
    if hasattr(value, "__slots__") and not isinstance(value, str | int | float):
        return (type(value).__name__, *(plain(getattr(value, name)) for name in value.__slots__))
    return value


@settings(max_examples=150)
@given(SEEDS)
def test_what_is_written_is_read(seed: int) -> None:
    generator = np.random.default_rng(seed)
    about, items = random_statement(generator), random_items(generator)
    data = written(about, items)
    found = reader_of(data).statement
    assert plain(found) == plain(about)
    assert plain(read_all(data)) == plain(items)
    assert written(about, read_all(data)) == data


@settings(max_examples=60)
@given(SEEDS)
def test_unread_trees_are_skipped(seed: int) -> None:
    generator = np.random.default_rng(seed)
    items = random_items(generator)
    kinds = [type(item) for item in reader_of(written(random_statement(generator), items)).items()]
    assert kinds == [type(item) for item in items]


@settings(max_examples=200)
@given(SEEDS, st.data())
def test_anything_else_is_a_clean_error(seed: int, data: st.DataObject) -> None:
    generator = np.random.default_rng(seed)
    original = written(random_statement(generator), random_items(generator))
    place = data.draw(st.integers(0, len(original)))
    mutant = original[:place] + data.draw(st.binary(max_size=30)) + original[place + data.draw(st.integers(0, 30)) :]
    try:
        found = read_all(mutant)
    except CertificateError as error:
        assert str(error)  # noqa: PT017 - any other exception fails the test
    else:
        assert written(reader_of(mutant).statement, found)


@settings(max_examples=30)
@given(SEEDS)
def test_every_truncation_is_an_error(seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = written(random_statement(generator), random_items(generator))
    for place in generator.integers(0, len(data), 30):
        with pytest.raises(CertificateError):
            read_all(data[:place])


def head(version: int = 1, flags: int = 0) -> bytes:
    return MAGIC + struct.pack("<HH", version, flags)


def block(raw: bytes, *, code: int = 0, size: int | None = None, stored: int | None = None) -> bytes:
    return struct.pack("<BII", code, len(raw) if size is None else size, len(raw) if stored is None else stored) + raw


def statement_record() -> bytes:
    target = io.BytesIO()
    write_proof(target, random_statement(np.random.default_rng(0)), [])
    data = target.getvalue()[12:]
    code, raw, _ = struct.unpack("<BII", data[:9])
    content = zlib.decompress(data[9:]) if code else data[9:]
    assert len(content) == raw
    return content[:-1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"ONNX" * 20, "this file is none"),
        (head(2), "version 2"),
        (head(1, 1), "version 1.1"),
        (head(), "truncated"),
        (head() + block(b"", size=0), "block of 0 bytes"),
        (head() + block(b"x", size=MOST_BLOCK + 1), "at most"),
        (head() + block(b"x", stored=1 << 31), "truncated"),
        (head() + block(b"x", size=2), "another length"),
        (head() + block(b"xx", code=7), "unknown encoding 7"),
        (head() + block(b"xx", code=1), "damaged"),
        (head() + block(zlib.compress(b"x" * 50), code=1, size=49), "another length"),
        (head() + block(zlib.compress(b"x" * 50), code=1, size=51), "another length"),
        (head() + block(zlib.compress(b"x" * 50) + b"y", code=1, size=50), "another length"),
        (head() + block(b"\x99"), "no tag"),
        (head() + block(bytes([Tag.END])), "wanted STATEMENT"),
        (head() + block(bytes([Tag.STATEMENT, 9])), "no kind"),
        (head() + block(bytes([Tag.STATEMENT, 0]) + b"x" * 40), "longer than its block"),
    ],
)
def test_damaged_beginnings(data: bytes, reason: str) -> None:
    with pytest.raises(CertificateError, match=reason):
        read_all(data)


def refutation(*records: bytes) -> bytes:
    start = struct.pack("<BII", Tag.REFUTATION, 1, 0)
    return head() + block(statement_record()) + block(start + b"".join(records) + bytes([Tag.END]))


TREE = bytes([Tag.TREE, 1, 0])
EMPTY_LAYOUT = TREE + struct.pack("<BH", Tag.LAYOUT, 0)
ONE_WINDOW = TREE + struct.pack("<BHIBIHIHH", Tag.LAYOUT, 1, 0, 0, 1, 2, 0, 0, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (refutation(), "wanted TREE"),
        (refutation(TREE), "wanted LAYOUT"),
        (refutation(bytes([Tag.TREE, 2, 0])), "neither 0 nor 1"),
        (refutation(EMPTY_LAYOUT), "END inside a tree"),
        (refutation(EMPTY_LAYOUT, bytes([Tag.LEAF, 17])), "17 parameter sets"),
        (refutation(EMPTY_LAYOUT, bytes([Tag.LEAF, 1, 8])), "8 bits"),
        (refutation(EMPTY_LAYOUT, bytes([Tag.LEAF, 0]), bytes([Tag.LEAF, 0])), "LEAF where an item"),
        (refutation(TREE + struct.pack("<BHIBIH", Tag.LAYOUT, 1, 0, 2, 0, 1)), "group is damaged"),
        (refutation(TREE + struct.pack("<BHIBIH", Tag.LAYOUT, 1, 0, 0, 0, 0)), "group is damaged"),
        (refutation(TREE + struct.pack("<BHIBIH", Tag.LAYOUT, 1, 0, 0, 2**32 - 1, 2**16 - 1)), "longer than its block"),
        (refutation(ONE_WINDOW, bytes([Tag.LEAF, 1, 16]) + struct.pack("<HI", 40000, 0)), "larger than 1"),
        (refutation(ONE_WINDOW, bytes([Tag.LEAF, 1, 32]) + struct.pack("<II", UNIT + 1, 0)), "larger than 1"),
        (refutation(ONE_WINDOW, bytes([Tag.LEAF, 1, 32]) + struct.pack("<II", 5, 2**32 - 1)), "longer than its block"),
        (refutation(EMPTY_LAYOUT, struct.pack("<BIIB", Tag.SPLIT, 0, 0, 255)), "longer than its block"),
        (refutation(EMPTY_LAYOUT, bytes([Tag.LEAF, 0])) + b"x", "follows the end"),
        (head() + block(statement_record() + bytes([Tag.END, Tag.END])), "follows the end"),
        (head() + block(statement_record() + struct.pack("<BI", Tag.REFUTATION, 2**32 - 1)), "longer than its block"),
        (head() + block(statement_record()), "truncated"),
        (head() + block(statement_record() + bytes([Tag.LEMMA, 0, 0, 0, 0, Tag.CROWN])), "CROWN where a claim"),
    ],
)
def test_damaged_items(data: bytes, reason: str) -> None:
    with pytest.raises(CertificateError, match=reason):
        read_all(data)


def test_weights_that_exceed_one_together() -> None:
    layout = TREE + struct.pack("<BHIBIHIHHH", Tag.LAYOUT, 1, 0, 0, 1, 3, 0, 0, 1, 2)
    leaf = bytes([Tag.LEAF, 1, 16]) + struct.pack("<HHI", 20000, 20000, 0)
    with pytest.raises(CertificateError, match="sum to more than 1"):
        read_all(refutation(layout, leaf))


def test_control_characters_are_refused() -> None:
    about = random_statement(np.random.default_rng(0))
    goal = about.property
    hidden = Property("x\x1b[31m", goal.coefficients, goal.offsets, goal.count)
    with pytest.raises(CertificateError, match="cannot be printed"):
        reader_of(written(Statement(about.network_sha256, about.box, hidden, about.tool), []))


def test_huge_claims_take_no_memory() -> None:
    """A zip bomb, and lengths of gigabytes, are refused before anything of that size is allocated."""
    bomb = zlib.compress(bytes(MOST_BLOCK))
    bombs = head() + b"".join(block(bomb, code=1, size=1000) for _ in range(5))
    axes = struct.pack("<B3I", 3, 60000, 60000, 60000)
    empty = head() + block(bytes([Tag.STATEMENT, 0]) + bytes(36) + struct.pack("<B3I", 3, 0, 2**32 - 1, 2**32 - 1))
    formless = bytes([Tag.STATEMENT, 0]) + bytes(36) + struct.pack("<BIddIII", 1, 1, 0.0, 0.0, 0, 2**32 - 1, 1)
    large = head() + block(bytes([Tag.STATEMENT, 0]) + bytes(32) + b"\0\0\0\0" + axes)
    tracemalloc.start()
    for data in (
        bombs,
        large,
        empty,
        head() + block(formless),
        refutation(TREE + struct.pack("<BHIBIH", Tag.LAYOUT, 1, 0, 0, 2**32 - 1, 2**16 - 1)),
    ):
        with pytest.raises(CertificateError):
            read_all(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def test_counterexamples_are_read_again() -> None:
    about = random_statement(np.random.default_rng(1))
    image = about.box.centre.astype(np.float32)
    target = io.BytesIO()
    write_counterexample(target, Counterexample(about, image))
    data = target.getvalue()
    assert np.array_equal(reader_of(data).image(), image)
    with pytest.raises(CertificateError):
        reader_of(data[:-1]).image()
    with pytest.raises(CertificateError, match="where an item"):
        read_all(data)


@settings(max_examples=200)
@given(SEEDS)
def test_shares_sum_to_one_and_stay_close(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(generator.integers(1, 20), 0.3), size=4)
    weights = np.where(generator.random(weights.shape) < 0.2, 0.0, weights)
    for bits in (FINE, COARSE):
        found = shares(weights, bits).astype(np.int64)
        assert (found.sum(axis=1) == UNIT).all()
        total = weights.sum(axis=1, keepdims=True)
        expected = np.where(total > 0, weights / np.where(total > 0, total, 1.0), np.eye(1, weights.shape[1]))
        assert np.abs(found / UNIT - expected).max() <= weights.shape[1] * 2.0 ** (1 - bits)


def test_coarse_parameters_take_half_the_space() -> None:
    generator = np.random.default_rng(0)
    layout = (WindowGroup(0, np.arange(500), np.tile([0, 1], (500, 1)), False),)
    sizes = []
    for bits in (COARSE, FINE):
        raw = generator.random(500)
        group = group_parameters(np.stack([raw, 1 - raw], axis=1), None, None, bits)
        leaf = Leaf((parameter_set(np.ones(1), [group], bits),))
        sizes.append(
            len(written(random_statement(np.random.default_rng(0)), [Refutation((0,), Tree(layout, (leaf,)))]))
        )
    assert sizes[1] - sizes[0] > 700


def test_nan_parameters_become_harmless() -> None:
    group = group_parameters(np.array([[np.nan, np.nan]]), np.array([np.nan]), np.array([[np.nan, -1.0]]))
    assert group.weights.tolist() == [[UNIT, 0]]
    assert group.fractions.tolist() == [0]
    assert not len(group.places)


def test_canonical_windows_are_named_as_the_format_names_them() -> None:
    windows = np.array([[0, 1, 4, 5], [2, 3, -1, -1]])
    candidates = np.array([[5, 0, -1], [3, -1, -1]])
    assert alternatives_of(windows, candidates).tolist() == [[3, 0, -1], [1, -1, -1]]
    with pytest.raises(ValueError, match="no entry of its window"):
        alternatives_of(windows, np.array([[2], [2]]))


def test_canonical_nodes_know_their_operation() -> None:
    network = random_dense_network(3)
    numbers = operation_numbers(network)
    (relu,) = [node for node in lower(network).nodes if hasattr(node, "origin")]
    assert isinstance(network.nodes[relu.origin].op, Relu)
    assert numbers[relu.origin] == 0


def test_merged_pairs_take_the_later_number() -> None:
    from network_strategies import NetworkBuilder

    from verifier.canonical import Max
    from verifier.network import Reshape

    pool = MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
    for ops in ((Relu(), pool), (pool, Relu())):
        builder = NetworkBuilder((1, 4, 4))
        for op in ops:
            builder.add(op, len(builder.nodes))
        builder.add(Reshape((4,)), 2)
        network: Network = builder.network(Head.NONE)
        (node,) = [node for node in lower(network).nodes if isinstance(node, Max)]
        assert node.has_floor
        assert operation_numbers(network)[node.origin] == 1
