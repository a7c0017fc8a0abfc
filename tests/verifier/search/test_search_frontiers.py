"""Frontiers and covers: covers cover, open parts hold every violation, and a search that is stopped and resumed ends the same."""

import importlib
import pickle
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_networks import tiny_case, tiny_network
from search_points import alternatives, covered, inside, points_in, random_split, random_tree, region_around

from verifier.bounds import BoundMethod, bound_property
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.property import Property
from verifier.search import Descent, SearchOptions, SearchStatus, search
from verifier.search.branching import choose_splits
from verifier.search.domain import Split, domain_of
from verifier.search.frontier import Cover, CoverTree, Frontier, NamedSplit
from verifier.search.naming import Naming
from verifier.search.record import MOST_LEAVES, Record
from verifier.search.skeleton import skeleton_of

# Seeds of cases whose search takes several steps.
BRANCHING = (3, 9, 11, 13, 15, 16, 17, 21, 22, 37)
BARE = SearchOptions(batch=2, root=Descent(iterations=1), step=Descent(iterations=2), leaf_windows=0)
ANYTHING = Property("p", np.eye(3), np.zeros(3), 1)


def run(case, *, options=BARE, subsets=None, accept=True, start=None, stop=None, deadline=None):
    """A search; `stop` is called at every report and at every offer, and may raise."""
    _, region, goal = case

    def on_candidates(points):
        if stop is not None:
            stop()
        return accept

    def on_progress(progress):
        if stop is not None:
            stop()

    return search(
        region,
        goal,
        subsets,
        options=options,
        on_candidates=on_candidates,
        on_progress=on_progress,
        start=start,
        deadline=deadline,
    )


def interrupt_after(moments):
    left = [moments]

    def stop():
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return stop


def leaves_of(cover: Cover):
    return [tree.leaves() for tree in cover.trees]


# Names.


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("method", [BoundMethod.INTERVAL, BoundMethod.CROWN])
def test_names_are_the_networks_own(seed, method):
    canonical = tiny_network(seed)
    generator = np.random.default_rng(seed)
    region = region_around(canonical, generator.uniform(0.3, 0.7, canonical.input_size), 0.3, method)
    built = skeleton_of(region, ANYTHING)
    naming = Naming(region, built)
    points = points_in(region, generator, 50)
    values = canonical.evaluate(points)
    _, candidates = built.values(built.lower.new_tensor(points.T))
    for index, (stage, z) in enumerate(zip(built.stages, candidates, strict=True)):
        slots = stage.gather(z, -np.inf).numpy()
        wanted = alternatives(canonical, stage.node, values)
        for window in range(stage.windows):
            for slot in stage.alive[window].nonzero().squeeze(1).tolist():
                split = Split(index, window, 1 << slot, wins=True)
                (named,) = naming.names([split])
                position = named.alternatives.bit_length() - 1
                assert named.alternatives == 1 << position
                found = wanted[:, named.entry, position]
                np.testing.assert_allclose(slots[window, slot], found, atol=1e-12)
                assert naming.splits((named,)) == (split,)


@given(st.integers(0, 39), st.integers(0, 2**31), st.sampled_from([0.05, 0.15, 0.3]))
@settings(max_examples=60)
def test_proposed_splits_divide_their_part_or_name_its_side(seed, choice, radius):
    canonical = tiny_network(seed)
    generator = np.random.default_rng(choice)
    region = region_around(canonical, generator.uniform(0.2, 0.8, canonical.input_size), radius)
    naming = Naming(region, skeleton_of(region, ANYTHING))
    for leaf in random_tree(canonical, generator, 6).leaves():
        part, named = naming.splits(leaf), random_split(canonical, generator)
        if part is None:
            continue
        found = naming.proposed(part, named)
        halves = [naming.splits((*leaf, side)) for side in (named, named.opposite)]
        on_side = halves[0 if named.wins else 1], halves[1 if named.wins else 0]
        if isinstance(found, Split):
            sides = [naming.splits((*leaf, *naming.names([side]))) for side in (found, found.opposite)]
            assert found.wins
            assert tuple(map(_as_set, sides)) == tuple(map(_as_set, on_side))
            assert None not in sides
        else:
            assert on_side[1 if found else 0] is None
            assert _as_set(on_side[0 if found else 1]) == _as_set(part)


def _as_set(part):
    return None if part is None else frozenset(part)


# Covers.


@given(st.integers(0, 39), st.integers(0, 2**31), st.sampled_from([0.02, 0.1, 0.3]))
@settings(max_examples=60)
def test_a_tree_covers_every_region_before_and_after_translation(seed, choice, radius):
    canonical = tiny_network(seed)
    generator = np.random.default_rng(choice)
    region = region_around(canonical, generator.uniform(0.2, 0.8, canonical.input_size), radius)
    leaves = random_tree(canonical, generator, int(generator.integers(0, 12))).leaves()
    points = points_in(region, generator)
    assert covered(canonical, leaves, points).all()
    naming = Naming(region, skeleton_of(region, ANYTHING))
    translated = [naming.splits(leaf) for leaf in leaves]
    kept = [part for part in translated if part is not None]
    assert covered(canonical, [naming.names(part) for part in kept], points).all()
    for leaf, part in zip(leaves, translated, strict=True):
        if part is not None:
            # In this region a translated part is the part itself.
            same = inside(canonical, leaf, points) == inside(canonical, naming.names(part), points)
            assert same.all()


@given(st.integers(0, 39), st.integers(0, 2**31))
@settings(max_examples=30)
def test_translated_parts_cover_the_skeleton_too(seed, choice):
    canonical = tiny_network(seed)
    generator = np.random.default_rng(choice)
    region = region_around(canonical, generator.uniform(0.2, 0.8, canonical.input_size), 0.2)
    built = skeleton_of(region, ANYTHING)
    naming = Naming(region, built)
    leaves = random_tree(canonical, generator, 8).leaves()
    parts = [part for part in map(naming.splits, leaves) if part is not None]
    domain = domain_of(built, parts)
    inputs = built.lower.new_tensor(points_in(region, generator).T)
    is_covered = np.zeros(inputs.shape[1], dtype=bool)
    for column in range(len(parts)):
        holds = np.ones(inputs.shape[1], dtype=bool)
        for stage, alive, dropped, z in zip(
            built.stages, domain.alive, domain.dropped, built.values(inputs)[1], strict=True
        ):
            assert alive[:, :, column].any(dim=1).all(), "an empty set of alternatives covers nothing"
            slots = stage.gather(z, -np.inf).numpy()
            best = np.where(alive[:, :, column, None], slots, -np.inf).max(axis=1, keepdims=True)
            holds &= ~(dropped[:, :, column, None].numpy() & (slots > best)).any(axis=(0, 1))
        is_covered |= holds
    assert is_covered.all()


@pytest.mark.parametrize("seed", BRANCHING)
def test_what_a_search_leaves_is_a_cover_of_every_region(seed):
    case = canonical, region, _ = tiny_case(seed, -0.002)
    generator = np.random.default_rng(seed)
    points = np.concatenate([points_in(region, generator), generator.uniform(-1, 2, (300, canonical.input_size))])
    split = 0
    for moments in (*range(2, 12, 3), 10**6):
        cover = run(case, stop=interrupt_after(moments)).frontier.cover
        for leaves in leaves_of(cover):
            assert covered(canonical, leaves, points).all()
            split += len(leaves) > 1
    assert split


@pytest.mark.parametrize("seed", BRANCHING)
def test_a_cover_that_has_been_through_several_regions_still_covers_all(seed):
    canonical, region, goal = tiny_case(seed, -0.02)
    generator = np.random.default_rng(seed)
    points = generator.uniform(-1, 2, (500, canonical.input_size))
    centre = 0.5 * (region.lower + region.upper)
    cover = run((canonical, region, goal)).frontier.cover
    assert cover.trees
    for radius in (0.05, 0.35, 0.15, 0.3):
        there = region_around(canonical, centre, radius)
        cover = run((canonical, there, goal), start=cover, accept=False, deadline=Deadline.after(5.0)).frontier.cover
        for leaves in leaves_of(cover):
            assert covered(canonical, leaves, points).all()


@pytest.mark.parametrize("seed", range(16))
def test_starting_from_a_cover_changes_no_verdict(seed):
    # A tree of a smaller region with another property, on regions where the verdict is known exactly.
    canonical, region, goal = tiny_case(seed)
    centre = 0.5 * (region.lower + region.upper)
    smaller = region_around(canonical, centre, 0.2)
    other = Property("other", -goal.coefficients, goal.offsets - 0.1, goal.count)
    covers = [
        run((canonical, smaller, goal), accept=False, deadline=Deadline.after(2.0)).frontier.cover,
        run((canonical, smaller, other), accept=False, stop=interrupt_after(12)).frontier.cover,
    ]
    generator = np.random.default_rng(seed)
    forms = tuple((*row, offset) for row, offset in zip(goal.coefficients.tolist(), goal.offsets.tolist(), strict=True))
    covers.append(Cover(covers[0].network, (random_tree(canonical, generator, 10, forms),)))
    for shift, wanted in ((-0.002, SearchStatus.REFUTED), (0.002, SearchStatus.WITNESS)):
        shifted = Property("shifted", goal.coefficients, goal.offsets + shift, goal.count)
        for cover in covers:
            # As if grown for these forms, so that it is used.
            renamed = tuple(CoverTree(_shifted(tree.forms, shift), tree.nodes) for tree in cover.trees)
            found = run((canonical, region, shifted), start=Cover(cover.network, renamed))
            assert found.status is wanted


def _shifted(forms, shift):
    return tuple((*form[:-1], form[-1] + shift) for form in forms)


def test_a_cover_saves_choosing_splits(monkeypatch):
    from verifier.search import run as module

    chosen = []

    def counting(rows, parameters, splits, candidates, **how):
        chosen.append(len(splits))
        return choose_splits(rows, parameters, splits, candidates, **how)

    monkeypatch.setattr(module, "choose_splits", counting)
    fresh = guided = 0
    for seed in BRANCHING:
        case = tiny_case(seed, -0.002)
        chosen.clear()
        first = run(case)
        fresh += sum(chosen)
        chosen.clear()
        again = run(case, start=first.frontier.cover)
        assert again.status is SearchStatus.REFUTED
        guided += sum(chosen)
    assert guided < 0.2 * fresh


def test_a_cover_of_another_network_is_refused():
    cover = run(tiny_case(3, -0.01)).frontier.cover
    with pytest.raises(InputError, match="another network"):
        run(tiny_case(7, -0.01), start=cover)


def test_a_record_stops_growing_and_still_covers():
    canonical = tiny_network(1)
    generator = np.random.default_rng(0)
    record = Record(most=5)
    waiting = [record.plant(((1.0,),))]
    for _ in range(20):
        waiting.extend(record.grow(waiting.pop(0), random_split(canonical, generator)))
    cover, places = record.cover("network")
    (leaves,) = leaves_of(cover)
    assert len(leaves) == len(places) == 6
    assert covered(canonical, leaves, generator.uniform(-1, 2, (300, canonical.input_size))).all()
    assert MOST_LEAVES > 5


@pytest.mark.parametrize("seed", range(5))
def test_trees_are_read_back_as_they_were(seed):
    tree = random_tree(tiny_network(seed), np.random.default_rng(seed), 3 * seed, ((1.0, 0.0),))
    record = Record()
    nodes = record.replant(tree)
    cover, places = record.cover("network")
    assert cover.trees == (tree,)
    leaves = [position for position, node in enumerate(tree.nodes) if node is None]
    assert sorted(places.values()) == [(0, position) for position in leaves]
    assert all(places[id(nodes[position])] == (0, position) for position in leaves)


@pytest.mark.parametrize("count", [0, 2])
def test_what_is_no_tree_is_refused(count):
    split = NamedSplit(1, 0, 1, wins=True)
    with pytest.raises(InputError, match="no tree"):
        CoverTree((), (None,) * count)
    with pytest.raises(InputError, match="no tree"):
        CoverTree((), (split, None, *(None,) * (count + 1), None))


# Resuming.


@pytest.mark.parametrize("seed", BRANCHING)
@pytest.mark.parametrize("shift", [-0.001, 0.001])
def test_interrupted_again_and_again_it_ends_the_same(seed, shift):
    generator = np.random.default_rng(seed)
    case = tiny_case(seed, shift)
    wanted = run(case)
    start, runs = None, 0
    while True:
        runs += 1
        assert runs < 300
        found = run(case, start=start, stop=interrupt_after(int(generator.integers(0, 6))))
        if not found.is_interrupted:
            break
        assert found.status is not SearchStatus.REFUTED or found.open_nodes == 0
        assert found.best_bound >= shift - 1e-9
        start = pickle.loads(pickle.dumps(found.frontier))
    assert found.status is wanted.status
    assert found.status is (SearchStatus.REFUTED if shift < 0 else SearchStatus.WITNESS)
    if shift < 0:
        assert -0.001 - 1e-6 <= found.best_bound < 0


class CountingClock:
    """Replaces time.monotonic: every look at it takes a second."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("verifier.deadline.time.monotonic", self)

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("seed", range(8))
def test_out_of_time_again_and_again_it_ends_the_same(seed, monkeypatch):
    generator = np.random.default_rng(seed)
    clock = CountingClock(monkeypatch)
    for shift, wanted in ((-0.001, SearchStatus.REFUTED), (0.001, SearchStatus.WITNESS)):
        case, start, runs = tiny_case(seed, shift), None, 0
        while True:
            runs += 1
            assert runs < 500
            found = run(case, start=start, deadline=Deadline(clock.now + int(generator.integers(1, 60))))
            assert found.best_bound >= shift - 1e-9
            if found.status is not SearchStatus.UNDECIDED:
                break
            assert found.open_nodes == len(found.frontier.parts) > 0
            start = found.frontier if runs % 2 else found.frontier.without_parameters()
        assert found.status is wanted


@given(st.integers(0, 60), st.integers(0, 2**31), st.integers(0, 25))
@settings(max_examples=40)
def test_a_violation_always_lies_in_an_open_part(seed, point_seed, moments):
    canonical, region, goal = tiny_case(seed)
    point = np.random.default_rng(point_seed).uniform(region.lower, region.upper)[None]
    forms = goal.forms(canonical.evaluate(point)[-1])[0]
    planted = Property("planted", goal.coefficients, goal.offsets - np.sort(forms)[-goal.count], goal.count)
    violated = {int(form) for form in np.argsort(-forms)[: goal.count]}
    found = run((canonical, region, planted), accept=False, stop=interrupt_after(moments))
    assert any(
        set(part.members) <= violated <= set(part.members) | set(part.rest) and inside(canonical, part.splits, point)[0]
        for part in found.frontier.parts
    )


def test_what_was_refuted_is_not_looked_at_again():
    compared = 0
    for seed in BRANCHING:
        case = canonical, region, _ = tiny_case(seed, -0.001)
        points = points_in(region, np.random.default_rng(seed))
        frontiers, start = [], None
        for _ in range(6):
            start = run(case, start=start, stop=interrupt_after(4)).frontier
            frontiers.append(start)
        for members in {part.members for frontier in frontiers for part in frontier.parts}:
            open_there = []
            for frontier in frontiers:
                parts = [part.splits for part in frontier.parts if part.members in (members, ())]
                open_there.append(covered(canonical, parts, points) if parts else np.zeros(len(points), dtype=bool))
            for before, after in pairwise(open_there):
                assert not (after & ~before).any()
                compared += int((before & ~after).any())
    assert compared > 5


@pytest.mark.parametrize("seed", range(10))
def test_resuming_with_narrower_bounds_gives_the_same_verdict(seed):
    for shift, wanted in ((-0.001, SearchStatus.REFUTED), (0.001, SearchStatus.WITNESS)):
        canonical, region, goal = tiny_case(seed, shift)
        centre, radius = 0.5 * (region.lower + region.upper), 0.5 * (region.upper - region.lower)
        narrower = region_around(canonical, centre, radius, BoundMethod.CROWN)
        regions = [region, narrower] * 100
        start = None
        for step, there in enumerate(regions):
            # The boxes differ by rounding; the question must not.
            same_box = type(there)(canonical, region.lower, region.upper, there.node_bounds, there.unstable_units)
            stop = interrupt_after(3) if step < 20 else None
            found = run((canonical, same_box, goal), start=start, stop=stop)
            if not found.is_interrupted:
                break
            start = found.frontier
        assert found.status is wanted


def test_narrower_bounds_are_tried_on_open_parts_before_they_are_split():
    at_once = 0
    for seed, shift in product(range(20), (-0.05, -0.2)):
        canonical, region, goal = tiny_case(seed, shift)
        centre, radius = 0.5 * (region.lower + region.upper), 0.5 * (region.upper - region.lower)
        bounds = region_around(canonical, centre, radius, BoundMethod.CROWN)
        narrower = type(region)(canonical, region.lower, region.upper, bounds.node_bounds, bounds.unstable_units)
        frontier = run((canonical, region, goal), stop=interrupt_after(3)).frontier
        if not any(part.is_bounded for part in frontier.parts):
            continue
        found = run((canonical, narrower, goal), start=frontier)
        assert found.status is SearchStatus.REFUTED
        assert found.nodes_explored >= len(frontier.parts)
        at_once += found.nodes_explored == len(frontier.parts)
        unchanged = run((canonical, region, goal), start=frontier, stop=interrupt_after(0))
        assert sum(part.is_bounded for part in unchanged.frontier.parts) == sum(
            part.is_bounded for part in frontier.parts
        )
    assert at_once


def test_a_frontier_resumes_no_other_question():
    canonical, region, goal = tiny_case(5, -0.001)
    frontier = run((canonical, region, goal), stop=interrupt_after(3)).frontier
    centre = 0.5 * (region.lower + region.upper)
    with pytest.raises(InputError, match="box"):
        run((canonical, region_around(canonical, centre, 0.29), goal), start=frontier)
    other = Property("other", goal.coefficients, goal.offsets + 1e-6, goal.count)
    with pytest.raises(InputError, match="property"):
        run((canonical, region, other), start=frontier)
    other = Property("other", goal.coefficients, goal.offsets, 3)
    with pytest.raises(InputError, match="property"):
        run((canonical, region, other), start=frontier)
    with pytest.raises(InputError, match="network"):
        run(tiny_case(9, -0.001), start=frontier)


def test_a_frontier_answers_for_the_subsets_it_was_asked_about():
    case = tiny_case(7, -0.01)
    whole = run(case, stop=interrupt_after(1)).frontier
    pair = run(case, subsets=[(1, 0)], stop=interrupt_after(1)).frontier
    assert run(case, subsets=[(0, 1), (1, 2)], start=whole).status is SearchStatus.REFUTED
    assert run(case, subsets=[(0, 1)], start=pair).status is SearchStatus.REFUTED
    for subsets in (None, [(0, 2)], [(0, 1), (0, 2)]):
        with pytest.raises(InputError, match="subsets"):
            run(case, subsets=subsets, start=pair)


def test_only_open_parts_of_the_subsets_asked_about_are_resumed():
    case = tiny_case(21, 0.05)
    pairs = [(0, 1), (0, 2), (1, 2)]
    stopped = run(case, subsets=pairs, accept=False, stop=interrupt_after(8)).frontier
    assert len({part.members for part in stopped.parts}) > 1
    for pair in pairs:
        kept = stopped.asked(stopped.question, (pair,))
        assert {part.members for part in kept.parts} <= {pair}
        assert len(kept.parts) == sum(part.members == pair for part in stopped.parts)


def test_what_earlier_refutations_rest_on_is_not_forgotten():
    options = SearchOptions(batch=1, root=Descent(iterations=0), step=Descent(iterations=0), leaf_windows=50)
    claimed = 0
    for seed in range(12):
        case, start, found = tiny_case(seed, -0.002), None, None
        for _ in range(200):
            found = run(case, options=options, start=start, stop=interrupt_after(2))
            start = found.frontier
            if not found.is_interrupted:
                break
            options = BARE  # The solver has had its turn in the first run only.
        assert found.status is SearchStatus.REFUTED
        claimed += TrustedClaim.MIP_SOLVER_STATUS in found.trusted and " 0 mixed" in found.detail
        options = SearchOptions(batch=1, root=Descent(iterations=0), step=Descent(iterations=0), leaf_windows=50)
    assert claimed


@pytest.mark.parametrize("seed", range(6))
def test_listed_subsets_refuted_by_other_means_are_left_out_of_a_resumed_search(seed):
    canonical, region, goal = tiny_case(2 * seed + 1, -0.01)
    frontier = run((canonical, region, goal), stop=interrupt_after(2)).frontier
    bound = bound_property(region, goal)
    if bound.open_subsets:
        assert run((canonical, region, goal), subsets=bound.open_subsets, start=frontier).status is SearchStatus.REFUTED


def test_a_finished_search_resumes_to_nothing():
    case = tiny_case(4, -0.002)
    done = run(case)
    again = run(case, start=done.frontier)
    assert (again.status, again.nodes_explored) == (SearchStatus.REFUTED, 0)
    assert again.best_bound == done.best_bound
    assert isinstance(done.frontier, Frontier)


def test_interrupted_before_it_began_it_hands_back_what_it_was_given(monkeypatch):
    case = tiny_case(5, -0.001)
    before = run(case, stop=interrupt_after(3)).frontier

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("verifier.search.search"), "skeleton_of", interrupt)
    found = run(case, start=before)
    assert found.is_interrupted
    assert found.frontier is before
    assert found.open_nodes == len(before.parts)
    assert found.best_bound == before.best_bound
    fresh = run(case)
    assert (fresh.best_bound, fresh.open_nodes, fresh.status) == (np.inf, 1, SearchStatus.UNDECIDED)
