from functools import lru_cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from milp_examples import (
    brute_force_supremum,
    max_network,
    random_property,
    region_of,
    relu_network,
    sampled_margins,
    shifted,
)

from verifier.bounds import BoundOptions, analyse_region, bound_property
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, InputError, SolverUnavailableError
from verifier.milp import (
    MilpOptions,
    MilpStatus,
    SolveResult,
    SolveStatus,
    available_solvers,
    decide,
    pick_solver,
    tighten_region,
)
from verifier.property import keeps_thresholds, stays_in_top_k, stays_out_of_top_k
from verifier.region import Box

FOUND = [info.name.value for info in available_solvers() if info.is_available]
NETWORKS = [
    lambda rng: relu_network(rng, labels=4),
    lambda rng: max_network(rng, labels=4),
    lambda rng: max_network(rng, labels=4, has_floor=False),
    lambda rng: relu_network(rng, hidden=(3, 2), labels=4),
]


def problem(seed, kind=0):
    rng = np.random.default_rng(seed)
    network = NETWORKS[kind](rng)
    lower = rng.uniform(0, 0.4, 3)
    return region_of(network, lower, lower + rng.uniform(0.1, 0.6, 3)), rng


def supremum(region, prop):
    return brute_force_supremum(region.canonical, region.lower, region.upper, prop)


def margin(region, prop, point):
    return float(prop.margin(region.canonical.evaluate(point[None])[-1])[0])


def run(region, prop, open_subsets=None, *, accept=None, deadline=None, **choices):
    solver = choices.pop("using", None)
    on_seeds = choices.pop("on_seeds", None)
    return decide(
        region,
        prop,
        open_subsets,
        options=MilpOptions(**choices),
        on_witness=accept or (lambda point: margin(region, prop, point) > 0),
        deadline=deadline or Deadline(),
        solver=solver,
        on_seeds=on_seeds,
    )


@lru_cache
def undecided_by_lp():
    """A region and property whose supremum is -0.003, which neither forms' bounds nor linear programs refute."""
    for seed in range(200):
        region, _ = problem(seed, 3)
        prop = stays_in_top_k(0, 2, 4)
        prop = shifted(prop, -supremum(region, prop) - 0.003)
        silent = Scripted([SolveStatus.UNKNOWN])
        if run(region, prop, tightening_seconds=0.0, using=silent).status is MilpStatus.UNDECIDED:
            return region, prop
    raise RuntimeError("no such problem among the seeds")


class Scripted:
    """A solver that answers what it is told, model after model; the last answer repeats."""

    label = "Scripted 1.0"

    def __init__(self, answers, solution=None, bound=np.inf):
        self.answers, self.solution, self.bound, self.models = list(answers), solution, bound, []

    def solve(self, model, *, target, deadline):
        self.models.append(model)
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        solution = None if self.solution is None else self.solution(model)
        objective = -np.inf if solution is None else 0.5
        return SolveResult(self.label, status, solution, objective, self.bound, "scripted")


# Against brute force.


@pytest.mark.parametrize("solver", FOUND)
@pytest.mark.parametrize("pipeline", [True, False])
@pytest.mark.parametrize("kind", range(len(NETWORKS)))
def test_decisions_are_those_of_brute_force(kind, pipeline, solver):
    region, _ = problem(kind + 20, kind)
    for prop in (stays_in_top_k(0, 2, 4), stays_out_of_top_k(1, 2, 4)):
        truth = supremum(region, prop)
        robust = run(region, shifted(prop, -truth - 0.002), solver=solver, pipeline=pipeline)
        assert robust.status is MilpStatus.REFUTED
        assert robust.best_bound < 0
        assert robust.witness is None
        broken = shifted(prop, -truth + 0.002)
        found = run(region, broken, solver=solver, pipeline=pipeline)
        assert found.status is MilpStatus.WITNESS
        assert margin(region, broken, found.witness) > 0
        assert (found.witness >= region.lower).all()
        assert (found.witness <= region.upper).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_count_is_decided_right(count):
    """1, k and C - k of the forms, with offsets."""
    for seed in range(4):
        region, rng = problem(seed + 50, seed)
        prop = random_property(rng, count, labels=4)
        truth = supremum(region, prop)
        for pipeline in (True, False):
            assert run(region, shifted(prop, -truth - 0.002), pipeline=pipeline).status is MilpStatus.REFUTED
            assert run(region, shifted(prop, -truth + 0.002), pipeline=pipeline).status is MilpStatus.WITNESS


def test_thresholds_are_decided_right():
    region, _ = problem(3)
    prop = keeps_thresholds([1, -1, 0, 1], [0.1, 0.2, 0.0, -0.3], flips=1)
    truth = supremum(region, prop)
    assert run(region, shifted(prop, -truth - 0.002)).status is MilpStatus.REFUTED
    assert run(region, shifted(prop, -truth + 0.002)).status is MilpStatus.WITNESS


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), kind=st.integers(0, 3), gap=st.sampled_from([-0.05, -1e-3, 1e-3, 0.05]))
def test_pipeline_and_single_model_agree(seed, kind, gap):
    region, rng = problem(seed, kind)
    prop = random_property(rng, 2, labels=4)
    _, margins = sampled_margins(region.canonical, region.lower, region.upper, prop, rng, 200)
    prop = shifted(prop, gap - margins.max())
    answers = {run(region, prop, pipeline=pipeline).status for pipeline in (True, False)}
    assert answers in ({MilpStatus.REFUTED}, {MilpStatus.WITNESS})


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    kind=st.integers(0, 3),
    count=st.integers(1, 3),
    excess=st.sampled_from([1e-9, 1e-6, 1e-3, 0.1]),
    pipeline=st.booleans(),
)
def test_planted_counterexamples_are_never_refuted(seed, kind, count, excess, pipeline):
    region, rng = problem(seed, kind)
    prop = random_property(rng, count, labels=4)
    _, margins = sampled_margins(region.canonical, region.lower, region.upper, prop, rng, 100)
    outcome = run(region, shifted(prop, excess - margins.max()), pipeline=pipeline)
    assert outcome.status is not MilpStatus.REFUTED
    assert outcome.best_bound >= 0


# What the caller hands over.


def test_only_the_open_subsets_are_settled():
    region, _ = problem(5, 1)
    prop = stays_in_top_k(0, 2, 4)
    subsets = list(combinations(range(3), 2))
    values = [supremum(region, shifted(restricted(prop, subset), 0.0)) for subset in subsets]
    order = np.argsort(values)
    gap = 0.5 * (values[order[-1]] + values[order[-2]])
    if values[order[-1]] - values[order[-2]] < 1e-3:
        pytest.skip("the two largest subsets tie here")
    moved = shifted(prop, -gap)
    rest = [subsets[i] for i in order[:-1]]
    assert run(region, moved, rest).status is MilpStatus.REFUTED
    assert run(region, moved, [subsets[order[-1]]]).status is MilpStatus.WITNESS


def restricted(prop, subset):
    members = list(subset)
    return type(prop)(prop.name, prop.coefficients[members], prop.offsets[members], len(members))


def test_no_listed_subset_never_means_proved():
    region, _ = problem(5, 1)
    prop = stays_in_top_k(0, 2, 4)
    broken = shifted(prop, -supremum(region, prop) + 0.1)
    for nothing in (None, [], ()):
        assert run(region, broken, nothing).status is MilpStatus.WITNESS


def test_nothing_open_needs_no_solver():
    region, _ = problem(5)
    prop = shifted(stays_in_top_k(0, 2, 4), -100.0)
    outcome = run(region, prop, using=Scripted([SolveStatus.ERROR]))
    assert outcome.status is MilpStatus.REFUTED
    assert outcome.solver == ""
    assert -100.0 < outcome.best_bound < 0
    assert outcome.trusted == (TrustedClaim.FLOAT64_ROUNDING,)


def test_too_many_subsets_go_into_one_model():
    for seed in range(100):
        region, _ = problem(seed, 3)
        prop = stays_in_top_k(0, 1, 4)
        prop = shifted(prop, -supremum(region, prop) - 0.003)
        solver = Scripted([SolveStatus.UNKNOWN])
        outcome = run(region, prop, subset_cap=1, tightening_seconds=0.0, using=solver)
        if solver.models and "z0" in solver.models[0].column_names:
            assert outcome.status is MilpStatus.UNDECIDED
            assert run(region, prop, subset_cap=1).status is MilpStatus.REFUTED
            return
    raise AssertionError("no seed left several forms open")


def test_bounds_of_the_real_engine_are_read_as_meant():
    rng = np.random.default_rng(2)
    network = max_network(rng, labels=4)
    region = analyse_region(network, Box(np.full(3, 0.2), np.full(3, 0.7)), deadline=Deadline())
    prop = stays_in_top_k(1, 2, 4)
    truth = brute_force_supremum(network, region.lower, region.upper, prop)
    for gap, expected in ((-0.002, MilpStatus.REFUTED), (0.002, MilpStatus.WITNESS)):
        moved = shifted(prop, gap - truth)
        bound = bound_property(region, moved, options=BoundOptions(), deadline=Deadline())
        if not bound.is_robust:
            assert run(region, moved, bound.open_subsets).status is expected


def test_tightening_a_region_once_serves_every_property():
    region, prop = undecided_by_lp()
    tight = tighten_region(region, Deadline())
    before, after = region.node_bounds, tight.node_bounds
    assert (after.upper[3] - after.lower[3]).sum() < (before.upper[3] - before.lower[3]).sum()
    assert run(tight, prop, tightening_seconds=0.0).status is MilpStatus.REFUTED
    unchanged = tighten_region(region, Deadline.after(0.0))
    assert (unchanged.node_bounds.upper[3] == before.upper[3]).all()


def test_optima_are_returned_as_seeds_and_offered_to_the_attack():
    region, prop = undecided_by_lp()
    offered = []
    outcome = run(region, prop, tightening_seconds=0.0, on_seeds=offered.append)
    assert outcome.status is MilpStatus.REFUTED
    assert len(offered) == 1
    assert offered[0].shape[1] == 3
    margins = [margin(region, prop, seed) for seed in outcome.seeds]
    assert margins == sorted(margins, reverse=True)
    assert ((outcome.seeds >= region.lower) & (outcome.seeds <= region.upper)).all()


def test_an_attack_that_succeeds_is_a_witness_only_if_the_replay_agrees():
    region, prop = undecided_by_lp()
    outcome = run(region, prop, tightening_seconds=0.0, on_seeds=lambda seeds: seeds[0])
    assert outcome.status is MilpStatus.REFUTED


# Trust.


def test_a_refutation_by_a_solver_names_what_it_trusts():
    region, prop = undecided_by_lp()
    outcome = run(region, prop, tightening_seconds=0.0, solver="highs")
    assert outcome.status is MilpStatus.REFUTED
    assert outcome.trusted == (TrustedClaim.MIP_SOLVER_STATUS, TrustedClaim.FLOAT64_ROUNDING)
    assert outcome.solver.startswith("HiGHS")
    assert outcome.binaries > 0


def test_a_refutation_by_linear_programs_trusts_no_solver():
    for seed in range(50):
        region, _ = problem(seed, 3)
        prop = stays_in_top_k(0, 2, 4)
        outcome = run(region, shifted(prop, -supremum(region, prop) - 0.05), using=Scripted([SolveStatus.UNKNOWN]))
        if outcome.status is MilpStatus.REFUTED and "linear programs refuted" in outcome.detail:
            assert outcome.trusted == (TrustedClaim.FLOAT64_ROUNDING,)
            assert outcome.solver == ""
            return
    raise AssertionError("no seed was refuted by linear programs")


@lru_cache
def violated_in_hiding():
    """Violated by 1e-3 only near one corner: no point that gets evaluated along the way shows it."""
    for seed in range(400):
        region, _ = problem(seed, 3)
        prop = stays_in_top_k(0, 2, 4)
        prop = shifted(prop, -supremum(region, prop) + 1e-3)
        outcome = run(region, prop, tightening_seconds=0.0, using=Scripted([SolveStatus.UNKNOWN]))
        if outcome.status is MilpStatus.UNDECIDED:
            return region, prop
    raise RuntimeError("no such problem among the seeds")


def test_a_false_infeasible_is_reported_as_trusted_never_as_known():
    region, prop = violated_in_hiding()
    outcome = run(region, prop, tightening_seconds=0.0, using=Scripted([SolveStatus.INFEASIBLE]))
    assert outcome.status is MilpStatus.REFUTED
    assert TrustedClaim.MIP_SOLVER_STATUS in outcome.trusted
    assert outcome.solver == "Scripted 1.0"


@pytest.mark.parametrize("pipeline", [True, False])
def test_a_false_infeasible_that_a_known_point_refutes_stops_the_run(pipeline):
    region, _ = problem(5, 1)
    prop = stays_in_top_k(0, 2, 4)
    centre = 0.5 * (region.lower + region.upper)
    broken = shifted(prop, 0.01 - margin(region, prop, centre))
    with pytest.raises(ContradictionError, match=r"Scripted.*label 0 stays"):
        run(region, broken, accept=lambda _: False, using=Scripted([SolveStatus.INFEASIBLE]), pipeline=pipeline)


def test_a_bound_below_a_known_point_stops_the_run():
    region, _ = problem(5, 1)
    prop = stays_in_top_k(0, 2, 4)
    centre = 0.5 * (region.lower + region.upper)
    broken = shifted(prop, 0.01 - margin(region, prop, centre))
    liar = Scripted([SolveStatus.TIME_LIMIT], bound=0.005)
    with pytest.raises(ContradictionError, match="stays below"):
        run(region, broken, accept=lambda _: False, using=liar)


@pytest.mark.parametrize("status", [SolveStatus.OPTIMAL, SolveStatus.TARGET_REACHED, SolveStatus.FEASIBLE])
def test_a_false_solution_is_no_witness(status):
    region, prop = undecided_by_lp()
    liar = Scripted([status], solution=lambda model: model.column_lower.copy())
    outcome = run(region, prop, tightening_seconds=0.0, using=liar)
    assert outcome.status is MilpStatus.UNDECIDED
    assert outcome.witness is None


def test_after_a_refused_solution_infeasible_proves_a_near_tie_at_most():
    """The first answer was a solution with s >= 0: a later INFEASIBLE, to a larger s, must not become a proof."""
    region, prop = undecided_by_lp()
    liar = Scripted([SolveStatus.FEASIBLE, SolveStatus.INFEASIBLE], solution=lambda model: model.column_lower.copy())
    outcome = run(region, prop, tightening_seconds=0.0, using=liar, subset_cap=1)
    assert outcome.status is MilpStatus.UNDECIDED
    assert len(liar.models) == 2
    assert liar.models[1].column_lower.max() > liar.models[0].column_lower.max()
    assert outcome.best_bound > 0


@pytest.mark.parametrize(
    "status", [SolveStatus.UNKNOWN, SolveStatus.ERROR, SolveStatus.TIME_LIMIT, SolveStatus.OPTIMAL]
)
def test_answers_without_a_solution_decide_nothing(status):
    region, prop = undecided_by_lp()
    for pipeline in (True, False):
        outcome = run(region, prop, tightening_seconds=0.0, using=Scripted([status], bound=-5.0), pipeline=pipeline)
        assert outcome.status is MilpStatus.UNDECIDED
        assert outcome.best_bound >= 0


def test_near_ties_are_undecided():
    """The supremum is 0 up to 1e-7: neither a proof nor a strict violation."""
    for solver in FOUND:
        region, _ = problem(8, 3)
        prop = stays_in_top_k(0, 2, 4)
        outcome = run(
            region,
            shifted(prop, -supremum(region, prop)),
            accept=lambda _: False,
            solver=solver,
            tightening_seconds=0.0,
        )
        assert outcome.status is MilpStatus.UNDECIDED
        assert 0 <= outcome.best_bound <= 1e-3


def test_the_proof_threshold_leaves_room_for_tolerances():
    region, prop = undecided_by_lp()
    solver = Scripted([SolveStatus.UNKNOWN])
    run(region, prop, tightening_seconds=0.0, using=solver)
    s = solver.models[0].column_names.index("s")
    assert solver.models[0].column_lower[s] <= -1e-6
    assert solver.models[0].objective[s] == 1.0


# Time and misuse.


@pytest.mark.parametrize("solver", FOUND)
@pytest.mark.parametrize("pipeline", [True, False])
def test_an_expired_deadline_is_undecided_with_a_bound(solver, pipeline):
    region, prop = undecided_by_lp()
    outcome = run(region, prop, deadline=Deadline.after(0.0), solver=solver, pipeline=pipeline)
    assert outcome.status is MilpStatus.UNDECIDED
    assert outcome.best_bound >= 0
    assert np.isfinite(outcome.best_bound)


def test_a_time_limit_keeps_the_solver_s_bound():
    region, prop = undecided_by_lp()
    outcome = run(region, prop, tightening_seconds=0.0, using=Scripted([SolveStatus.TIME_LIMIT], bound=1e-3))
    assert outcome.status is MilpStatus.UNDECIDED
    assert outcome.best_bound == pytest.approx(1e-3)
    assert TrustedClaim.MIP_SOLVER_STATUS in outcome.trusted
    assert outcome.open_subsets


def test_misuse_is_refused():
    region, prop = undecided_by_lp()
    with pytest.raises(InputError, match="'cplex'"):
        run(region, prop, solver="cplex")
    with pytest.raises(InputError, match="subset_cap"):
        MilpOptions(subset_cap=0)
    with pytest.raises(InputError, match="tightening_seconds"):
        MilpOptions(tightening_seconds=float("nan"))


def test_a_solver_that_declines_is_an_error_of_the_call():
    class Declines:
        label = "Declining"

        def solve(self, model, *, target, deadline):
            raise SolverUnavailableError("too large")

    region, prop = undecided_by_lp()
    with pytest.raises(SolverUnavailableError, match="too large"):
        run(region, prop, tightening_seconds=0.0, using=Declines())
    assert pick_solver("auto").label.startswith("Gurobi")
