"""Saves a training run as it goes, so that an interrupted one ends with the weights it would have had."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from nets.files import write_bytes
from nets.mnist import Digits
from nets.options import TrainingOptions
from verifier.errors import InputError

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a run is saved, and how often.

    Attributes:
        directory: the folder; every run has a file of its own there, so runs do not meet.
        every: steps between savings.
    """

    directory: Path
    every: int = 500

    def __post_init__(self) -> None:
        """Refuse numbers of steps below one."""
        if self.every < 1:
            raise InputError(f"{self}: wanted every to be 1 or more")

    def path(self, name: str, digits: Digits, options: TrainingOptions, seed: int) -> Path:
        """The file of the run with exactly these choices; another choice is another file."""
        content = hashlib.sha256(f"{_FORMAT} {name} {seed} {options!r} {torch.__version__}".encode())
        content.update(digits.images.tobytes())
        content.update(digits.labels.tobytes())
        return self.directory / f"{name}-{content.hexdigest()[:16]}.checkpoint"


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """Everything that a step changes: weights, the optimiser's moments, and both sources of random numbers."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    images_source: np.random.Generator
    torch_source: torch.Generator

    def save(self, path: Path, steps_done: int) -> None:
        """Writes the state after that many steps, whole or not at all."""
        content = io.BytesIO()
        state = {
            "steps_done": steps_done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "images_source": self.images_source.bit_generator.state,
            "torch_source": self.torch_source.get_state(),
        }
        torch.save(state, content)
        write_bytes(path, content.getvalue())

    def restore(self, path: Path) -> int:
        """The number of steps done, after taking over what is saved; 0, and nothing changes, where there is no file.

        Raises:
            InputError: The file cannot be read or does not fit.
        """
        if not path.is_file():
            return 0
        try:
            # Tensors and plain values only: a file cannot run code.
            state: dict[str, Any] = torch.load(path, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.images_source.bit_generator.state = state["images_source"]
            self.torch_source.set_state(state["torch_source"])
            return int(state["steps_done"])
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: no usable checkpoint ({reason}); delete it to begin anew") from error
