"""The checker's parts against oracles: linear maps, planes, the cover of count-subsets, float32 errors."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from exact_arithmetic import exact, exact_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from network_strategies import SEEDS, UNARY, NetworkBuilder, random_network

from verifier import evaluation
from verifier.check import cover
from verifier.check import steps as steps_module
from verifier.check.float32 import form_errors
from verifier.check.judge import Judge
from verifier.check.knowledge import Knowledge
from verifier.check.planes import planes_of
from verifier.check.steps import AffineStep, steps_of
from verifier.errors import UnsupportedOpError
from verifier.network import Add, Conv, Dense, Head, MaxPool, Network, Node, Relu, Reshape
from verifier.proof.errors import CertificateError
from verifier.proof.records import CrownLemma, Leaf, Tree
from verifier.property import Property
from verifier.region import Box

SHAPE = (2, 4, 3)


def one_operation(name: str, seed: int) -> Network:
    builder = NetworkBuilder(SHAPE)
    value = builder.add(UNARY[name](np.random.default_rng(seed), SHAPE), 0)
    builder.add(Reshape((int(np.prod(builder.shape(value))),)), value)
    return builder.network()


AFFINE = sorted(set(UNARY) - {"relu", "leaky_relu", "max_pool", "average_pool"})


@settings(max_examples=8)
@given(SEEDS)
@pytest.mark.parametrize("name", AFFINE)
def test_maps_lose_no_more_than_their_noise(name: str, seed: int) -> None:
    """|r @ y - (backward(r) @ x + r @ bias)| <= |r| @ noise in exact arithmetic, and the interval contains the exact value."""
    generator = np.random.default_rng(seed)
    network = one_operation(name, seed)
    steps = steps_of(network)
    (step,) = steps.steps
    x = generator.normal(size=steps.sizes[0])
    reach = np.abs(x) * (1 + generator.random(x.shape))
    known = Knowledge.of(steps, -reach, reach, {})
    truth = exact_scores(network, x.reshape(SHAPE)).ravel()
    rows = generator.normal(size=(3, len(truth))) * (generator.random((3, len(truth))) < 0.6)
    for row in rows:
        left = dot(row, truth)
        right = Fraction(float(row @ step.bias))
        right += sum((dot(linear.backward(row[None])[0], exact(x)) for linear, _ in step.terms), Fraction(0))
        assert abs(left - right) <= Fraction(float(np.abs(row) @ known.noise[step.output])) * (1 + Fraction(1, 10**9))
    point = Knowledge.of(steps, x, x, {})
    for low, value, high in zip(point.lower[1], truth, point.upper[1], strict=True):
        assert low <= value <= high


def dot(row: np.ndarray, values: np.ndarray) -> Fraction:
    return sum((Fraction(float(r)) * v for r, v in zip(row, values, strict=True)), Fraction(0))


@settings(max_examples=40)
@given(SEEDS)
def test_backward_is_the_transpose_of_forward(seed: int) -> None:
    generator = np.random.default_rng(seed)
    steps = steps_of(random_network(seed, blocks=5))
    for step in steps.steps:
        if isinstance(step, AffineStep):
            for linear, source in step.terms:
                x = generator.normal(size=(3, steps.sizes[source]))
                r = generator.normal(size=(3, steps.sizes[step.output]))
                r[:, generator.random(r.shape[1]) < 0.5] = 0.0
                left, right = (linear.backward(r) * x).sum(axis=1), (r * linear.forward(x)).sum(axis=1)
                assert np.allclose(left, right, rtol=1e-9, atol=1e-9)
                assert (linear.magnitude(np.abs(x)) >= np.abs(linear.forward(x)) * (1 - 1e-12) - 1e-12).all()


@settings(max_examples=200)
@given(SEEDS)
def test_planes_hold_in_exact_arithmetic(seed: int) -> None:
    """At every corner of the alternatives' box, where the planes' errors are extremal, and at points of parts of it."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 5))
    lower = generator.normal(size=(count, 1, 1)) * generator.choice([1e-3, 1.0, 1e6])
    upper = lower + generator.exponential(size=lower.shape) * (generator.random(lower.shape) < 0.8)
    if generator.random() < 0.5:
        lower[-1] = upper[-1] = 0.0
    alive = generator.random((count, 1, 1)) < 0.7
    weights = fractions = None
    if generator.random() < 0.7:
        integers = generator.multinomial(1 << 16, generator.dirichlet(np.full(count, 0.5)))
        weights = (integers / (1 << 16)).reshape(count, 1, 1)
        fractions = generator.choice([0.0, 1.0, generator.random()], size=(1, 1))
    planes = planes_of(lower, upper, alive, weights=weights, fractions=fractions)
    choices = [
        sorted({Fraction(float(low)), Fraction(float(high)), (Fraction(float(low)) + Fraction(float(high))) / 2})
        for low, high in zip(lower.ravel(), upper.ravel(), strict=True)
    ]
    for point in itertools.product(*choices):
        y = max(point)
        if not any(a and z == y for a, z in zip(alive.ravel(), point, strict=True)):
            continue
        assert not planes.is_empty[0, 0]
        above = sum((Fraction(float(a)) * z for a, z in zip(planes.above.ravel(), point, strict=True)), Fraction(0))
        below = sum((Fraction(float(b)) * z for b, z in zip(planes.below.ravel(), point, strict=True)), Fraction(0))
        assert below <= y <= above + Fraction(float(planes.constant[0, 0]))


def test_relu_planes_by_hand() -> None:
    lower = np.array([[[-1.0, -2.0, 1.0, -3.0]], [[0.0] * 4]])
    upper = np.array([[[3.0, 1.0, 2.0, -1.0]], [[0.0] * 4]])
    planes = planes_of(lower, upper, np.ones((2, 1, 4), dtype=bool))
    assert planes.above[0, 0].tolist() == pytest.approx([0.75, 1 / 3, 1.0, 0.0])
    assert planes.below[0, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert planes.constant[0].tolist() == pytest.approx([0.75, 2 / 3, 0.0, 0.0])


@settings(max_examples=150)
@given(st.data())
def test_cover_agrees_with_enumeration(data: st.DataObject) -> None:
    forms = data.draw(st.integers(1, 7))
    count = data.draw(st.integers(1, forms))
    sets = data.draw(st.lists(st.frozensets(st.integers(0, forms - 1), min_size=1, max_size=4), max_size=14))
    expected = all(
        any(members <= set(subset) for members in sets) for subset in itertools.combinations(range(forms), count)
    )
    assert cover.covers_every_subset(sets, forms, count) == expected


def test_cover_of_a_hundred_labels_takes_no_time() -> None:
    singles = [frozenset([form]) for form in range(99) if form not in (3, 50, 70)]
    pairs = [frozenset(pair) for pair in itertools.combinations((3, 50, 70), 2)]
    assert cover.covers_every_subset([*singles, *pairs], 99, 2)
    assert not cover.covers_every_subset([*singles, *pairs[1:]], 99, 2)
    assert not cover.covers_every_subset([*singles[1:], *pairs], 99, 2)


def test_cover_gives_up_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    triples = [frozenset(triple) for triple in itertools.combinations(range(14), 3)]
    monkeypatch.setattr(cover, "MOST_WORK", 10_000)
    with pytest.raises(CertificateError, match="takes too long"):
        cover.covers_every_subset(triples[1:], 14, 7)


@settings(max_examples=40)
@given(SEEDS)
def test_float32_inference_stays_within_the_error(seed: int) -> None:
    """Float32 evaluation of the file's operations, and with sums in another order, at float32 images of a box."""
    generator = np.random.default_rng(seed)
    network = random_network(seed, blocks=5)
    lower = generator.random(network.input_shape).astype(np.float32) * np.float32(0.5)
    box = Box(lower.astype(np.float64), lower.astype(np.float64) + 0.5)
    goal = Property("float32", np.eye(network.labels), np.zeros(network.labels), 1)
    judge = Judge(network, box, goal)
    error = form_errors(judge._knowledge, goal)
    images = np.clip(lower + generator.random((30, *network.input_shape)).astype(np.float32) / 2, lower, lower + 0.5)
    images = images.astype(np.float32)
    truth = evaluation.evaluate(network, images.astype(np.float64))
    for rules in (evaluation.RULES, {**evaluation.RULES, Dense: dense_from_the_end}):
        values = [images]
        for node in network.nodes:
            values.append(rules[type(node.op)](node.op, [values[read] for read in node.inputs]))
        assert values[-1].dtype == np.float32
        distance = np.abs(values[-1].astype(np.float64) - truth)
        assert (distance <= error + 1e-12 * np.maximum(1.0, np.abs(truth))).all()
    assert np.isfinite(error).all()
    assert (error <= 1e-2 * max(1.0, float(judge._knowledge.magnitude[judge._steps.scores].max()) ** 2)).all()


def dense_from_the_end(op: Dense, inputs: list[np.ndarray]) -> np.ndarray:
    total = np.zeros((*inputs[0].shape[:-1], len(op.weight)), np.float32)
    for column in reversed(range(op.weight.shape[1])):
        total = total + inputs[0][..., column : column + 1] * op.weight[:, column]
    return total + op.bias


def test_a_proof_with_no_room_for_float32_is_refused_only_there() -> None:
    """Scores (x, x + 2^-23) with a label that leads by 2^-23: real arithmetic proves it, float32 rounding may not."""
    weight = np.array([[1.0], [1.0]], np.float32)
    network = dense(weight, np.array([0.0, 2.0**-23], np.float32))
    box = Box(np.zeros(1), np.ones(1))
    goal = Property("second leads", np.array([[1.0, -1.0]]), np.zeros(1), 1)
    tree = Tree((), (Leaf(()),))
    assert Judge(network, box, goal).leaf_bounds((0,), tree)[0] < 0
    assert Judge(network, box, goal, covers_float32=True).leaf_bounds((0,), tree)[0] > 0
    wide = dense(weight, np.array([0.0, 2.0**-10], np.float32))
    assert Judge(wide, box, goal, covers_float32=True).leaf_bounds((0,), tree)[0] < 0


def dense(weight: np.ndarray, bias: np.ndarray) -> Network:
    node = Node("scores", Dense(weight, bias), (0,), bias.shape)
    return Network((weight.shape[1],), (node,), Head.NONE, b"", "0" * 64, "tiny.onnx")


def test_relu_and_pool_next_to_each_other_are_one_maximum() -> None:
    pool = MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
    for ops in ((Relu(), pool), (pool, Relu())):
        builder = NetworkBuilder((1, 4, 4))
        for op in ops:
            builder.add(op, len(builder.nodes))
        builder.add(Reshape((4,)), 2)
        steps = steps_of(builder.network())
        (step,) = steps.maxima.values()
        assert step.operation == 1
        assert step.index.shape == (5, 4)
        assert step.has_floor
        assert step.index[:, 3].tolist() == [10, 11, 14, 15, -1]


def test_a_relu_that_others_read_too_is_not_merged() -> None:
    builder = NetworkBuilder((1, 2, 2))
    relu = builder.add(Relu(), 0)
    pool = builder.add(MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (1, 1)), relu)
    conv = builder.add(
        Conv(np.ones((1, 1, 2, 2), np.float32), np.zeros(1, np.float32), (1, 1), (0, 0, 0, 0), (1, 1), 1), relu
    )
    builder.add(Reshape((1,)), builder.add(Add(), pool, conv))
    steps = steps_of(builder.network())
    assert sorted(steps.maxima) == [0, 1]
    assert not steps.maxima[1].has_floor


def test_unknown_operations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(steps_module._RULES, Reshape)
    builder = NetworkBuilder((1, 2, 2))
    builder.add(Reshape((4,)), 0)
    with pytest.raises(UnsupportedOpError, match="Reshape0"):
        steps_of(builder.network())


def test_values_that_overflow_are_refused() -> None:
    big = np.full((1, 1), 3e38, np.float32)
    nodes = [Node(f"n{i}", Dense(big, np.zeros(1, np.float32)), (i,), (1,)) for i in range(9)]
    network = Network((1,), tuple(nodes), Head.NONE, b"", "0" * 64, "big.onnx")
    with pytest.raises(CertificateError, match="overflow"):
        Judge(network, Box(np.zeros(1), np.ones(1)), Property("x", np.ones((1, 1)), np.zeros(1), 1))


@settings(max_examples=30)
@given(SEEDS)
def test_bounds_over_a_single_image_contain_its_exact_forms(seed: int) -> None:
    network = random_network(seed, blocks=4)
    generator = np.random.default_rng(seed)
    image = generator.random(network.input_shape)
    goal = Property("point", generator.normal(size=(3, network.labels)), generator.normal(size=3), 1)
    judge = Judge(network, Box(image, image), goal)
    for operation in judge._steps.maxima:
        judge.judge(CrownLemma(operation))
    scores = exact_scores(network, image)
    for form in range(3):
        (bound,) = judge.leaf_bounds((form,), Tree((), (Leaf(()),)))
        truth = sum(
            (Fraction(float(c)) * s for c, s in zip(goal.coefficients[form], scores, strict=True)),
            Fraction(float(goal.offsets[form])),
        )
        assert truth <= Fraction(float(bound))
        size = max(1.0, *(float(magnitude.max(initial=0.0)) for magnitude in judge._knowledge.magnitude))
        assert bound - float(truth) <= 1e-9 * size
