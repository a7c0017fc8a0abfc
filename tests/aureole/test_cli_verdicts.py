"""Verdicts through the command line: exit codes, reports, saved counterexamples."""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import aureole as public
from aureole.exits import ExitCode


def printed(ended, check_report):
    assert ended.out.startswith("{"), ended.err
    return check_report(json.loads(ended.out))


def test_robust(aureole, check_report, halves, image):
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.3", "--json")
    report = printed(ended, check_report)
    assert ended.code == report["exit_code"] == ExitCode.ROBUST
    assert report["verdict"] == "robust"
    assert report["certificate"]["bound"] == pytest.approx(-0.1, abs=1e-5)
    assert report["certificate"]["trusted"]
    assert report["counterexample"] is None
    assert report["image"]["top_k"] == [0, 1]
    assert report["property"] == {
        "kind": "stays-in",
        "text": "label 1 stays in the top 2",
        "label": 1,
        "k": 2,
        "threshold": None,
        "flips": None,
    }
    assert report["network"]["labels"] == 4
    assert not Path("out").exists()


def test_vulnerable_saves_what_it_found(aureole, check_report, halves, image, pixels):
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.5", "--json", "--out", "found")
    report = printed(ended, check_report)
    assert ended.code == report["exit_code"] == ExitCode.VULNERABLE
    files = report["counterexample"]["files"]
    found = np.load(files["npy"])
    assert found.dtype == np.float32
    assert found.shape == pixels.shape
    assert np.abs(found.astype(np.float64) - pixels).max() <= 0.5
    assert report["counterexample"]["largest_change"] <= 0.5
    picture = np.asarray(Image.open(files["png"]))
    assert np.abs(picture / 255 - found[0]).max() <= 0.5 / 255 + 1e-6
    beside = check_report(json.loads(Path(files["json"]).read_text()))
    assert beside["image"] == Path(files["npy"]).name
    # Ends by checking the answer: the saved image violates the property in the network itself.
    network = public.load_network(str(halves))
    scores = np.array(beside["scores"])
    assert public.stays_in_top_k(1, 2, network.labels).margin(scores) > 0
    assert sorted(path.name for path in Path("found").iterdir()) == sorted(Path(name).name for name in files.values())


def test_bounds_alone_may_stay_undecided(aureole, check_report, halves, image):
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.3", "--timeout", "0", "--json")
    report = printed(ended, check_report)
    assert ended.code == report["exit_code"] == ExitCode.UNDECIDED
    assert report["verdict"] == "undecided"
    assert report["reason"]["name"] == "TIME_LIMIT"
    assert report["certificate"] is None
    assert report["counterexample"] is None


def test_a_label_outside_the_clean_top_k_is_vulnerable_at_once(aureole, check_report, halves, image):
    ended = aureole("verify", halves, image, "--label", "2", "--eps", "0", "--json")
    assert ended.code == ExitCode.VULNERABLE
    assert printed(ended, check_report)["counterexample"]["largest_change"] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--property", "stays-out", "--label", "2"), ExitCode.ROBUST),
        (("--property", "stays-out", "--label", "2", "--k", "3"), ExitCode.VULNERABLE),
        (("--property", "top-k-set"), ExitCode.ROBUST),
        (("--property", "top-k-set", "--k", "1"), ExitCode.VULNERABLE),
        (("--property", "thresholds", "--threshold", "0.15"), ExitCode.ROBUST),
        (("--property", "thresholds", "--threshold", "0.5"), ExitCode.VULNERABLE),
        (("--property", "thresholds", "--threshold", "0.5", "--flips", "1"), ExitCode.ROBUST),
    ],
)
def test_every_property(aureole, check_report, halves, image, words, code):
    ended = aureole("verify", halves, image, "--eps", "0.2", "--json", *words)
    assert printed(ended, check_report)["exit_code"] == ended.code == code


def test_a_sigmoid_moves_the_threshold_to_the_logits(aureole, headed, image):
    network = headed("Sigmoid")
    # Logit 0.15 is probability 0.5374: every score keeps its side up to epsilon 0.45.
    words = ("--property", "thresholds", "--threshold", "0.5374298453437496")
    assert aureole("verify", network, image, "--eps", "0.4", *words).code == ExitCode.ROBUST
    assert aureole("verify", network, image, "--eps", "0.5", *words).code == ExitCode.VULNERABLE
    assert aureole("verify", network, image, "--eps", "0.5", "--property", "thresholds").code == ExitCode.ROBUST


def test_widths_and_images_of_every_form(aureole, tmp_path, halves, pixels):
    widths = np.zeros((6, 6))
    widths[:, 3:] = 0.5
    np.save(tmp_path / "widths.npy", widths)
    picture = tmp_path / "image.png"
    Image.fromarray(np.rint(pixels[0] * 255).astype(np.uint8)).save(picture)
    np.save(tmp_path / "flat.npy", pixels[0].astype(np.float64))
    np.save(tmp_path / "batch.npy", pixels[None])
    for image in (picture, tmp_path / "flat.npy", tmp_path / "batch.npy"):
        wide = aureole("verify", halves, image, "--label", "1", "--widths", tmp_path / "widths.npy")
        assert wide.code == ExitCode.VULNERABLE
        free = aureole("verify", halves, image, "--label", "0", "--widths", tmp_path / "widths.npy")
        assert free.code == ExitCode.ROBUST


@pytest.mark.parametrize("engine", ["auto", "bounds", "search", "milp", "auto-lirpa"])
def test_engines_agree(aureole, halves, image, engine):
    words = ("verify", halves, image, "--label", "1", "--engine", engine)
    assert aureole(*words, "--eps", "0.39").code == ExitCode.ROBUST
    assert aureole(*words, "--eps", "0.41").code == ExitCode.VULNERABLE


def test_text_report(aureole, halves, image):
    robust = aureole("verify", halves, image, "--label", "1", "--eps", "0.3")
    for words in ("ROBUST", "label 1 stays in the top 2", "proved by", "taken on trust", "stage", "time"):
        assert words in robust.out
    vulnerable = aureole("verify", halves, image, "--label", "1", "--eps", "0.5")
    for words in ("VULNERABLE", "found by", "ONNX Runtime", "saved as", "halves-image-stays-in-label1.npy"):
        assert words in vulnerable.out
    undecided = aureole("verify", halves, image, "--label", "1", "--eps", "0.5", "--timeout", "0")
    for words in ("UNDECIDED", "open because", "time limit"):
        assert words in undecided.out


def test_labels(aureole, check_report, halves, image):
    ended = aureole("labels", halves, image, "--eps", "0.2", "--json")
    report = printed(ended, check_report)
    assert ended.code == report["exit_code"] == ExitCode.ROBUST
    assert [label["state"] for label in report["labels"]] == ["always-in", "always-in", "always-out", "always-out"]
    wide = printed(aureole("labels", halves, image, "--eps", "0.5", "--json"), check_report)
    assert [label["state"] for label in wide["labels"]] == ["always-in", "both", "both", "always-out"]
    assert "provably in" in aureole("labels", halves, image, "--eps", "0.2").out


def test_labels_without_time_are_undecided(aureole, check_report, halves, image):
    ended = aureole("labels", halves, image, "--eps", "0.2", "--timeout", "0", "--json")
    report = printed(ended, check_report)
    assert ended.code == report["exit_code"] == ExitCode.UNDECIDED
    assert "undecided" in {label["state"] for label in report["labels"]}


def test_grow_and_verify_what_it_wrote(aureole, check_report, halves, image, mask):
    ended = aureole("grow", halves, image, "--target", "1", "--object", mask, "--timeout", "20", "--json")
    report = printed(ended, check_report)
    assert ended.code == report["exit_code"] == ExitCode.ROBUST
    assert report["is_proved"]
    epsilons = report["neighbourhood"]["epsilons"]
    # The left half may do anything; the right half's mean, 0.6, must stay above 0.2, and its pixels end at 0.
    assert epsilons[0] == 1.0
    assert 0.35 <= np.mean(np.minimum(epsilons[1:], 0.6)) <= 0.4
    assert report["weighted_size"] == pytest.approx(np.dot(report["weights"], epsilons))
    layers = report["files"]["layers"]
    assert Path(report["files"]["heatmap"]).read_bytes().startswith(b"\x89PNG")
    again = aureole("verify", halves, image, "--label", "1", "--layers", layers, "--json")
    assert printed(again, check_report)["verdict"] == "robust"
    check_report(json.loads(Path(layers).read_text()))


def test_grow_report_box_cut_and_trace(aureole, halves, image):
    words = (
        "--target",
        "1",
        "--object",
        "0,0,6,3",
        "--cut",
        "sensitivity",
        "--trace",
        "steps.jsonl",
        "--timeout",
        "10",
    )
    ended = aureole("grow", halves, image, *words)
    assert ended.code == ExitCode.ROBUST
    for text in ("weighted size", "epsilon by layer", "stopped because", "heat map"):
        assert text in ended.out
    assert len(Path("steps.jsonl").read_text().splitlines()) > 2


def test_info(aureole, check_report, halves):
    ended = aureole("info", halves, "--json")
    report = printed(ended, check_report)
    assert ended.code == 0
    assert report["parameters"] == 2 * 36 + 2 + 4 * 2 + 4
    assert [node["op"] for node in report["nodes"]] == ["Reshape", "Dense", "Relu", "Dense"]
    assert report["canonical"]["relus"] == 2
    assert "2 ReLUs" in aureole("info", halves).out


def test_info_lists_the_shipped_networks(aureole, check_report):
    report = printed(aureole("info", "--json"), check_report)
    assert "strided3-none" in report["networks"]
    assert "strided3-none" in aureole("info").out


def test_doctor(aureole, check_report):
    ended = aureole("doctor", "--json")
    report = printed(ended, check_report)
    assert ended.code == 0
    assert {solver["name"] for solver in report["solvers"]} == {"highs", "cbc", "gurobi", "scip"}
    assert all(solver["how_to_get"] for solver in report["solvers"])
    assert "highs" in aureole("doctor").out


def test_help_and_version(aureole):
    assert aureole("--help").code == 0
    assert aureole("verify", "--help").code == 0
    version = aureole("--version")
    assert (version.code, version.out) == (0, f"{public.__version__}\n")
    assert aureole().code == ExitCode.USAGE


def test_interruption(aureole, halves, image, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("aureole.api.verify", interrupted)
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.1", "--json")
    assert ended.code == ExitCode.INTERRUPTED
    assert ended.out == ""
    assert ended.err.strip() == "aureole: interrupted"


def test_a_contradiction_keeps_its_query(aureole, halves, image, monkeypatch):
    from verifier.errors import ContradictionError

    def contradicted(query, **_kwargs):
        raise ContradictionError("two answers", query=query, details={"one": "robust"})

    monkeypatch.setattr("aureole.api.verify", contradicted)
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.1")
    assert ended.code == ExitCode.INTERNAL
    assert ended.err.count("\n") == 1
    kept = pickle.loads(Path("out/contradiction.pickle").read_bytes())
    assert kept["query"].property.name == "label 1 stays in the top 2"
    assert kept["details"] == {"one": "robust"}


def test_an_internal_error_is_not_a_verdict(aureole, halves, image, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("bug")

    monkeypatch.setattr("aureole.api.verify", broken)
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.1")
    assert ended.code == ExitCode.INTERNAL
    assert "please report" in ended.err


def test_json_survives_a_solver_that_writes_to_stdout(aureole, check_report, halves, image, monkeypatch):

    from aureole import api

    real = api.verify

    def noisy(*args, **kwargs):
        os.write(1, b"Academic license\n")
        sys.stdout.write("and Python too")
        return real(*args, **kwargs)

    monkeypatch.setattr("aureole.api.verify", noisy)
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.1", "--json")
    printed(ended, check_report)
    assert "Academic license" in ended.err


def test_a_reader_that_goes_away_is_no_verdict(aureole, halves, image, monkeypatch):
    def closed(*_args, **_kwargs):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("aureole.terminal.write_json", closed)
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.1", "--json")
    assert ended.code == ExitCode.NO_OUTPUT


def test_an_interrupted_run_reports_its_bound(aureole, halves, image, check_report, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("verifier.verify.investigation.Investigation.first_pass", interrupted)
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.1", "--json")
    assert ended.code == ExitCode.INTERRUPTED
    report = check_report(json.loads(ended.out))
    assert (report["verdict"], report["reason"]["name"]) == ("undecided", "INTERRUPTED")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(aureole, halves, image, device):
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.1", "--device", device)
    assert ended.code in (ExitCode.DATA, ExitCode.UNAVAILABLE)
    assert device in ended.err
