from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from verifier.bounds.relaxation import WINDOWS, Windows, project_to_simplex, relax
from verifier.canonical import Max, Relu

CPU = torch.device("cpu")


def relaxed(lower, upper, has_floor):
    windows = Windows(torch.arange(len(lower))[None], has_floor, is_identity=False)
    return relax(windows, torch.tensor(lower)[None], torch.tensor(upper)[None])


def plane(relaxation, fraction):
    slopes, constant = relaxation.plane_above(torch.tensor([[fraction]], dtype=torch.float64))
    return slopes[0, 0].numpy(), float(constant[0, 0])


def largest(points, has_floor):
    return np.maximum(points.max(axis=-1), 0.0 if has_floor else -np.inf)


@st.composite
def boxes(draw):
    numbers = st.integers(-8, 8)
    pairs = draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
    lower, upper = (np.array(side, dtype=float) / 4 for side in (list(map(min, pairs)), list(map(max, pairs))))
    return lower, upper, draw(st.booleans())


@given(boxes(), st.floats(0, 1), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_planes_enclose_the_maximum(box, fraction, random):
    lower, upper, has_floor = box
    relaxation = relaxed(lower, upper, has_floor)
    points = np.array([[random.uniform(a, b) for a, b in zip(lower, upper, strict=True)] for _ in range(50)])
    points = np.vstack([points, list(product(*zip(lower, upper, strict=True)))])
    slopes, constant = plane(relaxation, fraction)
    assert (points @ slopes + constant >= largest(points, has_floor) - 1e-12).all()
    weights = torch.tensor([[[random.uniform(-1, 2) for _ in lower]]], dtype=torch.float64)
    for chosen in (
        relaxation.first_weights(),
        relaxation.first_weights(by_lower=True),
        relaxation.project_weights(weights),
    ):
        assert (points @ chosen[0, 0].numpy() <= largest(points, has_floor) + 1e-12).all()


@given(boxes())
@settings(max_examples=60)
def test_the_least_plane_above_is_the_concave_envelope(box):
    """The envelope at a point is the largest mean of the maximum over corners that average to the point."""
    lower, upper, has_floor = box
    relaxation = relaxed(lower, upper, has_floor)
    corners = np.array(list(product(*zip(lower, upper, strict=True))))
    heights = largest(corners, has_floor)
    reach = float(relaxation.most - relaxation.least)
    breaks = [0.0, 1.0, *[(u - float(relaxation.least)) / reach for u in upper if reach > 0]]
    planes = [plane(relaxation, float(np.clip(f, 0, 1))) for f in breaks]
    for share in np.random.default_rng(0).random((3, len(lower))):
        point = lower + share * (upper - lower)
        rows = np.vstack([corners.T, np.ones(len(corners))])
        found = linprog(-heights, A_eq=rows, b_eq=[*point, 1.0], bounds=(0, None))
        assert found.status == 0
        assert min(slopes @ point + constant for slopes, constant in planes) == pytest.approx(-found.fun, abs=1e-9)
    for corner, height in zip(corners, heights, strict=True):
        assert min(slopes @ corner + constant for slopes, constant in planes) == pytest.approx(height, abs=1e-12)


def test_a_relu_has_the_chord_above_and_the_adaptive_slope_below():
    windows = WINDOWS[Relu](Relu(0, 4), 4, CPU)
    lower, upper = torch.tensor([[-1.0, -3.0, 1.0, -2.0]]).double(), torch.tensor([[3.0, 1.0, 2.0, -1.0]]).double()
    relaxation = relax(windows, lower, upper)
    slopes, constants = relaxation.plane_above(relaxation.first_fraction())
    # u (z - l) / (u - l) where the sign is open; z where positive, 0 where negative.
    np.testing.assert_allclose(slopes[0, :, 0], [0.75, 0.25, 1.0, 0.0])
    np.testing.assert_allclose(constants[0], [0.75, 0.75, 0.0, 0.0])
    np.testing.assert_array_equal(relaxation.first_weights()[0, :, 0], [1.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(relaxation.undecided[0], [True, True, False, False])
    free = relaxation.project_weights(torch.full((1, 4, 1), 1.5).double())
    np.testing.assert_array_equal(free[0, :, 0], [1.0, 1.0, 1.0, 0.0])


def test_a_relu_is_a_window_of_one_with_a_floor():
    lower, upper = (
        torch.tensor([[-1.0, -3.0, 1.0, -2.0, 0.0]]).double(),
        torch.tensor([[3.0, 1.0, 2.0, -1.0, 0.0]]).double(),
    )
    short = relax(WINDOWS[Relu](Relu(0, 5), 5, CPU), lower, upper)
    general = relax(WINDOWS[Max](Max(0, np.arange(5)[:, None], True), 5, CPU), lower, upper)
    for name in ("alive", "floor_alive", "least", "most", "undecided"):
        np.testing.assert_array_equal(getattr(short, name), getattr(general, name))
    np.testing.assert_array_equal(short.first_weights(), general.first_weights())
    np.testing.assert_array_equal(
        short.plane_above(short.first_fraction())[0], general.plane_above(general.first_fraction())[0]
    )


def test_candidates_that_cannot_win_are_dropped_and_a_sole_survivor_is_exact():
    relaxation = relaxed([1.0, -1.0, -2.0], [3.0, 1.0, 0.5], True)
    np.testing.assert_array_equal(relaxation.alive[0, 0], [True, False, False])
    assert not relaxation.undecided.any()
    slopes, constant = plane(relaxation, float(relaxation.first_fraction()))
    np.testing.assert_array_equal(slopes, [1.0, 0.0, 0.0])
    assert constant == 0.0
    np.testing.assert_array_equal(relaxation.first_weights()[0, 0], [1.0, 0.0, 0.0])


def test_absent_candidates_never_take_part():
    windows = WINDOWS[Max](Max(0, np.array([[0, 1, -1], [1, -1, -1]]), False), 2, CPU)
    relaxation = relax(windows, torch.tensor([[-1.0, -2.0]]).double(), torch.tensor([[2.0, 1.0]]).double())
    np.testing.assert_array_equal(relaxation.alive[0], [[True, True, False], [True, False, False]])
    slopes, constants = relaxation.plane_above(relaxation.first_fraction())
    assert torch.isfinite(slopes).all()
    assert torch.isfinite(constants).all()
    np.testing.assert_allclose(slopes[0, 1], [1.0, 0.0, 0.0])


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.data())
def test_projection_onto_the_simplex_is_the_nearest_point(weights, data):
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights))))
    found = project_to_simplex(torch.tensor(weights, dtype=torch.float64), torch.tensor(alive)).numpy()
    if not alive.any():
        assert (found == 0).all()
        return
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    assert (found[~alive] == 0).all()
    # Optimality: no vertex of the simplex lies further along the direction from the projection to the point.
    direction = np.array(weights) - found
    assert (direction[alive] <= direction @ found + 1e-9).all()


def test_the_first_plane_above_is_the_chord_over_the_second_largest_upper_bound():
    relaxation = relaxed([-1.0, 0.0, -2.0], [3.0, 2.0, 1.0], False)
    slopes, constant = plane(relaxation, float(relaxation.first_fraction()))
    # T = 2: only the first candidate rises above it, with slope (3 - 2) / (3 + 1).
    np.testing.assert_allclose(slopes, [0.25, 0.0, 0.0])
    assert constant == pytest.approx(2.25)
