"""Fixed-point evaluation against exact fractions, and deep networks of which float64 intervals leave nothing."""

import numpy as np
import pytest
from exact_arithmetic import exact_scores
from hypothesis import given, settings
from network_strategies import SEEDS, UNARY, NetworkBuilder, chain, images, random_network

from verifier import check
from verifier.check.enclosure import enclose
from verifier.check.interval import point
from verifier.check.precise import RULES, evaluate_precisely, exceeds_float64
from verifier.network import AveragePool, BatchNorm, Dense, DivConstant, Network, Relu, Reshape

SHAPE = (2, 4, 3)
WITHOUT_RULE = (BatchNorm, DivConstant)


def assert_precise(network: Network, image: np.ndarray) -> None:
    found = evaluate_precisely(network, image)
    assert found is not None
    lower, upper = found
    expected = exact_scores(network, image)
    assert all(low <= score <= high for low, score, high in zip(lower, expected, upper, strict=True))
    assert (upper - lower <= 1e-12 * np.maximum(1.0, np.abs(upper))).all()


def is_covered(network: Network) -> bool:
    return not any(
        isinstance(node.op, WITHOUT_RULE)
        or (isinstance(node.op, AveragePool) and any(node.op.pads) and not node.op.count_include_pad)
        for node in network.nodes
    )


@settings(max_examples=60)
@given(SEEDS)
def test_the_exact_scores_of_random_networks(seed: int) -> None:
    network = random_network(seed, blocks=5)
    image = images(network, 1, seed)[0]
    if is_covered(network):
        assert_precise(network, image)
    else:
        assert evaluate_precisely(network, image) is None


@settings(max_examples=8)
@given(SEEDS)
@pytest.mark.parametrize("name", sorted(UNARY))
def test_the_exact_scores_of_every_operation(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    builder = NetworkBuilder(SHAPE)
    value = builder.add(UNARY[name](generator, SHAPE), 0)
    builder.add(Reshape((int(np.prod(builder.shape(value))),)), value)
    network = builder.network()
    image = (images(network, 1, seed)[0] - 0.5).astype(np.float32)
    if is_covered(network):
        assert_precise(network, image)
    else:
        assert evaluate_precisely(network, image) is None


def deep(layers: int, seed: int = 0) -> Network:
    generator = np.random.default_rng(seed)
    ops = []
    for _ in range(layers):
        weight = generator.normal(size=(12, 12)).astype(np.float32) * np.float32((2 / 12) ** 0.5)
        ops += [Dense(weight, generator.normal(size=12).astype(np.float32)), Relu()]
    return chain((12,), *ops[:-1])


def test_deep_networks_have_sharp_enclosures_where_float64_has_none() -> None:
    network = deep(60)
    image = np.random.default_rng(1).random(12, dtype=np.float32)
    blunt = enclose(network, point(image))
    assert (blunt.upper - blunt.lower).min() > 1.0
    assert_precise(network, image)
    lower, upper = check.evaluate_enclosure(network, image)
    assert all(
        low <= score <= high for low, score, high in zip(lower, exact_scores(network, image), upper, strict=True)
    )
    assert (upper - lower).max() < 1e-9


def test_only_deep_networks_go_without_float64() -> None:
    image = np.random.default_rng(1).random(12)
    assert exceeds_float64(deep(60))
    assert not exceeds_float64(deep(4))
    blunt = enclose(deep(4), point(image))
    lower, upper = check.evaluate_enclosure(deep(4), image)
    assert (lower == blunt.lower).all()
    assert (upper == blunt.upper).all()


def test_networks_that_share_a_file_are_told_apart() -> None:
    image = np.random.default_rng(1).random(12)
    first, second = deep(60, seed=0), deep(60, seed=1)
    assert first.sha256 == second.sha256
    for network in (first, second, first):
        expected = exact_scores(network, image)
        lower, upper = check.evaluate_enclosure(network, image)
        assert all(low <= score <= high for low, score, high in zip(lower, expected, upper, strict=True))


def test_where_digits_do_not_reach_the_float64_enclosure_stands() -> None:
    assert evaluate_precisely(deep(1_500), np.zeros(12)) is None
    tiny = np.append(np.full(11, 0.5), 2.0**-200)
    assert evaluate_precisely(deep(60), tiny) is None
    lower, upper = check.evaluate_enclosure(deep(60), tiny)
    assert (upper - lower).max() > 1.0


def test_constants_that_are_no_numbers_are_left_to_the_float64_enclosure() -> None:
    weight = np.eye(3, dtype=np.float32)
    for bad in (np.nan, np.inf):
        assert evaluate_precisely(chain((3,), Dense(weight, np.float32([0, bad, 0]))), np.zeros(3, np.float32)) is None
        broken = weight.copy()
        broken[0, 0] = bad
        assert evaluate_precisely(chain((3,), Dense(broken, np.zeros(3, np.float32))), np.zeros(3, np.float32)) is None


def test_every_rule_is_tried() -> None:
    seen = {type(node.op) for seed in range(60) for node in random_network(seed, blocks=5).nodes}
    seen |= {type(UNARY[name](np.random.default_rng(0), SHAPE)) for name in UNARY}
    assert set(RULES) <= seen
