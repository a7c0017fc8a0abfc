"""Writes the shipped test images and the manifest that names and hashes every shipped file."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from nets.composer import DOUBLE_MNIST, ComposedImages, compose
from nets.files import write_bytes, write_json
from nets.mnist import Split, load_digits

MANIFEST_FORMAT: Final = 1
MANIFEST_NAME: Final = "manifest.json"
IMAGES_NAME: Final = "test-images.npz"
IMAGES_COUNT: Final = 100
IMAGES_SEED: Final = 100
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)


def write_manifest(directory: Path, names: Sequence[str], mnist_dir: Path | None) -> None:
    """Write 100 images of test digits and `manifest.json`, gathering the records `<name>.json` found there.

    Raises:
        InputError: the MNIST test files cannot be used.
    """
    digits = load_digits(Split.TEST, mnist_dir)
    images = compose(digits, DOUBLE_MNIST, IMAGES_COUNT, np.random.default_rng(IMAGES_SEED))
    content = pack_images(images)
    write_bytes(directory / IMAGES_NAME, content)
    manifest = {
        "format": MANIFEST_FORMAT,
        "images": {
            "file": IMAGES_NAME,
            "sha256": hashlib.sha256(content).hexdigest(),
            "count": IMAGES_COUNT,
            "seed": IMAGES_SEED,
            "split": digits.split.value,
            "data_sha256": dict(digits.sha256),
        },
        "networks": {name: _record(directory / f"{name}.json") for name in names},
    }
    write_json(directory / MANIFEST_NAME, manifest)


def pack_images(images: ComposedImages) -> bytes:
    """A compressed npz with `images` uint8, `labels` uint8 and `masks` bool; the same images, the same bytes."""
    arrays = {
        "images": np.rint(images.images * 255).astype(np.uint8),
        "labels": images.labels.astype(np.uint8),
        "masks": images.masks,
    }
    packed = io.BytesIO()
    # numpy.savez stamps the time of day into the archive; fixed dates keep its hash stable.
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array)
            info = zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), compresslevel=9)
    return packed.getvalue()


def _record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
