from itertools import combinations

import numpy as np
import pytest
import torch
from bound_networks import NETWORKS, dense, image_network, relu_network
from brute_force import exact_margin
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.bounds import BoundMethod, BoundOptions, OwnEngine, analyse_region, bound_property
from verifier.bounds.alpha import Combinations, bound_rows
from verifier.bounds.graph import torch_graph
from verifier.bounds.topk import row_problem, safety_slack
from verifier.canonical import Affine, CanonicalNetwork, DenseMap, Max, Relu
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.property import Property, keeps_thresholds, stays_in_top_k, stays_out_of_top_k
from verifier.region import Box

INTERVAL = BoundOptions(method=BoundMethod.INTERVAL)
CROWN = BoundOptions(method=BoundMethod.CROWN)
ALPHA = BoundOptions(iterations=15)
OPTIONS = [INTERVAL, CROWN, ALPHA]


def tiny_network(seed, has_floor):
    """Two inputs, three ReLUs, two windows of two: 32 or 72 affine pieces."""
    generator = np.random.default_rng(seed)
    windows = np.array([[0, 1], [1, 2]])
    return CanonicalNetwork(
        2,
        (
            dense(generator, 3, (0, 2)),
            Relu(1, 3),
            dense(generator, 3, (2, 3)),
            Max(3, windows, has_floor),
            dense(generator, 4, (4, 2), (2, 3)),
        ),
    )


def random_property(generator, labels, forms=3):
    coefficients = generator.integers(-1, 2, size=(forms, labels)).astype(float)
    return Property("random", coefficients, generator.normal(size=forms) * 0.3, int(generator.integers(1, forms + 1)))


def box_of(canonical, generator, width=0.4):
    return Box.around(generator.random(canonical.input_size), width * generator.random(canonical.input_size))


@pytest.mark.parametrize("has_floor", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_bounds_contain_the_exact_maximum(seed, has_floor):
    canonical, generator = tiny_network(seed, has_floor), np.random.default_rng(seed)
    box, goal = box_of(canonical, generator, 0.8), random_property(generator, 4)
    exact = exact_margin(canonical, box.lower, box.upper, goal)
    for options in OPTIONS:
        bound = bound_property(analyse_region(canonical, box, options=options), goal, options=options)
        assert bound.upper >= exact - 1e-9
        assert not (bound.is_robust and exact >= 0)


@pytest.mark.parametrize("seed", range(6))
def test_subset_rows_contain_the_exact_least_form(seed):
    canonical, generator = tiny_network(seed, True), np.random.default_rng(seed)
    box = box_of(canonical, generator, 0.8)
    goal = random_property(generator, 4)
    region = analyse_region(canonical, box)
    graph = torch_graph(canonical)
    for members in combinations(range(3), 2):
        pair = list(members)
        rows = Combinations(graph.tensor(goal.coefficients[[pair]]), graph.tensor(goal.offsets[[pair]]))
        found = bound_rows(
            row_problem(graph, region),
            rows,
            options=ALPHA,
            iterations=15,
            deadline=Deadline(),
            is_settled=lambda _: False,
        )
        both = Property("both", goal.coefficients[pair], goal.offsets[pair], 2)
        assert float(found.upper[0, 0]) >= exact_margin(canonical, box.lower, box.upper, both) - 1e-9


@given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 10_000), st.sampled_from(OPTIONS), st.floats(0.0, 0.5))
@settings(max_examples=60)
def test_a_planted_counterexample_is_never_robust(name, seed, options, margin):
    """The offsets are chosen so that `count` forms reach the margin at a point of the box."""
    canonical, generator = NETWORKS[name](seed), np.random.default_rng(seed)
    box = box_of(canonical, generator)
    planted = generator.uniform(box.lower, box.upper)
    draft = random_property(generator, canonical.labels)
    forms = draft.coefficients @ canonical.evaluate(planted[None])[-1][0]
    offsets = margin - forms - np.where(np.arange(3) < draft.count, 0.0, generator.random(3))
    goal = Property("planted", draft.coefficients, offsets, draft.count)
    bound = bound_property(analyse_region(canonical, box, options=options), goal, options=options)
    assert not bound.is_robust
    assert bound.upper >= margin - 1e-9
    assert any(set(subset) <= set(range(draft.count)) for subset in bound.open_subsets)
    assert ((bound.minimisers >= box.lower) & (bound.minimisers <= box.upper)).all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_alpha_crown_is_never_looser_than_crown(name, seed):
    canonical, generator = NETWORKS[name](seed), np.random.default_rng(seed)
    region = analyse_region(canonical, box_of(canonical, generator))
    goal = random_property(generator, canonical.labels)
    loose, tight = (bound_property(region, goal, options=options) for options in (CROWN, ALPHA))
    assert (tight.form_uppers <= loose.form_uppers).all()
    assert tight.upper <= loose.upper
    assert set(tight.open_subsets) <= set(loose.open_subsets)


@pytest.mark.parametrize("pools", [False, True])
def test_alpha_crown_is_strictly_tighter_on_a_fixed_network(pools):
    """A canary: since torch 2.14 `clamp` has gradient 0 at its bounds, and slopes that rely on it never move."""
    canonical = image_network(1, pools=pools)
    region = analyse_region(canonical, Box.around(np.full(64, 0.5), 0.2))
    goal = stays_in_top_k(0, 1, 4)
    loose, tight = (bound_property(region, goal, options=options) for options in (CROWN, ALPHA))
    assert tight.upper < loose.upper - 0.01 * abs(loose.upper)


def test_weights_and_thresholds_of_maxima_are_optimised():
    """max(z0, z1) of two pixels: the envelope is exact along the diagonal that the form asks for."""
    identity = DenseMap(np.eye(2))
    canonical = CanonicalNetwork(
        2,
        (
            Affine(((identity, 0),), np.zeros(2)),
            Max(1, np.array([[0, 1]]), False),
            Affine(((DenseMap(np.array([[1.0]])), 2), (DenseMap(np.array([[-0.5, -0.5]])), 0)), np.zeros(1)),
        ),
    )
    region = analyse_region(canonical, Box(np.zeros(2), np.ones(2)))
    # max(x) - mean(x) is at most 1/2; below, mean(x) - max(x) <= 0 needs both weights at 1/2.
    above = Property("above", np.array([[1.0]]), np.zeros(1), 1)
    below = Property("below", np.array([[-1.0]]), np.zeros(1), 1)
    assert bound_property(region, below, options=CROWN).upper == pytest.approx(0.5)
    assert bound_property(region, below, options=BoundOptions(iterations=60)).upper == pytest.approx(0.0, abs=0.02)
    assert bound_property(region, above, options=BoundOptions(iterations=60)).upper == pytest.approx(0.5, abs=0.02)


def opposed_forms():
    """Scores x and -x for x in [-0.5, 0.5]: each can be positive, never both."""
    canonical = CanonicalNetwork(1, (Affine(((DenseMap(np.array([[1.0], [-1.0]])), 0),), np.array([-0.5, 0.5])),))
    return canonical, Property("both", np.eye(2), np.full(2, -0.01), 2)


def test_simplex_weights_refute_a_subset_that_separate_bounds_leave_open():
    canonical, goal = opposed_forms()
    region = analyse_region(canonical, Box(np.zeros(1), np.ones(1)))
    bound = bound_property(region, goal, options=CROWN)
    np.testing.assert_allclose(bound.form_uppers, [0.49, 0.49])
    assert bound.open_forms == (0, 1)
    assert bound.is_robust
    assert bound.open_subsets == ()
    assert bound.upper == pytest.approx(-0.01)


def test_simplex_weights_are_optimised():
    """v0 = 3 x - 1 and v1 = -x meet below 0, but their plain mean does not stay there: it takes a weight of 1/4."""
    canonical = CanonicalNetwork(1, (Affine(((DenseMap(np.array([[3.0], [-1.0]])), 0),), np.array([-1.0, 0.1])),))
    goal = Property("both", np.eye(2), np.zeros(2), 2)
    region = analyse_region(canonical, Box(np.zeros(1), np.ones(1)))
    assert not bound_property(region, goal, options=CROWN).is_robust
    assert bound_property(region, goal, options=BoundOptions(iterations=60)).is_robust


def test_beyond_the_cap_nothing_is_listed_and_nothing_proved():
    canonical, goal = opposed_forms()
    region = analyse_region(canonical, Box(np.zeros(1), np.ones(1)))
    three = Property("two of three", goal.coefficients[[0, 0, 1]], goal.offsets[[0, 0, 1]], 2)
    bound = bound_property(region, three, options=BoundOptions(subset_cap=2))
    assert not bound.subsets_listed
    assert bound.open_subsets == ()
    assert not bound.is_robust
    assert bound.upper == pytest.approx(0.49)


@pytest.mark.parametrize("seed", range(4))
def test_rows_together_equal_rows_one_at_a_time(seed):
    canonical, generator = image_network(seed, pools=True), np.random.default_rng(seed)
    region = analyse_region(canonical, box_of(canonical, generator))
    graph = torch_graph(canonical)
    coefficients, offsets = generator.normal(size=(5, 2, 4)), generator.normal(size=(5, 2))

    def bounds(rows):
        return (
            bound_rows(
                row_problem(graph, region),
                Combinations(torch.tensor(coefficients[rows]), torch.tensor(offsets[rows])),
                options=BoundOptions(patience=100),
                iterations=8,
                deadline=Deadline(),
                is_settled=lambda _: False,
            )
            .upper[0]
            .numpy()
        )

    alone = np.concatenate([bounds([row]) for row in range(5)])
    np.testing.assert_allclose(bounds(list(range(5))), alone, rtol=1e-7)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.method.value)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_single_point_gets_its_margin(name, options):
    canonical = NETWORKS[name](5)
    point = np.random.default_rng(6).random(canonical.input_size)
    goal = random_property(np.random.default_rng(7), canonical.labels)
    bound = bound_property(analyse_region(canonical, Box(point, point), options=options), goal, options=options)
    assert bound.upper == pytest.approx(float(goal.margin(canonical.evaluate(point[None])[-1][0])), abs=1e-12)


def test_a_tie_is_not_robust():
    """The bound is exactly 0: within the safety slack of a violation."""
    canonical = CanonicalNetwork(1, (Affine(((DenseMap(np.array([[1.0], [1.0]])), 0),), np.zeros(2)),))
    region = analyse_region(canonical, Box(np.zeros(1), np.ones(1)))
    goal = stays_in_top_k(0, 1, 2)
    assert not bound_property(region, goal).is_robust
    inside = Property("inside the slack", goal.coefficients, np.full(1, -0.5 * safety_slack(region, goal)), 1)
    assert not bound_property(region, inside).is_robust
    outside = Property("outside", goal.coefficients, np.full(1, -2.0 * safety_slack(region, goal)), 1)
    assert bound_property(region, outside).is_robust


@pytest.mark.parametrize(
    "goal", [stays_in_top_k(1, 1, 3), stays_out_of_top_k(0, 1, 3), keeps_thresholds([1, -1, 0], [0.1, 0.2, 0.0])]
)
def test_all_properties_are_bounded(goal):
    canonical = relu_network(3)
    box = Box.around(np.full(4, 0.4), 0.05)
    margins = goal.margin(canonical.evaluate(np.random.default_rng(0).uniform(box.lower, box.upper, (2000, 4)))[-1])
    for options in OPTIONS:
        bound = bound_property(analyse_region(canonical, box, options=options), goal, options=options)
        assert bound.upper >= margins.max()
        assert bound.engine == options.method.value
        assert bound.trusted == (TrustedClaim.FLOAT64_ROUNDING,)


def test_once_time_is_up_the_answer_is_crowns():
    canonical = image_network(1, pools=False)
    region = analyse_region(canonical, Box.around(np.full(64, 0.5), 0.2))
    goal = stays_in_top_k(0, 1, 4)
    late = bound_property(region, goal, deadline=Deadline.after(0))
    np.testing.assert_array_equal(late.form_uppers, bound_property(region, goal, options=CROWN).form_uppers)


def test_the_engine_is_the_functions():
    canonical = relu_network(2)
    engine = OwnEngine(CROWN)
    region = engine.analyse(canonical, Box.around(np.full(4, 0.5), 0.1), Deadline())
    goal = stays_in_top_k(0, 1, 3)
    assert engine.name == "CROWN"
    assert engine.bound(region, goal, Deadline()).upper == bound_property(region, goal, options=CROWN).upper


def test_a_property_of_other_labels_is_refused():
    region = analyse_region(relu_network(0), Box.around(np.full(4, 0.5), 0.1))
    with pytest.raises(InputError, match="reads 5 labels, the network has 3"):
        bound_property(region, stays_in_top_k(0, 1, 5))


@pytest.mark.parametrize(
    "wrong", [{"iterations": -1}, {"patience": 0}, {"subset_cap": 0}, {"learning_rate": 0.0}, {"decay": 1.5}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="bound options"):
        BoundOptions(**wrong)
