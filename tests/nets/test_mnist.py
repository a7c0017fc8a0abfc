"""Where digits come from, and that the two splits stay apart."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_digits import synthetic_arrays, write_idx

from nets.mnist import OFFICIAL_SHA256, Digits, Split, load_digits
from verifier.errors import InputError


def test_each_split_reads_its_own_files(mnist_dir: Path) -> None:
    training, test = load_digits(Split.TRAINING, mnist_dir), load_digits(Split.TEST, mnist_dir)
    np.testing.assert_array_equal(training.images, synthetic_arrays(200, seed=0)[0])
    np.testing.assert_array_equal(test.images, synthetic_arrays(100, seed=1)[0])
    assert (training.split, test.split) == (Split.TRAINING, Split.TEST)
    assert {name for name, _ in training.sha256}.isdisjoint(name for name, _ in test.sha256)


def test_the_files_read_are_hashed(mnist_dir: Path) -> None:
    for name, sha256 in load_digits(Split.TEST, mnist_dir).sha256:
        assert sha256 == hashlib.sha256((mnist_dir / name).read_bytes()).hexdigest()


def test_the_full_training_set_is_preferred(mnist_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(mnist_dir, tmp_path / "both")
    images, labels = synthetic_arrays(30, seed=2)
    write_idx(folder / "train-images-idx3-ubyte.gz", images)
    write_idx(folder / "train-labels-idx1-ubyte.gz", labels)
    assert len(load_digits(Split.TRAINING, folder).labels) == 30


def test_a_missing_folder_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_digits(Split.TEST, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no training digits; wanted train-.* or train10k-"):
        load_digits(Split.TRAINING, tmp_path)


def test_files_of_different_lengths_are_refused(mnist_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(mnist_dir, tmp_path / "mixed")
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(InputError, match=r"100 images, but .* has 7 labels"):
        load_digits(Split.TEST, folder)


def test_digits_copies_freezes_and_validates() -> None:
    images, labels = synthetic_arrays(20, seed=0)
    digits = Digits(images, labels, Split.TEST)
    images[:] = 1
    assert digits.images.min() == 0
    with pytest.raises(ValueError, match="read-only"):
        digits.images[0, 0, 0] = 1
    with pytest.raises(InputError, match="wanted every digit"):
        Digits(images[:5], labels[:5], Split.TEST)
    with pytest.raises(InputError, match="wanted uint8"):
        Digits(images[:, :27], labels, Split.TEST)


def test_downloads_are_checked_against_the_official_hashes(mnist_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append((url, known_hash))
        return str(mnist_dir / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    digits = load_digits(Split.TEST)
    assert len(digits.labels) == 100
    assert asked == [
        (f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}", f"sha256:{OFFICIAL_SHA256[name]}")
        for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    ]


def test_a_failed_download_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(InputError, match=r"download failed \(no network\).*--mnist-dir"):
        load_digits(Split.TRAINING)
