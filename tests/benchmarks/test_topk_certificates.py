"""The certificates' part of the top-k benchmark, from records alone, and one measurement on a question of ours."""

import numpy as np
import pytest

import aureole
from benchmarks.topk import certificates, report, results
from benchmarks.topk.certificates import CertificateTask
from benchmarks.topk.queries import HARD, Question


def record(question=HARD[0].question, engine="auto", **fields):
    found = {
        "verdict": "robust",
        "seconds": 2.0,
        "certify_seconds": 1.0,
        "check_seconds": 0.5,
        "bytes": 20_000,
        "checked": True,
        "leaves": 9,
        "why": None,
        "bound": None,
    }
    return {**CertificateTask(question, engine, 100.0, False).identity, **found, **fields}


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_table_counts_what_is_robust_and_what_is_certified():
    first, second = HARD[0].question, HARD[2].question
    missing = record(second, seconds=9.0, bytes=None, check_seconds=None, checked=None, leaves=None, why="time ran out")
    assert (first.network, first.epsilon) == (second.network, second.epsilon)
    found = [record(), missing, record(HARD[4].question, verdict="vulnerable", leaves=None)]
    text = certificates.certificates_table(found)
    by_name = {(row[0], row[1]): row[2:] for row in rows(text)[2:]}
    assert by_name["381 noDef", "0.005"][:3] == ["2", "2", "1 (50%)"]
    assert by_name["381 noDef", "0.005"][3:] == [
        "2.0 / 2.0",
        "1.0 / 1.0",
        "0.50 / 0.50",
        "0.25 / 0.2",
        "20 kB / 20 kB",
        "9 / 9",
    ]
    assert by_name["381 noDef", "0.01"] == ["1", "0", "0", "", "", "", "", "", ""]
    assert by_name["all", ""][:3] == ["3", "2", "1 (50%)"]
    assert f"No certificate: {second.name}: time ran out" in text
    assert "## Certificates" in report.render(found, [], 100.0)


def test_a_rejected_certificate_is_an_alarm():
    found = [record(checked=False)]
    assert HARD[0].question.name in next(certificates.rejected(found))
    assert "CONTRADICTIONS" in report.render(found, [], 100.0)
    assert "REJECTED" in report.in_words(found[0])
    assert not list(certificates.rejected([record()]))


def test_another_scope_is_another_measurement():
    held = results.done([record()])
    assert results.key(record(seconds=7.0)) in held
    assert results.key({**record(), "float32": True}) not in held


def test_certified_answers_are_claims_too():
    vulnerable = {**record(), "verdict": "vulnerable"}
    assert [claim.verdict for claim in results.claims(record())] == ["robust"]
    assert results.claims(vulnerable) == []


@pytest.mark.parametrize(
    ("number", "text"), [(2_700, "2.7 kB"), (38_400, "38 kB"), (1_250_000, "1.2 MB"), (12e6, "12 MB")]
)
def test_sizes(number, text):
    assert certificates.size(number) == text


@pytest.mark.parametrize(("epsilon", "verdict"), [(0.002, "robust"), (0.1, "vulnerable")])
def test_one_measurement(monkeypatch, epsilon, verdict):
    network = aureole.load_network("strided3-none")
    image = aureole.read_image("shipped:17", network.input_shape)
    query = aureole.Query(network, aureole.Box.around(image, epsilon), aureole.stays_in_top_k(3, 2, network.labels))
    monkeypatch.setattr(Question, "query", lambda _self: query)
    found = certificates.certify(CertificateTask(HARD[0].question, "bounds", 60.0, False))
    assert found["verdict"] == verdict
    assert found["checked"] is True
    assert found["bytes"] > 100
    assert found["seconds"] > 0
    assert np.isfinite(found["certify_seconds"])
    assert (found["leaves"] is None) == (verdict == "vulnerable")
    assert verdict in certificates.in_words(found)
