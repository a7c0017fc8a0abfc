"""Lemmas from the bounds near exact ranges: accepted by any judge, sound, near what they prove, and safe when tampered with."""

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from network_strategies import SEEDS, NetworkBuilder, chain, constants
from tiny_networks import random_dense_network

from verifier.bounds import RegionBounds, analyse_region, tightened_region
from verifier.bounds.shallow_evidence import ShallowProof
from verifier.certify.lemmas import lemmas, worthwhile
from verifier.check.certificates import check_certificate
from verifier.check.judge import Judge
from verifier.deadline import Deadline
from verifier.evaluation import evaluate_values
from verifier.lowering import lower
from verifier.network import AddConstant, Conv, Dense, MaxPool, MulConstant, Network, Relu, Reshape, Subtract
from verifier.onnx_import import load_network
from verifier.proof.errors import CertificateError
from verifier.proof.reader import CertificateReader
from verifier.proof.records import UNIT, CrownLemma, Item, Leaf, Statement, TreeLemma, operation_numbers
from verifier.proof.writer import write_proof
from verifier.property import Property, stays_in_top_k
from verifier.region import Box

SIDE = 9
PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "published"


def bias(generator: np.random.Generator, size: int) -> np.ndarray:
    """Small, so that many units are undecided."""
    return constants(generator, size) * np.float32(0.1)


def convolutions(seed: int) -> Network:
    """Conv ReLU conv, then a ReLU, or a pool and a ReLU in either order; then dense."""
    generator = np.random.default_rng(seed)
    builder = NetworkBuilder((1, SIDE, SIDE))
    value = builder.add(Conv(constants(generator, 2, 1, 2, 2), bias(generator, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1), 0)
    value = builder.add(Relu(), value)
    second = Conv(constants(generator, 3, 2, 2, 2), bias(generator, 3), (2, 2), (0, 0, 0, 0), (1, 1), 1)
    value = builder.add(second, value)
    pool = MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
    for op in ((Relu(),), (Relu(), pool), (pool, Relu()), (pool,))[seed % 4]:
        value = builder.add(op, value)
    size = int(np.prod(builder.shape(value)))
    value = builder.add(Reshape((size,)), value)
    builder.add(Dense(constants(generator, 2, size), constants(generator, 2)), value)
    return builder.network()


def dense_layers(seed: int) -> Network:
    """Three hidden layers: the third reads what is not shallow."""
    generator = np.random.default_rng(seed)
    sizes, ops = (4, 6, 6, 5, 2), []
    for into, out in pairwise(sizes):
        ops += [Dense(constants(generator, out, into), constants(generator, out)), Relu()]
    return chain((4,), *ops[:-1])


def region_of(network: Network, box: Box) -> RegionBounds:
    return tightened_region(analyse_region(lower(network), box), Deadline())


def flat_box(network: Network, seed: int, width: float) -> Box:
    """Mostly one shade, so that functions repeat."""
    generator = np.random.default_rng(seed)
    image = np.where(generator.random(network.input_shape) < 0.1, 0.75, 0.5)
    return Box.around(image, width)


def anything(network: Network) -> Property:
    return Property("x", np.eye(1, network.labels), np.zeros(1), 1)


def made(network: Network, box: Box, region: RegionBounds) -> tuple[Judge, list[Item]]:
    judge = Judge(network, box, anything(network))
    return judge, list(lemmas(network, region, judge, Deadline()))


def reading(network: Network, operation: int) -> int:
    """The typed value that an operation reads; of a merged pair, what the earlier one reads."""
    place = {number: at for at, number in operation_numbers(network).items()}[operation]
    value = network.nodes[place].inputs[0]
    if value and isinstance(network.nodes[value - 1].op, Relu | MaxPool):
        value = network.nodes[value - 1].inputs[0]
    return value


def points(box: Box, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    corners = np.where(generator.random((200, *box.shape)) < 0.5, box.lower, box.upper)
    return np.concatenate([corners, generator.uniform(box.lower, box.upper, (200, *box.shape))])


def assert_sound(network: Network, box: Box, judge: Judge, items: Sequence[Item], seed: int) -> None:
    values = evaluate_values(network, points(box, seed))
    for operation in {item.operation for item in items if not isinstance(item, Statement)}:
        low, high = judge.region_bounds(operation)
        reached = values[reading(network, operation)].reshape(400, -1)
        # Evaluated in float64: exceeding by rounding proves nothing.
        assert (reached >= low - 1e-9).all()
        assert (reached <= high + 1e-9).all()


@settings(max_examples=12)
@given(SEEDS)
def test_lemmas_hold_for_a_fresh_judge_and_contain_every_value(seed: int) -> None:
    network = convolutions(seed) if seed % 3 else dense_layers(seed)
    box = flat_box(network, seed, 0.1)
    judge, items = made(network, box, region_of(network, box))
    fresh = Judge(network, box, anything(network))
    for item in items:
        fresh.judge(item)
    for operation in {item.operation for item in items}:
        for ours, theirs in zip(judge.region_bounds(operation), fresh.region_bounds(operation), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert_sound(network, box, judge, items, seed)


@settings(max_examples=12)
@given(SEEDS)
def test_certified_bounds_are_near_those_found(seed: int) -> None:
    """Every bound that is worth a claim is certified, up to a ten thousandth."""
    network = convolutions(seed)
    box = flat_box(network, seed, 0.15)
    region = region_of(network, box)
    judge, items = made(network, box, region)
    before = Judge(network, box, anything(network))
    for item in items:
        if isinstance(item, CrownLemma):
            before.judge(item)
    node = region.canonical.nodes[3]
    chosen = worthwhile(node, before.region_bounds(items[0].operation), region.shallow)
    low, high = judge.region_bounds(items[0].operation)
    for proof, members in zip(region.shallow, chosen, strict=True):
        wanted = proof.bounds[members]
        certified = (high if proof.sign > 0 else -low)[proof.entries[members]]
        assert (certified <= wanted + 1e-4 * np.maximum(1.0, np.abs(wanted))).all()


def test_the_examples_have_lemmas_of_every_kind() -> None:
    """What the properties above speak about happens: shared claims, splits, lower and upper bounds, gains."""
    claims, leaves, shared, signs = 0, 0, 0, set()
    for seed in (1, 3, 5, 6, 24):
        network = convolutions(seed)
        box = flat_box(network, seed, 0.15)
        judge, items = made(network, box, region_of(network, box))
        assert isinstance(items[0], CrownLemma)
        for item in items:
            if isinstance(item, TreeLemma):
                claims += len(item.claims)
                shared += sum(len(claim.entries) > 1 for claim in item.claims)
                signs |= {claim.sign for claim in item.claims}
        leaves += judge.leaves
    assert claims > 20
    assert leaves > 2 * claims
    assert shared > 0
    assert signs == {-1, 1}


def test_operations_are_in_order_and_only_those_behind_another_have_lemmas() -> None:
    network = dense_layers(3)
    box = flat_box(network, 3, 0.2)
    _, items = made(network, box, region_of(network, box))
    crown = [item.operation for item in items if isinstance(item, CrownLemma)]
    assert crown == [1, 2]
    assert [item.operation for item in items] == sorted(item.operation for item in items)
    assert {item.operation for item in items if isinstance(item, TreeLemma)} == {1}


def test_without_evidence_there_are_crown_lemmas_alone() -> None:
    network = dense_layers(3)
    box = flat_box(network, 3, 0.2)
    _, items = made(network, box, analyse_region(lower(network), box))
    assert [type(item) for item in items] == [CrownLemma, CrownLemma]
    single = random_dense_network(1)
    assert made(single, flat_box(single, 1, 0.1), region_of(single, flat_box(single, 1, 0.1)))[1] == []


def test_out_of_time_no_lemma_comes() -> None:
    network = dense_layers(3)
    box = flat_box(network, 3, 0.2)
    judge = Judge(network, box, anything(network))
    assert list(lemmas(network, region_of(network, box), judge, Deadline.after(0))) == []
    assert judge.lemmas == 0


def test_lemmas_survive_the_file() -> None:
    network = convolutions(3)
    box = flat_box(network, 3, 0.15)
    judge, items = made(network, box, region_of(network, box))
    target = io.BytesIO()
    write_proof(target, Statement(network.sha256, box, anything(network), "tests"), items)
    reader = CertificateReader(io.BytesIO(target.getvalue()), len(target.getvalue()))
    fresh = Judge(network, box, reader.statement.property)
    for item in reader.items():
        fresh.judge(item)
    for ours, theirs in zip(judge.region_bounds(1), fresh.region_bounds(1), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def finest(items: Sequence[Item]) -> int:
    """The finest parameter's distance from the coarse grid."""
    leaves = [
        n for i in items if isinstance(i, TreeLemma) for c in i.claims for n in c.tree.nodes if isinstance(n, Leaf)
    ]
    weights = [group.weights for leaf in leaves for held in leaf.sets for group in held.groups]
    return max(int((each % (UNIT >> 15)).max()) for each in weights if each.size)


def test_fine_parameters_prove_what_coarse_ones_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where coarse parameters are never close enough, fine ones prove the same bounds."""
    network = convolutions(3)
    box = flat_box(network, 3, 0.15)
    region = region_of(network, box)
    coarse, items = made(network, box, region)
    assert finest(items) == 0
    monkeypatch.setattr(sys.modules["verifier.certify.lemmas"], "_LEEWAY", -1.0)
    fine, items = made(network, box, region)
    assert finest(items) > 0
    assert_sound(network, box, fine, items, 3)
    assert sum(isinstance(item, TreeLemma) for item in items) == 1
    (lo, hi), (fine_lo, fine_hi) = coarse.region_bounds(1), fine.region_bounds(1)
    assert (fine_hi <= hi + 1e-7).all()
    assert (fine_lo >= lo - 1e-7).all()


def tampered(proof: ShallowProof, generator: np.random.Generator) -> ShallowProof:
    """One thing about it changed."""
    leaves = proof.leaves
    match int(generator.integers(6)):
        case 0:
            return replace(proof, bounds=proof.bounds - generator.exponential(1.0))
        case 1:
            multipliers = (leaves.multipliers * generator.exponential(3.0, leaves.multipliers.shape)).astype(np.float32)
            return replace(proof, leaves=replace(leaves, multipliers=multipliers))
        case 2:
            slopes = generator.random(leaves.slopes.shape).astype(np.float32)
            return replace(proof, leaves=replace(leaves, slopes=slopes))
        case 3:
            return replace(proof, sign=-proof.sign, bounds=-proof.bounds - 0.5)
        case 4:
            return replace(proof, entries=generator.permutation(proof.entries), places=proof.places[:, ::-1].copy())
        case _:
            return replace(proof, leaves=replace(leaves, phase=-leaves.phase))


@settings(max_examples=12)
@given(SEEDS)
def test_tampered_evidence_never_makes_an_unsound_bound(seed: int) -> None:
    network = convolutions(seed)
    box = flat_box(network, seed, 0.15)
    region, generator = region_of(network, box), np.random.default_rng(seed)
    attacked = replace(region, shallow=tuple(tampered(proof, generator) for proof in region.shallow))
    judge, items = made(network, box, attacked)
    assert_sound(network, box, judge, items, seed)
    fresh = Judge(network, box, anything(network))
    for item in items:
        fresh.judge(item)


def test_a_bound_below_what_its_tree_shows_is_refused_by_the_judge_and_raised_here() -> None:
    network = convolutions(3)
    box = flat_box(network, 3, 0.15)
    region = region_of(network, box)
    _, items = made(network, box, region)
    lemma = next(item for item in items if isinstance(item, TreeLemma))
    claim = lemma.claims[0]
    lying = replace(claim, bound=claim.bound - 0.01)
    fresh = Judge(network, box, anything(network))
    fresh.judge(items[0])
    before = [side.copy() for side in fresh.region_bounds(lemma.operation)]
    with pytest.raises(CertificateError, match="exceeded"):
        fresh.judge(TreeLemma(lemma.operation, (lying,)))
    settled, is_in = fresh.settle(TreeLemma(lemma.operation, (lying,)), np.array([lying.bound]))
    assert not is_in.any()
    assert settled.claims == ()
    for side, held in zip(fresh.region_bounds(lemma.operation), before, strict=True):
        np.testing.assert_array_equal(side, held)
    settled, is_in = fresh.settle(TreeLemma(lemma.operation, (lying,)), np.array([np.inf]))
    assert is_in.all()
    assert settled.claims[0].bound == pytest.approx(claim.bound, abs=1e-4)
    assert settled.claims[0].bound > lying.bound
    Judge(network, box, anything(network)).judge(TreeLemma(lemma.operation, settled.claims))


def test_malformed_claims_are_refused_whole() -> None:
    network = convolutions(3)
    box = flat_box(network, 3, 0.15)
    _, items = made(network, box, region_of(network, box))
    lemma = next(item for item in items if isinstance(item, TreeLemma))
    fresh = Judge(network, box, anything(network))
    before = [side.copy() for side in fresh.region_bounds(1)]
    bad = (*lemma.claims, replace(lemma.claims[0], entries=np.array([10_000])))
    with pytest.raises(CertificateError, match="does not read"):
        fresh.settle(TreeLemma(1, bad), np.full(len(bad), np.inf))
    for side, held in zip(fresh.region_bounds(1), before, strict=True):
        np.testing.assert_array_equal(side, held)


@pytest.mark.published
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published networks are not here")
def test_published_network_gets_a_compact_lemma() -> None:
    network = load_network(PUBLISHED / "dmnist_model381_4k_params_noDef.onnx")
    image = np.load(PUBLISHED / "dmnist-images.npz")["images"][0].astype(np.float64) / 255
    box = Box.around(image.astype(np.float32).astype(np.float64), 0.005)
    goal = stays_in_top_k(3, 2, 10)
    region, judge = region_of(network, box), Judge(network, box, goal)
    items = list(lemmas(network, region, judge, Deadline()))
    assert [type(item) for item in items] == [CrownLemma, TreeLemma]
    target = io.BytesIO()
    assert write_proof(target, Statement(network.sha256, box, goal, "tests"), items) < 200_000
    report = check_certificate(target.getvalue(), network)
    assert report.lemmas == 2
    assert "leave a way" in report.reason


def test_intervals_that_the_checker_has_wider_get_a_lemma() -> None:
    """x - x / 2 - 0.2 on [0, 0.45]: step by step [-0.425, 0.25], as one affine map [-0.2, 0.025]."""
    builder = NetworkBuilder((1,))
    half = builder.add(MulConstant(np.array([0.5], np.float32)), 0)
    value = builder.add(Subtract(), 0, half)
    value = builder.add(Relu(), builder.add(AddConstant(np.array([-0.2], np.float32)), value))
    builder.add(Dense(np.ones((1, 1), np.float32), np.zeros(1, np.float32)), value)
    network, box = builder.network(), Box(np.zeros(1), np.full(1, 0.45))
    assert Judge(network, box, anything(network)).region_bounds(0)[1][0] > 0.24
    judge, items = made(network, box, region_of(network, box))
    assert [type(item) for item in items] == [CrownLemma]
    for side, exact in zip(judge.region_bounds(0), (-0.2, 0.025), strict=True):
        np.testing.assert_allclose(side, [exact], atol=1e-7)
