import builtins
import sys
import types

import highspy
import numpy as np
import pytest
from milp_examples import random_program
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from verifier.deadline import Deadline
from verifier.errors import InputError, SolverUnavailableError
from verifier.milp import AUTO, SolverName, SolveStatus, available_solvers, pick_solver
from verifier.milp.model import MilpModel
from verifier.milp.solvers import cbc, registry
from verifier.milp.solvers.answer import with_solution
from verifier.milp.solvers.cbc import CbcSolver
from verifier.milp.solvers.highs import HighsSolver
from verifier.milp.solvers.mps import mps_text
from verifier.milp.solvers.registry import FallbackSolver

FOUND = [info.name.value for info in available_solvers() if info.is_available]
COMPLETE = [name for name in FOUND if name != "cbc"]  # CBC stops at its first solution on purpose


def knapsack(items):
    """A knapsack with six weights."""
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 100, size=(6, items)).astype(float)
    profit = weights.mean(axis=0) + rng.uniform(0, 20, size=items)
    return MilpModel(
        sparse.csr_array(weights),
        np.full(6, -np.inf),
        weights.sum(axis=1) // 2,
        np.zeros(items),
        np.ones(items),
        np.ones(items, dtype=np.bool_),
        profit,
        0.0,
        tuple(f"c{i}" for i in range(items)),
        tuple(f"r{i}" for i in range(6)),
    )


def market_split():
    """Five equations over 40 binaries (Cornuejols and Dawande 1998): out of reach of branch and bound."""
    weights = np.random.default_rng(0).integers(0, 100, size=(5, 40)).astype(float)
    halves = weights.sum(axis=1) // 2
    return MilpModel(
        sparse.csr_array(weights),
        halves,
        halves,
        np.zeros(40),
        np.ones(40),
        np.ones(40, dtype=np.bool_),
        np.ones(40),
        0.0,
        tuple(f"c{i}" for i in range(40)),
        tuple(f"r{i}" for i in range(5)),
    )


def infeasible():
    """x + y = 1.5 over binaries."""
    return MilpModel(
        sparse.csr_array(np.array([[1.0, 1.0]])),
        np.array([1.5]),
        np.array([1.5]),
        np.zeros(2),
        np.ones(2),
        np.ones(2, dtype=np.bool_),
        np.ones(2),
        0.0,
        ("x", "y"),
        ("sum",),
    )


def test_the_solvers_this_project_depends_on_are_found():
    assert {"highs", "cbc", "gurobi"} <= set(FOUND)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", FOUND)
def test_solvers_agree_with_another_implementation(name, seed):
    model = random_program(np.random.default_rng(seed), integers=4)
    rows = LinearConstraint(model.rows.toarray(), model.row_lower, model.row_upper)
    box = Bounds(model.column_lower, model.column_upper)
    truth = -milp(-model.objective, constraints=rows, bounds=box, integrality=model.is_integer).fun + model.offset
    result = pick_solver(name).solve(model, target=np.inf, deadline=Deadline())
    assert result.bound >= truth - 1e-6
    assert result.objective <= truth + 1e-6
    values = model.rows @ result.solution
    assert (values >= model.row_lower - 1e-5).all()
    assert (values <= model.row_upper + 1e-5).all()
    if name in COMPLETE:
        assert result.status is SolveStatus.OPTIMAL
        assert result.objective == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("name", FOUND)
def test_infeasible_models_are_called_so(name):
    result = pick_solver(name).solve(infeasible(), target=np.inf, deadline=Deadline())
    assert result.status is SolveStatus.INFEASIBLE
    assert result.solution is None
    assert result.bound == -np.inf


@pytest.mark.parametrize("name", FOUND)
def test_solvers_stop_at_the_target(name):
    model = knapsack(40)
    result = pick_solver(name).solve(model, target=1.0, deadline=Deadline.after(60.0))
    assert result.status in (SolveStatus.TARGET_REACHED, SolveStatus.FEASIBLE, SolveStatus.OPTIMAL)
    assert result.objective >= 1.0
    assert result.bound >= result.objective - 1e-6


@pytest.mark.parametrize("name", FOUND)
def test_a_time_limit_leaves_no_claim(name):
    result = pick_solver(name).solve(market_split(), target=np.inf, deadline=Deadline.after(0.3))
    assert result.status is SolveStatus.TIME_LIMIT
    assert result.solution is None
    assert result.bound > 0


@pytest.mark.parametrize("name", FOUND)
def test_an_expired_deadline_leaves_no_claim(name):
    result = pick_solver(name).solve(market_split(), target=np.inf, deadline=Deadline.after(0.0))
    assert result.status in (SolveStatus.TIME_LIMIT, SolveStatus.UNKNOWN)
    assert result.solution is None


def test_highs_stays_right_where_its_objective_bound_option_is_not():
    """`objective_bound` makes HiGHS call a wrong answer optimal; the adapter must not use it."""
    model = knapsack(14)
    result = HighsSolver().solve(model, target=1e6, deadline=Deadline())
    rows = LinearConstraint(model.rows.toarray(), model.row_lower, model.row_upper)
    truth = -milp(-model.objective, constraints=rows, bounds=Bounds(0, 1), integrality=np.ones(14)).fun
    assert result.objective == pytest.approx(truth)
    assert highspy.Highs().getOptionValue("objective_bound")[1] == np.inf


def test_cbc_is_given_every_digit_and_every_kind_of_row():
    model = random_program(np.random.default_rng(0), rows=20, integers=2)
    text = mps_text(model)
    assert repr(float(model.rows.data[0])) in text
    assert "'INTORG'" in text
    assert "'INTEND'" in text
    assert "RNG" in text


def test_cbc_answers_that_are_not_understood_are_unknown():
    model = infeasible()
    for words in ("", "Unbounded - objective value 0", "Infeasibles", "Dual infeasible - objective value 1"):
        result = cbc._answer(words, "", model, "CBC")
        claims = result.status is SolveStatus.INFEASIBLE
        assert claims == words.startswith("Infeasible")
    garbled = cbc._answer("Optimal - objective value 1\n 0 C0 nan 0\n", "", model, "CBC")
    assert garbled.status is SolveStatus.UNKNOWN


def test_cbc_bounds_read_from_its_log_cover_its_rounding():
    log = "best possible -0.1234 (0.33 seconds)\nLower bound:                    -0.245\n"
    assert cbc._bound(log, infeasible()) >= 0.2455
    assert cbc._bound("nothing", infeasible()) == np.inf


def test_a_missing_cbc_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(cbc, "cbc_path", lambda: None)
    with pytest.raises(SolverUnavailableError, match=r"cbc.*pulp"):
        CbcSolver().solve(infeasible(), target=0.0, deadline=Deadline())


def test_unreadable_solutions_are_errors():
    model = infeasible()
    for values in (np.zeros(3), np.array([np.nan, 0.0])):
        assert with_solution("s", SolveStatus.OPTIMAL, values, model, 0.0, "").status is SolveStatus.ERROR


def test_unknown_solvers_are_refused_by_name():
    with pytest.raises(InputError, match=r"'cplex'.*auto, highs, gurobi, cbc, scip"):
        pick_solver("cplex")


def test_a_solver_that_is_not_installed_says_how_to_get_it(monkeypatch):
    real_import = builtins.__import__

    def without_scip(name, *arguments, **options):
        if name.startswith("pyscipopt"):
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "pyscipopt", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_scip)
    with pytest.raises(SolverUnavailableError, match=r"'scip'.*aureole\[scip\]"):
        pick_solver("scip")
    scip = next(info for info in available_solvers() if info.name is SolverName.SCIP)
    assert not scip.is_available
    assert "aureole[scip]" in scip.how_to_get


class Declines:
    label = "Declining 1.0"

    def solve(self, model, *, target, deadline):
        raise SolverUnavailableError("solver 'declining': the licence found does not cover this model")


@pytest.mark.parametrize("name", [AUTO, "gurobi"])
def test_a_licence_that_is_too_small_falls_back_and_says_why(name, monkeypatch):
    monkeypatch.setattr(registry.gurobi, "GurobiSolver", Declines)
    monkeypatch.setitem(registry._MAKERS, SolverName.GUROBI, Declines)
    monkeypatch.setattr(registry, "probe", lambda _: types.SimpleNamespace(is_available=True))
    result = pick_solver(name).solve(infeasible(), target=0.0, deadline=Deadline())
    assert result.status is SolveStatus.INFEASIBLE
    assert result.solver.startswith("HiGHS")
    assert "licence found does not cover" in result.detail


def test_gurobi_s_own_licence_is_tried_not_assumed():
    """Whatever licence this machine has, a large model is solved: by Gurobi, or by HiGHS with Gurobi's reason."""
    model = registry._tiny_model(2500)
    result = pick_solver("auto").solve(model, target=0.5, deadline=Deadline())
    assert result.solution is not None
    assert result.solver.startswith("Gurobi") or "licence" in result.detail


def test_when_every_solver_declines_that_is_an_error():
    with pytest.raises(SolverUnavailableError, match="no solver accepts this model"):
        FallbackSolver((Declines(), Declines())).solve(infeasible(), target=0.0, deadline=Deadline())
