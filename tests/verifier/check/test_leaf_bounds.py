"""Whatever parameters, splits and clips a proof holds, the checker's bounds hold at every point: random ones against samples."""

import numpy as np
from hypothesis import given, settings
from network_strategies import SEEDS, random_network
from proof_examples import DEFAULT, full_tree, layout_of, random_parameters, random_splits

from verifier.check.judge import Judge
from verifier.check.trees import Goal, parts_of
from verifier.evaluation import evaluate
from verifier.network import Network
from verifier.proof.records import CrownLemma, Leaf, Tree
from verifier.property import Property
from verifier.region import Box


def random_question(seed: int) -> tuple[Network, Box, Property]:
    generator = np.random.default_rng(seed)
    network = random_network(seed, blocks=5)
    centre = generator.random(network.input_shape)
    widths = generator.choice([0.0, 0.05, 0.2, 0.5], size=network.input_shape)
    box = Box(np.clip(centre - widths, 0, 1), np.clip(centre + widths, 0, 1))
    goal = Property("random", generator.normal(size=(4, network.labels)), generator.normal(size=4), 2)
    return network, box, goal


def sampled(box: Box, count: int, generator: np.random.Generator) -> np.ndarray:
    """Points of the box, many entries at its ends."""
    shape = (count, *box.shape)
    shares = np.where(generator.random(shape) < 0.4, generator.integers(0, 2, shape), generator.random(shape))
    return np.clip(box.lower + (box.upper - box.lower) * shares, box.lower, box.upper)


def values_at(judge: Judge, points: np.ndarray) -> list[np.ndarray]:
    """Every value of the checker's steps, in float64."""
    from verifier.check.steps import AffineStep

    values = [points.reshape(len(points), -1)]
    for step in judge._steps.steps:
        if isinstance(step, AffineStep):
            values.append(step.bias + sum(linear.forward(values[source]) for linear, source in step.terms))
        else:
            values.append(alternatives_at(step, values[step.source]).max(axis=0))
    return values


def alternatives_at(step, source: np.ndarray) -> np.ndarray:
    """(alternatives, points, windows), -inf in the padding."""
    gathered = np.where((step.index >= 0)[:, None], source[:, step.index].transpose(1, 0, 2), 0.0)
    return np.where(step.present[:, None], gathered, -np.inf)


def inside(judge: Judge, masks, values: list[np.ndarray]) -> np.ndarray:
    """Which points satisfy the splits, ties counting."""
    holds = np.ones(len(values[0]), dtype=bool)
    for (operation, window), mask in masks.items():
        step = judge._steps.maxima[operation]
        z = alternatives_at(step, values[step.source])[:, :, window]
        alive = np.array([bool(mask >> bit & 1) for bit in range(len(z))])
        top = z.max(axis=0)
        chosen = z[alive].max(axis=0, initial=-np.inf)
        holds &= chosen >= top
    return holds


@settings(max_examples=60)
@given(SEEDS)
def test_steps_compute_the_scores(seed: int) -> None:
    network, box, goal = random_question(seed)
    judge = Judge(network, box, goal)
    points = sampled(box, 20, np.random.default_rng(seed))
    values = values_at(judge, points)
    scores = evaluate(network, points)
    assert np.allclose(values[judge._steps.scores], scores, rtol=1e-9, atol=1e-9)
    assert np.allclose(values[-1], goal.forms(scores), rtol=1e-9, atol=1e-9)


@settings(max_examples=60)
@given(SEEDS)
def test_known_bounds_hold_before_and_after_lemmas(seed: int) -> None:
    network, box, goal = random_question(seed)
    judge = Judge(network, box, goal)
    values = values_at(judge, sampled(box, 200, np.random.default_rng(seed)))
    for operation in (None, *judge._steps.maxima):
        if operation is not None:
            judge.judge(CrownLemma(operation))
        for low, value, high in zip(judge._knowledge.lower, values, judge._knowledge.upper, strict=True):
            slack = 1e-9 * np.maximum(1.0, np.abs(value))
            assert (value >= low - slack).all()
            assert (value <= high + slack).all()


@settings(max_examples=150)
@given(SEEDS)
def test_any_leaf_bounds_every_point_of_its_part(seed: int) -> None:
    generator = np.random.default_rng(seed)
    network, box, goal = random_question(seed)
    judge = Judge(network, box, goal)
    if generator.random() < 0.7:
        for operation in judge._steps.maxima:
            judge.judge(CrownLemma(operation))
    values = values_at(judge, sampled(box, 400, generator))
    members = tuple(generator.permutation(4)[: generator.integers(1, 4)].tolist())
    layout = layout_of(judge, generator)
    splits = random_splits(generator, judge, int(generator.integers(0, 4)))
    multiplier = float(generator.choice([0.1, 1.0, 30.0]))
    leaves = [
        Leaf(
            tuple(
                random_parameters(generator, layout, len(members), multiplier) for _ in range(generator.integers(0, 4))
            )
        )
        for _ in range(2 ** len(splits))
    ]
    tree = Tree(layout, full_tree(splits, leaves))
    goal_parts = list(parts_of(judge._goal(members), tree, judge._steps.maxima))
    bounds = judge.leaf_bounds(members, tree)
    least = values[-1][:, list(members)].min(axis=1)
    covered = np.zeros(len(least), dtype=bool)
    for part, bound in zip(goal_parts, bounds, strict=True):
        here = inside(judge, part.masks, values)
        covered |= here
        assert not np.isnan(bound)
        if len(part.leaf.sets) > 1 and bound >= 0.0:
            continue  # After a clip a bound speaks about violations alone.
        limit = max(bound, 0.0) if len(part.leaf.sets) > 1 else bound
        slack = 1e-9 * max(1.0, float(np.abs(values[-1]).max()))
        if len(part.leaf.sets) > 1:
            assert not (least[here] > slack).any()
        else:
            assert (least[here] <= limit + slack).all()
    assert covered.all()


@settings(max_examples=60)
@given(SEEDS)
def test_claims_about_single_rows_hold(seed: int) -> None:
    generator = np.random.default_rng(seed)
    network, box, goal = random_question(seed)
    judge = Judge(network, box, goal)
    values = values_at(judge, sampled(box, 300, generator))
    for step in judge._steps.maxima.values():
        layout = layout_of(judge, generator)
        splits = random_splits(generator, judge, 2)
        leaves = [Leaf((random_parameters(generator, layout, 1),)) for _ in range(2 ** len(splits))]
        leaves[0] = DEFAULT
        entry, sign = int(generator.integers(judge._steps.sizes[step.source])), float(generator.choice([-1.0, 1.0]))
        row = Goal(step.source, np.array([entry]), np.array([sign]), np.array([0.5]))
        for part, bound in judge._bounder.bounds(
            parts_of(row, Tree(layout, full_tree(splits, leaves)), judge._steps.maxima)
        ):
            here = inside(judge, part.masks, values)
            reached = sign * values[step.source][here, entry] + 0.5
            assert (reached <= bound + 1e-9 * np.maximum(1.0, np.abs(reached))).all()


@settings(max_examples=40)
@given(SEEDS)
def test_a_leaf_is_bounded_alike_alone_and_among_others(seed: int) -> None:
    """What leaves are bounded together is an accident: neither the planes nor the clips of one may depend on another."""
    generator = np.random.default_rng(seed)
    network, box, goal = random_question(seed)
    judge = Judge(network, box, goal)
    parts = []
    for _ in range(4):
        layout = layout_of(judge, generator)
        splits = random_splits(generator, judge, 2)
        leaves = [
            Leaf(tuple(random_parameters(generator, layout, 2) for _ in range(generator.integers(0, 3))))
            for _ in range(2 ** len(splits))
        ]
        parts += parts_of(judge._goal((0, 1)), Tree(layout, full_tree(splits, leaves)), judge._steps.maxima)
    together = [bound for _, bound in judge._bounder.bounds(parts)]
    alone = [bound for part in parts for _, bound in judge._bounder.bounds([part])]
    assert np.allclose(together, alone, rtol=1e-9, atol=1e-9)
