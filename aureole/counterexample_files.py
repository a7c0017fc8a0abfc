"""A counterexample on disk: the exact image as NPY, a picture of it as PNG, its scores as JSON."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aureole.images import npy_bytes, png_bytes, write_file
from verifier.verdict import Counterexample

SCHEMA = "aureole/counterexample/1"


@dataclass(frozen=True, slots=True)
class SavedCounterexample:
    """Where the files lie.

    Attributes:
        npy: float32, bit for bit the image that was replayed.
        png: The same rounded to 8 bits, so possibly outside the region; None unless it has 1 or 3 channels.
        json: Its scores and margins (docs/json.md).
    """

    npy: Path
    png: Path | None
    json: Path


def file_stem(*words: str) -> str:
    """A file name made of the words' letters and digits."""
    return "-".join(part for word in words for part in re.findall(r"[A-Za-z0-9]+", word))


def scores_object(counterexample: Counterexample) -> dict[str, Any]:
    """The numbers that belong to a counterexample, without the image."""
    return {
        "found_by": counterexample.found_by,
        "scores": [float(score) for score in counterexample.scores],
        "margin_lower": float(counterexample.margin_lower),
        "runtime_scores": [float(score) for score in counterexample.runtime_scores],
        "runtime_margin": float(counterexample.runtime_margin),
    }


def save_counterexample(
    counterexample: Counterexample, folder: Path, stem: str, *, network_sha256: str, property_name: str
) -> SavedCounterexample:
    """Writes the three files, each whole or not at all, over those of an earlier run with the same stem.

    Raises:
        OutputError: The system does not let us.
    """
    picture = png_bytes(counterexample.image)
    npy, png, text = (folder / f"{stem}{suffix}" for suffix in (".npy", ".png", ".json"))
    content = {
        "schema": SCHEMA,
        "network_sha256": network_sha256,
        "property": property_name,
        "image": npy.name,
        "shape": list(counterexample.image.shape),
        **scores_object(counterexample),
    }
    write_file(npy, npy_bytes(np.asarray(counterexample.image, dtype=np.float32)))
    if picture is not None:
        write_file(png, picture)
    write_file(text, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return SavedCounterexample(npy, png if picture is not None else None, text)
