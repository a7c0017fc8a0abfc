"""`aureole attack`: what it writes, that it goes on where it stopped, and that its results cross-check."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

import attacks
from attacks.claims import Aim
from aureole import attack_job
from aureole.attack_options import named_values
from aureole.exits import ExitCode, UsageError
from aureole.image_sets import read_images, read_labels
from nets import shipped
from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.onnx_import import load_network

SHAPE = (1, 6, 6)


@pytest.fixture
def stack(tmp_path):
    """Four images whose top 2 of the network `halves` are labels 0 and 1, by falling distance to losing label 1."""
    images = np.full((4, *SHAPE), 0.8, np.float32)
    images[..., 3:] = np.array([0.9, 0.6, 0.4, 0.3], np.float32)[:, None, None, None]
    path = tmp_path / "stack.npy"
    np.save(path, images)
    return path


GOAL = ("--method", "bim", "--goal", "target-miss", "--goal-option", "label=1", "--k", "2")
BALL = ("--norm", "linf", "--eps", "0.25")


def results(folder):
    return parquet.read_table(folder / "results.parquet").to_pylist()


def test_results_are_what_they_say(aureole, halves, stack, tmp_path, check_report):
    out = tmp_path / "out"
    ended = aureole("attack", halves, stack, *GOAL, *BALL, "--out", out, "--json")
    assert ended.code == 0, ended.err
    report = check_report(json.loads(ended.out))
    assert report == json.loads((out / "summary.json").read_text())
    assert (report["images"], report["eligible"], report["finished"], report["successes"]) == (4, 4, 4, 2)
    assert report["values"]["success rate"]["value"] == 0.5
    rows, clean, network = results(out), np.load(stack), load_network(halves)
    assert [row["success"] for row in rows] == [False, False, True, True]
    assert [row["claim"] for row in rows] == ["failure", "failure", "success", "success"]
    for row, original in zip(rows, clean, strict=True):
        adversarial = np.load(out / row["adversarial"])
        assert np.array_equal(np.load(out / row["image"]), original)
        change = np.abs(adversarial.astype(float) - original.astype(float))
        assert row["linf"] == change.max() <= 0.25
        assert row["l2"] == pytest.approx(np.linalg.norm(change))
        scores = evaluate(network, adversarial[None].astype(float))[0]
        np.testing.assert_allclose(row["scores"], scores, atol=1e-12)
        aim = Aim(4, tuple(row["on"]), tuple(row["off"]), row["needed"], row["k"])
        assert (aim.way_at(scores).margin(scores) > 0) == row["success"]
    assert (out / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert (out / rows[0]["adversarial"].replace(".npy", ".png")).exists()


def test_an_attack_cross_checks(aureole, halves, stack, tmp_path):
    out = tmp_path / "out"
    aureole("attack", halves, stack, *GOAL, *BALL, "--out", out)
    ended = aureole("crosscheck", out, "--network", halves, "--json")
    report = json.loads(ended.out)
    assert ended.code == 0, report
    assert report["counts"] == {"confirmed": 4}
    assert report["robust_accuracy"][0]["interval"] == [0.5, 0.5]


def test_without_a_ball_the_claim_is_the_distance(aureole, halves, stack, tmp_path):
    out = tmp_path / "out"
    words = ("--method", "ml-cw", "--goal", "target-miss", "--goal-option", "label=1", "--k", "2")
    few = ("--option", "iterations=60", "--option", "searches=2")
    assert aureole("attack", halves, stack, *words, *few, "--out", out).code == 0
    found = [row for row in results(out) if row["success"]]
    assert found
    assert all(row["norm"] == "l2" and row["l2"] < row["bound"] < row["l2"] * (1 + 1e-9) for row in found)
    report = json.loads(aureole("crosscheck", out, "--network", halves, "--json").out)
    assert report["counts"] == {"confirmed": len(found)}
    assert not any("rounding" in item["reason"] for item in report["judgements"])


@pytest.fixture
def counted(monkeypatch):
    """The number of images attacked in each call of the engine."""
    calls, honest = [], attacks.run

    def run(network, images, *arguments, **options):
        calls.append(len(images))
        return honest(network, images, *arguments, **options)

    monkeypatch.setattr(attacks, "run", run)
    return calls


def test_a_finished_image_is_not_attacked_again(aureole, halves, stack, tmp_path, counted):
    out = tmp_path / "out"
    first = aureole("attack", halves, stack, *GOAL, *BALL, "--out", out, "--batch", "3", "--json")
    assert counted == [3, 1]
    again = aureole("attack", halves, stack, *GOAL, *BALL, "--out", out, "--batch", "3", "--json")
    assert counted == [3, 1]
    assert again.out == first.out
    # A damaged image is not taken for a finished one.
    (out / results(out)[2]["adversarial"]).write_bytes(b"torn")
    repaired = aureole("attack", halves, stack, *GOAL, *BALL, "--out", out, "--json")
    assert counted == [3, 1, 1]
    assert repaired.out == first.out


def test_an_interrupted_attack_keeps_what_is_finished_and_goes_on(aureole, halves, stack, tmp_path, monkeypatch):
    whole, out, honest, calls = tmp_path / "whole", tmp_path / "out", attacks.run, []
    aureole("attack", halves, stack, *GOAL, *BALL, "--out", whole)

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    monkeypatch.setattr(attacks, "run", interrupted)
    arguments = ("attack", halves, stack, *GOAL, *BALL, "--out", out, "--batch", "1")
    ended = aureole(*arguments)
    assert ended.code == ExitCode.INTERRUPTED
    assert ended.out.startswith("INTERRUPTED")
    assert len(results(out)) == 2
    # A line that a crash cut short is skipped.
    with (out / "progress.jsonl").open("a") as stream:
        stream.write('{"key": "cut')
    assert aureole(*arguments).code == 0
    assert len(calls) == 5
    for row, wanted in zip(results(out), results(whole), strict=True):
        assert {**row, "seconds": 0, "sha256": ""} == {**wanted, "seconds": 0, "sha256": ""}
        assert np.array_equal(np.load(out / row["adversarial"]), np.load(whole / wanted["adversarial"]))


def test_another_attack_does_not_mix_in(aureole, halves, stack, tmp_path):
    out = tmp_path / "out"
    assert aureole("attack", halves, stack, *GOAL, *BALL, "--out", out).code == 0
    ended = aureole("attack", halves, stack, *GOAL, "--norm", "linf", "--eps", "0.3", "--out", out)
    assert ended.code == ExitCode.USAGE
    assert "eps" in ended.err
    # More images of the same attack do.
    more = stack.parent / "more.npy"
    np.save(more, np.load(stack)[0] * np.float32(0.9))
    assert aureole("attack", halves, stack, more, *GOAL, *BALL, "--out", out).code == 0
    assert len(results(out)) == 5


def test_images_that_are_not_eligible_claim_nothing(aureole, halves, stack, tmp_path):
    images = np.load(stack)
    images[0] = 0.05
    np.save(stack, images)
    out = tmp_path / "out"
    ended = aureole("attack", halves, stack, *GOAL, *BALL, "--out", out, "--json")
    assert json.loads(ended.out)["eligible"] == 3
    first = results(out)[0]
    assert (first["eligible"], first["claim"], first["adversarial"]) == (False, "none", None)
    assert json.loads(aureole("crosscheck", out, "--network", halves, "--json").out)["claims"] == 3


def test_jpeg_is_measured_and_attacked_through(aureole, halves, stack, tmp_path):
    rows = {}
    for name, extra in (("blind", ()), ("adaptive", ("--adaptive",))):
        out = tmp_path / name
        ended = aureole("attack", halves, stack, *GOAL, *BALL, "--jpeg", "30", *extra, "--out", out)
        assert ended.code == 0, ended.err
        assert "JPEG 30" in ended.out
        rows[name] = results(out)
    assert all(row["jpeg_success"] is not None for row in rows["blind"])
    # Through the defence is how an adaptive attack's own success is measured.
    assert [row["success"] for row in rows["adaptive"]] == [row["jpeg_success"] for row in rows["adaptive"]]
    assert any(row["success"] for row in rows["adaptive"])


def test_goals_and_random_choices_are_those_of_the_library(halves, stack):
    network, images = load_network(halves), np.load(stack)
    labels = np.array([[1, 1, 0, 0]] * 4, bool)
    options = attacks.GoalOptions(threshold=0.25)
    result = attacks.run(
        network, images, labels, method="fgsm", goal="random", goal_options=options, norm="linf", eps=0.1
    )
    scores = torch.from_numpy(evaluate(network, images.astype(float)))
    keys = attack_job.row_keys([attack_job.begun_draw(image) for image in images], labels)
    goal = attacks.make_goal("random", torch.from_numpy(labels), scores, options, keys=keys)
    assert torch.equal(goal.sign, result.goal.sign)


def test_the_lists(aureole, check_report):
    ended = aureole("attack", "--list")
    assert ended.code == 0
    assert all(name in ended.out for name in (*attacks.METHODS, *attacks.GOALS))
    report = check_report(json.loads(aureole("attack", "--list", "--json").out))
    assert [method["name"] for method in report["methods"]] == list(attacks.METHODS)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ((), ExitCode.USAGE, "NET and IMAGES"),
        (("--method", "magic"), ExitCode.USAGE, "wanted one of fgsm"),
        (("--goal", "magic"), ExitCode.USAGE, "wanted one of hiding"),
        (("--variant", "magic"), ExitCode.USAGE, "fixed or released"),
        (("--goal", "target-miss"), ExitCode.USAGE, "needs k"),
        (("--goal", "target-miss", "--k", "4"), ExitCode.USAGE, "k: got 4"),
        (("--goal", "hiding-all", "--k", "2"), ExitCode.USAGE, "not for the top k"),
        (("--goal-option", "magic=1"), ExitCode.USAGE, "unknown"),
        (("--goal-option", "label"), ExitCode.USAGE, "NAME=VALUE"),
        (("--option", "magic=1"), ExitCode.USAGE, "unknown"),
        (("--option", "iterations=many"), ExitCode.USAGE, "wanted a value like"),
        (("--norm", "l7"), ExitCode.USAGE, "l1, l2 or linf"),
        (("--eps", "-1"), ExitCode.USAGE, "eps"),
        (("--jpeg", "0"), ExitCode.USAGE, "quality 0"),
        (("--adaptive",), ExitCode.USAGE, "--jpeg"),
        (("--device", "tpu"), ExitCode.DATA, "device"),
        (("--labels", "none.csv"), ExitCode.NO_INPUT, "no such file"),
        (("--goal", "specified-labels", "--k", "2", "--goal-option", "members=9"), ExitCode.USAGE, "label 9"),
        (("--goal", "top-k-untargeted", "--k", "3"), ExitCode.DATA, "no eligible image"),
    ],
)
def test_misuse_has_a_reason_and_no_traceback(aureole, halves, stack, arguments, code, complaint):
    target = (halves, stack) if arguments else ()
    ended = aureole("attack", *target, *arguments)
    assert ended.code == code, ended.err
    assert complaint in ended.err
    assert "Traceback" not in ended.err


def test_a_threshold_goal_on_a_softmax_head_is_refused(aureole, headed, stack):
    ended = aureole("attack", headed("Softmax"), stack, "--goal", "hiding-all")
    assert ended.code == ExitCode.DATA
    assert "softmax" in ended.err


@pytest.mark.parametrize("module", ["pyarrow", "sklearn"])
def test_what_results_need_is_asked_for_before_the_work(aureole, halves, stack, monkeypatch, counted, module):
    monkeypatch.setitem(sys.modules, module, None)
    ended = aureole("attack", halves, stack, *GOAL, *BALL)
    assert ended.code == ExitCode.UNAVAILABLE
    assert "aureole[attacks]" in ended.err
    assert counted == []


def test_a_threshold_goal_is_measured_by_labels(aureole, halves, stack, tmp_path):
    out = tmp_path / "out"
    words = (
        "--goal",
        "hiding-single",
        "--goal-option",
        "threshold=0.25",
        "--method",
        "bim",
        "--norm",
        "linf",
        "--eps",
        "0.7",
    )
    ended = aureole("attack", halves, stack, *words, "--out", out, "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["k"] is None
    assert report["successes"] == 4
    assert report["values"]["Hamming A to target"]["value"] == 0.0
    assert report["changes"]["micro F1"]["before"]["value"] == 1.0
    checked = json.loads(aureole("crosscheck", out, "--network", halves, "--json").out)
    assert checked["counts"] == {"confirmed": 4}


def test_image_references(tmp_path, stack, image):
    assert [item.name for item in read_images(["shipped:3-5", "shipped:4"], (1, 64, 64))] == [
        "shipped:3",
        "shipped:4",
        "shipped:5",
    ]
    assert len(read_images([str(tmp_path)], SHAPE)) == 5
    named = read_images([str(stack), str(image)], SHAPE)
    assert [Path(item.name).name for item in named] == [
        "stack.npy[0]",
        "stack.npy[1]",
        "stack.npy[2]",
        "stack.npy[3]",
        "image.npy",
    ]
    wrong = {"shipped:5-3": "smaller", "shipped:100": "shipped:0", "none": "no such", "shipped:x": "wanted"}
    for reference, complaint in wrong.items():
        with pytest.raises(InputError, match=complaint):
            read_images([reference], (1, 64, 64))
    np.save(stack, np.full((2, *SHAPE), 2.0))
    with pytest.raises(InputError, match=r"wanted \[0, 1\]"):
        read_images([str(stack)], SHAPE)


def test_label_files(tmp_path, stack):
    images = read_images([str(stack)], SHAPE)
    path = tmp_path / "labels.csv"
    path.write_text("image,labels\n" + "".join(f"stack.npy[{place}],{place} 3\n" for place in range(4)))
    marks = read_labels(path, images, 4)
    assert [np.flatnonzero(row).tolist() for row in marks] == [[0, 3], [1, 3], [2, 3], [3]]
    np.save(tmp_path / "labels.npy", marks.astype(np.int64))
    assert np.array_equal(read_labels(tmp_path / "labels.npy", images, 4), marks)
    for content, complaint in [
        ("image,labels\nother,1\n", "no row for image"),
        ("picture,labels\nx,1\n", "columns image and labels"),
        ("image,labels\n" + "".join(f"stack.npy[{place}],7\n" for place in range(4)), "got '7'"),
    ]:
        path.write_text(content)
        with pytest.raises(InputError, match=complaint):
            read_labels(path, images, 4)
    np.save(tmp_path / "labels.npy", marks[:2].astype(np.int64))
    with pytest.raises(InputError, match="one row an image"):
        read_labels(tmp_path / "labels.npy", images, 4)


def test_shipped_images_have_their_own_labels(aureole, tmp_path):
    out = tmp_path / "out"
    ended = aureole("attack", "strided3-none", "shipped:0-1", "--method", "fgsm", "--k", "2", "--out", out)
    assert ended.code == 0, ended.err
    truth = shipped.images().labels
    assert [row["labels"] for row in results(out)] == [sorted(truth[place].tolist()) for place in range(2)]


def test_option_words():
    values = named_values(("a=1", "b-c=0.5", "d=3,7", "e=true", "f=none", "g=best", "h=3,"), "--option")
    assert values == {"a": 1, "b_c": 0.5, "d": (3, 7), "e": True, "f": None, "g": "best", "h": (3,)}
    with pytest.raises(UsageError, match="twice"):
        named_values(("a=1", "a=2"), "--option")
