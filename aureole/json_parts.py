"""Small parts of JSON reports that need none of the engines."""

import json
import math
from typing import Any

from verifier.network import Network


def to_text(content: dict[str, Any]) -> str:
    """The object as JSON with a final newline; infinities and NaN are an error, never invalid JSON."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def finite(number: float | None) -> float | None:
    """The number, or None where there is none to speak of."""
    return None if number is None or not math.isfinite(number) else float(number)


def network_object(network: Network, reference: str) -> dict[str, Any]:
    """Which network was asked about."""
    return {
        "name": reference,
        "sha256": network.sha256,
        "input_shape": [int(size) for size in network.input_shape],
        "labels": network.labels,
        "head": network.head.value,
    }
