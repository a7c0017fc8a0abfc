"""Metrics against target labels (Song et al. 2018; Liu et al.), one number a row or a label.

Targets are signs: +1 the label must be on, -1 off, 0 not asked; labels that are not asked enter no metric. What scikit-learn and
SciPy define the same way is computed there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from verifier.errors import SolverUnavailableError

Scores = Float[np.ndarray, "rows labels"]
Marks = Bool[np.ndarray, "rows labels"]
Signs = Int[np.ndarray, "rows labels"]


def hamming(is_on: Marks, targets: Signs, among: Marks) -> Float[np.ndarray, " rows"]:
    """The share of the asked labels in `among` that are not at their target; NaN where there are none.

    With `among` the labels to flip this is Hamming(A), with the labels to hold Hamming(B).
    """
    asked = among & (targets != 0)
    wrong = asked & (is_on != (targets > 0))
    counts = asked.sum(axis=1)
    return np.where(counts > 0, wrong.sum(axis=1) / np.maximum(counts, 1), np.nan)


def instance_f1(is_on: Marks, targets: Signs) -> Float[np.ndarray, " rows"]:
    """2 |P and T| / (|P| + |T|) of each row over its asked labels, and 1 where both sets are empty; NaN where none is asked."""
    metric = _sklearn("f1_score")
    return _each(is_on, targets, lambda on, wanted: metric(wanted, on, zero_division=1.0))


def micro_f1(is_on: Marks, targets: Signs) -> float:
    """F1 over all asked labels of all rows together; NaN if none is on or should be."""
    asked = targets != 0
    on, wanted = is_on[asked], targets[asked] > 0
    if not (on.any() or wanted.any()):
        return float("nan")
    return float(_sklearn("f1_score")(wanted, on, zero_division=0.0))


def label_f1(is_on: Marks, targets: Signs) -> Float[np.ndarray, " labels"]:
    """The F1 that macro F1 averages, one a label; NaN for labels that are on nowhere and should be nowhere."""
    metric = _sklearn("f1_score")

    def f1(on: np.ndarray, wanted: np.ndarray) -> float:
        return metric(wanted, on, zero_division=0.0) if on.any() or wanted.any() else np.nan

    return _each(is_on.T, targets.T, f1)


def ranking_loss(scores: Scores, targets: Signs) -> Float[np.ndarray, " rows"]:
    """The share of pairs (on, off) with s_on <= s_off; 0 where a row has no such pair; NaN where no label is asked."""
    metric = _sklearn("label_ranking_loss")
    # scikit-learn wants two columns at least; one label makes no pair.
    return _each(scores, targets, lambda s, wanted: metric(wanted[None], s[None]) if len(s) > 1 else 0.0)


def average_precision(scores: Scores, targets: Signs) -> Float[np.ndarray, " rows"]:
    """The average precision of each row's ranking of its asked labels; NaN where none should be on. For mAP over instances."""
    metric = _sklearn("average_precision_score")
    return _each(scores, targets, lambda s, wanted: metric(wanted, s) if wanted.any() else np.nan)


def label_average_precision(scores: Scores, targets: Signs) -> Float[np.ndarray, " labels"]:
    """The average precision of each label's ranking of the rows; NaN for a label that should be on nowhere. For mAP over labels."""
    return average_precision(scores.T, targets.T)


def area_under_roc(scores: Scores, targets: Signs) -> Float[np.ndarray, " rows"]:
    """The share of pairs (on, off) with s_on > s_off, ties counting a half; NaN where a row has no such pair."""
    metric = _sklearn("roc_auc_score")
    return _each(scores, targets, lambda s, wanted: metric(wanted, s) if wanted.any() and not wanted.all() else np.nan)


def kendall_tau_b(scores: Scores, levels: Float[np.ndarray, "rows labels"]) -> Float[np.ndarray, " rows"]:
    """Kendall's tau-b between the scores and the levels they should be ordered by; NaN where either is constant.

    Ties of the levels lower the largest value that can be reached, so 1 is out of reach for levels with ties.
    """
    rows = [
        np.nan if np.ptp(s) == 0.0 or np.ptp(level) == 0.0 else stats.kendalltau(s, level, variant="b").statistic
        for s, level in zip(scores, levels, strict=True)
    ]
    return np.array(rows, dtype=np.float64)


def ranking_targets(relevant: Marks, flipped: Marks, held: Marks) -> Float[np.ndarray, "rows labels"]:
    """The levels of Song et al. 2018: -2 flipped off, -1 held off, 0 the rest, 1 held on, 2 flipped on."""
    levels = np.where(held, np.where(relevant, 1.0, -1.0), 0.0)
    return np.where(flipped, np.where(relevant, -2.0, 2.0), levels)


def _each(
    values: np.ndarray, targets: np.ndarray, metric: Callable[[np.ndarray, np.ndarray], float]
) -> Float[np.ndarray, " n"]:
    """The metric of each row's asked entries; NaN where none is asked."""
    rows = [
        metric(row[target != 0], target[target != 0] > 0) if (target != 0).any() else np.nan
        for row, target in zip(values, targets, strict=True)
    ]
    return np.array(rows, dtype=np.float64)


def _sklearn(name: str) -> Callable[..., Any]:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise SolverUnavailableError(
            f"metric {name}: scikit-learn is not installed; pip install 'aureole[attacks]'"
        ) from error
    return getattr(metrics, name)
