from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from milp_examples import (
    brute_force_supremum,
    dense,
    max_network,
    random_property,
    region_of,
    relu_network,
    sampled_margins,
)

from verifier.bounds.results import NodeBounds
from verifier.canonical import CanonicalNetwork, Max, Relu
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.milp import SolveStatus, available_solvers, pick_solver
from verifier.milp.encoding import Form, encode
from verifier.milp.tightening import LpTightener
from verifier.milp.topk import SubsetPrograms, forms_of, single_model, subset_model
from verifier.milp.windows import RowBlock, Window, Windows, add_envelope, alternatives, reduce_windows
from verifier.property import Property, stays_in_top_k

FOUND = [info.name.value for info in available_solvers() if info.is_available]
NETWORKS = {
    "relu": relu_network,
    "two layers": lambda rng: relu_network(rng, hidden=(3, 2)),
    "max with floor": max_network,
    "max": lambda rng: max_network(rng, has_floor=False),
}


def box_of(rng, inputs=3, fixed=0):
    lower = rng.uniform(0, 0.4, inputs)
    upper = lower + rng.uniform(0.1, 0.6, inputs)
    upper[:fixed] = lower[:fixed]
    return lower, upper


def encoded(region, form, *, tighten=None):
    box = (region.lower, region.upper)
    return encode(region.canonical, box, region.node_bounds, form, tighten=tighten, deadline=Deadline())


def lp_bound(region, prop, tighten=None):
    forms = forms_of(encoded(region, Form.RELAXED, tighten=tighten), prop)
    programs = SubsetPrograms(forms, range(len(prop.offsets)))
    return max(programs.maximise(s, Deadline())[0] for s in combinations(range(len(prop.offsets)), prop.count))


def solved(model, solver="highs"):
    """The optimum and the input where it is attained, asking again for more where the solver stopped early."""
    result = pick_solver(solver).solve(model.model, target=np.inf, deadline=Deadline())
    assert result.status in (SolveStatus.OPTIMAL, SolveStatus.FEASIBLE)
    return result, model.point(result.solution)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_optimum_is_the_brute_force_supremum(kind, count):
    rng = np.random.default_rng(10 * count + len(kind))
    network, (lower, upper) = NETWORKS[kind](rng), box_of(rng)
    prop = random_property(rng, count)
    region = region_of(network, lower, upper)
    truth = brute_force_supremum(network, lower, upper, prop)
    forms = forms_of(encoded(region, Form.EXACT), prop)
    result, point = solved(single_model(forms, range(3), count, -100.0))
    assert result.objective == pytest.approx(truth, abs=1e-5)
    assert prop.margin(network.evaluate(point[None])[-1])[0] == pytest.approx(truth, abs=1e-5)
    by_subset = [solved(subset_model(forms, s, -100.0))[0].objective for s in combinations(range(3), count)]
    assert max(by_subset) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("solver", FOUND)
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_solver_separates_at_the_brute_force_supremum(kind, solver):
    """Feasible just below the supremum, infeasible just above it."""
    rng = np.random.default_rng(len(kind))
    network, (lower, upper) = NETWORKS[kind](rng), box_of(rng)
    prop = stays_in_top_k(1, 2, 3)
    truth = brute_force_supremum(network, lower, upper, prop)
    forms = forms_of(encoded(region_of(network, lower, upper), Form.EXACT), prop)
    for make in (lambda s: subset_model(forms, (0, 1), s), lambda s: single_model(forms, (0, 1), 2, s)):
        _, point = solved(make(truth - 1e-4), solver)
        assert prop.margin(network.evaluate(point[None])[-1])[0] >= truth - 2e-4
        above = pick_solver(solver).solve(make(truth + 1e-4).model, target=np.inf, deadline=Deadline())
        assert above.status is SolveStatus.INFEASIBLE


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(NETWORKS)), count=st.integers(1, 3))
def test_lp_bound_above_optimum_above_samples(seed, kind, count):
    rng = np.random.default_rng(seed)
    network, (lower, upper) = NETWORKS[kind](rng), box_of(rng)
    prop, region = random_property(rng, count), region_of(network, lower, upper)
    optimum = solved(single_model(forms_of(encoded(region, Form.EXACT), prop), range(3), count, -100.0))[0].objective
    loose, tight = lp_bound(region, prop), lp_bound(region, prop, LpTightener(Deadline()))
    assert loose >= tight - 1e-6
    assert tight >= optimum - 1e-6
    assert optimum >= sampled_margins(network, lower, upper, prop, rng, 300)[1].max() - 1e-6


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(NETWORKS)))
def test_tightened_bounds_contain_samples(seed, kind):
    rng = np.random.default_rng(seed)
    network, (lower, upper) = NETWORKS[kind](rng), box_of(rng)
    region = region_of(network, lower, upper)
    tight = encoded(region, Form.RELAXED, tighten=LpTightener(Deadline())).node_bounds
    points, _ = sampled_margins(network, lower, upper, stays_in_top_k(0, 1, 3), rng, 500)
    values = network.evaluate(points)
    for value in network.nonlinear_inputs():
        assert (values[value] >= tight.lower[value] - 1e-9).all()
        assert (values[value] <= tight.upper[value] + 1e-9).all()
        assert (tight.lower[value] >= region.node_bounds.lower[value] - 1e-12).all()


def test_tightening_narrows_second_layers():
    widths = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        region = region_of(relu_network(rng, hidden=(4, 3)), *box_of(rng))
        tight = encoded(region, Form.RELAXED, tighten=LpTightener(Deadline())).node_bounds
        before, after = (bounds.upper[3] - bounds.lower[3] for bounds in (region.node_bounds, tight))
        widths.append((after / before).min())
    assert min(widths) < 0.95


def test_an_expired_deadline_leaves_bounds_as_they_are():
    rng = np.random.default_rng(0)
    region = region_of(relu_network(rng, hidden=(4, 3)), *box_of(rng))
    same = encoded(region, Form.RELAXED, tighten=LpTightener(Deadline.after(0.0))).node_bounds
    assert (same.upper[3] == region.node_bounds.upper[3]).all()
    box = (region.lower, region.upper)
    late = encode(region.canonical, box, region.node_bounds, Form.EXACT, deadline=Deadline.after(0.0))
    assert late is None


def test_stable_units_cost_nothing():
    """Unit 0 is active, 1 inactive, 2 undecided; the fixed input is folded into constants."""
    network = CanonicalNetwork(
        2,
        (
            dense([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], 0, [0.5, -0.5, -0.2]),
            Relu(1, 3),
            dense([[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]], 2, [0.0, 0.0]),
        ),
    )
    encoding = encoded(region_of(network, [0.0, 0.25], [1.0, 0.25]), Form.EXACT)
    assert encoding.undecided == 1
    assert encoding.system.column_names == ("x0", "y1_2", "b1_2_0")
    scores = encoding.scores.coefficients.toarray()
    assert scores.tolist() == [[1.0, 1.0, 0.0], [0.0, 2.0, 0.0]]
    assert encoding.scores.constants.tolist() == [0.75, 0.0]
    assert encoding.point(np.array([0]), np.array([0.6])).tolist() == [0.6, 0.25]


def test_a_box_of_one_point_needs_no_columns():
    rng = np.random.default_rng(0)
    network = relu_network(rng)
    point = np.array([0.1, 0.2, 0.3])
    encoding = encoded(region_of(network, point, point), Form.EXACT)
    assert encoding.system.columns == 0
    assert np.allclose(encoding.scores.constants, network.evaluate(point[None])[-1][0])


@pytest.mark.parametrize("fixed", [1, 2])
def test_fixed_inputs_keep_the_optimum(fixed):
    rng = np.random.default_rng(4)
    network, (lower, upper) = max_network(rng), box_of(rng, fixed=fixed)
    prop = stays_in_top_k(0, 1, 3)
    forms = forms_of(encoded(region_of(network, lower, upper), Form.EXACT), prop)
    result, point = solved(single_model(forms, range(2), 1, -100.0))
    assert result.objective == pytest.approx(brute_force_supremum(network, lower, upper, prop), abs=1e-5)
    assert (point[:fixed] == lower[:fixed]).all()


def test_inputs_that_do_not_matter_stay_out_of_the_model():
    network = CanonicalNetwork(2, (dense([[1.0, 0.0]], 0, [-0.5]), Relu(1, 1), dense([[1.0], [0.0]], 2, [0.0, 0.1])))
    forms = forms_of(encoded(region_of(network, [0.0, 0.0], [1.0, 1.0]), Form.EXACT), stays_in_top_k(1, 1, 2))
    model = subset_model(forms, (0,), -1.0)
    assert "x1" not in model.model.column_names
    assert "x0" in model.model.column_names
    assert solved(model)[1].tolist() == [1.0, 0.5]


def test_dropping_candidates_keeps_one_that_attains_the_bound():
    lower, upper = np.array([0.0, 1.0, -1.0, 1.0]), np.array([2.0, 3.0, 1.0, 1.0])
    reduced = reduce_windows(Windows(np.array([[0, 1, 2], [2, 3, -1]]), np.array([-np.inf, -np.inf])), lower, upper)
    assert reduced.candidates.tolist() == [[0, 1, -1], [-1, 3, -1]]
    assert alternatives(reduced).tolist() == [2, 1]
    floored = reduce_windows(Windows(np.array([[0, 2], [2, -1]]), np.array([1.0, 1.5])), lower, upper)
    assert floored.candidates.tolist() == [[0, -1], [-1, -1]]
    assert alternatives(floored).tolist() == [2, 1]


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), has_floor=st.booleans())
def test_the_envelope_is_above_the_maximum_and_tight_at_corners(seed, has_floor):
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=3)
    upper = np.maximum(lower, lower.max()) + rng.uniform(0.1, 1.0, 3)
    floor = float(lower.max() + 0.05) if has_floor else -np.inf
    window = Window((0, 1, 2), tuple(lower.tolist()), tuple(upper.tolist()), floor)
    block = RowBlock()
    add_envelope(block, window, y=0, name="w")

    def plane_minimum(z):
        values = np.array(block.upper)
        for row, entry, weight in block.entry_terms:
            values[row] -= weight * z[entry]
        return min(values.min(), window.greatest)

    for z in rng.uniform(lower, upper, size=(50, 3)):
        assert plane_minimum(z) >= max(floor, *z) - 1e-9
    for z in np.array(np.meshgrid(*zip(lower, upper, strict=True))).reshape(3, -1).T:
        assert plane_minimum(z) == pytest.approx(max(floor, *z), abs=1e-9)


@pytest.mark.parametrize("solver", FOUND)
def test_bounds_crossed_by_rounding_reach_no_solver(solver):
    """CBC rejects a model with an interval crossed by 1e-14 and other solvers accept it silently."""
    network = CanonicalNetwork(
        1,
        (
            dense([[1.0], [-1.0], [0.0]], 0, [-0.5, 0.5, 0.3]),
            Max(1, np.array([[0, 1]]), True),
            dense([[1.0], [0.0]], 2, [0.0, 0.25]),
        ),
    )
    region = region_of(network, [0.5], [0.5 + 1e-14])
    crossed = NodeBounds(
        {1: region.node_bounds.upper[1] + 1e-14, 3: region.node_bounds.lower[3]},
        {1: region.node_bounds.lower[1] - 1e-14, 3: region.node_bounds.upper[3]},
    )
    encoding = encode(network, (region.lower, region.upper), crossed, Form.EXACT, deadline=Deadline())
    assert (encoding.system.column_lower < encoding.system.column_upper).all()
    model = single_model(forms_of(encoding, stays_in_top_k(0, 1, 2)), (0,), 1, -10.0)
    result, _ = solved(model, solver)
    assert result.objective == pytest.approx(0.25, abs=1e-5)


def test_bounds_that_contradict_each_other_are_an_error():
    rng = np.random.default_rng(0)
    region = region_of(relu_network(rng), *box_of(rng))
    wrong = NodeBounds(
        {key: bound + 100.0 for key, bound in region.node_bounds.lower.items()}, dict(region.node_bounds.upper)
    )
    with pytest.raises(ContradictionError, match="value 1"):
        encode(region.canonical, (region.lower, region.upper), wrong, Form.EXACT, deadline=Deadline())


def test_forms_with_offsets_and_any_coefficients_are_bounded():
    rng = np.random.default_rng(7)
    network, (lower, upper) = relu_network(rng), box_of(rng)
    prop = Property("any", rng.normal(size=(4, 3)), rng.normal(size=4), 2)
    forms = forms_of(encoded(region_of(network, lower, upper), Form.EXACT), prop)
    points, _ = sampled_margins(network, lower, upper, prop, rng)
    values = prop.forms(network.evaluate(points)[-1])
    assert (values >= forms.lower).all()
    assert (values <= forms.upper).all()
