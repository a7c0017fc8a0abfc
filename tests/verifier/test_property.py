from collections.abc import Iterator
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.property import Property, keeps_thresholds, keeps_top_k_set, stays_in_top_k, stays_out_of_top_k

# Few different scores, so that ties are common.
SCORES = st.lists(st.integers(-1, 2), min_size=2, max_size=5).map(lambda scores: np.array(scores, dtype=np.float64))


def rankings(scores: np.ndarray) -> Iterator[tuple[int, ...]]:
    """Every order of the labels by falling score, ties in any order."""
    for order in permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in pairwise(order)):
            yield order


def is_violated(property: Property, scores: np.ndarray) -> bool:
    return bool(property.margin(scores) >= 0.0)


@given(SCORES, st.data())
def test_stays_in_top_k_is_violated_iff_some_ranking_puts_the_label_behind(scores: np.ndarray, data) -> None:
    labels = len(scores)
    label, k = data.draw(st.integers(0, labels - 1)), data.draw(st.integers(1, labels - 1))
    expected = any(label not in order[:k] for order in rankings(scores))
    assert is_violated(stays_in_top_k(label, k, labels), scores) == expected


@given(SCORES, st.data())
def test_stays_out_of_top_k_is_violated_iff_some_ranking_puts_the_label_in_front(scores: np.ndarray, data) -> None:
    labels = len(scores)
    label, k = data.draw(st.integers(0, labels - 1)), data.draw(st.integers(1, labels - 1))
    expected = any(label in order[:k] for order in rankings(scores))
    assert is_violated(stays_out_of_top_k(label, k, labels), scores) == expected


@given(SCORES, st.data())
def test_keeps_top_k_set_is_violated_iff_some_ranking_starts_otherwise(scores: np.ndarray, data) -> None:
    labels = len(scores)
    members = data.draw(st.permutations(range(labels)))[: data.draw(st.integers(1, labels - 1))]
    expected = any(set(order[: len(members)]) != set(members) for order in rankings(scores))
    assert is_violated(keeps_top_k_set(members, labels), scores) == expected


@given(SCORES, st.data())
def test_keeps_thresholds_is_violated_iff_more_than_flips_labels_reach_their_threshold(
    scores: np.ndarray, data
) -> None:
    labels = len(scores)
    signs = data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=labels, max_size=labels).filter(any))
    thresholds = data.draw(st.lists(st.sampled_from([-0.5, 0.0, 1.0]), min_size=labels, max_size=labels))
    flips = data.draw(st.integers(0, sum(map(abs, signs)) - 1))
    crossed = sum(
        (sign == 1 and score <= tau) or (sign == -1 and score >= tau)
        for sign, tau, score in zip(signs, thresholds, scores, strict=True)
    )
    assert is_violated(keeps_thresholds(signs, thresholds, flips), scores) == (crossed > flips)


@given(SCORES, st.data())
def test_in_and_out_are_never_both_kept(scores: np.ndarray, data) -> None:
    labels = len(scores)
    label, k = data.draw(st.integers(0, labels - 1)), data.draw(st.integers(1, labels - 1))
    inside, outside = stays_in_top_k(label, k, labels), stays_out_of_top_k(label, k, labels)
    assert is_violated(inside, scores) or is_violated(outside, scores)
    # Without ties the two margins are each other's negative.
    strict = scores + np.arange(labels) * 1e-3
    assert inside.margin(strict) == pytest.approx(-outside.margin(strict))


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_margin_is_the_count_th_largest_form_over_any_batch(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 5))
    property = Property("random", generator.normal(size=(4, 3)), generator.normal(size=4), count)
    scores = generator.normal(size=(2, 3, 3))
    forms = property.forms(scores)
    assert forms.shape == (2, 3, 4)
    for index in np.ndindex(2, 3):
        expected = [
            sum(c * s for c, s in zip(row, scores[index], strict=True)) + offset
            for row, offset in zip(property.coefficients, property.offsets, strict=True)
        ]
        np.testing.assert_allclose(forms[index], expected, atol=1e-12)
        assert property.margin(scores)[index] == pytest.approx(sorted(expected, reverse=True)[count - 1])


def test_hand_computed_margins() -> None:
    scores = np.array([3.0, 1.0, 2.0, 0.0])
    assert stays_in_top_k(0, 2, 4).margin(scores) == -2.0
    assert stays_in_top_k(2, 2, 4).margin(scores) == -1.0
    assert stays_in_top_k(1, 2, 4).margin(scores) == 1.0
    assert stays_out_of_top_k(1, 2, 4).margin(scores) == -1.0
    assert keeps_top_k_set([2, 0], 4).margin(scores) == -1.0
    assert keeps_thresholds([1, 0, -1, -1], [0.5, 0.0, 2.5, 1.0], 1).margin(scores) == -1.0


def test_float32_scores_are_compared_exactly() -> None:
    scores = np.float32([1.0, np.nextafter(np.float32(1.0), np.float32(2.0))])
    assert stays_in_top_k(0, 1, 2).margin(scores) > 0.0


@given(st.integers(2, 6), st.data())
def test_only_rankings_are_rankings(labels: int, data) -> None:
    label, k = data.draw(st.integers(0, labels - 1)), data.draw(st.integers(1, labels - 1))
    for property in (
        stays_in_top_k(label, k, labels),
        stays_out_of_top_k(label, k, labels),
        keeps_top_k_set([label], labels),
    ):
        assert property.is_ranking
        assert property.labels == labels
    assert not keeps_thresholds([1] * labels, [0.0] * labels).is_ranking


@pytest.mark.parametrize(
    ("rows", "offsets", "expected"),
    [
        ([[1.0, -1.0, 0.0]], [0.0], True),
        ([[0.0, -2.0, 2.0]], [0.0], True),
        ([[1.0, -1.0, 0.0]], [0.1], False),
        ([[2.0, -1.0, 0.0]], [0.0], False),
        ([[1.0, 1.0, 0.0]], [0.0], False),
        ([[1.0, -0.5, -0.5]], [0.0], False),
        ([[0.0, 0.0, 0.0]], [0.0], False),
        ([[1.0, -1.0, 0.0], [1.0, 0.0, 0.0]], [0.0, 0.0], False),
    ],
)
def test_is_ranking_reads_every_row(rows: list[list[float]], offsets: list[float], expected: bool) -> None:
    assert Property("hand", np.array(rows), np.array(offsets), 1).is_ranking == expected


def test_arrays_are_copied_and_read_only() -> None:
    coefficients, offsets = np.eye(2), np.zeros(2)
    property = Property("copy", coefficients, offsets, 1)
    coefficients[0, 0], offsets[0] = 5.0, 5.0
    assert (property.coefficients[0, 0], property.offsets[0]) == (1.0, 0.0)
    assert not property.coefficients.flags.writeable
    assert not property.offsets.flags.writeable


@pytest.mark.parametrize(
    ("coefficients", "offsets", "count", "message"),
    [
        (np.eye(2), np.array([np.nan, 0.0]), 1, "not finite"),
        (np.full((2, 2), np.inf), np.zeros(2), 1, "not finite"),
        (np.eye(2), np.zeros(2), 0, "wanted 1 to 2"),
        (np.eye(2), np.zeros(2), 3, "wanted 1 to 2"),
        (np.eye(2), np.zeros(3), 1, "do not match"),
    ],
)
def test_bad_properties_are_refused(coefficients: np.ndarray, offsets: np.ndarray, count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Property("bad", coefficients, offsets, count)


@pytest.mark.parametrize("constructor", [stays_in_top_k, stays_out_of_top_k])
@pytest.mark.parametrize(
    ("label", "k", "message"),
    [
        (-1, 1, "wanted 0 to 2"),
        (3, 1, "wanted 0 to 2"),
        (0, 0, "wanted 1 to 2"),
        (0, 3, "k = labels"),
        (0, -1, "wanted 1"),
    ],
)
def test_labels_and_k_out_of_range_are_refused(constructor, label: int, k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        constructor(label, k, 3)


@pytest.mark.parametrize(
    ("members", "message"),
    [([], "k: got 0"), ([0, 0], "different labels"), ([0, 1, 2], "k: got 3"), ([3], "wanted 0 to 2")],
)
def test_bad_sets_are_refused(members: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        keeps_top_k_set(members, 3)


@pytest.mark.parametrize(
    ("signs", "thresholds", "flips", "message"),
    [
        ([1], [0.0, 0.0], 0, "wanted one each"),
        ([2, 1], [0.0, 0.0], 0, "wanted -1"),
        ([1, 0], [0.0, 0.0], 1, "wanted 0 to 0"),
        ([1, 0], [0.0, 0.0], -1, "wanted 0 to 0"),
        ([0, 0], [0.0, 0.0], 0, "flips"),
        ([1, 1], [0.0, np.nan], 0, "not finite"),
    ],
)
def test_bad_thresholds_are_refused(signs: list[int], thresholds: list[float], flips: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        keeps_thresholds(signs, thresholds, flips)
