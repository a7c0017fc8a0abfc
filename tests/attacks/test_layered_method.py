import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted_networks import two_hills

import attacks
from attacks import GoalOptions, make_goal
from attacks.methods.layered import as_property

LABELS = torch.tensor([[True, False, True, False, False]])
CLEAN = torch.tensor([[3.0, -1.0, 2.0, -2.0, -3.0]])
SCORES = st.lists(st.floats(-4, 4, width=32), min_size=5, max_size=5)
EXPRESSIBLE = [
    ("hiding-all", GoalOptions(threshold=0.5)),
    ("extreme", GoalOptions()),
    ("showing-many", GoalOptions(n=1, average=1.0)),
    ("target-miss", GoalOptions(k=2, label=0)),
    ("top-k-targeted", GoalOptions(k=1)),
    ("top-k-targeted", GoalOptions(k=3, members=(1, 3, 4))),
    ("specified-labels", GoalOptions(k=1, members=(0,))),
]


@given(SCORES, st.sampled_from(EXPRESSIBLE))
def test_the_property_s_margin_is_the_goal_s(scores, case):
    goal = make_goal(case[0], LABELS, CLEAN, case[1])
    question = as_property(goal)
    assert question is not None
    expected = float(goal.search_margin(torch.tensor([scores], dtype=torch.float64))[0])
    assert float(question.margin(np.array(scores))) == pytest.approx(expected, abs=1e-9)


def test_two_labels_that_leave_together_are_no_single_property():
    assert as_property(make_goal("top-k-untargeted", LABELS, CLEAN, GoalOptions(k=2))) is None


def test_rounds_of_the_verifier_s_attack_find_what_ascent_does_not():
    query = two_hills(2)
    images = torch.full((1, *query.network.input_shape), 0.5)
    labels = torch.tensor([[True, False]])
    more = {"method": "layered", "goal": "target-miss", "k": 1, "norm": "linf", "eps": 0.5, "seed": 1}
    without, with_rounds = (
        attacks.run(query.network, images, labels, options={"rounds": rounds, "starts": 0, "iterations": 20}, **more)
        for rounds in (0, 4)
    )
    assert not bool(without.success[0])
    assert bool(with_rounds.success[0])


def test_a_failure_says_how_near_it_came():
    query = two_hills(2)
    images = torch.full((1, *query.network.input_shape), 0.5)
    labels = torch.tensor([[True, False]])
    more = {"goal": "target-miss", "k": 1, "norm": "linf", "eps": 0.05}
    result = attacks.run(query.network, images, labels, method="layered", options={"rounds": 0}, **more)
    start = attacks.run(query.network, images, labels, method="bim", options={"iterations": 1}, **more)
    assert not bool(result.success[0])
    assert float(result.margin[0]) >= float(start.goal.margin(start.clean_scores)[0])
    assert float(result.margin[0]) == pytest.approx(float(result.history[:, 0].max()), abs=1e-5)
