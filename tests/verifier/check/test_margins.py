from fractions import Fraction

import numpy as np
import pytest
from exact_arithmetic import exact, exact_scores
from hypothesis import given, settings
from network_strategies import SEEDS, chain, images, random_network

from verifier import check
from verifier.check.interval import Interval
from verifier.check.margins import enclose_forms, margin_ends
from verifier.network import Dense
from verifier.property import Property, keeps_thresholds, keeps_top_k_set, stays_in_top_k, stays_out_of_top_k


def exact_margin(property: Property, scores: np.ndarray) -> Fraction:
    forms = (exact(property.coefficients) * scores).sum(axis=1) + exact(property.offsets)
    return sorted(forms)[-property.count]


def properties(labels: int, generator: np.random.Generator) -> list[Property]:
    label, k = int(generator.integers(labels)), int(generator.integers(1, labels))
    signs = generator.choice([-1, 0, 1], labels)
    signs[0] = 1
    flips = int(generator.integers(np.count_nonzero(signs)))
    members = generator.permutation(labels)[:k].tolist()
    return [
        stays_in_top_k(label, k, labels),
        stays_out_of_top_k(label, k, labels),
        keeps_top_k_set(members, labels),
        keeps_thresholds(signs.tolist(), generator.normal(size=labels).tolist(), flips),
        Property("weighted", generator.normal(size=(3, labels)), generator.normal(size=3), 2),
    ]


@settings(max_examples=25)
@given(SEEDS)
def test_bounds_enclose_the_exact_margin(seed: int) -> None:
    network = random_network(seed, blocks=3)
    if network.labels < 2 or network.labels > 20:
        return
    image = images(network, 1, seed)[0]
    scores = exact_scores(network, image)
    for property in properties(network.labels, np.random.default_rng(seed)):
        lower = check.margin_lower_bound(network, property, image)
        upper = check.margin_upper_bound(network, property, image)
        assert lower <= exact_margin(property, scores) <= upper
        assert upper - lower <= 1e-9 * max(1.0, abs(upper))


@given(SEEDS)
def test_margins_of_a_score_interval_contain_those_of_its_corners(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lower = generator.normal(size=4)
    upper = lower + generator.choice([0.0, 0.5], 4)
    for property in properties(4, generator):
        low, high = margin_ends(property, Interval(lower, upper))
        for corner in np.ndindex(2, 2, 2, 2):
            scores = np.where(corner, upper, lower)
            assert low <= exact_margin(property, exact(scores)) <= high


def test_an_infinite_score_spoils_only_the_forms_that_read_it() -> None:
    property = stays_in_top_k(0, 1, 3)
    forms = enclose_forms(property, Interval(np.array([0.0, 1.0, -np.inf]), np.array([0.0, 1.0, np.inf])))
    np.testing.assert_allclose(forms.lower, [1.0, -np.inf])
    np.testing.assert_allclose(forms.upper, [1.0, np.inf])


def test_infinite_ends_of_one_form_do_not_meet_as_nan() -> None:
    property = stays_in_top_k(0, 1, 2)
    scores = Interval(np.array([-np.inf, -np.inf]), np.array([np.inf, np.inf]))
    assert margin_ends(property, scores) == (-np.inf, np.inf)


def test_a_tie_is_enclosed_on_both_sides() -> None:
    network = chain((1,), Dense(np.float32([[1.0], [1.0]]), np.float32([0.5, 0.5])))
    property = stays_in_top_k(0, 1, 2)
    image = np.array([0.3])
    assert (
        check.margin_lower_bound(network, property, image) <= 0.0 <= check.margin_upper_bound(network, property, image)
    )


@pytest.mark.parametrize("gap", [2.0**-20, -(2.0**-20)])
def test_small_gaps_are_told_apart(gap: float) -> None:
    network = chain((1,), Dense(np.float32([[1.0], [1.0]]), np.float32([0.0, gap])))
    property = stays_in_top_k(0, 1, 2)
    image = np.array([0.3])
    assert check.margin_lower_bound(network, property, image) == pytest.approx(gap)
    assert check.margin_upper_bound(network, property, image) == pytest.approx(gap)
    assert np.sign(check.margin_lower_bound(network, property, image)) == np.sign(gap)
