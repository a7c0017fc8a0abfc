"""No run overwrites the files of another; the same run may write its own again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import nets.train_command
from nets.augmentation import Augmentation
from nets.files import FolderError
from nets.kept_runs import differences, refuse_other_run
from nets.losses import ProjectedGradient
from nets.options import AdversarialTraining, Schedule, TrainingOptions
from nets.train_command import train
from verifier.errors import InputError

TINY = TrainingOptions(
    Schedule(4, batch_size=4), augmentation=Augmentation(scale=0.1), defence=AdversarialTraining(), clearance=0.03
)
OTHERS = {
    "loss": (replace(TINY, loss="bce"), 1, r"options\.loss \"ranking\", wanted \"bce\""),
    "seed": (TINY, 2, "seed 1, wanted 2"),
    "steps": (replace(TINY, schedule=Schedule(5, batch_size=4)), 1, r"options\.schedule\.steps 4, wanted 5"),
    "epsilon": (
        replace(TINY, defence=AdversarialTraining(ProjectedGradient(0.05, 4, 0.4))),
        1,
        r"options\.defence\.attack\.epsilon 0\.03, wanted 0\.05",
    ),
}


class StoppedError(Exception):
    """Stands for Ctrl-C."""


def never(*_: object) -> None:
    raise AssertionError("a step was trained")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets.train_command, "MEASURED_IMAGES", 5)


@pytest.fixture
def kept(mnist_dir: Path, tmp_path: Path) -> Path:
    """A folder with one finished run."""
    train("strided2", "linf", 1, mnist_dir, tmp_path / "kept", TINY, name="kept")
    return tmp_path / "kept"


@pytest.mark.parametrize(("options", "seed", "told"), OTHERS.values(), ids=OTHERS.keys())
def test_another_run_is_refused_before_its_first_step(
    mnist_dir: Path, kept: Path, options: TrainingOptions, seed: int, told: str
) -> None:
    before = contents(kept)
    advice = r"write into another folder \(--out\), or remove this file and kept\.onnx$"
    with pytest.raises(InputError, match=rf"kept\.json: another run is kept here \({told}\); {advice}"):
        train("strided2", "linf", seed, mnist_dir, kept, options, never, name="kept")
    assert contents(kept) == before
    trained = train("strided2", "linf", seed, mnist_dir, kept, options, name="other")
    assert trained.record_path.exists()


def test_other_digits_are_another_run(mnist_dir: Path, kept: Path, tmp_path: Path) -> None:
    digits = tmp_path / "digits"
    digits.mkdir()
    for path in mnist_dir.iterdir():
        (digits / path.name.replace("train10k", "train")).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"data\.sha256\.train-images-idx3-ubyte\.gz absent, wanted .*; and 1 more\)"):
        train("strided2", "linf", 1, digits, kept, TINY, never, name="kept")


def test_the_same_run_again_writes_the_same_files(mnist_dir: Path, kept: Path) -> None:
    before = contents(kept)
    train("strided2", "linf", 1, mnist_dir, kept, TINY, name="kept")
    assert contents(kept) == before


def test_a_run_that_ends_meanwhile_is_not_overwritten(mnist_dir: Path, kept: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"

    def other_ends(done: int, steps: int, _loss: float) -> None:
        if done == steps:
            for name, content in contents(kept).items():
                (shared / name).write_bytes(content)

    with pytest.raises(InputError, match="seed 1, wanted 2"):
        train("strided2", "linf", 2, mnist_dir, shared, TINY, other_ends, name="kept")
    assert contents(shared) == contents(kept)


def test_a_network_without_a_record_is_overwritten_by_its_own_resumed_run_alone(
    mnist_dir: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept / "kept.json").unlink()
    with pytest.raises(InputError, match=r"kept\.onnx: a network is here without the record of its run; .* remove it$"):
        train("strided2", "linf", 1, mnist_dir, kept, TINY, never, name="kept")
    monkeypatch.setattr(nets.train_command, "CHECKPOINT_STEPS", 2)
    monkeypatch.setattr(nets.train_command, "write_json", stop)
    (kept / "kept.onnx").unlink()
    with pytest.raises(StoppedError):
        train("strided2", "linf", 1, mnist_dir, kept, TINY, name="kept")
    monkeypatch.undo()
    monkeypatch.setattr(nets.train_command, "MEASURED_IMAGES", 5)
    train("strided2", "linf", 1, mnist_dir, kept, TINY, name="kept")
    assert set(contents(kept)) == {"kept.onnx", "kept.json"}


def stop(*_: object) -> None:
    raise StoppedError


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"'])
def test_a_file_that_is_no_record_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kept.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"kept\.json: .*record of a run.*; write into another folder"):
        refuse_other_run(tmp_path / "kept.onnx", path, {"seed": 1}, is_resumed=True)
    assert path.read_text() == content


def test_differences_name_every_value_that_differs() -> None:
    kept, wanted = {"a": {"b": 1, "c": [1, 2]}, "d": None}, {"a": {"b": 1, "c": [1, 3]}, "e": "x" * 40}
    assert list(differences(kept, wanted, "run")) == [
        "run.a.c [1, 2], wanted [1, 3]",
        f"run.e absent, wanted {json.dumps('x' * 40)[:24]}...",
        "run.d null, wanted absent",
    ]


@pytest.mark.parametrize("place", ["/proc/aureole-runs", "/proc/aureole/runs", "file/runs", "file"])
def test_a_folder_that_takes_no_files_is_refused_before_the_first_step(
    mnist_dir: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match=r"no folder to write files into \(.+\); choose another$"):
        train("strided2", "linf", 1, mnist_dir, tmp_path / place, TINY, never)
