import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.proof.assemble import depth_first
from verifier.proof.errors import CertificateError
from verifier.proof.records import Leaf, Split


def grown(generator: np.random.Generator, way=()) -> list:
    """Leaves of a random tree with their ways."""
    if len(way) > 6 or (way and generator.random() < 0.4):
        return [(way, Leaf(()))]
    split = Split(int(generator.integers(3)), int(generator.integers(5)), int(generator.integers(1, 4)))
    return [*grown(generator, (*way, (split, True))), *grown(generator, (*way, (split, False)))]


def ways_of(nodes) -> list:
    """Every leaf with its way, read off the nodes."""
    pending, found = [()], []
    for node in nodes:
        way = pending.pop()
        if isinstance(node, Leaf):
            found.append((way, node))
        else:
            pending.extend(((*way, (node, False)), (*way, (node, True))))
    assert not pending
    return found


@settings(max_examples=80)
@given(st.integers(0, 2**31))
def test_leaves_in_any_order_become_their_tree(seed: int) -> None:
    generator = np.random.default_rng(seed)
    leaves = grown(generator)
    shuffled = [leaves[i] for i in generator.permutation(len(leaves))]
    found = ways_of(depth_first(shuffled))
    assert [way for way, _ in found] == [way for way, _ in leaves]
    assert all(a is b for (_, a), (_, b) in zip(found, leaves, strict=True))


@settings(max_examples=80)
@given(st.integers(0, 2**31))
def test_a_missing_leaf_is_noticed(seed: int) -> None:
    generator = np.random.default_rng(seed)
    leaves = grown(generator)
    del leaves[generator.integers(len(leaves))]
    with pytest.raises(CertificateError, match="do not form a tree"):
        list(depth_first(leaves))


def test_leaves_that_disagree_are_noticed() -> None:
    first, second = Split(0, 0, 1), Split(0, 1, 1)
    leaves = [(((first, True),), Leaf(())), (((second, False),), Leaf(()))]
    with pytest.raises(CertificateError, match="at depth 0"):
        list(depth_first(leaves))
