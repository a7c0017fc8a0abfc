from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from attacks.goals import Goal, Rule
from attacks.score_losses import (
    HingeLoss,
    LabelLoss,
    MarginLoss,
    Penalised,
    RankLoss,
    TopKLoss,
    cosine_agreement,
    in_probabilities,
    rank_agreement,
)

LABELS = 6
SCORES = st.lists(st.floats(-6, 6, width=32), min_size=LABELS, max_size=LABELS)
# What each label is: A flipped or B held, relevant or not, or of no matter.
KINDS = st.lists(st.sampled_from(["A1", "A0", "B1", "B0", "C"]), min_size=LABELS, max_size=LABELS)


def goal_of(kinds, k: int | None = None) -> Goal:
    labels = torch.tensor([[kind.endswith("1") for kind in kinds]])
    flip, hold = (torch.tensor([[kind.startswith(side) for kind in kinds]]) for side in "AB")
    sign = torch.where(flip | hold, torch.where(labels ^ flip, 1, -1), 0)
    rule = Rule.THRESHOLD if k is None else Rule.TOP_K
    needed = (sign != 0).sum(dim=1)
    return Goal("any", rule, labels, sign, needed, needed > 0, flip, hold, k=k)


def every_loss(goal: Goal):
    yield LabelLoss(goal)
    yield LabelLoss(goal, is_clamped=True)
    yield HingeLoss(goal, 0.1)
    yield HingeLoss(goal, of_probabilities=True)
    yield MarginLoss(goal)
    for second in (False, True):
        for released in (False, True):
            yield RankLoss(goal, second, released)
    for scope in (goal.off, goal.labels):
        for statistic in ("average", "lowest", "k-th"):
            for hinged in (False, True):
                yield TopKLoss(goal, scope, statistic, keeps=True, is_hinged=hinged, kappa=0.1)


@settings(max_examples=30)
@given(SCORES, KINDS, st.sampled_from([None, 1, 3, 5]))
def test_every_loss_is_finite_with_a_finite_gradient_whatever_sets_are_empty(scores, kinds, k):
    goal = goal_of(kinds, k)
    for loss in every_loss(goal):
        rows = torch.tensor([scores], requires_grad=True)
        value = loss(rows, rows)
        assert bool(value.isfinite().all()), loss
        if value.requires_grad:
            assert bool(torch.autograd.grad(value.sum(), rows)[0].isfinite().all()), loss


@pytest.mark.parametrize("kinds", [["C"] * 6, ["A1"] * 6, ["A0"] * 6, ["B1"] * 6, ["B0"] * 6])
@pytest.mark.parametrize("k", [None, 2])
def test_and_with_every_label_of_one_kind(kinds, k):
    for loss in every_loss(goal_of(kinds, k)):
        for value in (0.0, 50.0, -50.0):
            rows = torch.full((1, LABELS), value, requires_grad=True)
            reached = loss(rows, rows)
            assert bool(reached.isfinite().all())
            if reached.requires_grad:
                assert bool(torch.autograd.grad(reached.sum(), rows)[0].isfinite().all())


@given(SCORES, KINDS)
def test_label_loss_is_the_cross_entropy_with_logits(scores, kinds):
    goal = goal_of(kinds)
    rows = torch.tensor([scores], dtype=torch.float64)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(rows, goal.on.double(), reduction="none")
    expected = -float((entropy * (goal.sign != 0)).sum())
    assert float(LabelLoss(goal)(rows, rows)[0]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(LabelLoss(goal, is_clamped=True)(rows, rows)[0]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(SCORES.filter(lambda scores: len(set(scores)) == LABELS), KINDS, st.integers(1, 5))
def test_all_pairs_hold_exactly_where_the_goal_is_met(scores, kinds, k):
    goal = goal_of(kinds, k)
    rows = torch.tensor([scores], dtype=torch.float64)
    pairs = goal.pairs(rows)[0]
    if bool((pairs.any(dim=1) | (goal.sign[0] == 0)).all()):
        holds = all(goal.sign[0, i] * (rows[0, i] - rows[0, j]) > 0 for i, j in pairs.nonzero().tolist())
        assert holds == bool(goal.satisfied(rows)[0])


def test_the_cross_entropy_about_the_top_k_by_hand():
    # Label 0 must leave the top 2: the two highest others, 1 and 3, must both pass it.
    goal = goal_of(["A1", "C", "C", "C", "C", "C"], 2)
    rows = torch.tensor([[1.0, 3.0, -2.0, 0.5, -1.0, 0.0]], dtype=torch.float64)
    expected = -(np.log1p(np.exp(1.0 - 3.0)) + np.log1p(np.exp(1.0 - 0.5)))
    assert float(LabelLoss(goal)(rows, rows)[0]) == pytest.approx(expected, rel=1e-12)
    # Label 4 must enter the top 2: it must pass all others but the highest.
    goal = goal_of(["C", "C", "C", "C", "A0", "C"], 2)
    expected = -sum(np.log1p(np.exp(other + 1.0)) for other in (1.0, -2.0, 0.5, 0.0))
    assert float(LabelLoss(goal)(rows, rows)[0]) == pytest.approx(expected, rel=1e-12)


def test_both_labels_that_must_pass_another_are_pushed():
    goal = goal_of(["A1", "C", "C", "C", "C", "C"], 2)
    rows = torch.tensor([[3.0, 1.0, 0.9, -5.0, -5.0, -5.0]], requires_grad=True)
    gradient = torch.autograd.grad(LabelLoss(goal)(rows, rows).sum(), rows)[0]
    assert gradient[0].sign().tolist() == [-1, 1, 1, 0, 0, 0]


def test_a_saturated_label_keeps_its_gradient_unless_clamped():
    goal = goal_of(["A1", "C", "C", "C", "C", "C"])
    for clamped, has_gradient in ((False, True), (True, False)):
        rows = torch.full((1, LABELS), 20.0, requires_grad=True)
        gradient = torch.autograd.grad(LabelLoss(goal, clamped)(rows, rows).sum(), rows)[0]
        assert bool(gradient[0, 0] != 0) is has_gradient


@given(SCORES, st.lists(st.booleans(), min_size=LABELS, max_size=LABELS).filter(any), st.integers(1, 5))
def test_tkmia_is_its_closed_form(scores, scope, k):
    """Sun et al. 2023, eq. 6, with both lambdas at their optimum, found here by trying every breakpoint."""
    relevant = [not each for each in scope]
    kinds = ["A1" if each else "B1" for each in scope]
    whole = goal_of(kinds, k)
    # Labels to hold are wished for, not needed.
    goal = replace(whole, sign=torch.where(whole.flip, -1, 0), needed=whole.flip.sum(dim=1))
    rows = torch.tensor([scores], dtype=torch.float64)
    s = np.array(scores, dtype=np.float64)
    leaving = s[np.array(scope)].max() - s
    first = min(l + np.maximum(leaving - l, 0).sum() / (LABELS - k) for l in [*leaving[leaving >= 0], 0.0])  # noqa: E741
    loss = TopKLoss(goal, goal.off, "average", keeps=True)
    expected = first
    if any(relevant):
        holding = s - s[np.array(relevant)].min()
        expected += min(l + np.maximum(holding - l, 0).sum() / k for l in [*holding[holding >= 0], 0.0])  # noqa: E741
    assert float(-loss(rows, rows)[0]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(SCORES, KINDS)
def test_the_k_th_statistic_is_zero_exactly_where_the_set_has_left(scores, kinds):
    goal = goal_of(["A1" if kind in ("A1", "B1") else "C" for kind in kinds], 2)
    if 1 <= int(goal.off.sum()) <= LABELS - 2:
        rows = torch.tensor([scores], dtype=torch.float64)
        value = float(TopKLoss(goal, goal.off, "k-th")(rows, rows)[0])
        margin = float(goal.margin(rows)[0])
        assert value == 0.0 or margin <= 0.0
        assert value < 0.0 or margin >= 0.0


def test_rank_losses_by_hand():
    # Labels: A1 (to be off), B1 (stays on), A0 (to be on), B0 (stays off), two of no matter.
    goal = goal_of(["A1", "B1", "A0", "B0", "C", "C"])
    rows = torch.tensor([[3.0, 1.0, -2.0, -1.0, 0.0, 0.5]])
    # O- = {0, 3}, O0 = {4, 5}, O+ = {1, 2}: 3 - 0 + 0.5 - (-2).
    assert float(-RankLoss(goal)(rows, rows)[0]) == 5.5
    # Rank II: max A1 - min B-1 = 3 + 1, max B1 - min A-1 = 1 + 2.
    assert float(-RankLoss(goal, is_second=True)(rows, rows)[0]) == 12.5
    # Without labels of no matter: max O- - min O+.
    whole = goal_of(["A1", "B1", "A0", "B0", "B0", "B0"])
    assert float(-RankLoss(whole)(rows, rows)[0]) == 5.0


def test_rank_one_asks_nothing_where_all_must_be_on_and_rank_two_nothing_more():
    rows = torch.randn((1, LABELS), generator=torch.Generator().manual_seed(0))
    goal = goal_of(["A0"] * 6)
    assert float(RankLoss(goal)(rows, rows)[0]) == 0.0
    assert float(RankLoss(goal, is_second=True)(rows, rows)[0]) == 0.0


@given(SCORES, KINDS)
def test_rank_agreement_is_kendall_s_tau_b(scores, kinds):
    goal = goal_of(kinds)
    wished = [{"A1": -2, "B0": -1, "C": 0, "B1": 1, "A0": 2}[kind] for kind in kinds]
    expected = kendalltau(scores, wished, variant="b").statistic
    found = float(rank_agreement(goal, torch.tensor([scores]))[0])
    assert found == pytest.approx(0.0 if np.isnan(expected) else expected, abs=1e-9)
    assert -1.0001 <= float(cosine_agreement(goal, torch.tensor([scores]))[0]) <= 1.0001


@given(SCORES, KINDS)
def test_margins_of_probabilities_have_the_signs_of_margins(scores, kinds):
    goal = goal_of(kinds)
    rows = torch.tensor([scores], dtype=torch.float64)
    margins, of_probabilities = goal.margins(rows), in_probabilities(goal, rows)
    clear = margins.abs() > 1e-6
    assert torch.equal(of_probabilities.sign()[clear], margins.sign()[clear])


def test_the_penalty_is_the_squared_distance():
    goal = goal_of(["A1"] + ["C"] * 5)
    loss = Penalised(HingeLoss(goal), torch.zeros((1, 2)), 0.5, torch.tensor([2.0]))
    rows = torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert float(loss(rows, torch.tensor([[3.0, 4.0]]))[0]) == 2.0 * -3.0 - 0.5 * 25.0
