"""Metrics against formulas written out as loops, and the cases where they are undefined."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from attacks import metrics
from attacks.metrics import Norm, perturbation
from verifier.errors import InputError

ROWS, LABELS = 40, 6


@pytest.fixture
def scores():
    values = np.random.default_rng(1).normal(size=(ROWS, LABELS))
    assert metrics.tied_rows(values) == 0
    return values


@pytest.fixture
def tied():
    """Scores on a coarse grid, so that nearly every row has ties."""
    values = np.random.default_rng(2).integers(0, 3, size=(ROWS, LABELS)).astype(float)
    assert metrics.tied_rows(values) > ROWS // 2
    return values


@pytest.fixture
def relevant():
    """Rows with 0 to all labels."""
    marks = np.random.default_rng(3).random((ROWS, LABELS)) < 0.4
    marks[0], marks[1] = False, True
    return marks


@pytest.fixture
def targets():
    signs = np.random.default_rng(4).integers(-1, 2, size=(ROWS, LABELS))
    signs[0], signs[1], signs[2] = 0, 1, -1
    signs[:, 0] = np.where(signs[:, 0] > 0, -1, signs[:, 0])
    return signs


def ranking(row):
    return sorted(range(len(row)), key=lambda label: (-row[label], label))


def same(values, wanted):
    np.testing.assert_allclose(values, np.array(wanted, dtype=float), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["scores", "tied"])
@pytest.mark.parametrize("k", [1, 3, LABELS])
def test_top_k_metrics_are_their_formulas(name, k, relevant, request):
    values = request.getfixturevalue(name)
    wanted = {"acc": [], "precision": [], "average": [], "ndcg": []}
    for row, marks in zip(values, relevant, strict=True):
        top, truth = ranking(row)[:k], {label for label in range(LABELS) if marks[label]}
        gains = [float(label in truth) for label in top]
        best = min(k, len(truth))
        wanted["acc"].append(
            math.nan if not truth else float(truth <= set(top) if k > len(truth) else set(top) <= truth)
        )
        wanted["precision"].append(sum(gains) / k)
        wanted["average"].append(
            sum(gain * sum(gains[: i + 1]) / (i + 1) for i, gain in enumerate(gains)) / best if truth else math.nan
        )
        ideal = sum(1 / math.log2(i + 2) for i in range(best))
        wanted["ndcg"].append(
            sum(gain / math.log2(i + 2) for i, gain in enumerate(gains)) / ideal if truth else math.nan
        )
    same(metrics.top_k_accuracy(values, relevant, k), wanted["acc"])
    same(metrics.precision_at_k(values, relevant, k), wanted["precision"])
    same(metrics.average_precision_at_k(values, relevant, k), wanted["average"])
    same(metrics.ndcg_at_k(values, relevant, k), wanted["ndcg"])


def test_top_k_metrics_coincide_at_k_1(scores, relevant):
    marks = relevant | np.eye(ROWS, LABELS, dtype=bool)
    marks[LABELS:, 0] |= ~marks[LABELS:].any(axis=1)
    precision = metrics.precision_at_k(scores, marks, 1)
    assert 0 < precision.mean() < 1
    for metric in (metrics.top_k_accuracy, metrics.average_precision_at_k, metrics.ndcg_at_k):
        same(metric(scores, marks, 1), precision)


def test_ndcg_and_full_average_precision_agree_with_scikit_learn(scores, relevant):
    from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

    rows = relevant.any(axis=1)
    ours = metrics.mean_defined(metrics.ndcg_at_k(scores, relevant, 3))
    assert ours.value == pytest.approx(ndcg_score(relevant[rows], scores[rows], k=3), abs=1e-12)
    assert (ours.counted, ours.skipped) == (rows.sum(), (~rows).sum())
    full = metrics.mean_defined(metrics.average_precision_at_k(scores, relevant, LABELS)).value
    assert full == pytest.approx(label_ranking_average_precision_score(relevant[rows], scores[rows]), abs=1e-12)


def test_map_at_k_over_labels_ranks_rows(scores, relevant):
    k, wanted = 5, []
    for label in range(LABELS):
        top = ranking(scores[:, label])[:k]
        gains = [float(relevant[row, label]) for row in top]
        best = min(k, relevant[:, label].sum())
        wanted.append(sum(gain * sum(gains[: i + 1]) / (i + 1) for i, gain in enumerate(gains)) / best)
    same(metrics.map_at_k(scores, relevant, k, "labels"), wanted)
    same(
        metrics.map_at_k(scores, relevant, 2, "instances"),
        metrics.average_precision_at_k(scores, relevant, 2),
    )


def test_ties_go_to_the_lower_label():
    values = np.array([[1.0, 2.0, 2.0, 0.0], [3.0, 2.0, 1.0, 0.0]])
    assert metrics.ranked_labels(values).tolist() == [[1, 2, 0, 3], [0, 1, 2, 3]]
    assert metrics.tied_rows(values) == 1


def test_labels_pushed_out_by_three_definitions():
    before = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    after = np.array([[1.0, 4.0, 5.0, 2.0, 3.0]])  # top 2: {0, 1}, then {2, 1}
    specified = np.array([[True, False, True, True, False]])
    assert metrics.labels_pushed_out(before, after, specified, 2, "net").tolist() == [0.0]
    assert metrics.labels_pushed_out(before, after, specified, 2, "printed").tolist() == [2.0]
    assert metrics.labels_pushed_out(before, after, specified, 2, "released").tolist() == [1.0]


@pytest.mark.parametrize("k", [0, LABELS + 1])
def test_k_out_of_range_is_refused(scores, relevant, k):
    with pytest.raises(InputError, match=f"k: got {k}"):
        metrics.precision_at_k(scores, relevant, k)
    with pytest.raises(InputError, match=f"k: got {k}"):
        metrics.labels_pushed_out(scores, scores, relevant, k)


def test_nan_scores_are_refused(scores, relevant):
    scores[3, 2] = np.nan
    with pytest.raises(InputError, match="the first is row 3"):
        metrics.ndcg_at_k(scores, relevant, 2)


@pytest.mark.parametrize("name", ["scores", "tied"])
def test_label_metrics_are_their_formulas(name, targets, request):
    values = request.getfixturevalue(name)
    is_on = values > 0.5
    loss, auc, f1, average = [], [], [], []
    for row, on, signs in zip(values, is_on, targets, strict=True):
        asked = np.flatnonzero(signs)
        pairs = [(row[a], row[b]) for a in asked if signs[a] > 0 for b in asked if signs[b] < 0]
        undefined = math.nan if not len(asked) else 0.0
        loss.append(sum(p <= q for p, q in pairs) / len(pairs) if pairs else undefined)
        auc.append(sum((p > q) + 0.5 * (p == q) for p, q in pairs) / len(pairs) if pairs else math.nan)
        predicted, truth = {c for c in asked if on[c]}, {c for c in asked if signs[c] > 0}
        size = len(predicted) + len(truth)
        f1.append(math.nan if not len(asked) else 2 * len(predicted & truth) / size if size else 1.0)
        average.append(stepwise_average_precision(row[asked], signs[asked] > 0))
    same(metrics.ranking_loss(values, targets), loss)
    same(metrics.area_under_roc(values, targets), auc)
    same(metrics.instance_f1(is_on, targets), f1)
    same(metrics.average_precision(values, targets), average)
    columns = [
        stepwise_average_precision(values[targets[:, c] != 0, c], targets[targets[:, c] != 0, c] > 0)
        for c in range(LABELS)
    ]
    assert math.isnan(columns[0])
    same(metrics.label_average_precision(values, targets), columns)


def stepwise_average_precision(row, truth):
    """The sum over distinct thresholds of (recall gained) x precision: tied scores enter together."""
    if not truth.any():
        return math.nan
    total, previous = 0.0, 0.0
    for threshold in sorted(set(row.tolist()), reverse=True):
        chosen = row >= threshold
        recall = (chosen & truth).sum() / truth.sum()
        total += (recall - previous) * (chosen & truth).sum() / chosen.sum()
        previous = recall
    return total


def test_f1_over_labels_and_over_all(scores, targets):
    is_on = scores > 0.0
    is_on[:, 0] = False  # never on, and never wanted on: undefined
    asked, wanted = targets != 0, targets > 0

    def f1(on, truth):
        size = on.sum() + truth.sum()
        return 2 * (on & truth).sum() / size if size else math.nan

    columns = [f1(is_on[asked[:, c], c], wanted[asked[:, c], c]) for c in range(LABELS)]
    assert math.isnan(columns[0])
    same(metrics.label_f1(is_on, targets), columns)
    assert metrics.micro_f1(is_on, targets) == pytest.approx(f1(is_on[asked], wanted[asked]), abs=1e-12)
    assert math.isnan(metrics.micro_f1(np.zeros((2, 2), bool), np.full((2, 2), -1)))


def test_hamming_over_flipped_and_held_labels():
    targets = np.array([[1, -1, 1, 0], [1, 1, 0, 0]])
    is_on = np.array([[True, True, False, True], [False, True, True, True]])
    flipped = np.array([[True, True, False, False], [False, False, True, False]])
    same(metrics.hamming(is_on, targets, flipped), [0.5, math.nan])
    same(metrics.hamming(is_on, targets, ~flipped), [1.0, 0.5])


@pytest.mark.parametrize("name", ["scores", "tied"])
def test_kendall_tau_b_by_pairs(name, request):
    values = request.getfixturevalue(name)[:10]
    levels = np.random.default_rng(5).integers(-2, 3, size=values.shape).astype(float)
    levels[0] = 1.0
    wanted = []
    for row, level in zip(values, levels, strict=True):
        pairs = [(a, b) for a in range(LABELS) for b in range(a)]
        products = [np.sign(row[a] - row[b]) * np.sign(level[a] - level[b]) for a, b in pairs]
        left = sum(row[a] != row[b] for a, b in pairs)
        right = sum(level[a] != level[b] for a, b in pairs)
        wanted.append(sum(products) / math.sqrt(left * right) if left and right else math.nan)
    assert math.isnan(wanted[0])
    same(metrics.kendall_tau_b(values, levels), wanted)


def test_ranking_targets_have_five_levels():
    relevant = np.array([[True, True, False, False, False]])
    flipped = np.array([[True, False, False, True, False]])
    held = np.array([[False, True, True, False, False]])
    assert metrics.ranking_targets(relevant, flipped, held).tolist() == [[-2.0, 1.0, -1.0, 2.0, 0.0]]


def test_norms_and_rmsd():
    clean = np.zeros((2, 1, 2, 2), np.float32)
    adversarial = np.array([[[[0.5, -0.5], [0.0, 0.25]]], [[[0.0, 0.0], [0.0, 0.0]]]], np.float32)
    same(metrics.norms(clean, adversarial, Norm.LINF), [0.5, 0.0])
    same(metrics.norms(clean, adversarial, Norm.L2), [0.75, 0.0])
    same(metrics.norms(clean, adversarial, Norm.L1), [1.25, 0.0])
    same(metrics.norms(clean, adversarial, Norm.L0), [3.0, 0.0])
    same(metrics.rmsd(clean, adversarial), [255 * 0.75 / 2, 0.0])
    with pytest.raises(InputError, match="one shape"):
        metrics.rmsd(clean, adversarial.reshape(2, 1, 1, 4))


def test_success_and_average_perturbation():
    sizes, succeeded = np.array([1.0, 2.0, 6.0]), np.array([True, True, False])
    assert metrics.average_perturbation(sizes, succeeded, "successes") == 1.5
    assert metrics.average_perturbation(sizes, succeeded, "all") == 3.0
    assert math.isnan(metrics.average_perturbation(sizes, np.zeros(3, bool), "successes"))
    assert metrics.success_rate(succeeded) == pytest.approx(2 / 3)
    assert math.isnan(metrics.success_rate(np.zeros(0, bool)))
    same(metrics.success_within(sizes, succeeded, np.array([0.5, 1.0, 9.0])), [0.0, 1 / 3, 2 / 3])


def test_averages_say_what_they_skip():
    average = metrics.mean_defined(np.array([1.0, np.nan, 3.0]))
    assert (average.value, average.counted, average.skipped) == (2.0, 2, 1)
    assert math.isnan(metrics.mean_defined(np.array([np.nan])).value)


def test_scikit_learn_is_named_where_it_is_missing(monkeypatch, scores, targets):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(InputError, match=r"aureole\[attacks\]"):
        metrics.ranking_loss(scores, targets)


def test_the_documented_example_runs():
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile(code, str(page), "exec"), {})


@pytest.mark.parametrize("together", [1, 7, 20, 1000])
def test_sizes_do_not_depend_on_how_many_rows_are_measured_together(monkeypatch, together):
    generator = np.random.default_rng(0)
    clean, images = (generator.random((5, 1, 2, 3), dtype=np.float32) for _ in range(2))
    images[0] = clean[0]
    change = images.reshape(5, -1).astype(np.float64) - clean.reshape(5, -1)
    monkeypatch.setattr(perturbation, "_ENTRIES_TOGETHER", together)
    np.testing.assert_allclose(perturbation.norms(clean, images, perturbation.Norm.L1), np.abs(change).sum(axis=1))
    np.testing.assert_allclose(perturbation.norms(clean, images, perturbation.Norm.L2), (change**2).sum(axis=1) ** 0.5)
    np.testing.assert_array_equal(perturbation.norms(clean, images, perturbation.Norm.LINF), np.abs(change).max(axis=1))
    np.testing.assert_array_equal(perturbation.norms(clean, images, perturbation.Norm.L0), [0, 6, 6, 6, 6])
    np.testing.assert_allclose(perturbation.rmsd(clean, images), 255 * (change**2).mean(axis=1) ** 0.5)
    assert perturbation.rmsd(clean[:0], images[:0]).shape == (0,)
