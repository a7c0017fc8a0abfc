"""Clipped boxes keep every point that can matter, and the bounds over them hold there."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_networks import tiny_case
from test_search_parts import random_parameters, random_splits, sampled, satisfies, skeleton

from verifier.search.climbing import least_form
from verifier.search.clipping import candidate_bounds, clipped_by_phases, clipped_by_planes
from verifier.search.domain import domain_of
from verifier.search.options import Descent
from verifier.search.rows import Rows, minimise
from verifier.search.skeleton import skeleton_of


@given(st.integers(0, 2**31), st.floats(-0.5, 1.5))
@settings(max_examples=50)
def test_points_above_a_plane_stay_in_its_box(seed, height):
    generator = np.random.default_rng(seed)
    slopes = torch.from_numpy(generator.normal(size=(4, 3)))
    lower = torch.from_numpy(generator.uniform(-1, 0, size=(4, 1)))
    upper = torch.from_numpy(generator.uniform(0, 1, size=(4, 1)))
    corner = torch.where(slopes > 0, upper, lower)
    constants = height - (slopes * corner).sum(dim=0)
    low, high = clipped_by_planes(slopes, torch.full((3,), height), lower, upper, 0.0)
    points = lower.unsqueeze(2) + (upper - lower).unsqueeze(2) * torch.from_numpy(generator.random((4, 3, 2000)))
    is_above = (slopes.unsqueeze(2) * points).sum(dim=0) + constants.unsqueeze(1) >= 0
    is_inside = ((points >= low.unsqueeze(2) - 1e-12) & (points <= high.unsqueeze(2) + 1e-12)).all(dim=0)
    assert (is_inside | ~is_above).all()
    assert (low >= lower).all()
    assert (low <= high).all()


def test_a_plane_near_its_maximum_clips_to_the_corner():
    slopes = torch.tensor([[2.0], [-1.0], [0.0]])
    low, high = clipped_by_planes(slopes, torch.tensor([0.5]), torch.zeros(3, 1), torch.ones(3, 1), 0.0)
    assert low.flatten().tolist() == [0.75, 0.0, 0.0]
    assert high.flatten().tolist() == [1.0, 0.5, 1.0]


@given(st.integers(0, 39), st.integers(0, 2**31))
@settings(max_examples=60)
def test_phases_clip_no_point_of_their_subproblem(seed, choice):
    built, *_ = skeleton(seed)
    generator = np.random.default_rng(choice)
    listed = [random_splits(built, generator, int(generator.integers(0, 6))) for _ in range(3)]
    lower, upper = clipped_by_phases(built, domain_of(built, listed))
    inputs = sampled(built, generator)
    _, candidates = built.values(inputs)
    for column, splits in enumerate(listed):
        here = min(column, lower.shape[1] - 1)
        inside = satisfies(built, splits, inputs)
        low, high = lower[:, here : here + 1], upper[:, here : here + 1]
        assert ((inputs >= low - 1e-9) & (inputs <= high + 1e-9))[:, inside].all()
        for stage, z in zip(built.stages, candidates, strict=True):
            least, most = candidate_bounds(stage, lower, upper, 1e-9)
            at = min(column, least.shape[1] - 1)
            assert (z >= least[:, at : at + 1] - 1e-8)[:, inside].all()
            assert (z <= most[:, at : at + 1] + 1e-8)[:, inside].all()


def test_a_phase_that_nearly_contradicts_the_box_moves_it():
    moved = 0
    for seed in range(40):
        built, *_ = skeleton(seed)
        splits = random_splits(built, np.random.default_rng(seed), 3)
        lower, upper = clipped_by_phases(built, domain_of(built, [splits]))
        moved += bool((lower > built.lower + 1e-3).any() or (upper < built.upper - 1e-3).any())
    assert moved >= 5


@given(st.integers(0, 39), st.integers(0, 2**31))
@settings(max_examples=60)
def test_bounds_after_clipping_hold_at_every_violation(seed, choice):
    built, goal, *_ = skeleton(seed)
    generator = np.random.default_rng(choice)
    splits = random_splits(built, generator, int(generator.integers(0, 4)))
    members = tuple(sorted(generator.choice(3, goal.count, replace=False).tolist()))
    rows = Rows.of(built, [members], [splits])
    inputs = sampled(built, generator)
    inside = inputs[:, satisfies(built, splits, inputs)]
    if not inside.shape[1]:
        return
    reached = float(least_form(built, inside, torch.tensor(members).unsqueeze(1).expand(-1, inside.shape[1])).max())
    matrix = random_parameters(rows, generator)
    clipped = rows.clipped(rows.walk(matrix))
    clipped.project(matrix)
    least = max(reached, -1e-8 * built.scale)
    assert float(clipped.walk(matrix).bounds.clamp(min=-1e-8 * built.scale)) >= least - 1e-9
    for iterations in (2, 9, 30):
        found = minimise(rows, matrix, descent=Descent(iterations=iterations), threshold=-np.inf)
        assert float(found.bounds) >= reached - 1e-9


@given(st.integers(0, 39), st.integers(0, 2**31))
@settings(max_examples=60)
def test_bounds_hold_where_a_batch_loses_rows_half_way(seed, choice):
    """Rows that fall below the threshold leave the batch in the step in which the others are clipped."""
    _, region, goal = tiny_case(seed, shift=1.0)
    built = skeleton_of(region, goal)
    generator = np.random.default_rng(choice)
    listed = [random_splits(built, generator, int(generator.integers(0, 4))) for _ in range(8)]
    members = [tuple(sorted(generator.choice(3, goal.count, replace=False).tolist())) for _ in listed]
    rows = Rows.of(built, members, listed)
    matrix = random_parameters(rows, generator)
    threshold = float(rows.walk(matrix).bounds.median())
    inputs = sampled(built, generator)
    for iterations in (1, 2, 6):
        descent = Descent(iterations=iterations, learning_rate=3.0, multiplier_rate=3.0)
        found = minimise(rows, matrix, descent=descent, threshold=threshold)
        for row, (splits, group) in enumerate(zip(listed, members, strict=True)):
            inside = inputs[:, satisfies(built, splits, inputs)]
            if inside.shape[1]:
                places = torch.tensor(group).unsqueeze(1).expand(-1, inside.shape[1])
                reached = float(least_form(built, inside, places).max())
                assert reached <= 0 or float(found.bounds[row]) >= reached - 1e-9
