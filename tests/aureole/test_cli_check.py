"""`aureole check`: what it prints, and that only an accepted proof gives exit code 0."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aureole.check_report import property_text
from aureole.exits import ExitCode
from verifier import runtime
from verifier.onnx_import import load_network
from verifier.proof.records import Counterexample, Leaf, Refutation, Statement, Tree
from verifier.proof.writer import write_counterexample, write_proof
from verifier.property import Property, keeps_thresholds, stays_in_top_k, stays_out_of_top_k
from verifier.region import Box


@pytest.fixture
def statement(halves, pixels):
    network = load_network(halves)
    return Statement(network.sha256, Box.around(pixels, 0.3), stays_in_top_k(1, 2, 4), "tests")


def saved(path: Path, about: Statement, items=None, image=None) -> Path:
    target = io.BytesIO()
    if items is not None:
        write_proof(target, about, items)
    else:
        write_counterexample(target, Counterexample(about, image))
    path.write_bytes(target.getvalue())
    return path


def proof_items(forms) -> list[Refutation]:
    return [Refutation((form,), Tree((), (Leaf(()),))) for form in forms]


def test_a_proof(aureole, halves, statement, tmp_path):
    path = saved(tmp_path / "proof.cert", statement, proof_items([1, 2]))
    ended = aureole("check", path, "--network", halves)
    assert ended.code == ExitCode.ROBUST, ended.out
    words = " ".join(ended.out.split())
    assert words.startswith("PROVED")
    assert "label 1 stays in the top 2" in words
    assert "trusted nothing" in words
    assert "2 refuted sets of forms" in words
    assert aureole("check", path, "--network", halves, "--float32").code == ExitCode.ROBUST


def test_an_incomplete_proof(aureole, halves, statement, tmp_path):
    ended = aureole("check", saved(tmp_path / "half.cert", statement, proof_items([1])), "--network", halves)
    assert ended.code == ExitCode.UNDECIDED
    assert ended.out.startswith("REJECTED")
    assert "leave a way to violate" in " ".join(ended.out.split())


def test_a_counterexample(aureole, halves, statement, pixels, tmp_path):
    wide = Statement(statement.network_sha256, Box.around(pixels, 0.5), statement.property, "tests")
    columns = np.arange(pixels.shape[2])
    image = np.clip(pixels - np.where(columns >= 3, 0.5, 0.0), 0, 1).astype(np.float32)
    ended = aureole("check", saved(tmp_path / "image.cert", wide, image=image), "--network", halves)
    assert ended.code == ExitCode.VULNERABLE, ended.out
    ended = aureole("check", saved(tmp_path / "outside.cert", statement, image=image), "--network", halves)
    assert ended.code == ExitCode.UNDECIDED


def test_files_that_are_not_there_or_no_certificates(aureole, halves, statement, tmp_path):
    assert aureole("check", tmp_path / "none", "--network", halves).code == ExitCode.NO_INPUT
    path = saved(tmp_path / "proof.cert", statement, proof_items([1, 2]))
    assert aureole("check", path, "--network", tmp_path / "none.onnx").code == ExitCode.NO_INPUT
    assert aureole("check", path, "--network", path).code == ExitCode.DATA
    assert aureole("check", halves, "--network", halves).code == ExitCode.UNDECIDED
    assert aureole("check", path).code == ExitCode.USAGE


@pytest.mark.parametrize("build", [stays_in_top_k, stays_out_of_top_k])
@pytest.mark.parametrize(("label", "k", "labels"), [(0, 1, 3), (3, 2, 5), (4, 4, 5)])
def test_rankings_are_read_off_their_forms(build, label, k, labels):
    goal = build(label, k, labels)
    order = np.random.default_rng(0).permutation(len(goal.offsets))
    renamed = Property("a lie", goal.coefficients[order], goal.offsets[order], goal.count)
    assert property_text(renamed) == goal.name


def test_other_properties_are_counted_not_named():
    goal = keeps_thresholds([1, -1, 0], [0.0, 0.5, 0.0], 1)
    lie = Property("label 0 stays in the top 1", goal.coefficients, goal.offsets, goal.count)
    assert property_text(lie) == "violated where at least 2 of 2 linear forms of 3 scores are >= 0"


def test_the_checker_loads_no_engine():
    names = (
        "torch",
        "scipy",
        "highspy",
        "gurobipy",
        "verifier.bounds",
        "verifier.search",
        "verifier.milp",
        "verifier.lowering",
    )
    code = f"import sys, aureole.commands.check; print([name for name in {names} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def checked(ended, check_report):
    return check_report(json.loads(ended.out))


def test_json_of_a_proof(aureole, check_report, halves, statement, tmp_path):
    path = saved(tmp_path / "proof.cert", statement, proof_items([1, 2]))
    ended = aureole("check", path, "--network", halves, "--json", "--float32")
    report = checked(ended, check_report)
    assert ended.code == report["exit_code"] == ExitCode.ROBUST
    assert (report["accepted"], report["kind"], report["reason"]) == (True, "proof", None)
    assert report["covers_float32"]
    assert report["bytes"] == path.stat().st_size
    assert report["proof"]["leaves"] == report["proof"]["refutations"] == 2
    assert report["proof"]["closest"] < 0
    assert report["trusted"] == []
    assert report["statement"]["property"] == "label 1 stays in the top 2"
    assert report["statement"]["network_sha256"] == report["network"]["sha256"]
    assert not checked(aureole("check", path, "--network", halves, "--json"), check_report)["covers_float32"]


def test_json_of_a_rejection(aureole, check_report, halves, statement, tmp_path):
    path = saved(tmp_path / "half.cert", statement, proof_items([1]))
    report = checked(aureole("check", path, "--network", halves, "--json"), check_report)
    assert (report["accepted"], report["kind"], report["exit_code"]) == (False, "proof", ExitCode.UNDECIDED)
    assert "leave a way to violate" in report["reason"]
    path.write_bytes(b"no certificate")
    report = checked(aureole("check", path, "--network", halves, "--json", "--float32"), check_report)
    assert (report["accepted"], report["kind"], report["statement"], report["proof"]) == (False, None, None, None)
    assert not report["covers_float32"]
    assert "its first bytes are others" in report["reason"]


def violation(statement, pixels):
    wide = Statement(statement.network_sha256, Box.around(pixels, 0.5), statement.property, "tests")
    columns = np.arange(pixels.shape[2])
    return wide, np.clip(pixels - np.where(columns >= 3, 0.5, 0.0), 0, 1).astype(np.float32)


def test_a_counterexample_is_run_in_onnx_runtime(
    aureole, check_report, halves, statement, pixels, tmp_path, monkeypatch
):
    wide, image = violation(statement, pixels)
    path = saved(tmp_path / "image.cert", wide, image=image)
    report = checked(aureole("check", path, "--network", halves, "--json"), check_report)
    assert (report["exit_code"], report["kind"], report["proof"]) == (ExitCode.VULNERABLE, "counterexample", None)
    assert report["replay"]["margin_lower"] == pytest.approx(0.1, abs=1e-5)
    assert report["replay"]["runtime_margin"] == pytest.approx(0.1, abs=1e-5)
    assert "replayed in ONNX Runtime" in aureole("check", path, "--network", halves).out
    honest = runtime.run
    runs = []

    def dissenting(network, images):
        runs.append(images)
        return np.zeros_like(honest(network, images))

    monkeypatch.setattr(runtime, "run", dissenting)
    monkeypatch.setattr("verifier.onnx_import.loading.check_replay", lambda *_: None)
    ended = aureole("check", path, "--network", halves, "--json")
    assert ended.code == ExitCode.UNDECIDED
    assert len(runs) == 1
    np.testing.assert_array_equal(runs[0][0], image)
    assert "does not violate the property strictly" in checked(ended, check_report)["reason"]


def test_another_network(aureole, headed, halves, statement, tmp_path):
    path = saved(tmp_path / "proof.cert", statement, proof_items([1, 2]))
    ended = aureole("check", path, "--network", headed("Sigmoid"))
    assert ended.code == ExitCode.UNDECIDED
    assert f"is about the network with SHA-256 {statement.network_sha256}" in " ".join(ended.out.split())


@pytest.mark.parametrize("keep", [1, 11, 12, 20, 60, -1])
def test_truncated(aureole, halves, statement, tmp_path, keep):
    path = saved(tmp_path / "proof.cert", statement, proof_items([1, 2]))
    path.write_bytes(path.read_bytes()[:keep])
    ended = aureole("check", path, "--network", halves)
    assert (ended.code, ended.err) == (ExitCode.UNDECIDED, "")
    assert ended.out.startswith("REJECTED")
    assert "truncated" in ended.out


def test_a_block_that_says_it_is_huge(aureole, halves, statement, tmp_path):
    path = saved(tmp_path / "proof.cert", statement, proof_items([1, 2]))
    held = bytearray(path.read_bytes())
    held[13:17] = (2**32 - 1).to_bytes(4, "little")
    path.write_bytes(bytes(held))
    ended = aureole("check", path, "--network", halves)
    assert (ended.code, ended.err) == (ExitCode.UNDECIDED, "")
    assert "are allowed" in ended.out


def test_many_labels_and_long_words_are_described_quickly(aureole, halves, statement, tmp_path):
    """What a certificate says of itself is printed before anything is believed."""
    labels = 1500
    coefficients = np.eye(labels)[1:]
    goal = Property("x" * 60_000, coefficients, np.zeros(labels - 1), 2)
    about = Statement(statement.network_sha256, statement.box, goal, "y" * 60_000)
    ended = aureole("check", saved(tmp_path / "large.cert", about, proof_items([1])), "--network", halves)
    assert ended.code == ExitCode.UNDECIDED
    assert "1500 labels" in ended.out
    assert len(ended.out) < 5000


def test_a_folder_and_an_unreadable_file(aureole, halves, tmp_path):
    ended = aureole("check", tmp_path, "--network", halves)
    assert ended.code == ExitCode.DATA
    assert "is a folder" in ended.err
    assert aureole("check", halves, "--network", tmp_path).code == ExitCode.DATA
