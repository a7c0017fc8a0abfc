"""Proofs that `certify` makes: complete on what enumeration says is robust, never there where it is not."""

import io
from dataclasses import replace

import numpy as np
import pytest
from tiny_convolutions import exact, tiny_query

from verifier.bounds import NodeBounds, analyse_region
from verifier.certify import certify
from verifier.check.certificates import check_certificate
from verifier.deadline import Deadline
from verifier.lowering import lower
from verifier.search import SearchOptions, SearchStatus, search

NETWORKS, BATCH = 60, 20
ROBUST_AND_LOOSE = ()
_TIE = 1e-4


def checked(query, certification, *, covers_float32=False):
    """The checker's report on the written certificate."""
    target = io.BytesIO()
    size = certification.proof.write(target)
    assert size == len(target.getvalue())
    return check_certificate(target.getvalue(), query.network, covers_float32=covers_float32)


@pytest.mark.parametrize("first", range(0, NETWORKS, BATCH))
def test_proofs_exist_exactly_where_enumeration_says_robust(first, tmp_path):
    nodes, refused = [], 0
    for seed in range(first, first + BATCH):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
        covers_float32 = seed % 2 == 0
        # Float32 errors of these networks are below 1e-5.
        supremum, found = exact(query), certify(query, float32=covers_float32)
        if found.proof is None:
            assert supremum > -_TIE
            assert found.reason
            assert found.best_bound >= supremum - 1e-6
            refused += 1
        else:
            assert supremum < 0
            report = checked(query, found, covers_float32=covers_float32)
            assert report.accepted, report.reason
            assert report.refutations == len(_refutations(found.proof))
            nodes.append(max(len(refutation.tree.nodes) for refutation in _refutations(found.proof)))
    assert nodes
    assert refused


def test_splits_are_needed_and_made(tmp_path):
    split = 0
    for seed in ROBUST_AND_LOOSE:
        found = certify(tiny_query(seed, tmp_path / f"{seed}.onnx"))
        split += max(len(refutation.tree.nodes) for refutation in _refutations(found.proof)) > 1
    assert split == len(ROBUST_AND_LOOSE)


def _refutations(proof):
    return [item for item in proof.items if hasattr(item, "members")]


def test_bounds_that_lie_prove_nothing(tmp_path):
    """A region with bounds inside the network that are far too narrow, as a broken engine could hand over."""
    lied = 0
    for seed in range(80):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
        if exact(query) < 0:
            continue
        region = analyse_region(lower(query.network), query.region)
        narrow = {key: 0.5 * (low + region.node_bounds.upper[key]) for key, low in region.node_bounds.lower.items()}
        liar = replace(region, node_bounds=NodeBounds(narrow, narrow))
        assert certify(query, region=liar).proof is None
        lied += 1
    assert lied >= 10


def test_a_search_s_splits_are_made_again(tmp_path):
    used = 0
    for seed in range(NETWORKS):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
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
    query = next(
        query for seed in range(NETWORKS) if exact(query := tiny_query(seed, tmp_path / f"{seed}.onnx")) < -_TIE
    )
    found = certify(query, deadline=Deadline().within(0.0))
    assert found.proof is None
    assert "time ran out" in found.reason
    assert np.isinf(found.best_bound)
