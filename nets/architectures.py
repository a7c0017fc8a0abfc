"""The networks of the Double-MNIST studies, a larger one, and one for single digits, by name.

Every network maps `image` (batch, 1, height, width) of its canvas to raw `scores` (batch, 10); no softmax, no sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from nets.composer import DOUBLE_MNIST, SINGLE_MNIST, Canvas
from verifier.errors import InputError

CLASSES: Final = 10


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network's shape under a name.

    Attributes:
        name: what the command line and the file names call it.
        summary: one line that says what the layers are.
        parameters: the number of weights and biases, checked by the tests.
        layers: builds the layers, uninitialised, on the default device.
        canvas: the images it takes.
    """

    name: str
    summary: str
    parameters: int
    layers: Callable[[], nn.Sequential]
    canvas: Canvas = DOUBLE_MNIST


def _cnn4k() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(256, CLASSES),
    )


def _strided2() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=4, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, CLASSES),
    )


def strided3(places: int = 16) -> nn.Sequential:
    """Three strided convolutions and a dense layer over so many places that they leave of the image."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * places, CLASSES),
    )


def _wide150k() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )


def _digit28() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )


ARCHITECTURES: Final = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            "cnn4k",
            "conv(1-8,3x3,s2,p1) relu conv(8-16,3x3,s2,p1) relu maxpool4 fc(256-10)",
            3_818,
            _cnn4k,
        ),
        Architecture(
            "strided2",
            "conv(1-16,4x4,s4,p1) relu conv(16-32,4x4,s4,p1) relu fc(512-10)",
            13_626,
            _strided2,
        ),
        Architecture(
            "strided3",
            "conv(1-8,4x4,s2,p1) relu conv(8-16,4x4,s4,p1) relu conv(16-32,4x4,s2,p1) relu fc(512-10)",
            15_554,
            strided3,
        ),
        Architecture(
            "wide150k",
            "conv(1-16,4x4,s4,p1) relu conv(16-32,4x4,s2,p1) relu conv(32-64,4x4,s2,p1) relu "
            "fc(1024-100) relu fc(100-10)",
            144_838,
            _wide150k,
        ),
        Architecture(
            "digit28",
            "conv(1-16,4x4,s2,p1) relu conv(16-32,4x4,s2,p1) relu fc(1568-100) relu fc(100-10)",
            166_406,
            _digit28,
            SINGLE_MNIST,
        ),
    )
}


def architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise InputError(f"architecture {name!r}: unknown; wanted one of {', '.join(ARCHITECTURES)}") from None


def build(chosen: Architecture, generator: torch.Generator) -> nn.Sequential:
    """A network with weights drawn from `generator` alone (He et al. 2015, uniform) and zero biases.

    PyTorch's global generator is neither read nor advanced.
    """
    # On the meta device PyTorch's own initialisation draws no numbers.
    with torch.device("meta"):
        network = chosen.layers()
    network = network.to_empty(device="cpu")
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
