import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.goals import Goal, GoalOptions, Rule, rivals, top_k_mask
from attacks.scenarios import GOALS, expected_labels, make_goal
from verifier.errors import InputError

LABELS = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]], dtype=torch.bool)
SCORES = torch.where(LABELS, 2.0, -2.0) + torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
FEW = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=5, max_size=5)


def make(name: str, **options: object) -> Goal:
    return make_goal(name, LABELS, SCORES, GoalOptions(**options))


def is_in_every_top_k(scores: list[float], label: int, k: int) -> bool:
    """Whether the label is in the top k however ties are broken: fewer than k others reach it."""
    return sum(other >= scores[label] for i, other in enumerate(scores) if i != label) < k


def is_in_no_top_k(scores: list[float], label: int, k: int) -> bool:
    return sum(other > scores[label] for i, other in enumerate(scores) if i != label) >= k


@given(FEW, st.integers(1, 4), st.integers(0, 4))
def test_top_k_constraints_are_strict_whatever_the_ties(scores, k, label):
    rows = torch.tensor([scores])
    sign = torch.zeros((1, 5), dtype=torch.int64)
    nothing = torch.zeros((1, 5), dtype=torch.bool)
    for direction, holds in ((1, is_in_every_top_k), (-1, is_in_no_top_k)):
        sign[0, label] = direction
        one = torch.ones(1, dtype=torch.int64)
        goal = Goal("one", Rule.TOP_K, nothing, sign, one, one.bool(), nothing, nothing, k=k)
        assert bool(goal.satisfied(rows)[0]) == holds(scores, label, k)
        assert bool(goal.margin(rows)[0] > 0) == holds(scores, label, k)


@given(FEW, st.integers(1, 4))
def test_a_set_leaves_the_top_k_iff_k_others_are_above_its_highest(scores, k):
    rows = torch.tensor([scores])
    for size in range(1, 6 - k):
        for members in combinations(range(5), size):
            scope = torch.zeros((1, 5), dtype=torch.bool)
            scope[0, list(members)] = True
            goal = Goal("set", Rule.TOP_K, scope, -scope.long(), scope.sum(dim=1), scope.any(dim=1), scope, ~scope, k=k)
            outside = sorted((s for i, s in enumerate(scores) if i not in members), reverse=True)
            assert bool(goal.satisfied(rows)[0]) == (outside[k - 1] > max(scores[i] for i in members))


SIGNS = st.lists(st.sampled_from([-1, 0, 1]), min_size=5, max_size=5)


@given(FEW, SIGNS, st.integers(0, 5), st.sampled_from([None, 1, 2, 3, 4]))
def test_search_margins_are_positive_exactly_at_a_success(scores, signs, needed, k):
    sign = torch.tensor([signs])
    count = (sign != 0).sum(dim=1)
    few = torch.tensor([needed]).minimum(count)
    nothing = torch.zeros((1, 5), dtype=torch.bool)
    rule = Rule.THRESHOLD if k is None else Rule.TOP_K
    rows = torch.tensor([scores])
    for wanted in (few, count):
        goal = Goal("any", rule, nothing, sign, wanted, wanted > 0, nothing, nothing, k=k, threshold=0.5)
        margins = goal.search_margins(rows)
        assert int(margins.isfinite().sum()) <= int(wanted)
        assert (int(wanted) == 0) or (float(goal.search_margin(rows)[0]) > 0) == bool(goal.satisfied(rows)[0])


def test_labels_that_leave_together_are_no_rivals_of_each_other():
    goal = make_goal("top-k-untargeted", LABELS[:1], SCORES[:1], GoalOptions(k=2))
    # Relevant labels 0 and 1; label 2 has overtaken both, and 1 keeps 0 out, but one more must pass.
    scores = torch.tensor([[1.0, 2.0, 3.0, 0.0, -1.0]])
    assert goal.margins(scores)[0, :2].tolist() == [1.0, -1.0]
    assert goal.search_margins(scores)[0].tolist() == [-1.0, -2.0, torch.inf, torch.inf, torch.inf]


@given(FEW, st.integers(1, 4))
def test_rivals_by_sorting(scores, k):
    rows = torch.tensor([scores])
    for label in range(5):
        others = sorted((s for i, s in enumerate(scores) if i != label), reverse=True)
        assert float(rivals(rows, k)[0, label]) == others[k - 1]
    assert top_k_mask(rows, k)[0].tolist() == [is_in_every_top_k(scores, i, k) for i in range(5)]


def test_a_tie_with_the_threshold_is_no_success():
    goal = make("hiding-all")
    assert not goal.satisfied(torch.zeros((3, 5))).any()
    assert goal.satisfied(torch.full((3, 5), -1e-6)).all()
    assert not goal.satisfied(torch.full((3, 5), torch.nan)).any()


@pytest.mark.parametrize(
    ("name", "options", "flipped"),
    [
        ("hiding-all", {}, [[0, 1], [0, 4], [2]]),
        ("extreme", {}, [[0, 1, 2, 3, 4]] * 3),
        ("person-reduction", {"label": 0}, [[0], [0], [0]]),
        ("sheep-augmentation", {"label": 3}, [[3], [3], [3]]),
        ("showing-many", {}, [[2, 3, 4], [1, 2, 3], [0, 1, 3, 4]]),
        ("top-k-untargeted", {"k": 2}, [[0, 1], [0, 4], [2]]),
        ("top-k-targeted", {"k": 2, "pick": "best"}, [[3, 4], [2, 3], [3, 4]]),
        ("top-k-targeted", {"k": 2, "pick": "worst"}, [[2, 3], [1, 2], [0, 1]]),
        ("top-k-targeted", {"k": 2, "members": (1, 3)}, [[1, 3]] * 3),
        ("specified-labels", {"k": 1, "members": (1, 4)}, [[1], [4], []]),
        ("target-miss", {"k": 2, "label": 0}, [[0], [0], [0]]),
        ("target-miss", {"k": 1}, [[1], [4], [2]]),
    ],
)
def test_which_labels_must_change(name, options, flipped):
    goal = make(name, **options)
    assert [row.nonzero()[:, 0].tolist() for row in goal.flip] == flipped
    if name == "showing-many":
        assert (goal.sign == 1).all()
    elif goal.rule is Rule.THRESHOLD:
        # What is not flipped is held, and both together ask something of every label.
        assert torch.equal(goal.hold, ~goal.flip)
        assert torch.equal(goal.on, LABELS ^ goal.flip)
        assert goal.needed.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("name", "options", "eligible"),
    [
        ("hiding-single", {}, [1, 1, 0]),
        ("hiding-all", {}, [1, 1, 1]),
        ("random", {}, [1, 1, 1]),
        ("person-reduction", {"label": 0}, [1, 1, 0]),
        ("person-reduction", {"label": 2}, [0, 0, 0]),
        ("sheep-augmentation", {"label": 4}, [1, 0, 1]),
        ("top-k-untargeted", {"k": 3}, [1, 1, 1]),
        ("top-k-untargeted", {"k": 4}, [0, 0, 1]),
        ("specified-labels", {"k": 1, "members": (1,)}, [1, 0, 0]),
        ("specified-labels", {"k": 1, "members": (1,), "eligibility": "paper"}, [0, 0, 0]),
        ("specified-labels", {"k": 1, "scheme": "random", "size": 1}, [1, 1, 0]),
        ("specified-labels", {"k": 1, "scheme": "random", "size": 1, "drop": 2}, [0, 0, 0]),
        ("target-miss", {"k": 2, "label": 0}, [1, 1, 0]),
        ("top-k-targeted", {"k": 2, "members": (0, 1)}, [0, 1, 1]),
    ],
)
def test_which_images_are_eligible(name, options, eligible):
    assert make(name, **options).eligible.int().tolist() == eligible


def test_images_whose_labels_are_wrong_are_not_eligible_unless_asked():
    wrong = SCORES.clone()
    wrong[0, 0] = -1.0
    assert not make_goal("hiding-all", LABELS, wrong).eligible[0]
    assert make_goal("hiding-all", LABELS, wrong, GoalOptions(require_correct=False)).eligible[0]
    assert not make_goal("top-k-untargeted", LABELS, wrong - 5.0 * LABELS, GoalOptions(k=1)).eligible.any()


def test_random_choices_come_from_the_row_s_key():
    labels, scores = LABELS[[0, 0, 0, 0, 0, 0]], SCORES[[0] * 6]
    first = make_goal("random", labels, scores, keys=[5, 6, 7, 8, 9, 5], seed=1)
    assert torch.equal(first.flip[0], first.flip[5])
    assert len(torch.unique(first.flip, dim=0)) > 1
    again = make_goal("random", labels[:1], scores[:1], keys=[5], seed=1)
    assert torch.equal(again.flip[0], first.flip[0])
    assert (first.flip & labels).sum(dim=1).tolist() == [1] * 6
    assert (first.flip & ~labels).sum(dim=1).tolist() == [1] * 6


def test_dropping_some_of_the_specified_labels():
    labels = torch.tensor([[1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    scores = torch.tensor([[7.0, 6.0, 5.0, 4.0, -1.0, -2.0, -3.0]])
    goal = make_goal("specified-labels", labels, scores, GoalOptions(k=2, members=(0, 1), drop=1))
    # Both are in the top 2 and one must leave: at most one may stay.
    assert goal.eligible.all()
    assert goal.needed.tolist() == [1]
    assert goal.satisfied(torch.tensor([[7.0, 1.0, 5.0, 4.0, -1.0, -2.0, -3.0]])).all()
    assert not goal.satisfied(scores).any()
    both = make_goal("specified-labels", labels, scores, GoalOptions(k=2, members=(0, 1)))
    assert not both.satisfied(torch.tensor([[7.0, 1.0, 5.0, 4.0, -1.0, -2.0, -3.0]])).any()


def test_expected_labels():
    # Double-MNIST: ten labels, 1.9 an image.
    assert [expected_labels(n, 10, 1.9) for n in range(5)] == [3, 4, 6, 10, 10]
    assert [expected_labels(n, 10, 1.9, "floor") for n in range(5)] == [2, 3, 5, 9, 10]
    # The printed formula asks for 34 of VOC's 20 labels at n = 5.
    assert expected_labels(5, 20, 1.293) == 20


@given(st.integers(1, 100), st.floats(0.01, 20), st.integers(0, 12))
def test_the_printed_test_for_expected_labels_always_holds(labels, average, n):
    assert n < math.ceil(math.log2(average + 2**n))
    assert expected_labels(n, labels, average) <= labels


def test_showing_many_counts_the_labels_on():
    goal = make("showing-many", n=1, average=1.5)
    assert goal.needed.tolist() == [4, 4, 4]
    shown = torch.full((3, 5), -1.0)
    shown[:, 1:4] = 1.0
    assert not goal.satisfied(shown).any()
    shown[:, 0] = 0.5
    assert goal.satisfied(shown).all()
    assert float(goal.margin(shown)[0]) == 0.5


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("no-such-goal", {}, "wanted one of"),
        ("top-k-untargeted", {}, "needs k"),
        ("target-miss", {"k": 5}, "wanted 1 to 4"),
        ("target-miss", {"k": 0}, "wanted 1 to 4"),
        ("person-reduction", {"label": 7}, "label 7 is outside"),
        ("specified-labels", {"k": 1, "members": (2, 9)}, "label 9 is outside"),
        ("specified-labels", {"k": 1}, "needs the labels S"),
        ("top-k-targeted", {"k": 2, "members": (1,)}, "wanted k = 2"),
    ],
)
def test_misuse_of_goals_is_refused(name, options, says):
    with pytest.raises(InputError, match=says):
        make(name, **options)


@pytest.mark.parametrize(
    "bad", [{"rounding": "up"}, {"pick": "any"}, {"n": -1}, {"size": 0}, {"drop": 0}, {"average": -1.0}]
)
def test_bad_options_are_refused(bad):
    with pytest.raises(InputError):
        GoalOptions(**bad)


def test_every_goal_is_described():
    for name, entry in GOALS.items():
        assert entry.name == name
        assert entry.summary
        assert entry.source
