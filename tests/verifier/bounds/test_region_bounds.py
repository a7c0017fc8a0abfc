import numpy as np
import pytest
import torch
from bound_networks import NETWORKS, convolution, image_network, max_network, relu_network
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.bounds import BoundMethod, BoundOptions, analyse_region
from verifier.bounds.backward import concretise, first_slopes, planes_over_input, relaxations
from verifier.bounds.crown import analyse_values, crown_interval
from verifier.bounds.graph import torch_graph
from verifier.bounds.interval import interval_bounds
from verifier.bounds.linear_maps import torch_map
from verifier.canonical import DenseMap, SparseMap
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.region import Box

METHODS = [BoundMethod.INTERVAL, BoundMethod.CROWN]


def box_of(canonical, seed, width=0.3):
    generator = np.random.default_rng(seed)
    return Box.around(generator.random(canonical.input_size), width * generator.random(canonical.input_size))


def sampled(box, generator, count):
    points = generator.uniform(box.lower, box.upper, size=(count, box.lower.size))
    corners = np.where(generator.random((count // 10, box.lower.size)) < 0.5, box.lower, box.upper)
    return np.vstack([points, corners])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_bounds_contain_ten_thousand_points(name, method):
    canonical = NETWORKS[name](0)
    box = box_of(canonical, 1)
    bounds = analyse_region(canonical, box, options=BoundOptions(method=method)).node_bounds
    assert set(bounds.lower) == {*canonical.nonlinear_inputs(), canonical.output}
    values = canonical.evaluate(sampled(box, np.random.default_rng(2), 10_000))
    for value in bounds.lower:
        assert (values[value] >= bounds.lower[value] - 1e-12).all()
        assert (values[value] <= bounds.upper[value] + 1e-12).all()


@given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 10_000), st.sampled_from([0.02, 0.2, 0.7]))
@settings(max_examples=40)
def test_bounds_contain_points_of_random_networks(name, seed, width):
    canonical = NETWORKS[name](seed)
    box = box_of(canonical, seed + 1, width)
    bounds = analyse_region(canonical, box).node_bounds
    values = canonical.evaluate(sampled(box, np.random.default_rng(seed), 100))
    for value in bounds.lower:
        assert (values[value] >= bounds.lower[value] - 1e-10).all()
        assert (values[value] <= bounds.upper[value] + 1e-10).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_crown_lies_within_interval_bounds_and_is_tighter_somewhere(name):
    canonical = NETWORKS[name](3)
    box = box_of(canonical, 4)
    loose, tight = (analyse_region(canonical, box, options=BoundOptions(method=m)) for m in METHODS)
    gained = 0.0
    for value in tight.node_bounds.lower:
        assert (tight.node_bounds.lower[value] >= loose.node_bounds.lower[value]).all()
        assert (tight.node_bounds.upper[value] <= loose.node_bounds.upper[value]).all()
        gained += float((loose.node_bounds.upper[value] - tight.node_bounds.upper[value]).sum())
    assert gained > 1e-3
    assert tight.unstable_units <= loose.unstable_units


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_single_point_gets_its_values(name, method):
    canonical = NETWORKS[name](5)
    point = np.random.default_rng(6).random(canonical.input_size)
    region = analyse_region(canonical, Box(point, point), options=BoundOptions(method=method))
    values = canonical.evaluate(point[None])
    for value in region.node_bounds.lower:
        np.testing.assert_allclose(region.node_bounds.lower[value], values[value][0], atol=1e-13)
        np.testing.assert_allclose(region.node_bounds.upper[value], values[value][0], atol=1e-13)
    assert region.unstable_units == 0


def test_unstable_units_are_counted():
    canonical = max_network(7, has_floor=True)
    region = analyse_region(canonical, box_of(canonical, 8, 0.6))
    lower, upper = region.node_bounds.lower, region.node_bounds.upper
    count = sum(int(((lower[v] < 0) & (upper[v] > 0)).sum()) for v in (1, 5))
    for window in canonical.nodes[3].windows:
        real = window[window >= 0]
        ends = [(lower[3][i], upper[3][i]) for i in real] + [(0.0, 0.0)]
        least = max(a for a, _ in ends)
        count += not any(
            a == least and all(b <= least for j, (_, b) in enumerate(ends) if j != i) for i, (a, _) in enumerate(ends)
        )
    assert region.unstable_units == count > 0


def test_once_time_is_up_interval_bounds_remain():
    canonical = relu_network(9)
    box = box_of(canonical, 10)
    late = analyse_region(canonical, box, deadline=Deadline.after(0))
    loose = analyse_region(canonical, box, options=BoundOptions(method=BoundMethod.INTERVAL))
    for value in late.node_bounds.lower:
        np.testing.assert_array_equal(late.node_bounds.upper[value], loose.node_bounds.upper[value])


def test_a_box_of_another_size_is_refused():
    with pytest.raises(InputError, match="got 3 entries, wanted the network's input, 4"):
        analyse_region(relu_network(0), Box.around(np.full(3, 0.5), 0.1))


def test_results_are_read_only():
    region = analyse_region(relu_network(0), Box.around(np.full(4, 0.5), 0.1))
    with pytest.raises(ValueError, match="read-only"):
        region.node_bounds.lower[1][0] = 0.0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sparse_and_the_dense_walk_agree(name):
    canonical = NETWORKS[name](11)
    box = box_of(canonical, 12)
    analysis = analyse_values(canonical, box, options=BoundOptions(method=BoundMethod.CROWN), deadline=Deadline())
    graph = torch_graph(canonical)
    relaxed = relaxations(graph, analysis.known)
    size = canonical.labels
    rows = torch.cat([torch.eye(size), -torch.eye(size)]).double()[None]
    planes = planes_over_input(graph, relaxed, first_slopes(relaxed), canonical.output, rows)
    dense = concretise(*planes, *analysis.known[0])[0].numpy()
    sparse = crown_interval(
        canonical, analysis.planes, canonical.output, np.arange(size), box.lower.ravel(), box.upper.ravel()
    )
    np.testing.assert_allclose(sparse[1], dense[:size], rtol=1e-12)
    np.testing.assert_allclose(sparse[0], -dense[size:], rtol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_of_regions_and_rows_equal_single_ones(name):
    canonical = NETWORKS[name](13)
    graph = torch_graph(canonical)
    boxes = [box_of(canonical, seed) for seed in range(3)]
    lower, upper = (
        torch.tensor(np.array([getattr(box, side).ravel() for box in boxes])) for side in ("lower", "upper")
    )
    rows = torch.tensor(np.random.default_rng(0).normal(size=(3, 5, canonical.labels)))

    def bounds(chosen):
        known = interval_bounds(graph, lower[chosen], upper[chosen])
        relaxed = relaxations(graph, known)
        planes = planes_over_input(graph, relaxed, first_slopes(relaxed), canonical.output, rows[chosen])
        return concretise(*planes, lower[chosen], upper[chosen]).numpy()

    together = bounds(slice(0, 3))
    for region in range(3):
        np.testing.assert_allclose(together[region], bounds(slice(region, region + 1))[0], rtol=1e-12)


def test_interval_bounds_are_differentiable_in_the_box():
    canonical = image_network(0, pools=True)
    graph = torch_graph(canonical)
    box = box_of(canonical, 1)
    ends = [torch.tensor(side)[None].requires_grad_() for side in (box.lower, box.upper)]
    total = interval_bounds(graph, ends[0], ends[1])[canonical.output][1].sum()
    by_lower, by_upper = torch.autograd.grad(total, ends)
    assert (by_lower <= 1e-12).all()
    assert (by_upper >= -1e-12).all()
    step = 1e-6
    moved = interval_bounds(graph, ends[0].detach(), ends[1].detach() + step)[canonical.output][1].sum()
    assert float(moved - total.detach()) / step == pytest.approx(float(by_upper.sum()), rel=1e-4)


MAPS = {
    "dense": DenseMap(np.random.default_rng(0).normal(size=(3, 5))),
    "sparse": SparseMap(DenseMap(np.array([[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]])).matrix()),
    "same padding": convolution(np.random.default_rng(1), (2, 5, 4), 4, 3, 1, (1, 1, 1, 1)),
    "strides that leave a rest": convolution(np.random.default_rng(2), (1, 8, 7), 2, 3, 2, (1, 1, 1, 1)),
    "no padding, unread rows": convolution(np.random.default_rng(3), (1, 8, 8), 2, 3, 4, (0, 0, 0, 0)),
    "asymmetric padding": convolution(np.random.default_rng(4), (2, 5, 6), 2, 3, 2, (0, 2, 1, 0)),
    "groups": convolution(np.random.default_rng(5), (4, 5, 5), 6, 3, 1, (1, 0, 1, 0), groups=2),
}


@pytest.mark.parametrize("name", MAPS)
def test_every_map_rule_equals_its_matrix(name):
    linear = MAPS[name]
    rules = torch_map(linear, torch.device("cpu"), torch.float64)
    matrix = linear.matrix().toarray()
    generator = np.random.default_rng(0)
    x, rows = generator.normal(size=(2, 3, linear.in_size)), generator.normal(size=(2, 3, linear.out_size))
    np.testing.assert_allclose(rules.forward(torch.tensor(x)), x @ matrix.T, atol=1e-12)
    np.testing.assert_allclose(rules.forward_absolute(torch.tensor(x)), x @ abs(matrix).T, atol=1e-12)
    np.testing.assert_allclose(rules.transpose(torch.tensor(rows)), rows @ matrix, atol=1e-12)
