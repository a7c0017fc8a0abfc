"""Trains one network from MNIST files to an ONNX file and a record of every choice: what `aureole train` runs."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch

from nets.architectures import Architecture
from nets.architectures import architecture as find_architecture
from nets.checkpoints import Checkpoints
from nets.composer import compose
from nets.export import OPSET, export_onnx
from nets.files import make_folder, write_json
from nets.kept_runs import refuse_other_run
from nets.losses import ProjectedGradient
from nets.measure import attacked_accuracy, exact_set_accuracy
from nets.mnist import Digits, Split, load_digits
from nets.options import TrainingOptions
from nets.recipes import DefenceName, recipe, run_name
from nets.training import Progress, train_network

RECORD_FORMAT: Final = 1
MEASURED_IMAGES: Final = 2_000
MEASURED_SEED: Final = 20_240
MEASURED_ATTACK: Final = ProjectedGradient(epsilon=0.02, steps=20, relative_step=0.1)
CHECKPOINT_STEPS: Final = 500
_ATTACK_SEED: Final = 1
_OPTIONAL_PIECES: Final = ("graph", "tasks")


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """What `train` wrote.

    Attributes:
        name: of the files, without suffix.
        onnx_path: the network.
        record_path: the record, JSON.
        clean_accuracy: exact set accuracy on 2,000 images of test digits.
        attacked_accuracy: the same under PGD at epsilon 0.02.
    """

    name: str
    onnx_path: Path
    record_path: Path
    clean_accuracy: float
    attacked_accuracy: float


def train(
    architecture: str,
    defence: DefenceName,
    seed: int,
    mnist_dir: Path | None,
    out_dir: Path,
    options: TrainingOptions | None = None,
    progress: Progress | None = None,
    *,
    name: str | None = None,
) -> TrainedNetwork:
    """Train, measure and write the network (`.onnx`) and its record (`.json`) into `out_dir`, named `name` or as `run_name` says.

    Without `options` the recipe of that architecture and defence is used; with them, `options.defence` is what
    happens and `defence` only names the files. MNIST is read from `mnist_dir`, or downloaded when that is None.
    Both files appear whole or not at all, the record last. Every 500 steps the run is saved beside them; interrupted, the same
    call goes on from there to the same weights. The saved run goes once the record is written. PyTorch's number of threads is
    left as it is. What another run wrote is never overwritten: a run is told from others by its architecture, defence, seed,
    options and digits.

    Raises:
        FolderError: `out_dir` cannot be written into; found before training.
        InputError: unknown names, unusable MNIST files, files of another run under this one's name (looked for before training,
            and again before writing), or a run that diverged.
        ExportError: torch and ONNX Runtime disagree about the network.
    """
    chosen = find_architecture(architecture)
    options = options or recipe(architecture, defence)
    name = name or run_name(architecture, defence, options)
    onnx_path, record_path = out_dir / f"{name}.onnx", out_dir / f"{name}.json"
    digits, test_digits = load_digits(Split.TRAINING, mnist_dir), load_digits(Split.TEST, mnist_dir)
    make_folder(out_dir)
    run = _run_fields(chosen, defence, seed, options, digits, test_digits)
    checkpoints = Checkpoints(out_dir, CHECKPOINT_STEPS)
    saved = checkpoints.path(chosen.name, digits, options, seed)
    is_resumed = saved.exists()
    refuse_other_run(onnx_path, record_path, run, is_resumed=is_resumed)
    network = train_network(chosen, digits, options, seed, progress, checkpoints)
    images = compose(test_digits, chosen.canvas, MEASURED_IMAGES, np.random.default_rng(MEASURED_SEED))
    clean = exact_set_accuracy(network, images)
    source = torch.Generator().manual_seed(_ATTACK_SEED)
    attacked = attacked_accuracy(network, images, MEASURED_ATTACK, source)
    # Another run may have begun and ended here meanwhile.
    refuse_other_run(onnx_path, record_path, run, is_resumed=is_resumed)
    sha256 = export_onnx(network, onnx_path, chosen.canvas)
    record = {
        "format": RECORD_FORMAT,
        "name": name,
        "onnx": {"file": onnx_path.name, "sha256": sha256, "opset": OPSET},
        **run,
        "measured": {
            "images": MEASURED_IMAGES,
            "images_seed": MEASURED_SEED,
            "clean_accuracy": clean,
            "attack": asdict(MEASURED_ATTACK),
            "attack_seed": _ATTACK_SEED,
            "attacked_accuracy": attacked,
        },
        "software": _software(),
    }
    write_json(record_path, record)
    saved.unlink(missing_ok=True)
    return TrainedNetwork(name, onnx_path, record_path, clean, attacked)


def _run_fields(
    architecture: Architecture,
    defence: str,
    seed: int,
    options: TrainingOptions,
    digits: Digits,
    test_digits: Digits,
) -> dict[str, Any]:
    """The fields of a record that tell one run from another, as they are read back from its file."""
    fields = {
        "architecture": {
            "name": architecture.name,
            "layers": architecture.summary,
            "parameters": architecture.parameters,
        },
        "defence": defence,
        "seed": seed,
        "options": describe(options),
        "data": {"training_digits": len(digits.labels), "sha256": dict(digits.sha256 + test_digits.sha256)},
    }
    return json.loads(json.dumps(fields))


def _software() -> dict[str, str | int]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "threads": torch.get_num_threads(),
    }


def describe(options: TrainingOptions) -> dict[str, Any]:
    """Every field of the options as JSON values; the defence also carries its class name, or is null.

    Pieces that are not used are left out, so that records of runs without them stay as they are.
    """
    described = {
        key: value for key, value in asdict(options).items() if value is not None or key not in _OPTIONAL_PIECES
    }
    if options.defence is not None:
        described["defence"] = {"kind": type(options.defence).__name__, **described["defence"]}
    return described
