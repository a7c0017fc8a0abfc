"""Metrics of the top k labels (Sun et al. 2023, section 5 and the released code), one number a row.

Scores are finite and labels are ranked by falling score, equal scores by rising index, whatever the sorting library does.
`relevant` marks each row's true labels Y. pi_i is the label at rank i, and N_k = min(k, |Y|).
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from verifier.errors import InputError

Scores = Float[np.ndarray, "rows labels"]
Marks = Bool[np.ndarray, "rows labels"]
Rows = Float[np.ndarray, " rows"]


def ranked_labels(scores: Scores) -> Int[np.ndarray, "rows labels"]:
    """The labels of each row by falling score, equal scores by rising index.

    Raises:
        InputError: A score is NaN.
    """
    if np.isnan(scores).any():
        rows = np.flatnonzero(np.isnan(scores).any(axis=1))
        raise InputError(f"scores: {len(rows)} rows hold NaN, the first is row {rows[0]}; wanted numbers to rank")
    return np.argsort(-scores, axis=1, kind="stable")


def tied_rows(scores: Scores) -> int:
    """How many rows hold two equal scores, so that their ranking rests on the tie rule."""
    ordered = np.sort(scores, axis=1)
    return int((ordered[:, 1:] == ordered[:, :-1]).any(axis=1).sum())


def top_k_accuracy(scores: Scores, relevant: Marks, k: int) -> Rows:
    """TkAcc as released: 1 where the top k and Y contain one another, Y within T_k if |Y| < k, else T_k within Y.

    (The printed eq. 7 asks for Y within T_k always, which is 0 for every row with |Y| > k.) NaN where Y is empty.

    Raises:
        InputError: k is not in 1 .. labels, or a score is NaN.
    """
    hits = _hits(scores, relevant, k).sum(axis=1)
    sizes = relevant.sum(axis=1)
    return _where_relevant((hits == np.minimum(sizes, k)).astype(np.float64), relevant)


def precision_at_k(scores: Scores, relevant: Marks, k: int) -> Rows:
    """P@k: the relevant share of the top k; at most |Y| / k where |Y| < k.

    Raises:
        InputError: k is not in 1 .. labels, or a score is NaN.
    """
    return _hits(scores, relevant, k).mean(axis=1)


def average_precision_at_k(scores: Scores, relevant: Marks, k: int) -> Rows:
    """AP@k = (1 / N_k) sum over i <= k of [pi_i in Y] P@i; NaN where Y is empty.

    Raises:
        InputError: k is not in 1 .. labels, or a score is NaN.
    """
    hits = _hits(scores, relevant, k)
    precisions = hits.cumsum(axis=1) / np.arange(1, k + 1)
    best = np.maximum(np.minimum(relevant.sum(axis=1), k), 1)
    return _where_relevant((hits * precisions).sum(axis=1) / best, relevant)


def map_at_k(
    scores: Scores, relevant: Marks, k: int, average: Literal["instances", "labels"]
) -> Float[np.ndarray, " n"]:
    """The AP@k that mAP@k averages: one a row ("instances", the released code) or one a label ("labels", eq. 10).

    For a label, its AP@k ranks the rows by their score for it; its relevant items are the rows it is true for.

    Raises:
        InputError: k is not in 1 .. labels (or rows, for "labels"), or a score is NaN.
    """
    if average == "labels":
        return average_precision_at_k(scores.T, relevant.T, k)
    return average_precision_at_k(scores, relevant, k)


def ndcg_at_k(scores: Scores, relevant: Marks, k: int) -> Rows:
    """NDCG@k with gains 0 and 1 and discount 1 / log2(i + 1); NaN where Y is empty.

    Raises:
        InputError: k is not in 1 .. labels, or a score is NaN.
    """
    hits = _hits(scores, relevant, k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], discounts.cumsum()])[np.minimum(relevant.sum(axis=1), k)]
    return _where_relevant((hits @ discounts) / np.where(best > 0.0, best, 1.0), relevant)


def labels_pushed_out(
    before: Scores,
    after: Scores,
    specified: Marks,
    k: int,
    definition: Literal["net", "printed", "released"] = "net",
) -> Rows:
    """Delta-l: how many of the specified labels S an attack pushed out of the top k.

    - "net": |S in T_k| before minus after; negative where the attack brought labels in.
    - "printed": |S| minus |S in T_k| after (eq. 12), so labels that were never in the top k count too.
    - "released": the labels of S that were in the top k and no longer are.

    Raises:
        InputError: k is not in 1 .. labels, or a score is NaN.
    """
    was_in = _in_top_k(before, k) & specified
    is_in = _in_top_k(after, k) & specified
    match definition:
        case "net":
            return was_in.sum(axis=1, dtype=np.float64) - is_in.sum(axis=1)
        case "printed":
            return specified.sum(axis=1, dtype=np.float64) - is_in.sum(axis=1)
        case "released":
            return (was_in & ~is_in).sum(axis=1, dtype=np.float64)


def _hits(scores: Scores, relevant: Marks, k: int) -> Bool[np.ndarray, "rows k"]:
    """Whether the label at each of the first k ranks is relevant."""
    if not 1 <= k <= scores.shape[1]:
        raise InputError(f"k: got {k}, wanted 1 to {scores.shape[1]}, the number of items that are ranked")
    return np.take_along_axis(relevant, ranked_labels(scores)[:, :k], axis=1)


def _in_top_k(scores: Scores, k: int) -> Marks:
    if not 1 <= k <= scores.shape[1]:
        raise InputError(f"k: got {k}, wanted 1 to {scores.shape[1]}, the number of labels")
    marks = np.zeros(scores.shape, dtype=np.bool_)
    np.put_along_axis(marks, ranked_labels(scores)[:, :k], True, axis=1)
    return marks


def _where_relevant(values: Rows, relevant: Marks) -> Rows:
    return np.where(relevant.any(axis=1), values, np.nan)
