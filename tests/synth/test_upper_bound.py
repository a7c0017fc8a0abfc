"""The bound from counterexamples: never below a robust size, and as small as the counterexamples allow."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.size import Size
from synth.upper_bound import UpperBound

GRID = 8

cases = st.integers(1, 4).flatmap(
    lambda layers: st.tuples(
        st.lists(st.lists(st.integers(0, GRID), min_size=layers, max_size=layers).filter(any), max_size=6),
        st.lists(st.integers(0, 5), min_size=layers, max_size=layers),
    )
)


def best_on_grid(radii, weights):
    """The largest size over all grid vectors that stay at or below a radius above 0 of every counterexample."""
    best = 0
    for epsilons in product(range(GRID + 1), repeat=len(weights)):
        if all(any(r > 0 and e <= r for e, r in zip(epsilons, row, strict=True)) for row in radii):
            best = max(best, int(np.dot(weights, epsilons)))
    return best


def bound_of(radii, weights):
    bound = UpperBound(Size(np.array(weights, dtype=np.float64)), np.ones(len(weights)))
    for row in radii:
        bound.add(np.array(row) / GRID)
    return bound


@given(cases)
@settings(max_examples=60)
def test_the_bound_is_the_largest_size_that_obeys_every_counterexample(case):
    radii, weights = case
    corner = bound_of(radii, weights).corner()
    assert corner.is_attained
    best = best_on_grid(radii, weights) / GRID
    assert best <= corner.size <= best + 1e-12


@given(cases, st.integers(0, 3))
@settings(max_examples=40)
def test_a_bound_cut_short_is_still_a_bound_and_later_counterexamples_only_lower_it(case, branchings):
    radii, weights = case
    bound = UpperBound(Size(np.array(weights, dtype=np.float64)), np.ones(len(weights)))
    sizes = []
    for done, row in enumerate(radii, 1):
        bound.add(np.array(row) / GRID)
        corner = bound.corner(branchings)
        sizes.append(corner.size)
        assert corner.size >= best_on_grid(radii[:done], weights) / GRID
    assert sizes == sorted(sizes, reverse=True)


@given(cases)
@settings(max_examples=40)
def test_no_robust_vector_is_forbidden(case):
    """Strictly below some radius of every counterexample: such vectors may be robust, and the bound must cover them."""
    radii, weights = case
    corner = bound_of(radii, weights).corner()
    generator = np.random.default_rng(0)
    for epsilons in generator.random((200, len(weights))):
        if all(any(e * GRID < r for e, r in zip(epsilons, row, strict=True)) for row in radii):
            assert np.dot(weights, epsilons) <= corner.size


def test_a_radius_of_zero_offers_no_way_out():
    bound = bound_of([[4, 0], [0, 2]], [1, 1])
    corner = bound.corner()
    assert corner.epsilons == pytest.approx([0.5, 0.25])


def test_a_violation_at_the_image_itself_leaves_nothing():
    bound = UpperBound(Size(np.ones(2)), np.ones(2))
    bound.add(np.zeros(2))
    assert bound.corner().size == 0.0


def test_radii_are_rounded_outward():
    """0.1 + 0.2 > 0.3: the true radius may be the next double, and a vector just below that is not forbidden."""
    bound = UpperBound(Size(np.ones(1)), np.ones(1))
    bound.add(np.array([0.3]))
    assert bound.corner().epsilons[0] == np.nextafter(0.3, 1.0)
