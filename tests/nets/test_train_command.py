"""One command from MNIST files to a network and its record; the same command, the same file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import nets.train_all
import nets.train_command
from nets.architectures import ARCHITECTURES
from nets.composer import DOUBLE_MNIST, compose
from nets.files import write_bytes
from nets.manifest import write_manifest
from nets.mnist import Split, load_digits
from nets.options import AdversarialTraining, Schedule, TrainingOptions
from nets.recipes import DEFENCES, HEADS, SHIPPED, defence_name, recipe, run_name, with_pieces
from nets.train_command import describe, train
from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.onnx_import import load_network

TINY = TrainingOptions(Schedule(2, batch_size=4))


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets.train_command, "MEASURED_IMAGES", 20)


def test_a_run_writes_a_network_and_a_record_that_describes_it(mnist_dir: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    trained = train("strided2", "none", 5, mnist_dir, tmp_path, TINY, progress=lambda done, *_: steps.append(done))
    record = json.loads(trained.record_path.read_text())
    assert steps == [1, 2]
    assert trained.name == record["name"] == "strided2-none"
    assert record["seed"] == 5
    assert record["onnx"]["sha256"] == hashlib.sha256(trained.onnx_path.read_bytes()).hexdigest()
    assert record["options"] == json.loads(json.dumps(describe(TINY)))
    assert record["measured"]["clean_accuracy"] == trained.clean_accuracy
    assert record["measured"]["attacked_accuracy"] == trained.attacked_accuracy <= trained.clean_accuracy
    assert record["data"]["training_digits"] == 200
    for name, sha256 in record["data"]["sha256"].items():
        assert sha256 == hashlib.sha256((mnist_dir / name).read_bytes()).hexdigest()


def test_the_recorded_accuracy_is_that_of_the_file(mnist_dir: Path, tmp_path: Path) -> None:
    trained = train("strided2", "none", 1, mnist_dir, tmp_path, TrainingOptions(Schedule(60, 32, 1e-2)))
    images = compose(
        load_digits(Split.TEST, mnist_dir),
        DOUBLE_MNIST,
        20,
        np.random.default_rng(nets.train_command.MEASURED_SEED),
    )
    (scores,) = onnxruntime.InferenceSession(trained.onnx_path).run(None, {"image": images.images})
    top = np.sort(np.argsort(scores, axis=1)[:, -2:], axis=1)
    assert (top == np.sort(images.labels, axis=1)).all(axis=1).mean() == trained.clean_accuracy


def test_the_same_command_gives_the_same_files(mnist_dir: Path, tmp_path: Path) -> None:
    first, again = (train("strided2", "l0", 1, mnist_dir, tmp_path / key, TINY) for key in "ab")
    assert first.onnx_path.read_bytes() == again.onnx_path.read_bytes()
    assert first.record_path.read_bytes() == again.record_path.read_bytes()


def test_bad_input_leaves_no_files(mnist_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="architecture 'lenet'"):
        train("lenet", "none", 1, mnist_dir, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        train("cnn4k", "none", 1, tmp_path / "nowhere", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_recipe_describes_its_defence() -> None:
    for architecture, defence in [
        *SHIPPED.values(),
        ("strided2", "crown-ibp"),
        ("digit28", "sabr"),
        ("strided3", "ibp"),
    ]:
        described = describe(recipe(architecture, defence))
        json.dumps(described)
        kinds = {"none": None, "l0": "Rectangles", "linf": "AdversarialTraining"}
        assert (described["defence"] or {}).get("kind") == kinds.get(defence, "CertifiedTraining")
    adversarial = recipe("cnn4k", "linf").defence
    assert isinstance(adversarial, AdversarialTraining)
    assert describe(recipe("cnn4k", "linf"))["defence"]["attack"] == asdict(adversarial.attack)


def test_the_shipped_networks_are_the_promised_ones() -> None:
    wanted = {f"{name}-{defence}" for name in ("cnn4k", "strided3") for defence in ("none", "l0", "linf")}
    assert set(SHIPPED) == wanted | {"strided3-sabr", "wide150k-none"}


def test_pieces_by_name_become_a_run_whose_record_names_them(mnist_dir: Path, tmp_path: Path) -> None:
    options = replace(
        with_pieces(
            recipe("digit28", "linf"), loss="softmax", head="ml-gcn", tasks=("odd", "prime"), perturbation="MTA"
        ),
        schedule=Schedule(3, batch_size=4),
    )
    trained = train("digit28", "linf", 1, mnist_dir, tmp_path, options)
    assert trained.name == "digit28-linf-softmax-ml-gcn-odd-prime-mta"
    described = json.loads(trained.record_path.read_text())["options"]
    assert (described["loss"], described["graph"]["hidden"]) == ("softmax", 32)
    assert described["tasks"] == {"auxiliaries": ["odd", "prime"], "perturbation": "MTA", "is_targeted": False}
    typed = load_network(trained.onnx_path)
    assert typed.input_shape == (1, 28, 28)
    assert len(evaluate(typed, np.zeros((1, 1, 28, 28)))[0]) == 10


@pytest.mark.parametrize("defence", DEFENCES)
def test_every_architecture_has_a_recipe_for_every_defence(defence: str) -> None:
    for name in ARCHITECTURES:
        options = recipe(name, defence)
        assert with_pieces(options) == options
        assert run_name(name, defence, options) == f"{name}-{defence}"
        for head in HEADS:
            json.dumps(describe(with_pieces(options, head=head)))


def test_unknown_pieces_are_refused() -> None:
    options = recipe("strided2", "none")
    with pytest.raises(InputError, match="head 'gcn': unknown; wanted one of linear, ml-gcn"):
        with_pieces(options, head="gcn")
    with pytest.raises(InputError, match="loss 'hinge': unknown"):
        with_pieces(options, loss="hinge")
    with pytest.raises(InputError, match="perturbation 'SGD': unknown; wanted one of STA, MTA, MP"):
        with_pieces(options, perturbation="SGD")
    with pytest.raises(InputError, match="wanted different ones of odd, prime"):
        with_pieces(options, tasks=("even",))
    with pytest.raises(InputError, match="unknown robust_loss; wanted one of set, top-k"):
        with_pieces(recipe("strided2", "ibp"), robust_loss="hinge")
    for epsilon in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="wanted a radius above 0 and at most 1"):
            with_pieces(recipe("strided2", "linf"), epsilon=epsilon)


@pytest.mark.parametrize(
    ("defence", "pieces", "message"),
    [
        ("linf", {"perturbation": "MTA"}, "perturbation MTA: has no effect without auxiliary tasks; add one"),
        ("linf", {"is_targeted": True}, "targeted: has no effect without auxiliary tasks; add one"),
        ("none", {"perturbation": "mta", "tasks": ("odd",)}, "perturbation MTA: only the defence linf perturbs images"),
        ("l0", {"is_targeted": True, "tasks": ("odd",)}, "targeted: only the defence linf perturbs images"),
        ("sabr", {"perturbation": "STA", "tasks": ("odd",)}, "perturbation STA: only the defence linf perturbs images"),
        ("linf", {"robust_loss": "set"}, "robust loss set: only certified training has one"),
        ("none", {"robust_loss": "top-k"}, "robust loss top-k: only certified training has one"),
        ("none", {"epsilon": 0.1}, "epsilon 0.1: this defence has no radius"),
        ("l0", {"epsilon": 0.1}, "epsilon 0.1: this defence has no radius"),
    ],
)
def test_pieces_without_effect_are_refused(defence: str, pieces: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}.*or leave it out$"):
        with_pieces(recipe("strided2", defence), **pieces)


@pytest.mark.parametrize(
    ("defence", "pieces", "suffix", "recorded"),
    [
        (
            "linf",
            {"tasks": ("odd", "prime"), "is_targeted": True},
            "odd-prime-mp-targeted",
            {"tasks": {"auxiliaries": ["odd", "prime"], "perturbation": "MP", "is_targeted": True}},
        ),
        ("linf", {"tasks": ("odd",), "perturbation": "sta"}, "odd-sta", {"tasks": {"perturbation": "STA"}}),
        ("linf", {"epsilon": 0.05}, "eps0.05", {"defence": {"attack": {"epsilon": 0.05}}}),
        ("none", {"tasks": ("odd",)}, "odd", {"defence": None}),
        ("ibp", {"robust_loss": "set"}, "", {"defence": {"robust_loss": "set"}}),
        ("ibp", {"robust_loss": "top-k"}, "top-k", {"defence": {"robust_loss": "top-k"}}),
        ("crown-ibp", {"robust_loss": "top-k"}, "top-k", {"defence": {"robust_loss": "top-k", "rivals": None}}),
        ("crown-ibp", {"robust_loss": "set"}, "", {"defence": {"robust_loss": "set", "rivals": 1}}),
        (
            "sabr",
            {"epsilon": 0.04, "robust_loss": "top-k", "loss": "bce"},
            "eps0.04-top-k-bce",
            {"loss": "bce", "defence": {"attack": {"epsilon": 0.04}, "robust_loss": "top-k", "box_share": 0.1}},
        ),
    ],
)
def test_a_run_with_chosen_pieces_is_named_and_recorded(
    mnist_dir: Path,
    tmp_path: Path,
    defence: str,
    pieces: dict[str, object],
    suffix: str,
    recorded: dict[str, object],
) -> None:
    options = replace(with_pieces(recipe("digit28", defence), **pieces), schedule=Schedule(3, batch_size=4))
    name = run_name("digit28", defence, options, pieces.get("epsilon"))
    assert name == "-".join(filter(None, ("digit28", defence, suffix)))
    trained = train("digit28", defence, 1, mnist_dir, tmp_path, options, name=name)
    assert trained.name == trained.onnx_path.stem == name
    assert contains(json.loads(trained.record_path.read_text())["options"], recorded)
    assert evaluate(load_network(trained.onnx_path), np.zeros((1, 1, 28, 28))).shape == (1, 10)


def contains(tree: object, part: object) -> bool:
    """Whether every value of `part` is in the JSON tree at the same place."""
    if isinstance(part, dict):
        return isinstance(tree, dict) and all(key in tree and contains(tree[key], part[key]) for key in part)
    return tree == part


def test_the_radius_is_in_the_name_only_where_it_is_asked_for() -> None:
    options = with_pieces(recipe("strided3", "linf"), epsilon=0.05)
    assert run_name("strided3", "linf", options) == "strided3-linf"
    assert run_name("strided3", "linf", options, 0.05) == "strided3-linf-eps0.05"


def test_an_unknown_defence_is_refused() -> None:
    with pytest.raises(InputError, match="defence 'l2': unknown; wanted one of none, l0, linf, ibp, crown-ibp, sabr"):
        defence_name("l2")


def test_train_all_trains_measures_and_writes_the_manifest(
    mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(nets.train_all.main)
    monkeypatch.setattr(nets.train_command, "recipe", lambda *_: TINY)
    monkeypatch.setattr(nets.train_all, "SHIPPED", {"strided2-none": ("strided2", "none")})
    monkeypatch.setattr(nets.train_all, "Console", lambda **_: Console(quiet=True))
    threads = torch.get_num_threads()
    try:
        arguments = ["--mnist-dir", str(mnist_dir), "--out", str(tmp_path)]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert CliRunner().invoke(app, [*arguments, "--only", "strided9-none"]).exit_code == 2
        assert CliRunner().invoke(app, ["--mnist-dir", "nowhere", "--out", str(tmp_path)]).exit_code == 65
    finally:
        torch.set_num_threads(threads)
    assert {path.name for path in tmp_path.iterdir()} == {
        "strided2-none.onnx",
        "strided2-none.json",
        "test-images.npz",
        "manifest.json",
    }


def test_the_images_repeat_to_the_byte(mnist_dir: Path, tmp_path: Path) -> None:
    for key in "ab":
        write_manifest(tmp_path / key, [], mnist_dir)
    assert (tmp_path / "a/test-images.npz").read_bytes() == (tmp_path / "b/test-images.npz").read_bytes()
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"earlier")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"later")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"earlier"
