"""A run's trace: JSON Lines, one step a line, written as it happens, so that a run can be taken up again.

The first line names the question; every other line is a step with its epsilons (decimal numbers that read back as the same
doubles), or a counterexample's image. A line cut off by a crash is dropped when the file is opened again.
"""

import base64
import binascii
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from synth.cuts import Cut
from synth.result import GrowStep, QueryCounts, StepVerdict
from synth.size import Size, SizeKind
from synth.zones import Zones
from verifier.errors import InputError

Vector = Float[np.ndarray, " layers"]
FORMAT: Final = "layered-neighbourhood trace, version 2"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TraceKey:
    """What a trace belongs to; every field must agree before it is taken up.

    Attributes:
        network: SHA-256 of the ONNX file.
        image: SHA-256 of the image's float64 values.
        zones: SHA-256 of which entries share an epsilon.
        goals: What must hold, in words.
        weights: The layer weights.
        size: The kind of size.
    """

    network: str
    image: str
    zones: str
    goals: tuple[str, ...]
    weights: tuple[float, ...]
    size: SizeKind = SizeKind.LINEAR

    @classmethod
    def of(cls, network_sha256: str, zones: Zones, goals: Sequence[str], objective: Size) -> "TraceKey":
        """The key of a question about this network, image and object."""
        return cls(
            network_sha256,
            _hash(zones.image),
            _hash(np.stack([zones.rising, zones.falling])),
            tuple(goals),
            tuple(float(weight) for weight in objective.weights),
            objective.kind,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "network": self.network,
            "image": self.image,
            "zones": self.zones,
            "goals": list(self.goals),
            "weights": list(self.weights),
            "size": self.size.value,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Where a trace left off.

    Attributes:
        epsilons: Of the last neighbourhood it calls robust, None if there is none. A claim, not a proof: ask again.
        counts: Of queries so far.
        next_index: Of the next step.
        images: Of the counterexamples met, float32. Claims likewise: replay them.
    """

    epsilons: Vector | None
    counts: QueryCounts
    next_index: int
    images: tuple[Float[np.ndarray, "..."], ...] = ()


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(str(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def open_trace(path: Path, key: TraceKey) -> Checkpoint:
    """Starts the trace, or reads where it left off and removes a last line that was cut off.

    Raises:
        InputError: The file cannot be read or written, is no trace, or belongs to another question; it is left as it was.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError(f"trace {path}: {error.strerror}") from error
    complete = content[: content.rfind(b"\n") + 1]
    if not complete and content and not content.startswith(b'{"format"'):
        raise InputError(f"trace {path}: is no trace file (no complete first line); give another path")
    if not complete:
        _write(path, b"")
        append(path, {"format": FORMAT, **key.to_dict()})
        return Checkpoint(None, QueryCounts(), 0)
    lines = complete.splitlines()
    _check_header(path, lines[0], key)
    checkpoint = _last_state(path, lines[1:], len(key.weights))
    if len(complete) < len(content):
        _log.warning("trace %s: dropped a last line that was cut off", path)
        _write(path, complete)
    return checkpoint


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds one line in one write.

    Raises:
        InputError: The file cannot be written.
    """
    line = (json.dumps(record) + "\n").encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"trace {path}: {error.strerror}; give a path that can be written") from error


def step_record(step: GrowStep) -> dict[str, Any]:
    """A step as plain JSON values; numbers that are not finite become None."""
    bound = step.margin_bound
    return {
        "index": step.index,
        "kind": step.kind.value,
        "layer": step.layer,
        "verdict": step.verdict.value,
        "weighted_size": step.weighted_size,
        "best_size": step.best_size,
        "margin_bound": bound if bound is not None and np.isfinite(bound) else None,
        "counts": asdict(step.counts),
        "seconds": round(step.seconds, 3),
        "epsilons": step.epsilons.tolist(),
    }


def cut_record(cut: Cut) -> dict[str, Any]:
    """A counterexample's image as plain JSON values: float32, compressed, in base 64."""
    image = np.ascontiguousarray(cut.counterexample.image, dtype=np.float32)
    content = base64.b64encode(zlib.compress(image.astype("<f4").tobytes())).decode()
    return {"counterexample": content, "shape": list(image.shape), "radii": cut.radii.tolist()}


def _image(record: dict[str, Any]) -> Float[np.ndarray, "..."]:
    content = zlib.decompress(base64.b64decode(record["counterexample"], validate=True))
    return np.frombuffer(content, dtype="<f4").astype(np.float32).reshape(record["shape"])


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"trace {path}: {error.strerror}; give a path that can be written") from error


def _check_header(path: Path, line: bytes, key: TraceKey) -> None:
    # Traces from before there were kinds of size are linear.
    header = {"size": SizeKind.LINEAR.value, **_parsed(path, 1, line)}
    if header.get("format") != FORMAT:
        raise InputError(f"trace {path}: is no {FORMAT!r}; give another path")
    different = [name for name, value in key.to_dict().items() if header.get(name) != value]
    if different:
        raise InputError(
            f"trace {path}: belongs to another question, its {', '.join(different)} differ; give another path or remove it"
        )


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"trace {path}: line {number} is not JSON; give another path or remove it") from error
    if not isinstance(record, dict):
        raise InputError(f"trace {path}: line {number} is no JSON object; give another path or remove it")
    return record


def _last_state(path: Path, lines: list[bytes], layers: int) -> Checkpoint:
    best: Vector | None = None
    best_size, counts, next_index = -1.0, QueryCounts(), 0
    images: list[Float[np.ndarray, "..."]] = []
    for number, line in enumerate(lines, start=2):
        record = _parsed(path, number, line)
        try:
            if "counterexample" in record:
                images.append(_image(record))
                continue
            counts, next_index = QueryCounts(**record["counts"]), int(record["index"]) + 1
            epsilons = np.array(record["epsilons"], dtype=np.float64)
            size, is_robust = float(record["weighted_size"]), record["verdict"] == StepVerdict.ROBUST.value
        except (KeyError, TypeError, ValueError, zlib.error, binascii.Error) as error:
            raise InputError(
                f"trace {path}: line {number} is neither step nor counterexample ({error}); give another path or remove it"
            ) from error
        if epsilons.shape != (layers,) or not ((epsilons >= 0) & (epsilons <= 1)).all():
            raise InputError(f"trace {path}: line {number} has wrong epsilons, wanted {layers} numbers in [0, 1]")
        if is_robust and size >= best_size:
            best, best_size = epsilons, size
    return Checkpoint(best, counts, next_index, tuple(images))
