"""Digits made up for tests, and files made of them: no test here needs MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def synthetic_arrays(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digit-like cells on black: class c is a noisy bar that gets taller and narrower as c grows."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        ink = (2 * int(label) + 4, 22 - 2 * int(label))
        image[2 : 2 + ink[0], 3 : 3 + ink[1]] = generator.integers(200, 256, size=ink)
    return images, labels


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    path.write_bytes(gzip.compress(idx_bytes(array)))
    return path
