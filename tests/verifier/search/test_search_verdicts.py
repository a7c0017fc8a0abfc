"""The search agrees with enumeration, never proves what is false, and always stops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_networks import exact_margin, tiny_case

from verifier.bounds import analyse_region, bound_property
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.property import Property
from verifier.region import Box
from verifier.search import Descent, SearchOptions, SearchStatus, search

# Little optimisation and no solver: the tree has to do the work.
BARE = SearchOptions(batch=8, root=Descent(iterations=1), step=Descent(iterations=3), leaf_windows=0)


def decide(case, options=BARE, subsets=None, deadline=None, on_progress=None, accept=True):
    canonical, region, goal = case
    offered = []

    def on_candidates(points):
        assert (points >= region.lower).all()
        assert (points <= region.upper).all()
        margins = goal.margin(canonical.evaluate(points)[-1])
        assert margins[0] > -1e-12  # a tie may be rounded to either side
        offered.append(points[0])
        return accept

    found = search(
        region, goal, subsets, options=options, on_candidates=on_candidates, deadline=deadline, on_progress=on_progress
    )
    assert (found.status is SearchStatus.WITNESS) == bool(accept and offered)
    return found


@pytest.mark.parametrize("block", range(6))
def test_agrees_with_enumeration(block):
    explored = 0
    for seed in range(20 * block, 20 * block + 20):
        found = decide(tiny_case(seed, shift=-0.002))
        assert found.status is SearchStatus.REFUTED, seed
        assert -0.002 - 1e-6 <= found.best_bound < 0
        assert found.open_nodes == 0
        explored += found.nodes_explored
        assert decide(tiny_case(seed, shift=0.002)).status is SearchStatus.WITNESS, seed
    assert explored > 20 * 3, "the cases are too easy to say anything"


@pytest.mark.parametrize("seed", range(12))
def test_the_mixed_integer_leaves_agree_too(seed):
    options = SearchOptions(root=Descent(iterations=0), step=Descent(iterations=0), leaf_windows=50)
    found = decide(tiny_case(seed, shift=-0.002), options)
    assert found.status is SearchStatus.REFUTED
    assert (TrustedClaim.MIP_SOLVER_STATUS in found.trusted) == (" 0 mixed" not in found.detail)
    assert decide(tiny_case(seed, shift=0.002), options, accept=True).status is SearchStatus.WITNESS


@given(st.integers(0, 60), st.integers(0, 2**31))
@settings(max_examples=15)
def test_a_planted_counterexample_is_never_refuted(seed, point_seed):
    canonical, region, goal = tiny_case(seed)
    point = np.random.default_rng(point_seed).uniform(region.lower, region.upper)
    margin = goal.margin(canonical.evaluate(point[None])[-1])[0]
    planted = Property("planted", goal.coefficients, goal.offsets - margin, goal.count)
    found = decide((canonical, region, planted), accept=False)
    assert found.status is SearchStatus.UNDECIDED
    assert found.best_bound >= -1e-9
    assert found.open_nodes > 0


@pytest.mark.parametrize("seed", range(10))
def test_the_verdict_does_not_depend_on_the_batch_size(seed):
    for shift in (-0.01, 0.01):
        case = tiny_case(seed, shift)
        statuses = {
            decide(case, SearchOptions(batch=batch, root=BARE.root, step=BARE.step, leaf_windows=0)).status
            for batch in (1, 3, 64)
        }
        assert len(statuses) == 1


@pytest.mark.parametrize("seed", range(1, 20, 2))
def test_listing_the_subsets_changes_nothing(seed):
    case = tiny_case(seed, -0.01)
    listed = bound_property(case[1], case[2])
    assert decide(case, subsets=listed.open_subsets or [(0, 1), (0, 2), (1, 2)]).status is SearchStatus.REFUTED
    assert decide(case, subsets=None).status is SearchStatus.REFUTED


def test_only_the_listed_subsets_are_searched():
    outcomes = set()
    for seed in (1, 3, 5, 7):
        case = canonical, region, goal = tiny_case(seed, 0.05)
        for pair in [(0, 1), (0, 2), (1, 2)]:
            rows = list(pair)
            alone = Property("pair", goal.coefficients[rows], goal.offsets[rows], 2)
            supremum = exact_margin(canonical, region.lower, region.upper, alone)
            found = decide(case, subsets=[pair], accept=False)
            assert found.status is (SearchStatus.REFUTED if supremum < 0 else SearchStatus.UNDECIDED)
            outcomes.add(found.status)
    assert len(outcomes) == 2


def test_an_expired_deadline_decides_nothing():
    found = decide(tiny_case(4, -0.002), deadline=Deadline(at=0.0))
    assert found.status is SearchStatus.UNDECIDED
    assert found.best_bound == np.inf
    assert found.open_nodes == 1


def test_a_deadline_in_the_middle_keeps_every_open_subproblem():
    case = tiny_case(4, -0.0001)
    steps = []

    def stop_after_two(progress):
        steps.append(progress)
        if len(steps) == 2:
            raise KeyboardInterrupt

    found = decide(
        case, SearchOptions(batch=1, root=BARE.root, step=BARE.step, leaf_windows=0), on_progress=stop_after_two
    )
    assert found.is_interrupted
    assert found.status is SearchStatus.UNDECIDED
    assert found.best_bound >= -0.0001
    assert found.best_bound >= steps[-1].best_bound


def test_bounds_never_rise_on_the_way():
    seen = []
    found = decide(
        tiny_case(8, -0.001), SearchOptions(batch=2, root=BARE.root, step=BARE.step), on_progress=seen.append
    )
    bounds = [progress.best_bound for progress in seen] + [found.best_bound]
    assert bounds == sorted(bounds, reverse=True)


def test_the_best_bound_holds_over_the_region():
    for seed in range(8):
        case = canonical, region, goal = tiny_case(seed, -0.001)
        found = decide(case, deadline=Deadline.after(0.05))
        points = np.random.default_rng(seed).uniform(region.lower, region.upper, (500, canonical.input_size))
        assert goal.margin(canonical.evaluate(points)[-1]).max() <= found.best_bound + 1e-9


def test_a_region_of_one_point_is_decided_at_once():
    canonical, region, goal = tiny_case(2, -0.1)
    middle = 0.5 * (region.lower + region.upper)
    point = analyse_region(canonical, Box(middle, middle))
    assert decide((canonical, point, goal)).status is SearchStatus.REFUTED
    margin = goal.margin(canonical.evaluate(middle[None])[-1])[0]
    above = Property("above", goal.coefficients, goal.offsets - margin + 0.1, goal.count)
    assert decide((canonical, point, above)).status is SearchStatus.WITNESS


def test_seeds_lie_in_the_region_best_first():
    canonical, region, goal = tiny_case(5, -0.01)
    found = decide((canonical, region, goal))
    assert len(found.seeds)
    assert (found.seeds >= region.lower).all()
    assert (found.seeds <= region.upper).all()
    margins = goal.margin(canonical.evaluate(found.seeds)[-1])
    assert (np.diff(margins) <= 1e-12).all()


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"lookahead": 0}, {"leaf_windows": -1}, {"memory_bytes": 0}, {"climbers": 0}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SearchOptions(**wrong)


def test_forgetting_parameters_changes_no_verdict():
    for seed in range(6):
        forgetful = SearchOptions(batch=4, root=BARE.root, step=BARE.step, leaf_windows=0, memory_bytes=1)
        assert decide(tiny_case(seed, -0.01), forgetful).status is SearchStatus.REFUTED
