"""Lemmas of networks with every operation, before, between and behind the ReLUs whose phases the trees split."""

import numpy as np
from hypothesis import given, settings
from network_strategies import SEEDS, NetworkBuilder, constants, random_network

from verifier.bounds import RegionBounds, analyse_region, tightened_region
from verifier.canonical import Affine
from verifier.certify.lemmas import lemmas, worthwhile
from verifier.check.judge import Judge
from verifier.deadline import Deadline
from verifier.lowering import lower
from verifier.network import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    LeakyRelu,
    MaxPool,
    Network,
    Op,
    Pad,
    Relu,
    Reshape,
    Transpose,
)
from verifier.proof.records import CrownLemma, Item, TreeLemma, operation_numbers
from verifier.property import Property
from verifier.region import Box

SLOPE = float(np.float32(0.1))
POOL = MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (1, 1))


def mixed_network(seed: int) -> Network:
    """Two layers of maxima, with whatever may stand between them."""
    generator = np.random.default_rng(seed)
    builder, value = NetworkBuilder((2, 6, 6)), 0

    def convolution(channels: int, stride: int, kernel: int, pad: int) -> Conv:
        weight = constants(generator, channels, builder.shape(value)[0], kernel, kernel)
        bias = constants(generator, channels) * np.float32(0.1)
        return Conv(weight, bias, (stride, stride), (pad, pad, pad, pad), (1, 1), 1)

    def norm() -> BatchNorm:
        channels = builder.shape(value)[0]
        variance = generator.uniform(0.2, 2, channels).astype(np.float32)
        return BatchNorm(*(constants(generator, channels) for _ in range(3)), variance, 1e-5)

    def perhaps(share: float, op: Op, *others: int) -> int:
        return builder.add(op, value, *others) if generator.random() < share else value

    value = perhaps(0.4, norm())
    value = builder.add(convolution(3, 1, 3, 1), value)
    value = first = perhaps(0.5, norm())
    value = builder.add(LeakyRelu(SLOPE) if generator.random() < 0.4 else Relu(), value)
    value = perhaps(0.3, Add(), first)
    value = perhaps(0.3, AveragePool((2, 2), (1, 1), (0, 0, 0, 0), True))
    value = perhaps(0.3, Transpose((0, 2, 1)))
    value = perhaps(0.3, Pad(((0, 0), (1, 0), (0, 1)), 0.25))
    value = perhaps(0.3, Concat(0), value)
    value = builder.add(convolution(2, 2, 2, 0), value)
    value = perhaps(0.4, norm())
    for op in ((Relu(),), (LeakyRelu(SLOPE),), (POOL, Relu()), (Relu(), POOL))[generator.integers(4)]:
        value = builder.add(op, value)
    size = int(np.prod(builder.shape(value)))
    value = builder.add(Reshape((size,)), value)
    builder.add(Dense(constants(generator, 2, size), constants(generator, 2)), value)
    return builder.network()


def judged(network: Network, box: Box) -> tuple[RegionBounds, Judge, list[Item]]:
    """The lemmas, which a judge that knows nothing of their making accepts."""
    goal = Property("x", np.eye(1, network.labels), np.zeros(1), 1)
    region = tightened_region(analyse_region(lower(network), box), Deadline())
    judge, fresh = Judge(network, box, goal), Judge(network, box, goal)
    items = list(lemmas(network, region, judge, Deadline()))
    for item in items:
        fresh.judge(item)
    return region, fresh, items


def assert_sound(network: Network, box: Box, region: RegionBounds, judge: Judge, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lows, highs = box.lower.ravel(), box.upper.ravel()
    corners = np.where(generator.random((200, len(lows))) < 0.5, lows, highs)
    reached = region.canonical.evaluate(np.concatenate([corners, generator.uniform(lows, highs, corners.shape)]))
    numbers = operation_numbers(network)
    for node in region.canonical.nodes:
        if isinstance(node, Affine):
            continue
        low, high = judge.region_bounds(numbers[node.origin])
        slack = 1e-9 * (1.0 + np.abs(reached[node.input]).max())
        assert (reached[node.input] >= low - slack).all()
        assert (reached[node.input] <= high + slack).all()


@settings(max_examples=15)
@given(SEEDS)
def test_random_networks(seed: int) -> None:
    network, generator = random_network(seed, blocks=5), np.random.default_rng(seed)
    image = generator.random(network.input_shape)
    widths = generator.choice([0.0, 0.05, 0.2], size=network.input_shape)
    box = Box(np.clip(image - widths, 0, 1), np.clip(image + widths, 0, 1))
    region, judge, _ = judged(network, box)
    assert_sound(network, box, region, judge, seed)


@settings(max_examples=12)
@given(SEEDS)
def test_what_is_worth_a_claim_is_certified_whatever_stands_between(seed: int) -> None:
    network = mixed_network(seed)
    image = np.where(np.random.default_rng(seed).random(network.input_shape) < 0.3, 0.7, 0.5)
    box = Box.around(image, 0.1)
    region, judge, items = judged(network, box)
    assert_sound(network, box, region, judge, seed)
    if not region.shallow:
        return
    goal = Property("x", np.eye(1, network.labels), np.zeros(1), 1)
    before = Judge(network, box, goal)
    for item in items:
        if isinstance(item, CrownLemma):
            before.judge(item)
    ((node, operation),) = [
        (node, operation_numbers(network)[node.origin])
        for node in region.canonical.nodes
        if not isinstance(node, Affine) and node.input == region.shallow[0].value
    ]
    low, high = judge.region_bounds(operation)
    chosen = worthwhile(node, before.region_bounds(operation), region.shallow)
    for proof, members in zip(region.shallow, chosen, strict=True):
        certified = (high if proof.sign > 0 else -low)[proof.entries[members]]
        wanted = proof.bounds[members]
        assert (certified <= wanted + 1e-4 * np.maximum(1.0, np.abs(wanted))).all()


def test_the_mixed_networks_have_claims() -> None:
    found = 0
    for seed in range(6):
        network = mixed_network(seed)
        image = np.where(np.random.default_rng(seed).random(network.input_shape) < 0.3, 0.7, 0.5)
        _, _, items = judged(network, Box.around(image, 0.1))
        found += sum(len(tuple(item.claims)) for item in items if isinstance(item, TreeLemma))
    assert found > 10
