"""`aureole crosscheck`: tables of true and false claims, what is printed and kept, and the exit code."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from aureole.commands import crosscheck
from aureole.exits import ExitCode
from verifier.certificate import Certificate
from verifier.verdict import Robust, UnknownReason
from verifier.verdict import Unknown as Open
from verifier.verify import Outcome, Statistics


@pytest.fixture
def table(tmp_path, image, pixels):
    """Writes a table of claims about the image whose label 1 leaves the top 2 from epsilon 0.4 on."""
    found = pixels.copy()
    found[..., 3:] -= 0.5
    np.save(tmp_path / "found.npy", found)
    np.save(tmp_path / "small.npy", pixels - np.float32(0.01))
    base = {"attack": "pgd", "image": "image.npy", "off": [1], "k": 2, "norm": "linf"}

    def write(*claims):
        path = tmp_path / "claims.json"
        path.write_text(json.dumps([{**base, **claim} for claim in claims]))
        return path

    return write


SUCCESS = {"name": "won", "claim": "success", "adversarial": "found.npy", "bound": 0.5}
FAILURE = {"name": "lost", "claim": "failure", "bound": 0.3}


def test_true_claims_stand(aureole, halves, table):
    ended = aureole("crosscheck", table(SUCCESS, FAILURE), "--network", halves)
    assert ended.code == ExitCode.ROBUST, ended.out + ended.err
    assert ended.out.startswith("ALL CLAIMS STAND")
    assert "label" not in ended.err


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({**SUCCESS, "adversarial": "small.npy"}, "not valid"),
        ({**SUCCESS, "adversarial": "none.npy"}, "not valid"),
        ({**SUCCESS, "bound": 0.45}, "not valid"),
        ({**SUCCESS, "adversarial": None, "bound": 0.3}, "refuted (certificate)"),
        ({**FAILURE, "bound": 0.45}, "refuted (counterexample)"),
        ({**FAILURE, "off": [9]}, "not valid"),
    ],
)
def test_a_false_claim_is_refused(aureole, halves, table, claim, verdict, check_report):
    ended = aureole("crosscheck", table(claim, SUCCESS), "--network", halves, "--json")
    assert ended.code == ExitCode.VULNERABLE, ended.out + ended.err
    report = check_report(json.loads(ended.out))
    assert [item["verdict"] for item in report["judgements"]] == [verdict, "confirmed"]
    assert report["counts"] == {verdict: 1, "confirmed": 1}
    assert report["exit_code"] == 1


def test_a_counterexample_is_kept(aureole, halves, table, tmp_path, pixels, check_report):
    path = table({**FAILURE, "bound": 0.45})
    ended = aureole("crosscheck", path, "--network", halves, "--json", "--out", tmp_path / "found")
    report = json.loads(ended.out)
    assert report == json.loads((tmp_path / "found" / "crosscheck.json").read_text())
    files = report["judgements"][0]["files"]
    kept = np.load(files["npy"])
    assert np.abs(kept.astype(float) - pixels.astype(float)).max() <= 0.45 + 1e-12
    assert kept[..., 3:].mean() < 0.2
    check_report(json.loads(Path(files["json"]).read_text()))


def test_undecided_claims_have_their_own_code(aureole, halves, table):
    ended = aureole("crosscheck", table(FAILURE, SUCCESS), "--network", halves, "--timeout", "0")
    assert ended.code == ExitCode.UNDECIDED, ended.out
    assert ended.out.startswith("UNDECIDED")


def test_thresholds_are_logits_and_mean_nothing_under_a_softmax(aureole, headed, table):
    # The left half is 0.8: label 0 is above a logit of 0.5, and stays there within 0.2.
    words = {"k": None, "off": [0], "threshold": 0.5, "claim": "failure"}
    claims = [{**FAILURE, **words, "bound": 0.2}, {**FAILURE, **words, "bound": 0.4, "name": "wide"}]
    report = json.loads(aureole("crosscheck", table(*claims), "--network", headed("Sigmoid"), "--json").out)
    assert [item["verdict"] for item in report["judgements"]] == ["confirmed", "refuted (counterexample)"]
    report = json.loads(aureole("crosscheck", table(*claims), "--network", headed("Softmax"), "--json").out)
    assert [item["verdict"] for item in report["judgements"]] == ["not valid", "not valid"]
    assert "softmax" in report["judgements"][0]["reason"]


def test_robust_accuracy_as_an_interval(aureole, halves, table, tmp_path, pixels, check_report):
    np.save(tmp_path / "brighter.npy", np.clip(pixels + np.float32(0.3), 0, 1))
    group = {"group": "g", "bound": 0.45}
    members = [{**FAILURE, **group}, {**FAILURE, **group, "name": "two", "image": "brighter.npy"}]
    claimed = {"name": "share", "claim": "robust-accuracy", "value": 1.0, **group}
    ended = aureole("crosscheck", table(*members, claimed), "--network", halves, "--json")
    report = check_report(json.loads(ended.out))
    assert [item["verdict"] for item in report["judgements"]] == [
        "refuted (counterexample)",
        "confirmed",
        "refuted (counterexample)",
    ]
    (accuracy,) = report["robust_accuracy"]
    assert accuracy["interval"] == [0.5, 0.5] == report["judgements"][2]["interval"]
    ended = aureole("crosscheck", table(*members, {**claimed, "value": 0.5}), "--network", halves)
    assert "0.5000 to 0.5000" in ended.out


def test_a_contradiction_keeps_all_that_reproduces_it(aureole, halves, table, tmp_path, monkeypatch):
    def lie(*_arguments, **_options):
        return Outcome(Robust(Certificate("a lie", -1.0, ())), Statistics((), None, None, None, None, 0.0))

    monkeypatch.setattr(crosscheck, "verify", lie)
    ended = aureole("crosscheck", table(SUCCESS), "--network", halves, "--out", tmp_path / "kept", "--json")
    assert ended.code == ExitCode.INTERNAL
    (item,) = json.loads(ended.out)["judgements"]
    assert item["verdict"] == "contradiction"
    kept = pickle.loads(Path(item["files"]["contradiction"]).read_bytes())
    assert kept["query"].region.contains(kept["details"]["image"])
    assert kept["details"]["certificate"].engine == "a lie"
    assert kept["claim"]["name"] == "won"
    assert kept["network_sha256"] == kept["query"].network.sha256
    ended = aureole("crosscheck", table(SUCCESS), "--network", halves)
    assert ended.out.startswith("CONTRADICTION")


def test_an_interrupted_run_reports_what_is_known(aureole, halves, table, monkeypatch):
    honest = crosscheck.verify

    def interrupted(query, *, falsifier=None, **options):
        if falsifier is None:
            return honest(query, **options)
        return Outcome(Open(UnknownReason.INTERRUPTED, np.inf), Statistics((), None, None, None, None, 0.0))

    monkeypatch.setattr(crosscheck, "verify", interrupted)
    ended = aureole("crosscheck", table(FAILURE, SUCCESS), "--network", halves, "--json")
    assert ended.code == ExitCode.INTERRUPTED
    report = json.loads(ended.out)
    assert [item["name"] for item in report["judgements"]] == ["won"]
    assert report["claims"] == 2


def test_bad_input_has_no_traceback(aureole, halves, table, tmp_path):
    path = table(SUCCESS)
    for arguments, code in [
        ((tmp_path / "none.csv", "--network", halves), ExitCode.NO_INPUT),
        ((path, "--network", tmp_path / "none.onnx"), ExitCode.NO_INPUT),
        ((tmp_path / "home", "--network", halves), ExitCode.DATA),
        ((path,), ExitCode.USAGE),
        ((path, "--network", halves, "--timeout", "-1"), ExitCode.USAGE),
        ((path, "--network", halves, "--device", "tpu"), ExitCode.DATA),
    ]:
        ended = aureole("crosscheck", *arguments)
        assert ended.code == code, ended.err
        assert "Traceback" not in ended.err
        assert ended.out == ""
