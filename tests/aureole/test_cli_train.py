"""`aureole train` on made-up digits: a short run leaves a network that the other commands read."""

import json

import pytest
from synthetic_digits import synthetic_arrays, write_idx

import nets.train_command
from aureole.exits import ExitCode


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(nets.train_command, "MEASURED_IMAGES", 20)


@pytest.fixture
def digits(tmp_path):
    for prefix, count, seed in (("train10k", 200, 0), ("t10k", 100, 1)):
        images, labels = synthetic_arrays(count, seed)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def refuses(ended, code, *fragments):
    assert ended.code == code, ended
    assert (ended.out, ended.err.count("\n")) == ("", 1)
    for fragment in fragments:
        assert fragment in ended.err


def test_train_leaves_a_network_and_its_record(aureole, digits):
    out = digits / "trained"
    ended = aureole("train", "strided2", "--mnist-dir", digits, "--steps", "2", "--seed", "3", "--out", out)
    assert ended.code == 0, ended.err
    record = json.loads((out / "strided2-none.json").read_text())
    assert (record["seed"], record["options"]["schedule"]["steps"]) == (3, 2)
    assert aureole("info", out / "strided2-none.onnx").code == 0


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("linf", "--task", "odd", "--targeted", "--perturbation", "sta"), "digit28-linf-odd-sta-targeted"),
        (("linf", "--epsilon", "0.05"), "digit28-linf-eps0.05"),
        (("crown-ibp", "--robust-loss", "top-k", "--epsilon", "0.05"), "digit28-crown-ibp-eps0.05-top-k"),
    ],
)
def test_every_piece_can_be_asked_for(aureole, digits, words, name):
    ended = aureole("train", "digit28", "--mnist-dir", digits, "--steps", "2", "--out", digits, "--defence", *words)
    assert ended.code == 0, ended.err
    options = json.loads((digits / f"{name}.json").read_text())["options"]
    assert options.get("tasks", {}).get("is_targeted", False) == ("--targeted" in words)
    assert options["defence"]["attack"]["epsilon"] == (0.05 if "--epsilon" in words else 0.1)
    assert options["defence"].get("robust_loss", "set") == ("top-k" if "--robust-loss" in words else "set")
    assert aureole("info", digits / f"{name}.onnx").code == 0


def test_another_run_into_the_same_folder_is_refused(aureole, digits):
    words = ("train", "strided2", "--mnist-dir", digits, "--out", digits / "trained", "--steps", "2")
    assert aureole(*words).code == 0
    before = {path.name: path.read_bytes() for path in (digits / "trained").iterdir()}
    refuses(aureole(*words, "--seed", "1"), ExitCode.DATA, "strided2-none.json", "seed 0, wanted 1", "--out")
    refuses(aureole(*words[:-1], "3"), ExitCode.DATA, "options.schedule.steps 2, wanted 3")
    assert aureole(*words).code == 0
    assert {path.name: path.read_bytes() for path in (digits / "trained").iterdir()} == before


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("linf", "--perturbation", "MTA"), "without auxiliary tasks"),
        (("none", "--perturbation", "MTA", "--task", "odd"), "only the defence linf"),
        (("linf", "--targeted"), "without auxiliary tasks"),
        (("none", "--targeted", "--task", "odd"), "only the defence linf"),
        (("linf", "--robust-loss", "set"), "only certified training"),
        (("l0", "--epsilon", "0.1"), "no radius"),
        (("linf", "--epsilon", "nan"), "radius above 0"),
        (("ibp", "--robust-loss", "hinge"), "hinge"),
        (("linf", "--task", "odd", "--perturbation", ""), "wanted one of STA, MTA, MP"),
    ],
)
def test_options_without_effect_are_refused(aureole, digits, words, fragment):
    out = digits / "trained"
    ended = aureole("train", "digit28", "--mnist-dir", digits, "--out", out, "--defence", *words)
    refuses(ended, ExitCode.USAGE, fragment)
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_refused_before_training(aureole, digits, monkeypatch):
    def never(*_):
        raise AssertionError("training began")

    monkeypatch.setattr(nets.train_command, "train_network", never)
    (digits / "file").touch()
    words = ("train", "strided2", "--mnist-dir", digits, "--out")
    refuses(aureole(*words, "/proc/aureole-runs"), ExitCode.NO_OUTPUT, "--out /proc/aureole-runs", "choose another")
    refuses(aureole(*words, digits / "file" / "runs"), ExitCode.USAGE, "is a file, wanted a folder")
