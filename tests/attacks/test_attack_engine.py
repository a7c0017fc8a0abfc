import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.domains import BoxDomain, float32_bounds
from attacks.engine import Ascent, Keep, OfScores, StopRule, run
from attacks.losses import PropertyMargin, SubsetMargin, likely_subsets
from attacks.steps import AutoStep, SignStep, check_points
from verifier.deadline import Deadline
from verifier.property import Property, stays_in_top_k
from verifier.region import Box

CPU = torch.device("cpu")
UNIT = Box(np.zeros(4), np.ones(4))


def bowl(images: torch.Tensor) -> torch.Tensor:
    """One score with its only maximum at (0.2, 0.4, 0.6, 0.8)."""
    return -((images - torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=images.dtype)) ** 2).sum(dim=1, keepdim=True)


def first_score(scores: torch.Tensor) -> torch.Tensor:
    return scores[:, 0]


def ascent(step=None, iterations=60, stop=None, dtype=torch.float64) -> Ascent:
    domain = BoxDomain(torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype))
    return Ascent(
        OfScores(first_score), OfScores(first_score), domain, step or AutoStep(), stop or StopRule(), iterations
    )


@pytest.mark.parametrize("step", [AutoStep(), SignStep(0.02)])
def test_climbs_to_the_maximum(step):
    found = run(ascent(step), bowl, torch.zeros((1, 4), dtype=torch.float64), Deadline())
    assert found.values[0] > -0.01
    assert found.iterations == 60


def test_adaptive_steps_get_closer_than_constant_ones():
    starts = torch.zeros((1, 4), dtype=torch.float64)
    adaptive, constant = (run(ascent(step), bowl, starts, Deadline()) for step in (AutoStep(), SignStep(0.25)))
    assert adaptive.values[0] > constant.values[0]


def test_rows_do_not_influence_one_another():
    starts = torch.rand((5, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = run(ascent(iterations=9), bowl, starts, Deadline())
    for row in range(5):
        alone = run(ascent(iterations=9), bowl, starts[row : row + 1], Deadline())
        torch.testing.assert_close(alone.points[0], together.points[row], rtol=0, atol=0)
        torch.testing.assert_close(alone.values[0], together.values[row], rtol=0, atol=0)


def test_more_iterations_are_never_worse():
    starts = torch.rand((5, 4), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    few, many = (run(ascent(SignStep(0.3), iterations=n), bowl, starts, Deadline()) for n in (3, 30))
    assert (many.values >= few.values).all()


def test_a_successful_row_freezes_while_others_go_on():
    starts = torch.tensor([[0.2, 0.4, 0.6, 0.8], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = run(ascent(stop=StopRule(above=-0.02, at_first=False)), bowl, starts, Deadline())
    torch.testing.assert_close(found.points[0], starts[0])
    assert found.succeeded.all()
    assert found.values[1] > -0.02
    assert found.iterations > 0


def test_rows_that_have_ended_are_no_longer_computed():
    starts = torch.tensor([[0.0] * 4, [0.2, 0.4, 0.6, 0.8], [0.19, 0.4, 0.6, 0.5]], dtype=torch.float64)
    seen: list[int] = []

    def counted(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return bowl(images)

    rule = replace(
        ascent(SignStep(0.05), stop=StopRule(above=-0.005, at_first=False)),
        record=first_score,
        narrow=lambda _rows: rule,
    )
    found = run(rule, counted, starts, Deadline())
    slow = run(replace(rule, narrow=None), bowl, starts, Deadline())
    assert seen[0] == 3
    assert sum(seen) == sum(found.steps.tolist()) + 3
    for name in ("points", "values", "steps", "succeeded", "history"):
        torch.testing.assert_close(getattr(found, name), getattr(slow, name), rtol=0, atol=0)


def test_the_first_success_ends_the_run():
    starts = torch.tensor([[0.2, 0.4, 0.6, 0.8], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = run(ascent(stop=StopRule(above=-0.02, at_first=True)), bowl, starts, Deadline())
    assert found.iterations == 0
    assert found.succeeded.tolist() == [True, False]


def test_the_last_point_is_kept_on_request_and_history_shows_the_way():
    first = torch.zeros((1, 4), dtype=torch.float64)
    rule = ascent(SignStep(0.3), iterations=4)
    best = run(replace(rule, record=first_score), bowl, first, Deadline())
    last = run(replace(rule, keep=Keep.LAST), bowl, first, Deadline())
    assert best.history.shape == (5, 1)
    assert float(best.history.max()) == float(best.values[0])
    assert float(last.values[0]) == float(best.history[-1, 0]) < float(best.values[0])
    assert best.steps.tolist() == [4]


def test_an_expired_deadline_still_evaluates_the_starts():
    found = run(ascent(), bowl, torch.zeros((1, 4), dtype=torch.float64), Deadline.after(0.0))
    assert found.iterations == 0
    assert found.values[0] == pytest.approx(-1.2)


def test_a_model_that_answers_nan_yields_no_value_and_stays_inside():
    found = run(ascent(iterations=5), lambda images: images[:, :1] * math.nan, torch.rand((2, 4)).double(), Deadline())
    assert (found.values == -math.inf).all()
    assert ((found.points >= 0) & (found.points <= 1)).all()


def test_gradient_at_the_bounds_of_the_box_is_not_lost():
    # torch >= 2.14 gives clamp a zero gradient at its bounds; the projection must not be differentiated.
    found = run(ascent(SignStep(0.1), iterations=3), bowl, torch.ones((1, 4), dtype=torch.float64), Deadline())
    assert found.values[0] > bowl(torch.ones((1, 4)))[0, 0]


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_float32_bounds_are_the_innermost(first, second):
    box = Box(np.minimum(first, second), np.maximum(first, second))
    lower, upper = float32_bounds(box)
    assert (lower.astype(np.float64) >= box.lower).all()
    assert (upper.astype(np.float64) <= box.upper).all()
    assert (np.nextafter(lower, np.float32(-1)).astype(np.float64) < box.lower).all()
    assert (np.nextafter(upper, np.float32(2)).astype(np.float64) > box.upper).all()


def test_random_points_lie_inside_and_corners_are_corners():
    domain = BoxDomain.inside(Box(np.array([0.0, 0.3, 0.5]), np.array([0.1, 0.3, 1.0])), CPU)
    # 0.3 is no float32: that interval is empty.
    assert domain is None
    domain = BoxDomain.inside(Box(np.array([0.0, 0.25, 0.5]), np.array([0.125, 0.25, 1.0])), CPU)
    generator = torch.Generator().manual_seed(0)
    points, corners = domain.random(50, generator), domain.random_corners(50, generator)
    assert torch.equal(domain.project(points), points)
    assert ((corners == domain.lower) | (corners == domain.upper)).all()
    assert len(torch.unique(corners, dim=0)) == 4


def test_check_points_follow_the_published_schedule():
    # Croce and Hein 2020: p = 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99.
    assert check_points(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert all(0 < step <= 7 for step in check_points(7))


SCORES = st.lists(st.floats(-5, 5, width=32), min_size=5, max_size=5)


@given(SCORES, st.integers(0, 4), st.integers(1, 4))
def test_margin_is_the_property_s_and_subsets_never_exceed_it(scores, label, k):
    goal = stays_in_top_k(label, k, 5)
    margin = PropertyMargin.of(goal, CPU)
    rows = torch.tensor([scores], dtype=torch.float32)
    assert float(margin(rows)[0]) == pytest.approx(float(goal.margin(np.array(scores))), abs=1e-5)
    subsets = list(combinations(range(4), k))
    members = torch.zeros((len(subsets) + 1, 4), dtype=torch.bool)
    for row, subset in enumerate(subsets):
        members[row, list(subset)] = True
    values = SubsetMargin(margin, members)(rows.expand(len(members), -1))
    # The margin is the maximum over subsets of the minimum within one; the row without a subset is the margin itself.
    assert float(values[:-1].max()) == float(values[-1]) == float(margin(rows)[0])


def test_likely_subsets_lists_all_when_few_and_the_nearest_when_many():
    forms = np.array([[3.0, -1.0, 2.0, -9.0], [0.0, 5.0, -2.0, -8.0]])
    every = likely_subsets(forms, 2, 100)
    assert len(every) == math.comb(4, 2)
    np.testing.assert_array_equal(every[0], [True, False, True, False])  # min 2 at the first point
    np.testing.assert_array_equal(likely_subsets(forms, 2, 1), [[True, False, True, False]])
    many = likely_subsets(np.random.default_rng(0).normal(size=(3, 60)), 30, 5)
    assert many.shape == (5, 60)
    assert (many.sum(axis=1) == 30).all()


def test_offsets_enter_the_forms():
    goal = Property("above a half", np.array([[1.0]]), np.array([-0.5]), 1)
    assert float(PropertyMargin.of(goal, CPU)(torch.tensor([[2.0]]))[0]) == 1.5
