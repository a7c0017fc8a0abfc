"""`aureole grow-all`: pairs of objects over a folder, taken up where it was left."""

import json
from pathlib import Path

import numpy as np
import pytest

import aureole as public
from aureole.exits import ExitCode
from synth.matching import match_labels
from verifier.errors import InputError

OBJECTS = ("--object", "0,0,6,3", "--object", "0,3,6,6", "--bands", "0,1-", "--corners", "2", "--timeout", "4")


@pytest.fixture
def folder(tmp_path, pixels):
    folder = tmp_path / "images"
    folder.mkdir()
    np.save(folder / "a.npy", pixels)
    return folder


def lines(path="out/grow-all.jsonl"):
    return Path(path).read_text().splitlines()


def test_every_ordered_pair_of_every_image_and_nothing_twice(aureole, check_report, halves, folder):
    ended = aureole("grow-all", halves, folder, *OBJECTS)
    assert ended.code == ExitCode.ROBUST
    records = [json.loads(line) for line in lines()]
    # The left half's score is label 0's, the right half's label 1's: what is perturbed keeps the other's label.
    assert [(record["perturbed"], record["target"]) for record in records] == [(0, 1), (1, 0)]
    for record in records:
        check_report(record["report"])
        assert Path(record["report"]["files"]["layers"]).exists()
    before = lines()
    # As if the last had been interrupted: half a line, and a trace that is there.
    Path("out/grow-all.jsonl").write_text(before[0] + "\n" + before[1][:40])
    again = aureole("grow-all", halves, folder, *OBJECTS)
    assert again.code == ExitCode.ROBUST
    assert lines()[0] == before[0]
    assert len(lines()) == 2
    assert json.loads(lines()[1])["report"]["weighted_size"] >= json.loads(before[1])["report"]["weighted_size"]
    assert "label kept" in again.out


def test_a_mask_file_that_changed_is_another_question(aureole, halves, folder, tmp_path):
    masks = [tmp_path / "left.npy", tmp_path / "right.npy"]
    left = np.zeros((6, 6), np.bool_)
    left[:, :3] = True
    for path, mask in zip(masks, (left, ~left), strict=True):
        np.save(path, mask)
    words = ("--object", masks[0], "--object", masks[1], "--timeout", "0")
    aureole("grow-all", halves, folder, *words)
    aureole("grow-all", halves, folder, *words)
    assert len(lines()) == 2
    left[0, 2] = False
    np.save(masks[0], left)
    aureole("grow-all", halves, folder, *words)
    assert [json.loads(line)["perturbed"] for line in lines()] == [0, 1, 0]


def test_an_image_without_such_objects_is_named_and_the_others_go_on(aureole, halves, tmp_path, pixels):
    folder = tmp_path / "mixed"
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros_like(pixels))
    ended = aureole("grow-all", halves, folder, "--timeout", "5")
    assert ended.code == ExitCode.UNDECIDED
    assert "connected pieces" in ended.out


def test_a_results_file_of_something_else_is_left_alone(aureole, halves, folder):
    Path("out").mkdir()
    Path("out/grow-all.jsonl").write_text("hello\n")
    assert aureole("grow-all", halves, folder, *OBJECTS).code == ExitCode.DATA
    assert lines() == ["hello"]


def test_labels_are_matched_by_what_blanking_costs(halves, pixels):
    network = public.load_network(str(halves))
    left = np.zeros(pixels.shape[1:], np.bool_)
    left[:, :3] = True
    assert match_labels(network, pixels.astype(np.float64), [left, ~left]) == (0, 1)
    assert match_labels(network, pixels.astype(np.float64), [~left, left]) == (1, 0)
    with pytest.raises(InputError, match="objects"):
        match_labels(network, pixels.astype(np.float64), [])
