"""NUS-WIDE folders made here: labels from one file a concept, Windows paths, and lists that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nets.readers import read_nus_wide
from verifier.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two concepts; three images, one of them for testing."""
    files = {
        "ConceptsList/Concepts81.txt": "airport\nbeach\n",
        "ImageList/Imagelist.txt": "actor\\0001_1.jpg \nbeach\\0002_2.jpg\nbeach\\0003_3.jpg\n",
        "ImageList/TrainImagelist.txt": "actor\\0001_1.jpg\r\nbeach\\0002_2.jpg\r\n",
        "ImageList/TestImagelist.txt": "beach\\0003_3.jpg\n",
        "Groundtruth/AllLabels/Labels_airport.txt": "1\n0\n1\n",
        "Groundtruth/AllLabels/Labels_beach.txt": "0\n0\n1\n",
        "Groundtruth/TrainTestLabels/Labels_airport_Train.txt": "1\n0\n",
        "Groundtruth/TrainTestLabels/Labels_beach_Train.txt": "0\n0\n",
        "Groundtruth/TrainTestLabels/Labels_airport_Test.txt": "1\n",
        "Groundtruth/TrainTestLabels/Labels_beach_Test.txt": "1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, newline="")
    return tmp_path


def test_labels_and_paths(folder: Path) -> None:
    found = read_nus_wide(folder, "all")
    assert found.names == ("airport", "beach")
    assert [image.labels for image in found.images] == [(0,), (), (0, 1)]
    assert found.images[0].path == folder / "Flickr" / "actor" / "0001_1.jpg"
    np.testing.assert_array_equal(found.targets(), [[1, 0], [0, 0], [1, 1]])
    assert [image.labels for image in read_nus_wide(folder, "train").images] == [(0,), ()]
    assert [image.labels for image in read_nus_wide(folder, "test").images] == [(0, 1)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Groundtruth/AllLabels/Labels_beach.txt", "0\n1\n", "2 lines; wanted 3, one for each image"),
        ("Groundtruth/AllLabels/Labels_beach.txt", "0\n2\n1\n", r"Labels_beach\.txt, line 2: '2'; wanted 0 or 1"),
        ("ImageList/Imagelist.txt", "a.jpg\nb.jpg\n..\\..\\c.jpg\n", "lies outside the folder"),
        ("ImageList/Imagelist.txt", "a.jpg\nb.jpg\nC:\\c.jpg\n", "lies outside the folder"),
    ],
)
def test_lists_that_do_not_fit_are_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_nus_wide(folder, "all")


def test_missing_lists_and_unknown_splits(folder: Path) -> None:
    (folder / "Groundtruth/AllLabels/Labels_beach.txt").unlink()
    with pytest.raises(InputError, match=r"Labels_beach\.txt: cannot be read"):
        read_nus_wide(folder, "all")
    with pytest.raises(InputError, match="'val': unknown; wanted one of all, train, test"):
        read_nus_wide(folder, "val")
    (folder / "ImageList/TestImagelist.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"TestImagelist\.txt: cannot be read"):
        read_nus_wide(folder, "test")
