"""Coefficients on some entries mean what the same coefficients among zeros mean, through every map."""

import numpy as np
from hypothesis import given, settings
from network_strategies import SEEDS, random_network

from verifier.check.coefficients import Coefficients
from verifier.check.judge import Judge
from verifier.check.steps import AffineStep, steps_of
from verifier.check.walk import bound_rows
from verifier.property import Property
from verifier.region import Box


def some(generator: np.random.Generator, size: int, batch: int = 3) -> Coefficients:
    """Few entries, many or none."""
    count = int(generator.choice([0, 1, min(3, size), size]))
    entries = np.sort(generator.permutation(size)[:count])
    return Coefficients(entries, generator.normal(size=(batch, count)))


@settings(max_examples=40)
@given(SEEDS)
def test_maps_take_some_entries_back_as_they_take_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    steps = steps_of(random_network(seed, blocks=5))
    for step in steps.steps:
        for linear, source in step.terms if isinstance(step, AffineStep) else ():
            rows = some(generator, steps.sizes[step.output])
            found = linear.backward_at(rows)
            size = steps.sizes[source]
            if found.entries is not None:
                assert (np.diff(found.entries) > 0).all()
                assert ((found.entries >= 0) & (found.entries < size)).all()
            whole = linear.backward(rows.full(steps.sizes[step.output]))
            np.testing.assert_allclose(found.full(size), whole, rtol=1e-12, atol=1e-12)
            same = linear.backward_at(Coefficients(None, rows.full(steps.sizes[step.output])))
            np.testing.assert_array_equal(same.full(size), whole)


@settings(max_examples=40)
@given(SEEDS)
def test_sums_and_added_entries(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = some(generator, 7), some(generator, 7)
    total = first.full(7) + second.full(7)
    whole = Coefficients(None, second.full(7))
    for found in (first.plus(second), first.plus(whole), whole.plus(first)):
        np.testing.assert_array_equal(found.full(7), total)
    entries = np.sort(generator.permutation(7)[:3])
    for rows in (first, whole):
        wider = rows.with_entries(entries)
        np.testing.assert_array_equal(wider.full(7), rows.full(7))
        np.testing.assert_array_equal(wider.values[:, wider.places(entries)], rows.full(7)[:, entries])


@settings(max_examples=30)
@given(SEEDS)
def test_bounds_do_not_depend_on_how_rows_are_held(seed: int) -> None:
    generator = np.random.default_rng(seed)
    network = random_network(seed, blocks=5)
    image = generator.uniform(0.1, 0.9, network.input_shape)
    judge = Judge(network, Box(image - 0.1, image + 0.1), Property("x", np.eye(1, network.labels), np.zeros(1), 1))
    box = judge._lower[None], judge._upper[None]
    for value, size in enumerate(judge._steps.sizes):
        rows = some(generator, size)
        ends = []
        for held in (rows, Coefficients(None, rows.full(size))):
            found, is_empty = bound_rows(judge._knowledge, judge._planes, value, held, np.zeros(3), box=box)
            assert not is_empty.any()
            ends.append((found.bounds, found.slopes))
        scale = 1.0 + np.abs(ends[1][0])
        assert (np.abs(ends[0][0] - ends[1][0]) <= 1e-9 * scale).all()
        np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-9, atol=1e-9)
