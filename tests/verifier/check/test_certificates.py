"""Certificates are accepted where they prove their statement, and attacked: every mutant is rejected or states something true."""

import io
import struct
import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_strategies import SEEDS, random_network
from proof_examples import DEFAULT, proved_example, statement, to_bytes
from tiny_networks import dense_network, exact_supremum, linear_network, random_box, random_dense_network

from nets import shipped
from verifier.check.certificates import check_certificate
from verifier.check.judge import Judge
from verifier.errors import InputError
from verifier.network import Network
from verifier.onnx_import import load_network
from verifier.proof.errors import CertificateError
from verifier.proof.records import (
    UNIT,
    Counterexample,
    CrownLemma,
    GroupParameters,
    Item,
    Leaf,
    ParameterSet,
    Refutation,
    RowClaim,
    Split,
    Statement,
    Tree,
    TreeLemma,
    WindowGroup,
)
from verifier.proof.writer import write_counterexample
from verifier.property import Property, stays_in_top_k, stays_out_of_top_k
from verifier.region import Box

HEAD = 12


@cache
def tiny_example(seed: int, count: int) -> tuple[Network, Statement, tuple[Item, ...], bytes]:
    """A network with one hidden layer, whose exact margin linear programs tell."""
    generator = np.random.default_rng(seed)
    network = random_dense_network(seed, inputs=3, hidden=4, labels=3)
    goal = Property("tiny", np.round(generator.normal(size=(3, 3)) * 4) / 4, generator.normal(size=3), count)
    about, items = proved_example(network, random_box(network, seed), goal, seed, depth=2, tries=12)
    return network, about, tuple(items), to_bytes(about, items)


@settings(max_examples=20)
@given(SEEDS)
def test_proofs_of_random_networks_are_accepted(seed: int) -> None:
    network = random_network(seed, blocks=5)
    generator = np.random.default_rng(seed)
    centre = generator.random(network.input_shape)
    box = Box(np.clip(centre - 0.1, 0, 1), np.clip(centre + 0.1, 0, 1))
    goal = Property("random", generator.normal(size=(3, network.labels)), np.zeros(3), 1 + seed % 2)
    about, items = proved_example(network, box, goal, seed)
    report = check_certificate(to_bytes(about, items), network)
    assert report.accepted, report.reason
    assert report.is_proof
    assert report.largest_bound < 0.0
    assert report.refutations == sum(isinstance(item, Refutation) for item in items)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_accepted_statements_are_true(seed: int, count: int) -> None:
    network, about, _, data = tiny_example(seed, count)
    report = check_certificate(data, network)
    assert report.accepted, report.reason
    assert exact_supremum(network, about.property, about.box) < 1e-9


def is_true(network: Network, about: Statement) -> bool:
    return about.network_sha256 == network.sha256 and exact_supremum(network, about.property, about.box) < 1e-9


def assert_sound(data: bytes, network: Network) -> bool:
    """A mutant is rejected with a reason, or what it states is true."""
    report = check_certificate(data, network)
    if not report.accepted:
        assert report.reason
        return False
    assert report.statement is not None
    assert is_true(network, report.statement)
    return True


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
    return head + b"".join(struct.pack("<BII", 0, len(block), len(block)) + block for block in blocks)


@settings(max_examples=1200)
@given(st.integers(0, 5), st.integers(1, 2), st.data())
def test_mutated_bytes_never_prove_what_is_false(seed: int, count: int, data: st.DataObject) -> None:
    network, _, _, original = tiny_example(seed, count)
    (block,) = blocks_of(original)
    content = bytearray(block)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["set", "bit", "number", "cut", "copy"])):
            case "set":
                content[place] = data.draw(st.integers(0, 255))
            case "bit":
                content[place] ^= 1 << data.draw(st.integers(0, 7))
            case "number":
                value = struct.pack("<d", data.draw(st.floats()))
                content[place : place + 8] = value[: len(content) - place]
            case "cut":
                del content[place : place + data.draw(st.integers(1, 40))]
            case "copy":
                length = data.draw(st.integers(1, 60))
                content[place:place] = content[place : place + length]
        if not content:
            break
    assert_sound(from_blocks([bytes(content)] if content else []), network)


@settings(max_examples=300)
@given(st.integers(0, 5), st.data())
def test_damaged_files_are_refused_cleanly(seed: int, data: st.DataObject) -> None:
    network, _, _, original = tiny_example(seed, 2)
    kind = data.draw(st.sampled_from(["truncate", "flip", "append", "random"]))
    place = data.draw(st.integers(0, len(original) - 1))
    match kind:
        case "truncate":
            mutant = original[:place]
        case "flip":
            mutant = original[:place] + bytes([original[place] ^ 255]) + original[place + 1 :]
        case "append":
            mutant = original + data.draw(st.binary(min_size=1, max_size=20))
        case _:
            mutant = original[:place] + data.draw(st.binary(max_size=60))
    accepted = assert_sound(mutant, network)
    if kind in ("truncate", "append"):
        assert not accepted


# Each of these changes one field so that the proof no longer holds together.


def rebuilt(items: tuple[Item, ...], change) -> list[Item]:
    """The items with the first leaf that `change` alters."""
    done = False
    result: list[Item] = []
    for item in items:
        if isinstance(item, Refutation) and not done:
            nodes = []
            for node in item.tree.nodes:
                if isinstance(node, Leaf) and node.sets and not done:
                    altered = change(node, item.tree.layout)
                    done = done or altered is not None
                    nodes.append(node if altered is None else altered)
                else:
                    nodes.append(node)
            result.append(replace(item, tree=Tree(item.tree.layout, tuple(nodes))))
        else:
            result.append(item)
    assert done
    return result


def with_group(leaf: Leaf, group: GroupParameters) -> Leaf:
    first = leaf.sets[0]
    return Leaf((ParameterSet(first.combination, (group, *first.groups[1:])), *leaf.sets[1:]))


def heavier(leaf: Leaf, layout: tuple[WindowGroup, ...]) -> Leaf | None:
    if not layout or not len(layout[0].windows):
        return None
    group = leaf.sets[0].groups[0]
    weights = group.weights.copy()
    weights[0, 0] = weights[0, 0] + 7 if weights[0, 0] < UNIT else weights[0, 0] - 7
    return with_group(leaf, replace(group, weights=weights))


def negative(leaf: Leaf, layout: tuple[WindowGroup, ...]) -> Leaf | None:
    if not layout or not len(layout[0].windows):
        return None
    group = leaf.sets[0].groups[0]
    values = np.array([-1.0], np.float32)
    return with_group(leaf, replace(group, places=np.array([0]), multipliers=values))


def misplaced(leaf: Leaf, layout: tuple[WindowGroup, ...]) -> Leaf | None:
    if not layout:
        return None
    group = leaf.sets[0].groups[0]
    return with_group(
        leaf, replace(group, places=np.array([group.weights.size]), multipliers=np.array([1.0], np.float32))
    )


def twice(leaf: Leaf, layout: tuple[WindowGroup, ...]) -> Leaf | None:
    if not layout or not len(layout[0].windows):
        return None
    group = leaf.sets[0].groups[0]
    return with_group(leaf, replace(group, places=np.array([0, 0]), multipliers=np.ones(2, np.float32)))


def infinite(leaf: Leaf, layout: tuple[WindowGroup, ...]) -> Leaf | None:
    if not layout or not len(layout[0].windows):
        return None
    group = leaf.sets[0].groups[0]
    return with_group(leaf, replace(group, places=np.array([0]), multipliers=np.array([np.inf], np.float32)))


def uncombined(leaf: Leaf, layout: tuple[WindowGroup, ...]) -> Leaf | None:
    first = leaf.sets[0]
    combination = first.combination.copy()
    combination[0] ^= 1
    return Leaf((ParameterSet(combination, first.groups),))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (heavier, "do not sum to 1"),
        (negative, "negative or not finite"),
        (infinite, "negative or not finite"),
        (misplaced, "name no alternative"),
        (twice, "or one twice"),
        (uncombined, "do not fit, or do not sum to 1"),
    ],
)
def test_parameters_out_of_range_are_refused(change, reason: str) -> None:
    examined = 0
    for seed in range(6):
        network, about, items, _ = tiny_example(seed, 2)
        trees = [item.tree for item in items if isinstance(item, Refutation)]
        if not any(isinstance(node, Leaf) and node.sets for tree in trees for node in tree.nodes):
            continue
        examined += 1
        with pytest.raises(CertificateError, match=reason):
            judge_all(network, about, rebuilt(items, change))
    assert examined


def judge_all(network: Network, about: Statement, items: list[Item]) -> None:
    judge = Judge(network, about.box, about.property)
    for item in items:
        judge.judge(item)


def refute(seed: int, tree: Tree, members: tuple[int, ...] = (0, 1)) -> None:
    network, about, _, _ = tiny_example(seed, 2)
    Judge(network, about.box, about.property).judge(Refutation(members, tree))


def window(operation=0, windows=(0,), alternatives=((0, 1),)) -> WindowGroup:
    return WindowGroup(operation, np.array(windows), np.array(alternatives), False)


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (Tree((), ()), "ends before its last leaf"),
        (Tree((), (Split(0, 0, 1), DEFAULT)), "ends before its last leaf"),
        (Tree((), (DEFAULT, DEFAULT)), "after its last leaf|the bound is"),
        (Tree((), (Split(9, 0, 1), DEFAULT, DEFAULT)), "names operation 9"),
        (Tree((), (Split(0, 4, 1), DEFAULT, DEFAULT)), "window 4"),
        (Tree((), (Split(0, -1, 1), DEFAULT, DEFAULT)), "window -1"),
        (Tree((), (Split(0, 0, 4), DEFAULT, DEFAULT)), "none such"),
        (Tree((), (Split(0, 0, -1), DEFAULT, DEFAULT)), "none such"),
        (Tree((window(operation=3),), (DEFAULT,)), "operation 3 fits none"),
        (Tree((window(windows=(4,)),), (DEFAULT,)), "has not"),
        (Tree((window(windows=(0, 0), alternatives=((0, 1), (0, 1))),), (DEFAULT,)), "a window twice"),
        (Tree((window(), window()), (DEFAULT,)), "a window twice"),
        (Tree((window(alternatives=((0, 2),)),), (DEFAULT,)), "has not"),
        (Tree((window(alternatives=((-1, 0),)),), (DEFAULT,)), "has not"),
        (Tree((window(alternatives=((1, 1),)),), (DEFAULT,)), "twice"),
        (Tree((), (Split(0, 0, 1),) * 10_001), "deeper than"),
    ],
)
def test_malformed_trees_are_refused(tree: Tree, reason: str) -> None:
    with pytest.raises(CertificateError, match=reason):
        refute(0, tree)


@pytest.mark.parametrize("members", [(), (0, 0), (3,), (-1,), (0, 1, 1)])
def test_members_must_be_different_forms(members: tuple[int, ...]) -> None:
    with pytest.raises(CertificateError, match="not different forms"):
        refute(0, Tree((), (DEFAULT,)), members)


@pytest.mark.parametrize(
    "claim", [(-1, 1, 0.0), (4, 1, 0.0), (0, 0, 0.0), (0, 2, 0.0), (0, 1, np.nan), (0, 1, -np.inf)]
)
def test_claims_must_make_sense(claim: tuple[int, int, float]) -> None:
    network, about, _, _ = tiny_example(0, 2)
    judge = Judge(network, about.box, about.property)
    with pytest.raises(CertificateError, match=r"makes no sense|does not read"):
        judge.judge(TreeLemma(0, (RowClaim(np.array([claim[0]]), *claim[1:], Tree((), (DEFAULT,))),)))


def test_a_claim_beyond_its_proof_is_refused_and_leaves_nothing_behind() -> None:
    network, about, _, _ = tiny_example(0, 2)
    judge = Judge(network, about.box, about.property)
    lower, upper = (side.copy() for side in judge.region_bounds(0))
    wide = int((upper - lower).argmax())
    good = RowClaim(np.array([wide]), 1, float(upper[wide]) + 1e-9, Tree((), (DEFAULT,)))
    bad = RowClaim(np.array([wide]), 1, float(upper[wide]) - 1e-3, Tree((), (DEFAULT,)))
    with pytest.raises(CertificateError, match="exceeded"):
        judge.judge(TreeLemma(0, (good, bad)))
    assert np.array_equal(judge.region_bounds(0)[1], upper)
    judge.judge(TreeLemma(0, (good,)))


def test_claims_of_one_lemma_do_not_use_each_other() -> None:
    """The first claim is false; assuming it would prove the second."""
    network, about, _, _ = tiny_example(0, 2)
    judge = Judge(network, about.box, about.property)
    lower, upper = judge.region_bounds(0)
    wide = int((upper - lower).argmax())
    false = RowClaim(np.array([wide]), 1, float(lower[wide]), Tree((), (Split(0, wide, 1), DEFAULT, DEFAULT)))
    with pytest.raises(CertificateError, match="exceeded"):
        judge.judge(TreeLemma(0, (false, false)))


def test_every_refutation_is_needed() -> None:
    for seed in range(4):
        network, about, items, _ = tiny_example(seed, 2)
        for position, item in enumerate(items):
            if isinstance(item, Refutation):
                rest = [*items[:position], *items[position + 1 :]]
                report = check_certificate(to_bytes(about, rest), network)
                assert not report.accepted
                assert "leave a way" in report.reason


def test_children_in_the_wrong_order_do_not_help() -> None:
    """The leaf of a part where the margin is far below 0 cannot stand in for its sibling."""
    network = dense_network([([[1.0], [-1.0]], [-0.5, 0.0]), ([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.3])])
    box = Box(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
    goal = Property("first below second", np.array([[1.0, -1.0]]), np.zeros(1), 1)
    assert exact_supremum(network, goal, box) > 0.1
    split = Split(0, 0, 1)
    with pytest.raises(CertificateError, match="below 1 split windows"):
        Judge(network, box, goal).judge(Refutation((0,), Tree((), (split, DEFAULT, DEFAULT))))
    smaller = Box(np.zeros((1, 1, 1)), np.full((1, 1, 1), 0.5))
    Judge(network, smaller, goal).judge(Refutation((0,), Tree((), (split, DEFAULT, DEFAULT))))


def test_another_network_is_refused() -> None:
    network, _, _, data = tiny_example(0, 2)
    other = random_dense_network(99, inputs=3, hidden=4, labels=3)
    report = check_certificate(data, other)
    assert not report.accepted
    assert network.sha256 in report.reason


def test_a_statement_that_does_not_fit_the_network_is_refused() -> None:
    network, about, items, _ = tiny_example(0, 2)
    for box, goal in (
        (Box(np.zeros((1, 1, 2)), np.ones((1, 1, 2))), about.property),
        (about.box, Property("wide", np.ones((3, 7)), np.zeros(3), 2)),
    ):
        report = check_certificate(to_bytes(statement(network, box, goal), items), network)
        assert not report.accepted
        assert "region" in report.reason or "labels" in report.reason


def test_missing_files_are_input_errors(tmp_path) -> None:
    network, *_ = tiny_example(0, 2)
    with pytest.raises(InputError, match="cannot be read"):
        check_certificate(tmp_path / "none.cert", network)


def test_a_file_is_read_as_its_bytes_are(tmp_path) -> None:
    network, _, _, data = tiny_example(0, 2)
    (tmp_path / "proof.cert").write_bytes(data)
    (tmp_path / "net.onnx").write_bytes(network.onnx_bytes)
    report = check_certificate(tmp_path / "proof.cert", tmp_path / "net.onnx")
    assert report.accepted
    assert report.leaves == check_certificate(data, network).leaves


@pytest.mark.parametrize("power", [24, 30, 52, 53, 54, 60, 80, 100, 120])
def test_payloads_that_float_arithmetic_drops_are_not_proved_away(power: int) -> None:
    """(x + 2^k) - 2^k is x, though floats say 0 (Zombori et al. 2021; Jia and Rinard 2021): 'label 1 leads' is false at x = 1."""
    big = float(2.0**power)
    network = dense_network(
        [([[1.0]], [big]), ([[1.0]], [-big]), ([[1.0], [0.0]], [0.0, 0.5])],
    )
    box = Box(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
    goal = Property("second leads", np.array([[1.0, -1.0]]), np.zeros(1), 1)
    items = [CrownLemma(0), CrownLemma(1), Refutation((0,), Tree((), (DEFAULT,)))]
    assert not check_certificate(to_bytes(statement(network, box, goal), items), network).accepted
    # Where the payload cannot win, the same network is proved as long as float64 has room for it, and never beyond.
    low = Box(np.zeros((1, 1, 1)), np.full((1, 1, 1), 0.25))
    report = check_certificate(to_bytes(statement(network, low, goal), items), network)
    assert report.accepted == (power <= 40)


@pytest.mark.parametrize(("gap", "accepted"), [(2.0**-30, True), (0.0, False), (-(2.0**-30), False)])
def test_margins_of_a_billionth_are_told_apart(gap: float, accepted: bool) -> None:
    network = linear_network([[1.0, 0.5], [1.0, 0.5]], [0.25, 0.25 + gap] if abs(gap) > 2.0**-26 else [0.0, gap])
    box = Box(np.zeros((1, 1, 2)), np.ones((1, 1, 2)))
    goal = Property("second leads", np.array([[1.0, -1.0]]), np.zeros(1), 1)
    items = [Refutation((0,), Tree((), (DEFAULT,)))]
    data = to_bytes(statement(network, box, goal), items)
    assert check_certificate(data, network).accepted == accepted
    assert not check_certificate(data, network, covers_float32=True).accepted


def counterexample_bytes(about: Statement, image: np.ndarray) -> bytes:
    target = io.BytesIO()
    write_counterexample(target, Counterexample(about, image))
    return target.getvalue()


def test_counterexamples_are_replayed() -> None:
    network = linear_network([[1.0], [0.0], [-1.0]], [0.0, 0.5, 0.0])
    box = Box(np.full((1, 1, 1), 0.25), np.full((1, 1, 1), 0.75))
    goal = stays_in_top_k(1, 1, 3)
    about = statement(network, box, goal)
    report = check_certificate(counterexample_bytes(about, np.full((1, 1, 1), 0.625, np.float32)), network)
    assert report.accepted
    assert report.is_proof is False
    assert report.largest_bound == pytest.approx(0.125)
    for value in (0.5, 0.25, 0.875, np.nan):
        report = check_certificate(counterexample_bytes(about, np.full((1, 1, 1), value, np.float32)), network)
        assert not report.accepted, value


@cache
def shipped_example(name: str, index: int, eps: float, label: int) -> tuple[Network, Statement, tuple[Item, ...]]:
    network = load_network(shipped.network_path(name))
    image = shipped.images().images[index].reshape(network.input_shape).astype(np.float64)
    goal = stays_in_top_k(label, 2, network.labels)
    about = statement(network, Box.around(image, eps), goal)
    judge = Judge(network, about.box, goal)
    items: list[Item] = [
        CrownLemma(n) for n, step in judge._steps.maxima.items() if step.source not in judge._steps.shallow
    ]
    for item in items:
        judge.judge(item)
    alone = Tree((), (DEFAULT,))
    for form in range(9):
        if judge.leaf_bounds((form,), alone)[0] < 0:
            items.append(Refutation((form,), alone))
    return network, about, tuple(items)


@pytest.mark.parametrize(
    "case", [("cnn4k-linf", 17, 0.02, 3), ("strided3-none", 17, 0.005, 3), ("wide150k-none", 17, 0.001, 3)]
)
def test_shipped_networks(case: tuple[str, int, float, int]) -> None:
    network, about, items = shipped_example(*case)
    data = to_bytes(about, items)
    report = check_certificate(data, network)
    assert report.accepted, report.reason
    assert report.lemmas == sum(isinstance(item, CrownLemma) for item in items)
    # Two forms left open can be violated together.
    report = check_certificate(to_bytes(about, items[:-2]), network)
    assert "leave a way" in report.reason
    if case[0] == "strided3-none":
        without = [item for item in items if isinstance(item, Refutation)]
        assert "the bound is" in check_certificate(to_bytes(about, without), network).reason
    opposite = stays_out_of_top_k(case[3], 2, network.labels)
    assert not check_certificate(to_bytes(statement(network, about.box, opposite), items), network).accepted


def test_mutants_of_a_shipped_proof() -> None:
    """Every byte after the statement, changed: nothing but clean answers, most of them refusals."""
    network, about, items = shipped_example("cnn4k-linf", 17, 0.02, 3)
    refutations = [item for item in items if isinstance(item, Refutation)]
    (block,) = blocks_of(to_bytes(about, refutations))
    (empty,) = blocks_of(to_bytes(about, []))
    generator = np.random.default_rng(0)
    refused = 0
    places = range(len(empty) - 1, len(block))
    for place in places:
        content = bytearray(block)
        content[place] = (content[place] + generator.integers(1, 256)) % 256
        report = check_certificate(from_blocks([bytes(content)]), network)
        assert report.accepted or report.reason
        refused += not report.accepted
    assert refused > 0.9 * len(places)
