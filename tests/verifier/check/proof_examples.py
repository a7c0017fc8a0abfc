"""Proofs for tests: trees built by splitting windows and trying random parameters, judged only by the bounds the checker gives.

Whatever parameters a leaf carries, its bound must hold; so random ones serve both to build real proofs and to attack the checker.
"""

import io
from collections.abc import Sequence

import numpy as np

from verifier.check.judge import Judge
from verifier.network import Network
from verifier.proof.quantise import COARSE, FINE, group_parameters, parameter_set
from verifier.proof.records import (
    CrownLemma,
    Item,
    Leaf,
    ParameterSet,
    Refutation,
    RowClaim,
    Split,
    Statement,
    Tree,
    TreeLemma,
    WindowGroup,
)
from verifier.proof.writer import write_proof
from verifier.property import Property
from verifier.region import Box

DEFAULT = Leaf(())


def statement(network: Network, box: Box, goal: Property) -> Statement:
    return Statement(network.sha256, box, goal, "tests")


def to_bytes(about: Statement, items: Sequence[Item]) -> bytes:
    target = io.BytesIO()
    size = write_proof(target, about, items)
    assert size == len(target.getvalue())
    return target.getvalue()


def undecided(judge: Judge) -> list[tuple[int, int, np.ndarray]]:
    """(operation, window, alternatives that bounds leave) of every undecided window."""
    found = []
    for operation, planes in judge._planes.items():
        kept = planes.planes.kept[:, 0]
        for window in np.flatnonzero(kept.sum(axis=0) > 1):
            found.append((operation, int(window), np.flatnonzero(kept[:, window])))
    return found


def layout_of(judge: Judge, generator: np.random.Generator | None = None) -> tuple[WindowGroup, ...]:
    """One group per operation with all undecided windows (some, in random order, given a generator)."""
    groups = []
    for operation, step in judge._steps.maxima.items():
        listed = [(window, alive) for other, window, alive in undecided(judge) if other == operation]
        if generator is not None:
            listed = [listed[i] for i in generator.permutation(len(listed))[: generator.integers(0, len(listed) + 1)]]
        if not listed:
            continue
        slots = max(len(alive) for _, alive in listed)
        table = np.full((len(listed), slots), -1)
        for row, (_, alive) in enumerate(listed):
            table[row, : len(alive)] = alive if generator is None else generator.permutation(alive)
        windows = np.array([window for window, _ in listed])
        has_fractions = len(step.index) > 2 or not step.has_floor
        groups.append(WindowGroup(operation, windows, table, has_fractions))
    return tuple(groups)


def random_parameters(
    generator: np.random.Generator, layout: tuple[WindowGroup, ...], members: int, multiplier: float = 1.0
) -> ParameterSet:
    """Parameters in range, many of them on its edge."""
    groups = []
    bits = int(generator.choice([FINE, COARSE]))
    for group in layout:
        is_used = group.alternatives >= 0
        weights = generator.exponential(size=is_used.shape) * (generator.random(is_used.shape) < 0.7) * is_used
        weights[:, 0] += 1e-9
        fractions = np.clip(generator.uniform(-0.3, 1.3, len(weights)), 0, 1) if group.has_fractions else None
        multipliers = (
            generator.exponential(multiplier, is_used.shape) * (generator.random(is_used.shape) < 0.5) * is_used
        )
        total = weights.sum(axis=1, keepdims=True)
        groups.append(group_parameters(weights / total, fractions, multipliers, bits))
    return parameter_set(generator.dirichlet(np.ones(members)), groups, bits)


def random_splits(generator: np.random.Generator, judge: Judge, depth: int) -> list[Split]:
    """Splits of random windows, by sets that may hold alternatives which bounds exclude."""
    listed = undecided(judge)
    splits = []
    for _ in range(depth if listed else 0):
        operation, window, alive = listed[generator.integers(len(listed))]
        side = alive[generator.random(len(alive)) < 0.5]
        extra = int(generator.integers(0, judge._steps.maxima[operation].everything + 1)) & ~sum(
            1 << int(a) for a in alive
        )
        splits.append(
            Split(operation, window, sum(1 << int(a) for a in side) | (extra if generator.random() < 0.3 else 0))
        )
    return splits


def full_tree(splits: Sequence[Split], leaves: Sequence[Leaf]) -> tuple[Split | Leaf, ...]:
    """The tree that splits by each of these in turn; it takes 2 ** len(splits) leaves."""
    if not splits:
        return (leaves[0],)
    half = len(leaves) // 2
    return (splits[0], *full_tree(splits[1:], leaves[:half]), *full_tree(splits[1:], leaves[half:]))


def best_leaves(
    judge: Judge, members: Sequence[int], splits: Sequence[Split], generator: np.random.Generator, tries: int
) -> tuple[Tree, np.ndarray]:
    """A tree over these splits whose leaves carry the best of some random parameters, and its leaves' bounds."""
    layout = layout_of(judge)
    leaves = [DEFAULT] * 2 ** len(splits)
    bounds = judge.leaf_bounds(members, Tree(layout, full_tree(splits, leaves)))
    for _ in range(tries):
        trial = [Leaf((random_parameters(generator, layout, len(members), 0.3),)) for _ in leaves]
        found = judge.leaf_bounds(members, Tree(layout, full_tree(splits, trial)))
        leaves = [new if a < b else old for new, old, a, b in zip(trial, leaves, found, bounds, strict=True)]
        bounds = np.minimum(bounds, found)
    return Tree(layout, full_tree(splits, leaves)), bounds


def proved_example(
    network: Network, box: Box, goal: Property, seed: int, *, depth: int = 2, tries: int = 15
) -> tuple[Statement, list[Item]]:
    """A statement with a proof that uses lemmas of both kinds, splits, multipliers and combinations.

    The property's offsets are moved so that it holds by little; its leading forms are refuted in pairs if count is 2.
    """
    generator = np.random.default_rng(seed)
    judge = Judge(network, box, goal)
    items: list[Item] = []
    for operation, step in judge._steps.maxima.items():
        if step.source not in judge._steps.shallow:
            items.append(CrownLemma(operation))
            judge.judge(items[-1])
            items.append(claimed(judge, operation, generator))
            judge.judge(items[-1])
    groups = subsets(len(goal.offsets), goal.count)
    splits = random_splits(generator, judge, depth)
    trees = [best_leaves(judge, members, splits, generator, tries) for members in groups]
    highest = max(float(bounds.max()) for _, bounds in trees)
    shift = highest + 1e-3 * max(1.0, abs(highest)) if np.isfinite(highest) else 0.0
    moved = Property(goal.name, goal.coefficients, goal.offsets - shift, goal.count)
    items += [Refutation(members, tree) for members, (tree, _) in zip(groups, trees, strict=True)]
    return statement(network, box, moved), items


def subsets(forms: int, count: int) -> list[tuple[int, ...]]:
    """Sets that cover all count-subsets: pairs where count is at least 2 (forms few), else single forms."""
    if count == 1:
        return [(form,) for form in range(forms)]
    return [(i, j) for i in range(forms) for j in range(i + 1, forms)]


def claimed(judge: Judge, operation: int, generator: np.random.Generator) -> TreeLemma:
    """Claims about what an operation reads, proved by trees over splits of earlier windows."""
    step = judge._steps.maxima[operation]
    earlier = [w for w in undecided(judge) if judge._steps.maxima[w[0]].output <= step.source]
    lower, upper = judge.region_bounds(operation)
    claims = []
    for entry in generator.permutation(len(lower))[:3].tolist():
        for sign, bound in ((1, upper[entry]), (-1, -lower[entry])):
            splits = []
            if earlier:
                first, window, alive = earlier[generator.integers(len(earlier))]
                splits = [Split(first, window, 1 << int(alive[0]))]
            nodes = full_tree(splits, [DEFAULT] * 2 ** len(splits))
            # Interval bounds are never better than the default walk by more than rounding.
            loose = float(bound) + 1e-6 * max(1.0, abs(float(bound)))
            claims.append(
                RowClaim(
                    np.array([entry]), sign, _provable(judge, operation, entry, sign, loose, nodes), Tree((), nodes)
                )
            )
    return TreeLemma(operation, tuple(claims))


def _provable(judge: Judge, operation: int, entry: int, sign: int, bound: float, nodes: tuple) -> float:
    """The bound, or one so large that the tree's leaves prove it."""
    from verifier.check.trees import Goal, parts_of

    goal = Goal(judge._steps.maxima[operation].source, np.array([entry]), np.array([float(sign)]), np.array([0.0]))
    found = [value for _, value in judge._bounder.bounds(parts_of(goal, Tree((), nodes), judge._steps.maxima))]
    highest = max(found)
    return bound if not np.isfinite(highest) else max(highest + 1e-9 * max(1.0, abs(highest)), -1e6)
