"""The layers file: an object's pixels and one epsilon per layer, or zones and theirs, as JSON (docs/json.md)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from aureole.exits import MissingFileError
from synth.zones import Neighbourhood, ZonedNeighbourhood, Zones
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood

SCHEMA = "aureole/layers/1"
ZONES_SCHEMA = "aureole/zones/1"
_MARKED, _UNMARKED = "#", "."


def read_layers(path: Path, image: Float[np.ndarray, "channels height width"]) -> Neighbourhood:
    """The layered, or zoned, neighbourhood of the file around `image`.

    Raises:
        MissingFileError: There is no such file.
        InputError: Not such a file, or its mask or epsilons do not fit the image.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"layers {path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"layers {path}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict) or content.get("schema") not in (SCHEMA, ZONES_SCHEMA):
        raise InputError(
            f'layers {path}: wanted a JSON object with "schema": "{SCHEMA}" or "{ZONES_SCHEMA}" (docs/json.md)'
        )
    mask = _mask(path, content.get("mask"))
    epsilons = content.get("epsilons")
    if not isinstance(epsilons, list) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in epsilons
    ):
        raise InputError(f'layers {path}: "epsilons" must be a list of numbers, one per layer')
    try:
        if content["schema"] == SCHEMA:
            return LayeredNeighbourhood(image, mask, np.array(epsilons, dtype=np.float64))
        return ZonedNeighbourhood(_zones(path, content, image, mask), np.array(epsilons, dtype=np.float64))
    except InputError as error:
        raise InputError(f"layers {path}: {error}") from error


def _mask(path: Path, rows: Any) -> np.ndarray:
    is_text = isinstance(rows, list) and rows and all(isinstance(row, str) for row in rows)
    if not is_text or any(len(row) != len(rows[0]) or set(row) - {_MARKED, _UNMARKED} for row in rows):
        raise InputError(
            f'layers {path}: "mask" must be a list of rows of equal length, "{_MARKED}" on the object, "{_UNMARKED}" elsewhere'
        )
    return np.array([[cell == _MARKED for cell in row] for row in rows], dtype=np.bool_)


def _zones(path: Path, content: dict[str, Any], image: np.ndarray, mask: np.ndarray) -> Zones:
    names, worth = content.get("names"), content.get("worth")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'layers {path}: "names" must be a list of strings, one per zone')
    try:
        rising, falling = (np.array(content.get(side), dtype=np.int64) for side in ("rising", "falling"))
        counts = np.array(worth, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f'layers {path}: "rising" and "falling" must hold zone numbers by channel, row and column, "worth" a number per zone'
        ) from error
    return Zones(image, mask, rising, falling, tuple(names), counts)


def layers_object(neighbourhood: Neighbourhood) -> dict[str, Any]:
    """The content of a layers file that `read_layers` turns back into exactly this object and these epsilons."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "mask": ["".join(_MARKED if cell else _UNMARKED for cell in row) for row in neighbourhood.pixels],
        "epsilons": [float(epsilon) for epsilon in neighbourhood.epsilons],
    }
    if isinstance(neighbourhood, ZonedNeighbourhood):
        zones = neighbourhood.zones
        content |= {
            "schema": ZONES_SCHEMA,
            "names": list(zones.names),
            "worth": zones.worth.tolist(),
            "rising": zones.rising.tolist(),
            "falling": zones.falling.tolist(),
        }
    return content
