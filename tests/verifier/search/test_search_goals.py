"""Several goals in one tree: the same answers as one at a time, shared forms, fair turns."""

from itertools import combinations

import numpy as np
import pytest
from search_networks import exact_margin, tiny_case, tiny_network
from search_points import region_around

from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.property import Property, stays_in_top_k, stays_out_of_top_k
from verifier.search import Descent, Goal, SearchOptions, SearchStatus, search, search_all
from verifier.search.goals import FormBlock

BARE = SearchOptions(batch=4, root=Descent(iterations=1), step=Descent(iterations=2), leaf_windows=0)


def several(seed: int, count: int = 5):
    """A network, a region, and properties of one to three forms with exact margins a little above and below 0."""
    generator = np.random.default_rng(seed)
    canonical = tiny_network(seed)
    region = region_around(canonical, generator.uniform(0.3, 0.7, canonical.input_size), 0.25)
    pool = generator.normal(size=(4, 3))
    goals, margins = [], []
    for number in range(count):
        forms = 1 + number % 3
        rows = pool[generator.choice(4, forms, replace=False)]
        plain = Property(f"goal {number}", rows, np.zeros(forms), int(generator.integers(1, forms + 1)))
        margin = float(generator.choice([-0.02, 0.02]))
        shift = margin - exact_margin(canonical, region.lower, region.upper, plain)
        goals.append(Property(plain.name, rows, np.full(forms, shift), plain.count))
        margins.append(margin)
    return canonical, region, goals, margins


def run(canonical, region, goals, *, options=BARE, accept=True, **how):
    offered = []

    def on_candidates(number, points):
        margins = goals[number].property.margin(canonical.evaluate(points)[-1])
        assert (margins > -1e-12).all()  # a tie may be rounded to either side
        assert (np.diff(margins) <= 1e-12).all()
        assert (points >= region.lower).all()
        assert (points <= region.upper).all()
        offered.append(number)
        return accept

    found = search_all(region, goals, options=options, on_candidates=on_candidates, **how)
    for number, outcome in enumerate(found):
        assert (outcome.status is SearchStatus.WITNESS) == (accept and number in offered)
    return found


@pytest.mark.parametrize("seed", range(24))
def test_many_at_once_agree_with_enumeration(seed):
    canonical, region, properties, margins = several(seed)
    found = run(canonical, region, [Goal(p) for p in properties])
    for outcome, margin in zip(found, margins, strict=True):
        assert outcome.status is (SearchStatus.REFUTED if margin < 0 else SearchStatus.WITNESS)
        if margin < 0:
            assert margin - 1e-6 <= outcome.best_bound < 0
            assert outcome.open_nodes == 0


@pytest.mark.parametrize("seed", range(10))
def test_many_at_once_agree_with_one_at_a_time_whatever_the_batch(seed):
    canonical, region, properties, _ = several(seed)
    goals = [Goal(p) for p in properties]
    alone = [run(canonical, region, [goal])[0].status for goal in goals]
    assert [o.status for o in run(canonical, region, goals[::-1])][::-1] == alone
    for batch, memory in ((1, 2**31), (64, 2**31), (64, 1), (3, 2**20)):
        options = SearchOptions(batch=batch, root=BARE.root, step=BARE.step, leaf_windows=0, memory_bytes=memory)
        assert [o.status for o in run(canonical, region, goals, options=options)] == alone


def plant(seed, choice):
    """The goals, one of them raised so that its margin is 0 at a point, and its number."""
    canonical, region, properties, _ = several(seed)
    generator = np.random.default_rng(choice)
    point = generator.uniform(region.lower, region.upper)[None]
    planted = int(generator.integers(len(properties)))
    goal = properties[planted]
    margin = goal.margin(canonical.evaluate(point)[-1])[0]
    properties[planted] = Property("planted", goal.coefficients, goal.offsets - margin, goal.count)
    return canonical, region, properties, planted


# The first was refuted once, by a clip whose plane had parameters out of range.
@pytest.mark.parametrize("case", [(6, 4), *((seed, seed // 3) for seed in range(41))])
def test_planted_violations_are_never_refuted_among_others(case):
    canonical, region, properties, planted = plant(*case)
    found = run(canonical, region, [Goal(p) for p in properties], accept=False)
    assert found[planted].status is SearchStatus.UNDECIDED
    assert found[planted].best_bound >= -1e-9
    assert found[planted].open_nodes > 0


def test_all_labels_of_a_network_both_ways():
    decided = set()
    for seed in range(8):
        canonical = tiny_network(seed)
        region = region_around(canonical, np.full(canonical.input_size, 0.5), 0.3)
        goals = [
            Goal(make(label, k, 3))
            for label in range(3)
            for k in (1, 2)
            for make in (stays_in_top_k, stays_out_of_top_k)
        ]
        for goal, outcome in zip(goals, run(canonical, region, goals), strict=True):
            exact = exact_margin(canonical, region.lower, region.upper, goal.property)
            assert abs(exact) > 1e-6
            assert outcome.status is (SearchStatus.REFUTED if exact < 0 else SearchStatus.WITNESS)
            decided.add(outcome.status)
    assert len(decided) == 2


def test_each_distinct_form_exists_once():
    goals = [Goal(make(label, 2, 5)) for label in range(5) for make in (stays_in_top_k, stays_out_of_top_k)]
    block = FormBlock.of(goals)
    assert len(block.property.offsets) == 5 * 4
    for goal, places in zip(goals, block.places, strict=True):
        assert (block.property.coefficients[list(places)] == goal.property.coefficients).all()
        assert (block.property.offsets[list(places)] == goal.property.offsets).all()


def test_equal_forms_within_a_property_count_twice():
    canonical, region, goal = tiny_case(2, -0.01)
    twice = Property("twice", goal.coefficients[[0, 0]], goal.offsets[[0, 0]], 2)
    for shift in (-0.01, 0.01):
        exact = exact_margin(canonical, region.lower, region.upper, twice)
        moved = Property("twice", twice.coefficients, twice.offsets - exact + shift, 2)
        (found,) = run(canonical, region, [Goal(moved)])
        assert found.status is (SearchStatus.REFUTED if shift < 0 else SearchStatus.WITNESS)


@pytest.mark.parametrize("seed", range(6))
def test_listed_subsets_of_each_goal_are_its_own(seed):
    canonical, region, goal = tiny_case(2 * seed + 1, 0.03)
    pairs = list(combinations(range(3), 2))
    goals = [Goal(goal, [pair]) for pair in pairs]
    for pair, outcome in zip(pairs, run(canonical, region, goals, accept=False), strict=True):
        rows = list(pair)
        alone = Property("pair", goal.coefficients[rows], goal.offsets[rows], 2)
        exact = exact_margin(canonical, region.lower, region.upper, alone)
        assert outcome.status is (SearchStatus.REFUTED if exact < 0 else SearchStatus.UNDECIDED)


def test_a_point_found_for_one_goal_is_offered_to_all():
    # The second goal is the first one, raised: every point that violates the first violates it too, by more.
    _, region, goal = tiny_case(9, 0.05)
    raised = Property("raised", goal.coefficients, goal.offsets + 0.01, goal.count)
    offers = []

    def on_candidates(number, points):
        offers.append((number, len(points)))
        return number == 0

    search_all(
        region,
        [Goal(goal), Goal(raised, [(0, 1)])],
        options=BARE,
        on_candidates=on_candidates,
        deadline=Deadline.after(5),
    )
    assert [number for number, _ in offers[:2]] == [0, 1]


def test_every_open_goal_gets_its_turn():
    # Two near-ties that need many steps, between goals that need few: with one subproblem at a time all of them move on.
    hard, easy = tiny_case(21, -0.001), Property("easy", np.zeros((1, 3)), np.full(1, -1.0), 1)
    canonical, region, goal = hard
    again = Property("again", goal.coefficients, goal.offsets + 0.0005, goal.count)
    goals = [Goal(goal), Goal(again), Goal(easy)]
    seen = []
    options = SearchOptions(batch=1, root=BARE.root, step=BARE.step, leaf_windows=0)
    run(canonical, region, goals, options=options, on_progress=lambda p: seen.append([x.nodes_explored for x in p]))
    both = [row for row in seen if row[0] < seen[-1][0] and row[1] < seen[-1][1]]
    assert len(both) > 10
    assert max(abs(row[0] - row[1]) for row in both) <= 4
    assert seen[5][2] == 1


@pytest.mark.parametrize("seed", range(6))
def test_goals_are_reported_once_each_as_they_settle(seed):
    canonical, region, properties, _ = several(seed)
    settled = {}

    def on_settled(number, outcome):
        assert number not in settled
        settled[number] = outcome.status

    found = run(canonical, region, [Goal(p) for p in properties], on_settled=on_settled)
    assert settled == {number: outcome.status for number, outcome in enumerate(found)}


@pytest.mark.parametrize("seed", range(8))
def test_interrupted_and_resumed_all_goals_end_the_same(seed):
    _, region, properties, margins = several(seed)
    generator = np.random.default_rng(seed)
    starts, found = [None] * len(properties), []
    for _ in range(200):
        left = [int(generator.integers(0, 5))]

        def stop(_, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        goals = [Goal(p, start=start) for p, start in zip(properties, starts, strict=True)]
        found = search_all(region, goals, options=BARE, on_candidates=lambda *_: True, on_progress=stop)
        # What was found is found again, and what was refuted stays so.
        if not found[0].is_interrupted:
            break
        starts = [outcome.frontier for outcome in found]
    wanted = [SearchStatus.REFUTED if margin < 0 else SearchStatus.WITNESS for margin in margins]
    assert [outcome.status for outcome in found] == wanted


def test_progress_and_bounds_are_each_goals_own():
    canonical, region, properties, margins = several(3)
    found = run(canonical, region, [Goal(p) for p in properties], accept=False, deadline=Deadline.after(5.0))
    points = np.random.default_rng(0).uniform(region.lower, region.upper, (500, canonical.input_size))
    for goal, outcome, margin in zip(properties, found, margins, strict=True):
        assert goal.margin(canonical.evaluate(points)[-1]).max() <= outcome.best_bound + 1e-9
        assert outcome.best_bound >= margin - 1e-6
        assert (np.diff(goal.margin(canonical.evaluate(outcome.seeds)[-1])) <= 1e-12).all()


def test_one_goal_is_the_same_search():
    canonical, region, goal = tiny_case(13, -0.002)
    (many,) = run(canonical, region, [Goal(goal)])
    one = search(region, goal, None, options=BARE, on_candidates=lambda _: True)
    assert (many.status, many.best_bound, many.nodes_explored) == (one.status, one.best_bound, one.nodes_explored)


def test_goals_that_do_not_fit_are_refused():
    _, region, goal = tiny_case(3)
    for goals in ([], [Goal(goal), Goal(stays_in_top_k(0, 1, 4))]):
        with pytest.raises(InputError, match="goals"):
            search_all(region, goals, on_candidates=lambda *_: True)
