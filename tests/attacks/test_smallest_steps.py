"""The linear and the quadratic programme behind MLA-LP and ML-DP, against SciPy."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from attacks.lp import solve_dual, solve_licensed, solve_whole
from attacks.methods.linearised import smallest_steps
from attacks.qp import least_squares_step, nonnegative_multipliers


def programme(seed: int, constraints: int, pixels: int):
    """Constraints around a point of [0, 1]^pixels, some pixels at a bound, some constraints met already."""
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(constraints, pixels)) * generator.choice([0.1, 1.0, 10.0])
    image = np.clip(generator.normal(0.5, 0.7, size=pixels), 0, 1)
    level = generator.normal(size=constraints) * generator.choice([0.03, 0.3, 3.0])
    reach = generator.choice([0.1, 1.0])
    return matrix, level, np.maximum(-image, -reach), np.minimum(1 - image, reach)


@settings(max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 20))
def test_the_dual_agrees_with_the_whole_programme(seed, constraints, pixels):
    matrix, level, lower, upper = programme(seed, constraints, pixels)
    whole, dual = solve_whole(matrix, level, lower, upper), solve_dual(matrix, level, lower, upper)
    assert dual.is_feasible == whole.is_feasible
    assert (dual.step >= lower).all()
    assert (dual.step <= upper).all()
    if whole.is_feasible:
        assert dual.size == pytest.approx(whole.size, abs=1e-6)
        assert np.abs(dual.step).max() == pytest.approx(whole.size, abs=1e-6)
        assert (matrix @ dual.step - level).max() <= 1e-6


def test_they_agree_on_a_large_programme():
    matrix, level, lower, upper = programme(2, 8, 600)
    level = -np.abs(level) - 20 * np.abs(matrix).mean()
    whole, dual = solve_whole(matrix, level, lower, upper), solve_dual(matrix, level, lower, upper)
    assert whole.size > 0.01
    assert dual.size == pytest.approx(whole.size, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_gurobi_agrees_with_highs(seed):
    pytest.importorskip("gurobipy")
    matrix, level, lower, upper = programme(seed, 1 + seed % 6, 5 + 3 * seed)
    whole, licensed = solve_whole(matrix, level, lower, upper), solve_licensed(matrix, level, lower, upper)
    assert licensed.solver.startswith("Gurobi"), licensed.note
    assert licensed.is_feasible == whole.is_feasible
    if whole.is_feasible:
        assert licensed.size == pytest.approx(whole.size, abs=1e-6)
        assert np.abs(licensed.step).max() == pytest.approx(whole.size, abs=1e-6)
        assert (matrix @ licensed.step - level).max() <= 1e-6 * np.abs(matrix).sum(axis=1).max()


def test_a_programme_too_large_for_the_licence_goes_to_highs_and_says_so():
    matrix, level, lower, upper = programme(2, 3, 1200)
    level = -np.abs(level) - 20 * np.abs(matrix).mean()
    dual, licensed = solve_dual(matrix, level, lower, upper), solve_licensed(matrix, level, lower, upper)
    assert licensed.size == pytest.approx(dual.size, abs=1e-6)
    # With a full licence, or with none, another one answers; either way who did is said, and why another one did not.
    assert licensed.solver.startswith("Gurobi") == (not licensed.note)
    assert licensed.solver.startswith(("Gurobi", "HiGHS"))


def test_without_gurobi_highs_answers_and_a_warning_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "gurobipy", None)
    matrix, level, lower, upper = programme(4, 2, 9)
    licensed = solve_licensed(matrix, level, lower, upper)
    assert licensed.solver.startswith("HiGHS")
    assert "gurobipy is not installed" in licensed.note
    assert licensed.size == pytest.approx(solve_dual(matrix, level, lower, upper).size, abs=1e-6)
    rows = (torch.from_numpy(each)[None] for each in (matrix, level))
    box = (torch.from_numpy(each)[None] for each in (lower, upper))
    smallest_steps(*rows, torch.ones((1, 2), dtype=torch.bool), *box, "gurobi")
    assert "gurobipy is not installed" in caplog.text


def test_one_constraint_by_hand():
    # -3 r0 - r1 <= -1: |r| = 1/4 everywhere; with r0 <= 0.1, r1 must do 0.7.
    matrix, level = np.array([[-3.0, -1.0]]), np.array([-1.0])
    for solve in (solve_whole, solve_dual):
        free = solve(matrix, level, -np.ones(2), np.ones(2))
        np.testing.assert_allclose(free.step, [0.25, 0.25], atol=1e-9)
        tight = solve(matrix, level, -np.ones(2), np.array([0.1, 1.0]))
        np.testing.assert_allclose(tight.step, [0.1, 0.7], atol=1e-9)
        assert not solve(matrix, level, -np.ones(2), np.full(2, 0.2)).is_feasible


def test_nothing_to_do_and_nothing_to_be_done():
    lower, upper = -np.ones(3), np.ones(3)
    assert solve_dual(np.ones((2, 3)), np.array([0.0, 1.0]), lower, upper).size == 0.0
    assert not solve_dual(np.zeros((1, 3)), np.array([-1.0]), lower, upper).is_feasible
    assert solve_dual(np.zeros((1, 3)), np.array([1.0]), lower, upper).is_feasible
    assert solve_dual(np.zeros((0, 3)), np.zeros(0), lower, upper).size == 0.0


def test_the_least_violation_where_all_cannot_be_met():
    # r <= -1 and -r <= -1 within [-2, 2]: r = 0 violates both by 1, anything else one of them by more.
    found = solve_dual(np.array([[1.0], [-1.0]]), np.array([-1.0, -1.0]), np.array([-2.0]), np.array([2.0]))
    assert not found.is_feasible
    assert found.step[0] == pytest.approx(0.0, abs=1e-3)


def least_distance(matrix: np.ndarray, level: np.ndarray) -> np.ndarray | None:
    """min |r| subject to matrix r >= level by non-negative least squares (Lawson and Hanson 1974, LDP)."""
    pixels = matrix.shape[1]
    target = np.zeros(pixels + 1)
    target[-1] = 1.0
    stacked = np.vstack([matrix.T, level])
    solution, _ = nnls(stacked, target)
    residual = stacked @ solution - target
    return None if np.linalg.norm(residual) < 1e-9 else -residual[:-1] / residual[-1]


@pytest.mark.parametrize("pixels", [4, 12, 60])
def test_least_squares_agree_with_nnls(pixels):
    generator = torch.Generator().manual_seed(pixels)
    matrix = torch.randn((40, 6, pixels), generator=generator, dtype=torch.float64)
    level = torch.randn((40, 6), generator=generator, dtype=torch.float64)
    active = torch.rand((40, 6), generator=generator) < 0.8
    everywhere = torch.full((40, pixels), 1e9, dtype=torch.float64)
    steps = least_squares_step(matrix, level, active, -everywhere, everywhere)
    compared = 0
    for row in range(40):
        expected = least_distance(matrix[row][active[row]].numpy(), level[row][active[row]].numpy())
        if expected is not None and np.abs(expected).max() < 1e3:
            compared += 1
            np.testing.assert_allclose(steps[row].numpy(), expected, atol=1e-6)
    assert compared > 20


def test_multipliers_satisfy_their_conditions_on_dependent_constraints():
    matrix = torch.tensor([[[1.0, 2.0], [2.0, 4.0], [-1.0, 0.5]]], dtype=torch.float64)
    level = torch.tensor([[1.0, 3.0, -5.0]], dtype=torch.float64)
    gram = matrix @ matrix.transpose(1, 2)
    found = nonnegative_multipliers(gram, level, torch.ones((1, 3), dtype=torch.bool))[0]
    slack = gram[0] @ found - level[0]
    assert (found >= 0).all()
    assert (slack >= -1e-6).all()
    assert float((found * slack).abs().max()) < 1e-6


def test_a_step_inside_the_box_where_the_free_one_leaves_it():
    # 3 a + b >= 1 with a <= 0.1: the free answer (0.3, 0.1) leaves; the least one inside is (0.1, 0.7).
    matrix, level = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[1.0]])
    active = torch.ones((1, 1), dtype=torch.bool)
    found = least_squares_step(matrix, level, active, torch.tensor([[-1.0, -1.0]]), torch.tensor([[0.1, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.7]]))


def test_unmet_constraints_give_a_step_that_depends_on_them_continuously():
    matrix = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)
    active = torch.ones((1, 2), dtype=torch.bool)
    box = torch.ones((1, 2), dtype=torch.float64)
    found, near = (
        least_squares_step(matrix + change, torch.tensor([[1.0, 0.5]], dtype=torch.float64), active, -box, box)
        for change in (0.0, 1e-7)
    )
    torch.testing.assert_close(found, near, atol=1e-4, rtol=0)
