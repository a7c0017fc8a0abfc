import numpy as np
import pytest
from exact_arithmetic import exact_scores
from hypothesis import given, settings
from network_strategies import SEEDS, UNARY, NetworkBuilder, chain, dense, images, random_network

from verifier import check, evaluation
from verifier.check import enclosure
from verifier.check.interval import Interval
from verifier.errors import InputError, UnsupportedOpError
from verifier.network import BatchNorm, Dense, LeakyRelu, MulConstant, Network, Reshape

SHAPE = (2, 4, 3)


def assert_encloses(network: Network, image: np.ndarray, *, width: float = 1e-9) -> None:
    """The exact scores lie inside, and the enclosure is not so wide that this says nothing."""
    lower, upper = check.evaluate_enclosure(network, image)
    expected = exact_scores(network, image)
    assert all(low <= score <= high for low, score, high in zip(lower, expected, upper, strict=True))
    assert (upper - lower <= width * max(1.0, np.abs(upper).max())).all()


@settings(max_examples=40)
@given(SEEDS)
def test_encloses_the_exact_scores_of_random_networks(seed: int) -> None:
    network = random_network(seed, blocks=4)
    assert_encloses(network, images(network, 1, seed)[0])


@settings(max_examples=6)
@given(SEEDS)
@pytest.mark.parametrize("name", sorted(UNARY))
def test_encloses_the_exact_scores_of_every_operation(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    builder = NetworkBuilder(SHAPE)
    value = builder.add(UNARY[name](generator, SHAPE), 0)
    builder.add(Reshape((int(np.prod(builder.shape(value))),)), value)
    network = builder.network()
    assert_encloses(network, images(network, 1, seed)[0])
    assert_encloses(network, images(network, 1, seed)[0].astype(np.float32))


@settings(max_examples=30)
@given(SEEDS)
def test_encloses_the_scores_of_every_image_in_a_box(seed: int) -> None:
    network = random_network(seed, blocks=5)
    lower = images(network, 1, seed)[0]
    widths = np.random.default_rng(seed).choice([0.0, 1e-3, 0.5], size=lower.shape)
    scores = enclosure.enclose(network, Interval(lower, lower + widths))
    inside = lower + widths * np.random.default_rng(seed).random((20, *lower.shape))
    evaluated = evaluation.evaluate(network, np.minimum(inside, lower + widths))
    slack = 1e-9 * max(1.0, np.abs(evaluated).max())
    assert (evaluated >= scores.lower - slack).all()
    assert (evaluated <= scores.upper + slack).all()


@pytest.mark.parametrize("power", [54, 60, 100, 120])
def test_encloses_a_payload_that_float64_drops(power: int) -> None:
    big = 2.0**power
    network = chain((3,), Dense(np.float32([[big, 1.0, -big], [1.0, 1.0, 1.0]]), np.float32([0.0, 0.0])))
    image = np.array([1.0, 1.0, 1.0])
    lower, upper = check.evaluate_enclosure(network, image)
    assert lower[0] <= 1.0 <= upper[0]
    assert upper[0] - lower[0] < big * 1e-14
    np.testing.assert_allclose([lower[1], upper[1]], 3.0)


def test_wide_cancellation_through_layers_is_enclosed() -> None:
    spread, gather = np.float32([[2.0**60], [1.0], [-(2.0**60)]]), np.float32([[1.0, 1.0, 1.0]])
    network = chain((1,), Dense(spread, np.zeros(3, np.float32)), Dense(gather, np.zeros(1, np.float32)))
    assert_encloses(network, np.array([0.7]), width=1e6)


def test_overflow_gives_infinite_ends_without_warnings() -> None:
    layers = [Dense(np.float32([[3e38, -3e38], [1.0, 2e38]]), np.float32([0.0, 1.0])) for _ in range(10)]
    lower, upper = check.evaluate_enclosure(chain((2,), *layers), np.array([0.5, 0.25]))
    assert (lower == -np.inf).all()
    assert (upper == np.inf).all()


def test_zero_times_overflow_claims_nothing() -> None:
    layers = [MulConstant(np.float32([3e38, 1.0])) for _ in range(10)]
    network = chain((2,), *layers, MulConstant(np.float32([0.0, 1.0])))
    lower, upper = check.evaluate_enclosure(network, np.array([1.0, 1.0]))
    assert lower[0] <= 0.0 <= upper[0]
    np.testing.assert_allclose([lower[1], upper[1]], 1.0)


def test_degenerate_batch_norm_claims_nothing() -> None:
    zero = np.zeros(2, np.float32)
    network = chain((2,), BatchNorm(zero + 1, zero, zero, zero, 0.0))
    lower, upper = check.evaluate_enclosure(network, np.array([1.0, 0.5]))
    assert (lower == -np.inf).all()
    assert (upper == np.inf).all()


@pytest.mark.parametrize(
    ("slope", "lower", "upper"), [(0.5, -1.0, 3.0), (-0.5, 0.0, 3.0), (0.0, 0.0, 3.0), (1.5, -3.0, 3.0)]
)
def test_leaky_relu_of_an_interval_around_zero(slope: float, lower: float, upper: float) -> None:
    scores = enclosure.enclose(chain((1,), LeakyRelu(slope)), Interval(np.array([-2.0]), np.array([3.0])))
    assert scores.lower[0] <= lower
    assert scores.upper[0] >= upper
    assert scores.lower[0] == pytest.approx(lower, abs=1e-12)
    assert scores.upper[0] == pytest.approx(upper, abs=1e-12)


def test_refuses_other_shapes_types_and_nan() -> None:
    network = chain((3,), dense(np.random.default_rng(0), (3,)))
    with pytest.raises(InputError, match=r"wanted float32 or float64 of shape \(3,\)"):
        check.evaluate_enclosure(network, np.zeros(4))
    with pytest.raises(InputError, match="float16"):
        check.evaluate_enclosure(network, np.zeros(3, np.float16))
    with pytest.raises(InputError, match="NaN or infinite"):
        check.evaluate_enclosure(network, np.array([0.0, np.nan, 0.0]))


def test_refuses_an_unknown_operation_by_node_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {op: rule for op, rule in enclosure.RULES.items() if op is not LeakyRelu}
    monkeypatch.setattr(enclosure, "RULES", rules)
    with pytest.raises(UnsupportedOpError, match=r"'LeakyRelu0' \(LeakyRelu\)"):
        check.evaluate_enclosure(chain((2,), LeakyRelu(0.5)), np.zeros(2))
