"""The search's bookkeeping: the queue, batches as rows, how much at a time, which solver."""

import heapq
import time

import numpy as np
import pytest
import torch
from search_networks import tiny_case

from verifier.deadline import Deadline
from verifier.errors import InputError, SolverUnavailableError
from verifier.milp.solvers.answer import SolveStatus, without_solution
from verifier.milp.solvers.highs import HighsSolver
from verifier.search import Descent, Goal, SearchOptions, SearchStatus, search
from verifier.search.domain import Split
from verifier.search.goals import FormBlock
from verifier.search.leaf_solver import LeafSolver, Settlement, leaf_solver
from verifier.search.pace import STEP_SECONDS, Pace, rows_in
from verifier.search.packing import packed, rows_of, unpacked
from verifier.search.rows import Layout, minimise
from verifier.search.skeleton import skeleton_of
from verifier.search.tree import OpenSubproblems, Subproblem

PLENTY = float("inf")


def open_ones(bounds, members=(0, 1), size=1, splits=()):
    return [Subproblem(members, (), splits, bound, True, torch.zeros(size)) for bound in bounds]


# The queue.


def test_fewest_members_then_the_largest_bound_come_first():
    queue = OpenSubproblems(PLENTY, PLENTY)
    queue.extend(open_ones((0.1, 0.5, 0.3)))
    queue.extend([Subproblem((0,), (1,), (), 0.2)])
    assert queue.largest_bound() == 0.5
    assert [queue.lend().bound for _ in range(4)] == [0.2, 0.5, 0.3, 0.1]
    assert queue.lend() is None


def test_what_is_lent_stays_in_the_queues_keeping_until_it_is_settled():
    queue = OpenSubproblems(PLENTY, PLENTY)
    queue.extend(open_ones((0.4, 0.3, 0.2)))
    first, second = queue.lend(), queue.lend()
    assert len(queue) == 3
    assert sorted(s.bound for s in queue) == [0.2, 0.3, 0.4]
    assert queue.largest_bound() == 0.4
    queue.drop(first)
    assert queue.largest_bound() == 0.3
    queue.settle(open_ones((0.25, 0.1)))
    assert sorted(s.bound for s in queue) == [0.1, 0.2, 0.25]
    assert second.bound == 0.3


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interruption_while_lending_loses_nothing(monkeypatch, moment):
    queue = OpenSubproblems(PLENTY, PLENTY)
    queue.extend(open_ones((0.4, 0.3)))
    original = heapq.heappop

    def interrupted(heap):
        if moment == "after":
            original(heap)
        raise KeyboardInterrupt

    monkeypatch.setattr(heapq, "heappop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.lend()
    assert {s.bound for s in queue} == {0.3, 0.4}


def test_parameters_are_forgotten_where_there_is_no_room():
    queue = OpenSubproblems(PLENTY, 2 * 4 * 10)
    queue.extend(open_ones((0.1, 0.5, 0.3), size=10))
    assert [queue.lend().start is None for _ in range(3)] == [False, True, False]
    queue.settle(open_ones((0.1,), size=10))
    assert queue.lend().start is not None


def test_beyond_its_memory_the_queue_goes_deep():
    splits = tuple(Split(0, window, 1, wins=True) for window in range(100))
    roomy, tight = OpenSubproblems(PLENTY, PLENTY), OpenSubproblems(8_000, PLENTY)
    most = {}
    for queue in (roomy, tight):
        queue.extend(open_ones((1.0,)))
        for _ in range(60):
            parent = queue.lend()
            depth = len(parent.splits)
            queue.settle(
                open_ones((parent.bound - 0.01, parent.bound - 0.02), splits=splits[: depth + 1]) if depth < 9 else []
            )
        most[queue] = len(queue)
    assert most[tight] < 20 < 40 < most[roomy]
    tight_left = [s.bound for s in tight]
    heap_order = []
    while (lent := tight.lend()) is not None:
        heap_order.append(lent.bound)
    assert sorted(heap_order) == sorted(tight_left)


# Batches as rows.


@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_padding_members_changes_no_bound(seed):
    _, region, goal = tiny_case(seed)
    block = FormBlock.of([Goal(goal)])
    built = skeleton_of(region, block.property)
    generator = np.random.default_rng(seed)
    mixed = []
    for members in ((0,), (2, 1), (0, 1, 2), (1,)):
        alone = Subproblem(members, (), (), np.inf)
        rows = rows_of(built, block, [alone])
        matrix = torch.from_numpy(generator.normal(0.5, 1.0, (rows.layout.size, 1))).float().double()
        rows.project(matrix)
        (start,) = packed(rows, [alone], matrix)
        assert start.shape == (rows.layout.size,)
        mixed.append((alone.bounded(np.inf, start), rows))
    together = rows_of(built, block, [subproblem for subproblem, _ in mixed])
    parameters = unpacked(together, [subproblem for subproblem, _ in mixed])
    bounds = together.walk(parameters).bounds
    for column, (subproblem, rows) in enumerate(mixed):
        expected = rows.walk(unpacked(rows, [subproblem])).bounds
        assert float(bounds[column]) == pytest.approx(float(expected), abs=1e-6)
    back = packed(together, [subproblem for subproblem, _ in mixed], parameters)
    for (subproblem, _), start in zip(mixed, back, strict=True):
        assert torch.allclose(start, subproblem.start, atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_optimised_padded_bounds_hold_for_the_members_alone(seed):
    _, region, goal = tiny_case(seed)
    block = FormBlock.of([Goal(goal)])
    built = skeleton_of(region, block.property)
    subproblems = [Subproblem(members, (), (), np.inf) for members in ((0,), (0, 1), (0, 1, 2))]
    rows = rows_of(built, block, subproblems)
    found = minimise(rows, unpacked(rows, subproblems), descent=Descent(iterations=20), threshold=-np.inf)
    inputs = torch.from_numpy(
        np.random.default_rng(seed).uniform(region.lower, region.upper, (500, len(region.lower))).T
    )
    forms, _ = built.values(inputs)
    starts = packed(rows, subproblems, found.parameters)
    for subproblem, bound, start in zip(subproblems, found.bounds.tolist(), starts, strict=True):
        reached = float(forms[list(subproblem.members)].amin(dim=0).max())
        assert bound >= reached - 1e-9
        # The parameters handed on give about the same bound by themselves.
        bounded = subproblem.bounded(bound, start)
        alone = rows_of(built, block, [bounded])
        assert float(alone.walk(unpacked(alone, [bounded])).bounds) <= bound + 1e-3


# How much at a time.


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("verifier.deadline.time.monotonic", lambda: self.now)

    def spend(self, pace, amount, seconds, weight=1.0):
        started, self.now = self.now, self.now + seconds
        pace.took(started, amount, weight)


def test_the_pace_follows_what_work_costs(monkeypatch):
    clock, pace = Clock(monkeypatch), Pace(8, 64)
    target = 0.5 * STEP_SECONDS
    assert pace.amount(Deadline()) == 8
    clock.spend(pace, 8, 8 * target)
    assert pace.amount(Deadline()) == 1
    clock.spend(pace, 1, target / 10)
    assert pace.amount(Deadline()) == 4  # no more than four times as much as before
    clock.spend(pace, 4, 4 * target / 10.5)
    assert pace.amount(Deadline()) == 10
    assert pace.amount(Deadline(), weight=5.0) == 2
    assert pace.amount(Deadline(clock.now + target / 5)) == 2
    assert pace.amount(Deadline(clock.now - 1)) == 1
    clock.spend(pace, 60, 1e-9)
    assert pace.amount(Deadline()) == 64


def test_rows_fit_into_memory():
    _, region, goal = tiny_case(5)
    built = skeleton_of(region, goal)
    layout = Layout.of(built, 2)
    assert rows_in(1.0, built, layout) == 1
    assert rows_in(2e6, built, layout) == pytest.approx(2 * rows_in(1e6, built, layout), abs=1)
    assert rows_in(1e6, built, layout) * layout.size * 8 < 1e6


# The solver of small subproblems.


def test_the_named_solver_is_asked(monkeypatch):
    asked = []

    class Recording:
        label = "recording"

        def solve(self, model, *, target, deadline):
            asked.append(model)
            return HighsSolver().solve(model, target=target, deadline=deadline)

    monkeypatch.setattr("verifier.search.leaf_solver.pick_solver", lambda name: {"cbc": Recording()}[name])
    for solver, is_asked in (("auto", False), ("cbc", True)):
        options = SearchOptions(root=Descent(iterations=0), step=Descent(iterations=0), leaf_windows=50, solver=solver)
        _, region, goal = tiny_case(16, -0.002)
        found = search(region, goal, None, options=options, on_candidates=lambda _: True)
        assert found.status is SearchStatus.REFUTED
        assert bool(asked) is is_asked


def test_cbc_settles_leaves_as_highs_does():
    refuted = 0
    for seed in range(6):
        options = SearchOptions(root=Descent(iterations=0), step=Descent(iterations=0), leaf_windows=50, solver="cbc")
        for shift, wanted in ((-0.002, SearchStatus.REFUTED), (0.002, SearchStatus.WITNESS)):
            _, region, goal = tiny_case(seed, shift)
            found = search(region, goal, None, options=options, on_candidates=lambda _: True)
            assert found.status is wanted
            refuted += " 0 mixed" not in found.detail
    assert refuted


def test_an_unknown_solver_is_refused():
    _, region, goal = tiny_case(0)
    with pytest.raises(InputError, match="nonsense"):
        search(region, goal, None, options=SearchOptions(solver="nonsense"), on_candidates=lambda _: True)


def test_a_solver_that_declines_a_model_is_asked_about_smaller_ones_only():
    class Declining:
        label = "declining"

        def solve(self, model, *, target, deadline):
            raise SolverUnavailableError("too large for its licence")

    _, region, goal = tiny_case(1, -0.002)
    held = LeafSolver(Declining(), 50)
    settled = held.settle(skeleton_of(region, goal), (0, 1), (), 6, Deadline())
    assert settled == (Settlement.OPEN, None)
    assert held.limit == 5
    assert isinstance(leaf_solver("auto"), HighsSolver)


@pytest.mark.parametrize(("status", "limit"), [(SolveStatus.TIME_LIMIT, 50), (SolveStatus.UNKNOWN, 4)])
def test_a_solver_that_waited_for_a_processor_is_asked_about_as_large_ones_again(status, limit):
    class Waiting:
        label = "waiting"

        def solve(self, model, *, target, deadline):
            time.sleep(0.5)
            return without_solution(self.label, status, "", np.inf)

    _, region, goal = tiny_case(1, -0.002)
    held = LeafSolver(Waiting(), 50)
    assert held.settle(skeleton_of(region, goal), (0, 1), (), 6, Deadline()) == (Settlement.OPEN, None)
    assert held.limit == limit
