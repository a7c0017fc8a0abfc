import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import dense_network, exact_supremum, linear_network, random_box, random_dense_network

from attacks.domains import BoxDomain, float32_bounds
from attacks.margin import MarginAttack, MarginAttackOptions
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.property import keeps_thresholds, keeps_top_k_set, stays_in_top_k, stays_out_of_top_k
from verifier.query import Query
from verifier.region import Box

SMALL = MarginAttackOptions(scout_steps=10, steps=15, max_subsets=6)
PROPERTIES = [
    stays_in_top_k(0, 1, 4),
    stays_in_top_k(1, 2, 4),
    stays_out_of_top_k(2, 1, 4),
    stays_out_of_top_k(3, 2, 4),
    keeps_top_k_set([0, 2], 4),
    keeps_thresholds([1, -1, 0, 1], [0.1, 0.2, 0.0, -0.3], 1),
]


def attack(query: Query, seed: int = 0, starts: np.ndarray | None = None, options: MarginAttackOptions = SMALL):
    points = np.zeros((0, *query.region.shape)) if starts is None else starts
    return MarginAttack(options, seed)(query, starts=points, deadline=Deadline())


def margins(query: Query, images: list[np.ndarray]) -> np.ndarray:
    return query.property.margin(evaluate(query.network, np.stack(images).astype(np.float64)))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(PROPERTIES))
def test_stays_inside_sorts_and_never_beats_the_supremum(seed, goal):
    network = random_dense_network(seed)
    query = Query(network, random_box(network, seed), goal)
    images = attack(query)
    assert images
    for image in images:
        assert image.dtype == np.float32
        assert query.region.contains(image)
    reached = margins(query, images)
    assert (np.diff(reached) <= 1e-5).all()
    assert reached.max() <= exact_supremum(network, goal, query.region) + 1e-6
    assert len({image.tobytes() for image in images}) == len(images)


def test_usually_reaches_the_sign_of_the_supremum():
    hits = total = 0
    for seed in range(40):
        network = random_dense_network(seed)
        goal = PROPERTIES[seed % len(PROPERTIES)]
        query = Query(network, random_box(network, seed), goal)
        if exact_supremum(network, goal, query.region) > 1e-3:
            total += 1
            hits += margins(query, attack(query))[0] > 0
    assert total >= 10
    assert hits >= 0.9 * total


def test_subset_rows_find_what_the_margin_alone_cannot():
    # With pixel y: form 1 is 0.5; form 2 is -0.1 - 0.2 y, second almost everywhere, and pulls y to 0 without ever reaching 0;
    # form 3 is 0.2 - 6 |y - 0.7|, positive near 0.7 only. Only the subset {1, 3} leads there.
    hidden = ([[1.0], [-1.0]], [-0.7, 0.7])
    scores = ([[0, 0], [0, 0], [-0.2, 0.2], [-6, -6]], [0.0, 0.5, -0.24, 0.2])
    network = dense_network([hidden, scores])
    query = Query(network, Box(np.zeros((1, 1, 1)), np.ones((1, 1, 1))), stays_in_top_k(0, 2, 4))
    without = MarginAttackOptions(scout_steps=20, steps=40, max_subsets=0)
    assert margins(query, attack(query, options=without))[0] < 0
    assert margins(query, attack(query, options=MarginAttackOptions(scout_steps=20, steps=40)))[0] > 0


def test_zero_width_pixels_never_move_and_others_use_their_own_width():
    network = linear_network([[0.0, 0.0, 0.0], [1.0, 1.0, -1.0]], [0.5, 0.0])
    lower = np.float32([[[0.3, 0.2, 0.1]]]).astype(np.float64)
    upper = lower + np.array([[[0.0, 0.25, 0.5]]])
    query = Query(network, Box(lower, upper), stays_in_top_k(0, 1, 2))
    for image in attack(query):
        assert image[0, 0, 0] == np.float32(0.3)
    best = attack(query, options=MarginAttackOptions(clear_margin=10.0))[0]
    low, high = float32_bounds(query.region)
    # The last bit of a pixel does not show in the float32 scores.
    np.testing.assert_allclose(best.ravel(), [low[0, 0, 0], high[0, 0, 1], low[0, 0, 2]], atol=1e-7)


def test_same_seed_same_images_other_seed_other_images():
    network = random_dense_network(5, inputs=6)
    query = Query(network, random_box(network, 8), stays_in_top_k(0, 2, 4))
    options = MarginAttackOptions(scout_steps=3, steps=3, clear_margin=1e9, keep=30)
    first, again, other = (attack(query, seed, options=options) for seed in (1, 1, 2))
    assert [image.tobytes() for image in first] == [image.tobytes() for image in again]
    assert {image.tobytes() for image in first} != {image.tobytes() for image in other}


def test_stops_at_the_first_clear_success():
    network = linear_network([[0.0], [1.0]], [0.0, 0.5])
    query = Query(network, Box(np.zeros((1, 1, 1)), np.ones((1, 1, 1))), stays_in_top_k(0, 1, 2))
    calls = []

    class Counting(MarginAttack):
        def _networks(self, network, device):
            model, surrogate = super()._networks(network, device)
            return lambda images: calls.append(len(images)) or model(images), surrogate

    images = Counting(SMALL, 0)(query, starts=np.zeros((0, 1, 1, 1)), deadline=Deadline())
    assert margins(query, images)[0] > 0
    # The scale of the scores, the first points, and their forms; none of them climbed.
    assert [rows for rows in calls if rows] == [1, 5, 5]


def test_uses_given_starts_and_passes_over_what_is_not_finite():
    network = random_dense_network(3)
    query = Query(network, random_box(network, 4), stays_in_top_k(0, 1, 4))
    none = MarginAttackOptions(scout_steps=0, steps=0, keep=50, clear_margin=1e9)
    given_start = 0.75 * query.region.lower + 0.25 * query.region.upper
    starts = np.stack([given_start, np.full(query.region.shape, np.nan)])
    images = attack(query, starts=starts, options=none)
    assert any(np.allclose(image, given_start, atol=1e-6) for image in images)
    assert all(np.isfinite(image).all() for image in images)


def test_expired_deadline_and_boxes_without_float32_images_give_nothing():
    network = random_dense_network(1)
    query = Query(network, random_box(network, 1), stays_in_top_k(0, 1, 4))
    assert MarginAttack(SMALL)(query, starts=np.zeros((0, 1, 1, 3)), deadline=Deadline.after(0.0)) == []
    between = np.full((1, 1, 3), 0.1)  # no float32 equals the double 0.1
    assert attack(Query(network, Box(between, between), stays_in_top_k(0, 1, 4))) == []
    assert BoxDomain.inside(Box(between, between), torch.device("cpu")) is None


def test_refuses_starts_of_another_shape():
    network = random_dense_network(1)
    query = Query(network, random_box(network, 1), stays_in_top_k(0, 1, 4))
    with pytest.raises(InputError, match="starts"):
        MarginAttack(SMALL)(query, starts=np.zeros((1, 2, 1, 3)), deadline=Deadline())


@pytest.mark.parametrize("bad", [{"steps": -1}, {"keep": 0}, {"clear_margin": float("nan")}])
def test_refuses_bad_options(bad):
    with pytest.raises(InputError):
        MarginAttackOptions(**bad)


class ExpiresAtLook(Deadline):
    """Has expired from the n-th time on that somebody looks."""

    def __init__(self, look: int) -> None:
        super().__init__()
        self.__dict__["left"] = look

    @property
    def has_expired(self) -> bool:
        self.__dict__["left"] -= 1
        return self.left < 0


def test_a_deadline_may_come_between_any_two_evaluations():
    network = random_dense_network(3)
    region = random_box(network, 3)
    # Nothing violates it, so that the attack goes on to its end.
    query = Query(network, region, keeps_thresholds([1, 1, 1, 1], [-1e3] * 4))
    # More starts than are evaluated together.
    starts = np.random.default_rng(3).random((70, *query.region.shape))
    for look in range(1, 120):
        images = MarginAttack(SMALL, 3)(query, starts=starts, deadline=ExpiresAtLook(look))
        assert all(query.region.contains(image) for image in images)
