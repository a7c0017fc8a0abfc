"""Parameters found in float32: the same verdicts, and no claim that float64 does not confirm."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from search_networks import tiny_case

from verifier.search import Descent, SearchOptions, SearchStatus, search
from verifier.search import run as run_module
from verifier.search.rows import minimise

SINGLE = SearchOptions(
    batch=4, root=Descent(iterations=5), step=Descent(iterations=5), leaf_windows=0, precision="float32"
)


def answer(seed, shift, options):
    canonical, region, goal = tiny_case(seed, shift)

    def replayed(points):
        return bool((goal.margin(canonical.evaluate(points)[-1]) > 0).any())

    return search(region, goal, None, options=options, on_candidates=replayed)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("shift", [-0.01, 0.01])
def test_single_precision_agrees_with_enumeration(seed, shift):
    found = answer(seed, shift, SINGLE)
    assert found.status is (SearchStatus.REFUTED if shift < 0 else SearchStatus.WITNESS)


@pytest.mark.parametrize("seed", range(20))
def test_single_precision_never_refutes_by_its_rounding(seed):
    """Margins closer to 0 than float32 can tell: float64 decides, or nobody."""
    found = answer(seed, 1e-8, SINGLE)
    assert found.status is not SearchStatus.REFUTED
    assert found.best_bound >= 1e-8 - 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_a_lying_descent_is_not_believed(seed, monkeypatch):
    def lying(rows, start, **how):
        found = minimise(rows, start, **how)
        return replace(found, bounds=torch.full_like(found.bounds, -1.0))

    monkeypatch.setattr(run_module, "minimise", lying)
    canonical, region, goal = tiny_case(seed, 0.01)
    found = search(region, goal, None, options=SINGLE, on_candidates=lambda points: False)
    assert found.status is not SearchStatus.REFUTED
    points = np.random.default_rng(seed).uniform(region.lower, region.upper, size=(2000, len(region.lower)))
    assert found.best_bound >= goal.margin(canonical.evaluate(points)[-1]).max() - 1e-9


def test_the_cpu_searches_in_double_precision_unless_told_otherwise():
    assert not SearchOptions().is_single
    assert SearchOptions(device="cuda").is_single
    assert not SearchOptions(device="cuda", precision="float64").is_single
