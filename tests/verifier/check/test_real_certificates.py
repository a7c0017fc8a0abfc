"""Certificates that `certify` made, attacked: every mutant is rejected with a reason, or what it states is true.

AUREOLE_MUTANTS multiplies their number: `AUREOLE_MUTANTS=100 pytest tests/verifier/check/test_real_certificates.py` tries 60,000.
"""

import io
import os
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from certificate_mutants import Records, damaged, other_bytes, other_fields
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_convolutions import exact, tiny_query

from nets import shipped
from verifier.certify import certify
from verifier.check.certificates import CheckReport, check_certificate, is_about
from verifier.check.margins import margin_lower_bound
from verifier.evaluation import evaluate
from verifier.onnx_import import load_network
from verifier.proof.reader import CertificateReader
from verifier.proof.records import Counterexample, Leaf, Refutation, Statement, TreeLemma
from verifier.proof.writer import write_counterexample
from verifier.property import Property, stays_in_top_k
from verifier.query import Query
from verifier.region import Box
from verifier.runtime import run
from verifier.verdict import Vulnerable
from verifier.verify import verify

TIMES = int(os.environ.get("AUREOLE_MUTANTS", "1"))
TINY = (3, 4, 5, 6, 7)
"""Seeds of networks that are enumerated in well under a second."""
ROOM = 0.01
SHIPPED = ("strided3-none", 17, 3, 0.008)
SEEDS = st.integers(0, 2**63)


def proof_bytes(query: Query) -> bytes:
    found = certify(query)
    assert found.proof is not None, found.reason
    target = io.BytesIO()
    found.proof.write(target)
    return target.getvalue()


@cache
def tiny(seed: int) -> tuple[Query, bytes]:
    """A network with convolution, ReLU and pool, and a proof of a property that holds by little."""
    with tempfile.TemporaryDirectory() as folder:
        asked = tiny_query(seed, Path(folder) / "tiny.onnx")
    goal = asked.property
    moved = Property(goal.name, goal.coefficients, goal.offsets - exact(asked) - ROOM, goal.count)
    query = Query(asked.network, asked.region, moved)
    return query, proof_bytes(query)


@cache
def real() -> tuple[Query, bytes]:
    """A shipped network and image."""
    name, index, label, epsilon = SHIPPED
    network = load_network(shipped.network_path(name))
    image = shipped.images().images[index].reshape(network.input_shape).astype(np.float64)
    query = Query(network, Box.around(image, epsilon), stays_in_top_k(label, 2, network.labels))
    return query, proof_bytes(query)


def test_the_examples_use_every_part_of_the_format() -> None:
    """Or mutants of some part would never be tried."""
    seen: Counter[str] = Counter()
    for _, data in [*(tiny(seed) for seed in TINY), real()]:
        for item in Records(data).items:
            seen[type(item).__name__] += 1
            trees = [claim.tree for claim in item.claims] if isinstance(item, TreeLemma) else []
            trees += [item.tree] if isinstance(item, Refutation) else []
            for tree in trees:
                leaves = [node for node in tree.nodes if isinstance(node, Leaf)]
                groups = [group for leaf in leaves for held in leaf.sets for group in held.groups]
                seen["split"] += len(leaves) > 1
                seen["two sets"] += any(len(leaf.sets) > 1 for leaf in leaves)
                seen["members"] += isinstance(item, Refutation) and len(item.members) > 1
                seen["multipliers"] += any(len(group.places) for group in groups)
                seen["fractions"] += any(len(group.fractions) for group in groups)
                seen["shared claims"] += isinstance(item, TreeLemma) and any(len(c.entries) > 1 for c in item.claims)
    wanted = ("CrownLemma", "TreeLemma", "Refutation", "split", "two sets", "members", "multipliers", "fractions")
    assert all(seen[part] for part in wanted), seen


def is_true(query: Query, report: CheckReport) -> bool:
    """Whether an accepted mutant's statement holds: by enumeration."""
    about = report.statement
    if about is None or about.network_sha256 != query.network.sha256:
        return False
    return is_about(about, query) or exact(Query(query.network, about.box, about.property)) < 1e-9


def assert_sound(query: Query, mutant: bytes) -> bool:
    report = check_certificate(mutant, query.network)
    if report.accepted:
        assert is_true(query, report)
    else:
        assert report.reason
    return report.accepted


def test_unchanged_they_are_accepted() -> None:
    for seed in TINY:
        query, data = tiny(seed)
        assert check_certificate(data, query.network).accepted
        records = Records(data)
        assert check_certificate(records.written(records.statement, records.items), query.network).accepted


@settings(max_examples=230 * TIMES)
@given(SEEDS, st.sampled_from(TINY))
def test_other_fields(seed: int, example: int) -> None:
    query, data = tiny(example)
    assert_sound(query, other_fields(Records(data), np.random.default_rng(seed)))


@settings(max_examples=230 * TIMES)
@given(SEEDS, st.sampled_from(TINY))
def test_other_bytes(seed: int, example: int) -> None:
    query, data = tiny(example)
    assert_sound(query, other_bytes(data, np.random.default_rng(seed)))


@settings(max_examples=120 * TIMES)
@given(SEEDS, st.sampled_from(TINY))
def test_damaged_files(seed: int, example: int) -> None:
    query, data = tiny(example)
    mutant = damaged(data, np.random.default_rng(seed))
    accepted = assert_sound(query, mutant)
    assert not accepted or mutant == data or len(mutant) == len(data), "cut or lengthened, and accepted"


def assert_sound_or_same(seed: int, mutant: bytes) -> None:
    """A shipped network's margin cannot be enumerated: an accepted statement is the same one, or no random image disproves it."""
    query, _ = real()
    report = check_certificate(mutant, query.network)
    about = report.statement
    if not report.accepted:
        assert report.reason
    elif about is None or not is_about(about, query):
        assert about is not None
        assert about.network_sha256 == query.network.sha256
        lower, upper = about.box.lower, about.box.upper
        images = np.random.default_rng(seed).integers(0, 2, size=(64, *lower.shape)) * (upper - lower) + lower
        assert (about.property.margin(evaluate(query.network, images)) < 0).all()


@settings(max_examples=10 * TIMES)
@given(SEEDS, st.sampled_from([other_bytes, damaged]))
def test_bytes_of_a_shipped_network_s_certificate(seed: int, change) -> None:
    assert_sound_or_same(seed, change(real()[1], np.random.default_rng(seed)))


@settings(max_examples=10 * TIMES)
@given(SEEDS)
def test_fields_of_a_shipped_network_s_certificate(seed: int) -> None:
    assert_sound_or_same(seed, other_fields(Records(real()[1]), np.random.default_rng(seed)))


@pytest.mark.parametrize("example", TINY)
def test_every_item_is_needed_or_the_proof_stands_without_it(example: int) -> None:
    query, data = tiny(example)
    records = Records(data)
    for place, item in enumerate(records.items):
        rest = (*records.items[:place], *records.items[place + 1 :])
        report = check_certificate(records.written(records.statement, rest), query.network)
        assert report.accepted or report.reason
        if isinstance(item, Refutation):
            assert not report.accepted


@cache
def violated(seed: int) -> tuple[Query, bytes]:
    """A counterexample, found by `verify` on the same networks."""
    asked, _ = tiny(seed)
    goal = asked.property
    query = Query(
        asked.network, asked.region, Property(goal.name, goal.coefficients, goal.offsets + 3 * ROOM, goal.count)
    )
    verdict = verify(query).verdict
    assert isinstance(verdict, Vulnerable)
    target = io.BytesIO()
    about = Statement(query.network.sha256, query.region, query.property, "tests")
    write_counterexample(target, Counterexample(about, verdict.counterexample.image))
    return query, target.getvalue()


@settings(max_examples=120 * TIMES)
@given(SEEDS, st.sampled_from(TINY), st.sampled_from([other_bytes, damaged]))
def test_mutants_of_counterexamples(seed: int, example: int, change) -> None:
    """An accepted one violates its own statement: exactly, and in ONNX Runtime."""
    query, data = violated(example)
    assert check_certificate(data, query.network).is_proof is False
    mutant = change(data, np.random.default_rng(seed))
    report = check_certificate(mutant, query.network)
    if not report.accepted:
        assert report.reason
        return
    about = report.statement
    assert about is not None
    assert report.is_proof is False
    image = CertificateReader(io.BytesIO(mutant), len(mutant)).image()
    assert about.box.contains(image)
    assert margin_lower_bound(query.network, about.property, image.astype(np.float64)) > 0
    assert about.property.margin(run(query.network, image[None])[0].astype(np.float64)) > 0
