"""What is shipped is what the manifest says, loads in ONNX Runtime and ranks the shipped images well."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nets import shipped
from nets.architectures import ARCHITECTURES
from nets.recipes import SHIPPED, recipe
from nets.train_command import describe
from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.onnx_import import load_network

DATA = Path(shipped.__file__).parent / "data"
# Set before training; for the defended cnn4k the accuracies of the published networks, for sabr a little less than it reached.
FLOORS = {
    "cnn4k-none": 0.70,
    "cnn4k-l0": 0.66,
    "cnn4k-linf": 0.47,
    "strided3-none": 0.93,
    "strided3-l0": 0.90,
    "strided3-linf": 0.75,
    "strided3-sabr": 0.85,
    "wide150k-none": 0.96,
}


def exact_share(path: Path) -> float:
    """Share of the shipped images whose two labels are the two highest scores, by ONNX Runtime alone."""
    images = shipped.images()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"image": images.images})
    top = np.sort(np.argsort(scores, axis=1)[:, -2:], axis=1)
    return float((top == np.sort(images.labels, axis=1)).all(axis=1).mean())


def test_the_promised_networks_are_shipped() -> None:
    assert shipped.names() == tuple(SHIPPED)
    assert set(FLOORS) == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_hashes_floors_and_accuracies_hold(name: str) -> None:
    path = shipped.network_path(name)
    record = shipped.manifest()["networks"][name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["onnx"]["sha256"]
    accuracy = record["measured"]["clean_accuracy"]
    assert accuracy >= FLOORS[name]
    # 100 images against 2,000: four standard deviations of the difference.
    deviation = (accuracy * (1 - accuracy) * (1 / 100 + 1 / 2000)) ** 0.5
    assert abs(exact_share(path) - accuracy) <= 4 * deviation


@pytest.mark.parametrize("name", SHIPPED)
def test_the_verifier_reads_every_file_as_onnx_runtime_does(name: str) -> None:
    path, images = shipped.network_path(name), shipped.images().images[:8]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"image": images})
    np.testing.assert_allclose(evaluate(load_network(path), images), scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_record_is_that_of_the_recipe(name: str) -> None:
    record = shipped.manifest()["networks"][name]
    architecture, defence = SHIPPED[name]
    assert record["options"] == json.loads(json.dumps(describe(recipe(architecture, defence))))
    assert record["architecture"]["parameters"] == ARCHITECTURES[architecture].parameters
    assert record == json.loads((DATA / f"{name}.json").read_text())


@pytest.mark.parametrize("architecture", ["cnn4k", "strided3"])
def test_pgd_training_clearly_helps_under_pgd(architecture: str) -> None:
    networks = shipped.manifest()["networks"]
    plain, defended = (
        networks[f"{architecture}-{defence}"]["measured"]["attacked_accuracy"] for defence in ("none", "linf")
    )
    assert defended >= plain + 0.1


def test_the_images_are_double_mnist_with_masks() -> None:
    images = shipped.images()
    assert images.images.shape == (100, 1, 64, 64)
    assert images.masks.shape == (100, 2, 64, 64)
    assert (images.labels[:, 0] != images.labels[:, 1]).all()
    np.testing.assert_array_equal(images.masks.any(axis=1), images.images[:, 0] > 0)
    assert (images.masks.sum(axis=(2, 3)) > 20).all()
    entry = shipped.manifest()["images"]
    assert entry["split"] == "test"
    assert hashlib.sha256((DATA / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


def test_training_and_test_files_are_different_ones() -> None:
    content = shipped.manifest()
    seen = content["networks"]["cnn4k-none"]["data"]["sha256"]
    training = {sha256 for name, sha256 in seen.items() if name.startswith("train")}
    assert training
    assert training.isdisjoint(content["images"]["data_sha256"].values())


def test_everything_shipped_is_small_and_named_in_the_manifest() -> None:
    files = [path for path in DATA.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    stems = {"manifest.json", "test-images.npz"} | {f"{n}{e}" for n in SHIPPED for e in (".onnx", ".json")}
    assert {path.name for path in files} == stems


def test_an_unknown_name_and_a_changed_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="shipped network 'lenet': unknown; wanted one of cnn4k-none"):
        shipped.network_path("lenet")
    content = shipped.manifest()
    monkeypatch.setattr(shipped, "_path", lambda name: tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        shipped.manifest()
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"missing; reinstall aureole"):
        shipped.images()
    (tmp_path / "cnn4k-none.onnx").write_bytes(b"changed")
    with pytest.raises(InputError, match="The file changed"):
        shipped.network_path("cnn4k-none")
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99; wanted 1"):
        shipped.manifest()
