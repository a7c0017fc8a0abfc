"""Proofs that `certify` makes: complete on what enumeration says is robust, never there where it is not."""

import io
from dataclasses import replace

import pytest
from tiny_convolutions import exact, tiny_query

from verifier.bounds import NodeBounds, analyse_region
from verifier.certify import certify
from verifier.check.certificates import check_certificate
from verifier.deadline import Deadline
from verifier.lowering import lower
from verifier.property import Property
from verifier.query import Query
from verifier.search import SearchOptions, SearchStatus, search

NETWORKS, BATCH = 24, 8
_ROOM = 0.01


def checked(query, certification, *, covers_float32=False):
    """The checker's report on the written certificate."""
    target = io.BytesIO()
    size = certification.proof.write(target)
    assert size == len(target.getvalue())
    return check_certificate(target.getvalue(), query.network, covers_float32=covers_float32)


def shifted(query, supremum, wanted):
    """The same query with its forms moved so that the margin's supremum is the one wanted: as tight a question as one likes."""
    goal = query.property
    moved = Property(goal.name, goal.coefficients, goal.offsets - supremum + wanted, goal.count)
    return Query(query.network, query.region, moved)


@pytest.mark.parametrize("first", range(0, NETWORKS, BATCH))
def test_proofs_exist_exactly_where_enumeration_says_robust(first, tmp_path):
    nodes = []
    for seed in range(first, first + BATCH):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
        supremum = exact(query)
        for wanted in (-_ROOM, _ROOM) if seed % 3 else (-_ROOM,):
            tight = shifted(query, supremum, wanted)
            # Float32 errors of these networks are below 1e-5.
            covers_float32 = seed % 2 == 0
            found = certify(tight, float32=covers_float32)
            if wanted > 0:
                assert found.proof is None
                assert found.reason
                assert found.best_bound >= wanted - 1e-6
            else:
                assert found.proof is not None, found.reason
                report = checked(tight, found, covers_float32=covers_float32)
                assert report.accepted, report.reason
                assert report.refutations == len(_refutations(found.proof))
                nodes.append(max(len(refutation.tree.nodes) for refutation in _refutations(found.proof)))
    assert sum(count > 1 for count in nodes) >= 2


def _refutations(proof):
    return [item for item in proof.items if hasattr(item, "members")]


def test_bounds_that_lie_prove_nothing(tmp_path):
    """A region with bounds inside the network that are far too narrow, as a broken engine could hand over."""
    lied = 0
    for seed in range(12):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
        query = shifted(query, exact(query), _ROOM)
        region = analyse_region(lower(query.network), query.region)
        narrow = {key: 0.5 * (low + region.node_bounds.upper[key]) for key, low in region.node_bounds.lower.items()}
        liar = replace(region, node_bounds=NodeBounds(narrow, narrow))
        assert certify(query, region=liar).proof is None
        lied += 1
    assert lied >= 8


def test_a_search_s_splits_are_made_again(tmp_path):
    used = 0
    for seed in range(12):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
        query = shifted(query, exact(query), -_ROOM)
        region = analyse_region(lower(query.network), query.region)
        outcome = search(
            region, query.property, None, options=SearchOptions(leaf_windows=0), on_candidates=lambda points: False
        )
        if outcome.status is not SearchStatus.REFUTED or not outcome.frontier.cover.trees:
            continue
        found = certify(query, region=region, cover=outcome.frontier.cover)
        assert found.proof is not None
        assert checked(query, found).accepted
        used += 1
    assert used >= 5


def test_without_time_there_is_no_proof_and_a_reason(tmp_path):
    query = tiny_query(0, tmp_path / "0.onnx")
    query = shifted(query, exact(query), -_ROOM)
    found = certify(query, deadline=Deadline().within(0.0))
    assert found.proof is None
    assert "time ran out" in found.reason
    assert found.best_bound >= -_ROOM
