"""Lemmas behind the search: splits cover, multipliers are sound, gradients and gaps are exact, programs bound what they say."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from search_networks import tiny_case, tiny_network

from verifier.bounds import BoundMethod, BoundOptions, analyse_region
from verifier.canonical import Affine, CanonicalNetwork, DenseMap, Max
from verifier.deadline import Deadline
from verifier.property import Property
from verifier.region import Box
from verifier.search.branching import candidate_splits, choose_splits
from verifier.search.climbing import climb, least_form
from verifier.search.domain import Split, domain_of
from verifier.search.leaves import solve_leaf
from verifier.search.options import Descent
from verifier.search.planes import onto_simplex
from verifier.search.rows import Rows, minimise
from verifier.search.skeleton import Skeleton, skeleton_of
from verifier.search.tree import Subproblem


def skeleton(seed: int) -> tuple[Skeleton, Property, CanonicalNetwork, object]:
    canonical, region, goal = tiny_case(seed)
    return skeleton_of(region, goal), goal, canonical, region


def random_splits(built: Skeleton, generator: np.random.Generator, count: int) -> tuple[Split, ...]:
    """Splits of windows that still have several alternatives when their turn comes."""
    splits: tuple[Split, ...] = ()
    for _ in range(count):
        domain = domain_of(built, [splits])
        open_windows = [
            (index, int(window))
            for index, alive in enumerate(domain.alive)
            for window in (alive[:, :, 0].sum(1) > 1).nonzero()
        ]
        if not open_windows:
            break
        stage, window = open_windows[generator.integers(len(open_windows))]
        alive = domain.alive[stage][window, :, 0].nonzero().squeeze(1).tolist()
        size = int(generator.integers(1, len(alive)))
        chosen = generator.choice(alive, size, replace=False)
        splits = (*splits, Split(stage, window, sum(1 << int(slot) for slot in chosen), bool(generator.integers(2))))
    return splits


def sampled(built: Skeleton, generator: np.random.Generator, count: int = 400) -> torch.Tensor:
    lower, upper = built.lower.numpy(), built.upper.numpy()
    return torch.from_numpy(generator.uniform(lower, upper, (built.inputs, count)))


def satisfies(built: Skeleton, splits: tuple[Split, ...], inputs: torch.Tensor) -> torch.Tensor:
    """Which points (bool (batch,)) a subproblem contains: dropped alternatives do not exceed the others."""
    domain = domain_of(built, [splits])
    inside = torch.ones(inputs.shape[1], dtype=torch.bool)
    for stage, alive, dropped, z in zip(
        built.stages, domain.alive, domain.dropped, built.values(inputs)[1], strict=True
    ):
        slots = stage.gather(z, -torch.inf)
        best = torch.where(alive, slots, -torch.inf).amax(1, keepdim=True)
        inside &= ~(dropped & (slots > best)).any(1).any(0)
    return inside


def random_parameters(rows: Rows, generator: np.random.Generator) -> torch.Tensor:
    matrix = torch.from_numpy(generator.normal(0.5, 1.0, (rows.layout.size, rows.batch)))
    rows.project(matrix)
    return matrix


@pytest.mark.parametrize("seed", range(16))
def test_a_skeleton_computes_the_forms(seed):
    built, goal, canonical, _ = skeleton(seed)
    inputs = sampled(built, np.random.default_rng(seed))
    forms, _ = built.values(inputs)
    expected = goal.forms(canonical.evaluate(built.points(inputs))[-1])
    assert forms.T.numpy() == pytest.approx(expected, abs=1e-12)


def test_fixed_inputs_and_decided_windows_leave_no_column():
    canonical = tiny_network(2)
    middle = np.full(2, 0.5)
    region = analyse_region(canonical, Box(middle, middle + np.array([0.0, 1e-6])))
    built = skeleton_of(region, Property("p", np.eye(3), np.zeros(3), 1))
    assert built.inputs == 1
    assert built.undecided <= 1


@given(st.integers(0, 39), st.integers(0, 2**31))
@settings(max_examples=30)
def test_both_sides_of_a_split_cover_it(seed, choice):
    built, *_ = skeleton(seed)
    generator = np.random.default_rng(choice)
    splits = random_splits(built, generator, int(generator.integers(1, 5)))
    assume(splits)
    parent, last = splits[:-1], splits[-1]
    inputs = sampled(built, generator)
    inside = satisfies(built, parent, inputs)
    halves = [satisfies(built, (*parent, side), inputs) for side in (last, last.opposite)]
    assert ((halves[0] | halves[1]) == inside).all()


@given(st.integers(0, 39), st.integers(0, 2**31))
@settings(max_examples=40)
def test_every_bound_contains_the_points_of_its_subproblem(seed, choice):
    built, goal, *_ = skeleton(seed)
    generator = np.random.default_rng(choice)
    splits = random_splits(built, generator, int(generator.integers(0, 5)))
    members = tuple(sorted(generator.choice(3, goal.count, replace=False).tolist()))
    rows = Rows.of(built, [members] * 3, [splits] * 3)
    inputs = sampled(built, generator)
    inside = inputs[:, satisfies(built, splits, inputs)]
    if not inside.shape[1]:
        return
    assert not rows.infeasible.any()
    reached = float(least_form(built, inside, torch.tensor(members).unsqueeze(1).expand(-1, inside.shape[1])).max())
    matrix = random_parameters(rows, generator)
    assert float(rows.walk(matrix).bounds.min()) >= reached - 1e-9
    found = minimise(rows, matrix, descent=Descent(iterations=15), threshold=-np.inf)
    assert (found.bounds <= rows.walk(matrix).bounds + 1e-12).all()
    assert float(found.bounds.min()) >= reached - 1e-9
    assert solve_leaf(built, members, splits, Deadline()).bound >= reached - 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_the_gradient_is_that_of_finite_differences(seed):
    built, goal, *_ = skeleton(seed)
    generator = np.random.default_rng(seed)
    rows = Rows.of(built, [tuple(range(goal.count))], [random_splits(built, generator, 3)])
    matrix = random_parameters(rows, generator)
    direction = rows.walk(matrix).gradient()
    # Tangent directions only: others leave the simplices, where the gradient was centred.
    step = 1e-7
    ahead, behind = (rows.walk(matrix + sign * step * direction).bounds for sign in (1, -1))
    measured = float((ahead - behind) / (2 * step))
    assert measured == pytest.approx(float((direction**2).sum()), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_gaps_telescope_to_the_bound(seed):
    built, goal, *_ = skeleton(seed)
    members = tuple(range(goal.count))
    rows = Rows.of(built, [members], [()])
    matrix = random_parameters(rows, np.random.default_rng(seed))
    walk = rows.walk(matrix)
    total = sum(float(gap.sum()) for gap, _ in walk.gaps())
    forms, _ = built.values(walk.corners)
    value = float((matrix[: goal.count] * forms[list(members)]).sum())
    assert total == pytest.approx(float(walk.bounds) - value, abs=1e-9)
    assert all((gap >= -1e-12).all() for gap, _ in walk.gaps())


@pytest.mark.parametrize("seed", range(20))
def test_a_fully_split_subproblem_is_exact(seed):
    built, goal, *_ = skeleton(seed)
    generator = np.random.default_rng(seed)
    inputs = sampled(built, generator, 1)
    splits: tuple[Split, ...] = ()
    for index, (stage, z) in enumerate(zip(built.stages, built.values(inputs)[1], strict=True)):
        slots = torch.where(stage.alive.unsqueeze(-1), stage.gather(z, -torch.inf), -torch.inf)
        winners = slots[:, :, 0].argmax(1).tolist()
        splits = (*splits, *(Split(index, window, 1 << slot, wins=True) for window, slot in enumerate(winners)))
    members = tuple(range(goal.count))
    leaf = solve_leaf(built, members, splits, Deadline())
    assert leaf.split is None
    reached = least_form(built, torch.from_numpy(leaf.inputs).unsqueeze(1), torch.tensor(members).unsqueeze(1))
    assert leaf.bound == pytest.approx(float(reached), abs=1e-6)


def test_contradictory_splits_are_infeasible_and_their_program_says_so():
    # max(x, x + 0.5): the first candidate never wins, but its interval [0, 1] overlaps [0.5, 1.5].
    canonical = CanonicalNetwork(
        1,
        (
            Affine(((DenseMap(np.array([[1.0], [1.0]])), 0),), np.array([0.0, 0.5])),
            Max(1, np.array([[0, 1]]), has_floor=False),
            Affine(((DenseMap(np.array([[1.0]])), 2),), np.zeros(1)),
        ),
    )
    region = analyse_region(canonical, Box(np.zeros(1), np.ones(1)), options=BoundOptions(method=BoundMethod.INTERVAL))
    built = skeleton_of(region, Property("p", np.eye(1), np.zeros(1), 1))
    stage = built.stages[0]
    larger = stage.constants[stage.index[0], 0].argmax()
    loses = Split(0, 0, 1 << int(larger), wins=False)
    assert solve_leaf(built, (0,), (loses,), Deadline()).bound < -100
    assert solve_leaf(built, (0,), (loses.opposite,), Deadline()).bound == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_chosen_splits_are_among_the_candidates(seed):
    built, goal, *_ = skeleton(seed)
    rows = Rows.of(built, [tuple(range(goal.count))] * 2, [()] * 2)
    matrix = rows.first_parameters()
    candidates, gaps = candidate_splits(rows.walk(matrix), 3)
    assert ((gaps > 0) == torch.tensor([bool(listed) for listed in candidates])).all()
    if not all(candidates):
        return
    for deadline in (Deadline(), Deadline(at=0.0)):
        chosen = choose_splits(rows, matrix, [(), ()], candidates, chunk=4, deadline=deadline)
        assert all(split in listed for split, listed in zip(chosen, candidates, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_climbing_never_loses(seed):
    built, goal, *_ = skeleton(seed)
    inputs = sampled(built, np.random.default_rng(seed), 20)
    members = torch.arange(goal.count).unsqueeze(1).expand(-1, 20).contiguous()
    top = climb(built, inputs, members, rounds=4)
    assert (least_form(built, top, members) >= least_form(built, inputs, members)).all()
    assert ((top >= built.lower) & (top <= built.upper)).all()


def test_projection_onto_the_simplex():
    weights = torch.tensor([[0.9, 2.0], [0.4, -1.0], [5.0, 0.5]])
    alive = torch.tensor([[True, True], [True, True], [False, True]])
    expected = torch.tensor([[0.75, 1.0], [0.25, 0.0], [0.0, 0.0]])
    assert torch.allclose(onto_simplex(weights, alive, dim=0), expected)


def test_completing_members_covers_every_subset_once():
    first = Subproblem((), (0, 2, 3, 5), (), 1.0)
    pairs = [pair.members for single in first.completed(2) for pair in single.completed(2)]
    assert sorted(pairs) == [(0, 2), (0, 3), (0, 5), (2, 3), (2, 5), (3, 5)]
    assert all(not pair.rest for single in first.completed(2) for pair in single.completed(2))
