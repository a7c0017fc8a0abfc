"""An interrupted run goes on to the same weights; runs do not meet; damaged files are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nets.train_command
from nets.architectures import architecture
from nets.augmentation import Rectangles
from nets.checkpoints import Checkpoints
from nets.losses import ProjectedGradient
from nets.mnist import Digits
from nets.options import AdversarialTraining, CertifiedTraining, Schedule, TaskTraining, TrainingOptions
from nets.train_command import train
from nets.training import train_network
from verifier.errors import InputError

TINY = TrainingOptions(Schedule(8, batch_size=4), clearance=0.03)
ATTACK = AdversarialTraining(ProjectedGradient(0.05, 1, 1.0), 0.0, 0.5)
RUNS = {
    "plain": TINY,
    "l0": replace(TINY, defence=Rectangles()),
    "sabr": replace(TINY, defence=CertifiedTraining(ProjectedGradient(0.05, 1, 1.0), 0.3, clean_share=0.0)),
    "tasks": replace(TINY, defence=ATTACK, tasks=TaskTraining(("odd",), "MP")),
}


class StoppedError(Exception):
    """Stands for Ctrl-C."""


def stop_at(last: int):
    def progress(done: int, _total: int, _loss: float) -> None:
        if done == last:
            raise StoppedError

    return progress


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
def test_an_interrupted_run_ends_with_the_same_weights(
    training_digits: Digits, options: TrainingOptions, tmp_path: Path
) -> None:
    chosen, saving = architecture("strided2"), Checkpoints(tmp_path, every=3)
    whole = train_network(chosen, training_digits, options, 1).state_dict()
    with pytest.raises(StoppedError):
        train_network(chosen, training_digits, options, 1, stop_at(5), saving)
    seen: list[int] = []
    resumed = train_network(chosen, training_digits, options, 1, lambda done, *_: seen.append(done), saving)
    assert seen == [4, 5, 6, 7, 8]
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.items())


def test_another_seed_or_choice_does_not_go_on_from_it(training_digits: Digits, tmp_path: Path) -> None:
    chosen, saving = architecture("strided2"), Checkpoints(tmp_path, every=3)
    with pytest.raises(StoppedError):
        train_network(chosen, training_digits, TINY, 1, stop_at(5), saving)
    for options, seed in ((TINY, 2), (replace(TINY, loss="bce"), 1)):
        with pytest.raises(StoppedError):
            train_network(chosen, training_digits, options, seed, stop_at(1), saving)
        train_network(chosen, training_digits, options, seed, None, saving)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"damaged", b"PK\x03\x04"])
def test_a_damaged_file_is_named(training_digits: Digits, tmp_path: Path, content: bytes) -> None:
    saving = Checkpoints(tmp_path)
    path = saving.path("strided2", training_digits, TINY, 1)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"no usable checkpoint \(.*\); delete it to begin anew"):
        train_network(architecture("strided2"), training_digits, TINY, 1, None, saving)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="wanted every to be 1 or more"):
        Checkpoints(tmp_path, 0)


def test_the_command_goes_on_and_cleans_up(mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets.train_command, "MEASURED_IMAGES", 5)
    monkeypatch.setattr(nets.train_command, "CHECKPOINT_STEPS", 3)
    whole = train("strided2", "none", 1, mnist_dir, tmp_path / "whole", TINY)
    with pytest.raises(StoppedError):
        train("strided2", "none", 1, mnist_dir, tmp_path / "parts", TINY, stop_at(4))
    assert [path.suffix for path in (tmp_path / "parts").iterdir()] == [".checkpoint"]
    resumed = train("strided2", "none", 1, mnist_dir, tmp_path / "parts", TINY)
    assert resumed.onnx_path.read_bytes() == whole.onnx_path.read_bytes()
    assert {path.suffix for path in (tmp_path / "parts").iterdir()} == {".onnx", ".json"}
