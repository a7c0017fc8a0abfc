"""Cross-checks with auto-LiRPA, skipped where it is not installed; `doctor` and the documentation say how to get it."""

import logging
import sys

import numpy as np
import pytest
from bound_networks import NETWORKS, image_network, max_network, relu_network, residual_network

from verifier.bounds import BoundMethod, BoundOptions, analyse_region, bound_property
from verifier.bounds.lirpa_compat import _ClampThatPasses, clamp_stops_gradients, installed_version, load
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import SolverUnavailableError
from verifier.property import Property, stays_in_top_k
from verifier.region import Box

needs_lirpa = pytest.mark.skipif(installed_version() is None, reason="auto-LiRPA is not installed")


def bounds_of(canonical, method, width=0.1, iterations=20):
    from verifier.bounds.lirpa import AutoLirpaEngine

    generator = np.random.default_rng(0)
    box = Box.around(generator.random(canonical.input_size), width)
    size = canonical.labels
    goal = Property("scores", np.vstack([np.eye(size), -np.eye(size)]), np.linspace(0, 1, 2 * size), 1)
    options = BoundOptions(method=method, iterations=iterations)
    engine = AutoLirpaEngine(options)
    theirs = engine.bound(engine.analyse(canonical, box, Deadline()), goal, Deadline())
    ours = bound_property(analyse_region(canonical, box, options=options), goal, options=options)
    samples = goal.forms(canonical.evaluate(generator.uniform(box.lower, box.upper, (2000, box.lower.size)))[-1])
    return ours.form_uppers, theirs, samples.max(axis=0)


@needs_lirpa
@pytest.mark.parametrize(
    "canonical", [relu_network(0), relu_network(1, hidden=12), residual_network(2), image_network(3, pools=False)]
)
def test_crown_agrees_where_the_relaxations_are_the_same(canonical):
    ours, theirs, samples = bounds_of(canonical, BoundMethod.CROWN)
    np.testing.assert_allclose(ours, theirs.form_uppers, rtol=1e-9, atol=1e-9)
    assert (theirs.form_uppers >= samples).all()
    assert theirs.trusted == (TrustedClaim.AUTO_LIRPA, TrustedClaim.FLOAT64_ROUNDING)
    assert "auto-LiRPA" in theirs.engine


@needs_lirpa
@pytest.mark.parametrize("seed", range(4))
def test_our_bounds_of_pooling_are_no_looser(seed):
    ours, theirs, samples = bounds_of(image_network(seed, pools=True), BoundMethod.CROWN, width=0.05)
    assert (ours <= theirs.form_uppers + 1e-4).all()
    assert ours.sum() < theirs.form_uppers.sum()
    assert (theirs.form_uppers >= samples - 1e-4).all()


@needs_lirpa
@pytest.mark.parametrize("canonical", [relu_network(0), image_network(3, pools=False)])
def test_their_alpha_crown_is_sound_and_no_looser_than_their_crown(canonical):
    _, loose, _ = bounds_of(canonical, BoundMethod.CROWN)
    _, tight, samples = bounds_of(canonical, BoundMethod.ALPHA_CROWN, iterations=5)
    assert (tight.form_uppers <= loose.form_uppers + 1e-6).all()
    assert (tight.form_uppers >= samples).all()


@needs_lirpa
def test_their_interval_bounds_are_sound():
    for name in ("relu", "image with pool"):
        _, theirs, samples = bounds_of(NETWORKS[name](1), BoundMethod.INTERVAL)
        assert (theirs.form_uppers >= samples - 1e-4).all()


@needs_lirpa
def test_windows_that_are_no_pooling_are_refused():
    with pytest.raises(SolverUnavailableError, match="node 3 is a maximum other than square max pooling"):
        bounds_of(max_network(0, has_floor=True), BoundMethod.CROWN)


@needs_lirpa
def test_once_time_is_up_nothing_is_proved():
    from verifier.bounds.lirpa import AutoLirpaEngine

    engine = AutoLirpaEngine()
    region = engine.analyse(relu_network(0), Box.around(np.full(4, 0.5), 0.0), Deadline())
    bound = engine.bound(region, stays_in_top_k(0, 1, 3), Deadline.after(0))
    assert bound.upper == np.inf
    assert not bound.is_robust


@needs_lirpa
def test_importing_it_leaves_logging_alone():
    load()
    assert not any(getattr(handler, "stream", None) is sys.stdout for handler in logging.getLogger().handlers)


def test_where_it_is_absent_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("verifier.bounds.lirpa_compat.installed_version", lambda: None)
    with pytest.raises(SolverUnavailableError, match=r"pip install --no-deps auto-LiRPA==0\.3"):
        load()


def test_the_replacement_clamp_passes_gradients_at_its_bounds():
    import torch

    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    _ClampThatPasses.apply(values, 0.0, 1.0).sum().backward()
    np.testing.assert_array_equal(values.grad, [0.0, 1.0, 1.0, 1.0, 0.0])
    assert isinstance(clamp_stops_gradients(), bool)
