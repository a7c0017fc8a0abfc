"""The networks and test images that come with the package, and the manifest that describes them."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from nets.composer import ComposedImages, to_unit_range
from nets.manifest import IMAGES_NAME, MANIFEST_FORMAT, MANIFEST_NAME
from verifier.errors import InputError

_DATA: Final = "data"


def names() -> tuple[str, ...]:
    """The shipped networks, such as `strided3-none`, in the order of the manifest."""
    return tuple(manifest()["networks"])


def network_path(name: str) -> Path:
    """Where the ONNX file of a shipped network lies; its bytes have the SHA-256 that the manifest states.

    Raises:
        InputError: no such network, or the installed file is not the one that was shipped.
    """
    networks = manifest()["networks"]
    if name not in networks:
        raise InputError(f"shipped network {name!r}: unknown; wanted one of {', '.join(networks)}")
    entry = networks[name]["onnx"]
    return _checked(entry["file"], entry["sha256"])


def images() -> ComposedImages:
    """The shipped 100 Double-MNIST images of test digits, with labels and one mask a digit.

    Raises:
        InputError: the installed file is not the one that was shipped.
    """
    path = _checked(IMAGES_NAME, manifest()["images"]["sha256"])
    with np.load(path, allow_pickle=False) as stored:
        return ComposedImages(to_unit_range(stored["images"]), stored["labels"].astype(np.int64), stored["masks"])


def manifest() -> dict[str, Any]:
    """The manifest: data hashes, seeds, every training choice, accuracies, file hashes (docs/networks.md).

    Raises:
        InputError: it is missing or of another format.
    """
    path = _path(MANIFEST_NAME)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); reinstall aureole") from error
    if content.get("format") != MANIFEST_FORMAT:
        raise InputError(f"{path}: format {content.get('format')}; wanted {MANIFEST_FORMAT}; reinstall aureole")
    return content


def _checked(name: str, sha256: str) -> Path:
    path = _path(name)
    if not path.is_file():
        raise InputError(f"{path}: missing; reinstall aureole")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise InputError(f"{path}: SHA-256 {found}; wanted {sha256} (manifest). The file changed: reinstall aureole")
    return path


def _path(name: str) -> Path:
    # The wheel installs as plain files, so a resource is a path and needs no temporary copy.
    return Path(str(files("nets").joinpath(_DATA, name)))
