"""Fixtures over made-up digits."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_digits import synthetic_arrays, write_idx

from nets.mnist import Digits, Split


@pytest.fixture(scope="session")
def training_digits() -> Digits:
    return Digits(*synthetic_arrays(200, seed=0), Split.TRAINING)


@pytest.fixture(scope="session")
def mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four files, 200 training digits and 100 test digits."""
    folder = tmp_path_factory.mktemp("mnist")
    for prefix, count, seed in (("train10k", 200, 0), ("t10k", 100, 1)):
        images, labels = synthetic_arrays(count, seed)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return folder
