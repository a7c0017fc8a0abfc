"""Aims as properties: the same answer as the goal's own constraints, at every score."""

import numpy as np
import pytest
import torch

from attacks.claims.aim import Aim
from attacks.goals import Goal, Rule
from verifier.errors import InputError

LABELS = 5
AIMS = [
    {"on": (), "off": (1,), "needed": 1, "k": 2},
    {"on": (3,), "off": (), "needed": 1, "k": 2},
    {"on": (), "off": (0, 2), "needed": 2, "k": 2},
    {"on": (), "off": (0, 2, 4), "needed": 2, "k": 3},
    {"on": (1, 4), "off": (), "needed": 2, "k": 2},
    {"on": (1,), "off": (0, 3), "needed": 3, "k": 2},
    {"on": (1, 2, 3), "off": (0,), "needed": 3, "k": 2},
    {"on": (0,), "off": (1, 2), "needed": 3, "threshold": 0.25},
    {"on": (0, 1, 2, 3, 4), "off": (), "needed": 3, "threshold": 0.0},
    {"on": (), "off": (2,), "needed": 1, "threshold": -0.5},
]


def goal_of(words):
    sign = torch.zeros((1, LABELS), dtype=torch.int64)
    sign[0, list(words["on"])] = 1
    sign[0, list(words["off"])] = -1
    nothing = torch.zeros((1, LABELS), dtype=torch.bool)
    rule = Rule.TOP_K if "k" in words else Rule.THRESHOLD
    return Goal(
        "test",
        rule,
        nothing,
        sign,
        torch.tensor([words["needed"]]),
        ~nothing[:, 0],
        nothing,
        nothing,
        k=words.get("k"),
        threshold=words.get("threshold", 0.0),
    )


@pytest.mark.parametrize("words", AIMS)
def test_an_aim_is_reached_where_the_goal_is_met(words):
    aim, goal = Aim(LABELS, **words), goal_of(words)
    assert Aim.of_goal(goal, 0) == aim
    generator = np.random.default_rng(0)
    # Coarse scores, so that ties occur; a tie reaches nothing.
    scores = np.concatenate([generator.normal(size=(120, LABELS)), generator.integers(-1, 3, size=(120, LABELS)) / 2.0])
    met = np.array([bool(goal.satisfied(torch.from_numpy(row)[None])[0]) for row in scores])
    assert 3 < met.sum() < 236
    ways = aim.ways(10_000)
    assert ways is not None
    by_ways = np.max([way.property.margin(scores) for way in ways], axis=0) > 0
    np.testing.assert_array_equal(by_ways, met)
    at_scores = np.array([aim.way_at(row).margin(row) > 0 for row in scores])
    np.testing.assert_array_equal(at_scores, met)
    violated = np.array([obstacle.margin(scores) > 0 for obstacle in aim.obstacles()])
    np.testing.assert_array_equal(violated.sum(axis=0) >= aim.needed, met)
    for way in ways:
        strictly = way.property.margin(scores) > 0
        for label in way.constraints:
            assert violated[aim.constrained.index(label)][strictly].all()


def test_too_many_ways_are_not_listed():
    aim = Aim(20, (), (0, 1), 2, k=3)
    assert aim.ways(64) is None
    assert len(aim.ways(1000) or ()) == 816


def test_words_for_reports():
    assert Aim(5, (1,), (0, 3), 3, k=2).text == "1 in the top 2 and 0 3 out of the top 2"
    assert Aim(5, (0, 1, 2), (), 2, threshold=0.5).text == "0 1 2 on (threshold 0.5) (at least 2 of 3)"
    assert Aim(5, (0,), (1,), 2, threshold=0.0).text == "0 on and 1 off (threshold 0)"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"on": (5,), "off": (), "needed": 1, "k": 2}, "labels from 0 to 4"),
        ({"on": (1,), "off": (1,), "needed": 1, "k": 2}, "different labels"),
        ({"on": (), "off": (), "needed": 0, "k": 2}, "needed 0"),
        ({"on": (1,), "off": (), "needed": 2, "k": 2}, "needed 2"),
        ({"on": (1,), "off": (), "needed": 1}, "exactly one"),
        ({"on": (1,), "off": (), "needed": 1, "k": 2, "threshold": 0.0}, "exactly one"),
        ({"on": (1,), "off": (), "needed": 1, "k": 5}, "k: got 5"),
        ({"on": (0, 1, 2), "off": (), "needed": 3, "k": 2}, "no ranking"),
        ({"on": (), "off": (0, 1, 2, 3), "needed": 4, "k": 2}, "no ranking"),
        ({"on": (), "off": (0,), "needed": 1, "threshold": float("nan")}, "finite"),
    ],
)
def test_nonsense_is_refused(words, complaint):
    with pytest.raises(InputError, match=complaint):
        Aim(LABELS, **words)
