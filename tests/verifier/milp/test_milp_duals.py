import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from milp_examples import random_program
from scipy.optimize import linprog

from verifier.deadline import Deadline
from verifier.milp.duals import dual_bound
from verifier.milp.solvers.highs import LinearProgram


def optimum(model):
    rows = model.rows.toarray()
    finite_low, finite_high = np.isfinite(model.row_lower), np.isfinite(model.row_upper)
    answer = linprog(
        -model.objective,
        A_ub=np.vstack([rows[finite_high], -rows[finite_low]]),
        b_ub=np.concatenate([model.row_upper[finite_high], -model.row_lower[finite_low]]),
        bounds=list(zip(model.column_lower, model.column_upper, strict=True)),
    )
    return -answer.fun


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
def test_any_multipliers_give_a_bound(seed, scale):
    rng = np.random.default_rng(seed)
    model = random_program(rng)
    multipliers = rng.normal(size=len(model.row_lower)) * scale
    bound = dual_bound(
        model.rows,
        (model.row_lower, model.row_upper),
        (model.column_lower, model.column_upper),
        model.objective,
        multipliers,
    )
    assert bound >= optimum(model) - 1e-9


def test_multipliers_that_are_not_finite_are_ignored():
    model = random_program(np.random.default_rng(3))
    bounds = ((model.row_lower, model.row_upper), (model.column_lower, model.column_upper))
    useless = dual_bound(model.rows, *bounds, model.objective, np.full(len(model.row_lower), np.nan))
    assert useless == dual_bound(model.rows, *bounds, model.objective, np.zeros(len(model.row_lower)))
    assert np.isfinite(useless)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_solver_s_multipliers_give_the_optimum(seed):
    model = random_program(np.random.default_rng(seed))
    answer = LinearProgram(model).maximise(model.objective, Deadline())
    assert answer.bound >= optimum(model) - 1e-9
    assert abs(answer.bound - optimum(model)) < 1e-6
    assert abs(model.objective @ answer.point - optimum(model)) < 1e-6


def test_programs_are_solved_again_with_other_objectives_and_rows():
    model = random_program(np.random.default_rng(1))
    program = LinearProgram(model)
    first = program.maximise(model.objective, Deadline()).bound
    reverse = program.maximise(-model.objective, Deadline()).bound
    assert -reverse <= first
    for row in range(len(model.row_lower)):
        if np.isfinite(model.row_lower[row]) and not np.isfinite(model.row_upper[row]):
            program.set_row_lower(row, -np.inf)
    assert program.maximise(model.objective, Deadline()).bound >= first - 1e-9


def test_an_expired_deadline_gives_no_bound():
    model = random_program(np.random.default_rng(1))
    answer = LinearProgram(model).maximise(model.objective, Deadline.after(0.0))
    assert answer.point is None
    assert answer.bound == np.inf
