"""`aureole check`: what it prints, and that only an accepted proof gives exit code 0."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aureole.commands.check import property_text
from aureole.exits import ExitCode
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
