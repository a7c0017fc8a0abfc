"""What is asked: the hard list, the grid, and the ladders that show how time grows. No network is needed to list the questions.

A question is "does this label stay in (or out of) the top k wherever every pixel moves by at most epsilon, within [0, 1]?"
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

import aureole

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "published"
FILES = {
    "381 noDef": "dmnist_model381_4k_params_noDef.onnx",
    "394 LInfDef": "dmnist_model394_4k_params_LInfDef.onnx",
    "421 L0Def": "dmnist_model421_4k_params_L0Def.onnx",
}
IMAGES = 10
K = 2
GRID_EPSILONS = (0.002, 0.005, 0.01, 0.02)
LADDER_EPSILONS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.02, 0.03)
KS = (1, 2, 3, 4, 5)

Pairs = Sequence[Sequence[int]]
"""The labels of each image."""


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """One top-k question about one image of one network.

    Attributes:
        network: A key of `FILES`.
        image: The index of the image.
        label: The label asked about.
        k: How many labels count as given to an image.
        epsilon: How far every pixel may move.
        stays_in: Whether the label is to stay in the top k; otherwise out of it.
    """

    network: str
    image: int
    label: int
    k: int
    epsilon: float
    stays_in: bool = True

    @property
    def name(self) -> str:
        """A name in one word, such as "381-noDef/i0/l2/k2/e0.005"; questions about staying out end in "/out"."""
        words = f"{self.network.replace(' ', '-')}/i{self.image}/l{self.label}/k{self.k}/e{self.epsilon:g}"
        return words if self.stays_in else f"{words}/out"

    def query(self) -> aureole.Query:
        """The question with its network and its region.

        Raises:
            InputError: The image or the label is out of range.
        """
        network = load_network(self.network)
        region = aureole.Box.around(load_images()[self.image], self.epsilon)
        constructor = aureole.stays_in_top_k if self.stays_in else aureole.stays_out_of_top_k
        return aureole.Query(network, region, constructor(self.label, self.k, network.labels))


@dataclass(frozen=True, slots=True)
class Hard:
    """A question of the hard list with the peer's answer.

    Attributes:
        question: The question.
        peer: "robust", "vulnerable" or "unknown" (its time-out).
        peer_seconds: The peer's engine seconds; None where it ran out of time.
    """

    question: Question
    peer: str
    peer_seconds: float | None


def _hard(network: str, epsilon: float, image: int, label: int, peer: str, seconds: float | None = None) -> Hard:
    return Hard(Question(network, image, label, K, epsilon), peer, seconds)


PEER = "alpha-beta-CROWN, Dec 2025, CPU, 2 idle cores, 100 s limit, engine seconds without start-up"
HARD = (
    _hard("381 noDef", 0.005, 0, 2, "unknown"),
    _hard("381 noDef", 0.005, 1, 8, "robust", 1.4),
    _hard("381 noDef", 0.005, 4, 2, "unknown"),
    _hard("381 noDef", 0.01, 1, 8, "unknown"),
    _hard("381 noDef", 0.01, 2, 9, "vulnerable", 1.3),
    _hard("394 LInfDef", 0.01, 3, 2, "vulnerable", 1.3),
    _hard("394 LInfDef", 0.02, 0, 3, "robust", 1.9),
    _hard("394 LInfDef", 0.02, 1, 6, "robust", 3.3),
    _hard("421 L0Def", 0.01, 0, 3, "robust", 1.4),
    _hard("421 L0Def", 0.01, 1, 6, "unknown"),
)
"""Plain CROWN of the peer leaves all of these open."""


def hard() -> list[Question]:
    """The hard list."""
    return [entry.question for entry in HARD]


def grid(pairs: Pairs, epsilons: Sequence[float] = GRID_EPSILONS) -> list[Question]:
    """Every network, image, label of the image and epsilon, at k = 2."""
    return [
        Question(network, image, label, K, epsilon)
        for epsilon in epsilons
        for network in FILES
        for image, labels in enumerate(pairs)
        for label in labels
    ]


def by_k(pairs: Pairs, firsts: dict[str, list[int]], epsilons: Sequence[float]) -> list[Question]:
    """The labels of every image for k from 1 to 5; at k = 1 only the one that ranks first on the clean image.

    Args:
        pairs: The labels of each image.
        firsts: The first-ranked label of each image, by network: the other one is not in the top 1 to begin with.
        epsilons: How far every pixel may move.
    """
    return [
        Question(network, image, label, k, epsilon)
        for epsilon in epsilons
        for k in KS
        for network in FILES
        for image, labels in enumerate(pairs)
        for label in labels
        if k > 1 or firsts[network][image] == label
    ]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name matches one of the patterns (`*` and `?`), or there are none."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def chosen(questions: Iterable[Question], patterns: Sequence[str]) -> list[Question]:
    """The questions whose name matches."""
    return [question for question in questions if matches(question.name, patterns)]


def is_published_here() -> bool:
    """Whether the networks and images are there."""
    return all((PUBLISHED / name).is_file() for name in (*FILES.values(), "dmnist-images.npz"))


@cache
def load_network(name: str) -> aureole.Network:
    """A network of `FILES`, read once a process."""
    return aureole.load_network(PUBLISHED / FILES[name])


@cache
def load_images() -> Float32[np.ndarray, "images 1 64 64"]:
    """The published images, in [0, 1]."""
    with np.load(PUBLISHED / "dmnist-images.npz") as archive:
        images: Float32[np.ndarray, "images 1 64 64"] = archive["images"].astype(np.float32) / np.float32(255)
    images.setflags(write=False)
    return images


def load_pairs() -> list[list[int]]:
    """The labels of each published image."""
    with np.load(PUBLISHED / "dmnist-images.npz") as archive:
        return [[int(label) for label in pair] for pair in json.loads(str(archive["labels"]))]


def clean_firsts() -> dict[str, list[int]]:
    """The label that each network ranks first on each clean image."""
    from verifier.evaluation import evaluate

    images = load_images().astype(np.float64)
    return {name: [int(row.argmax()) for row in evaluate(load_network(name), images)] for name in FILES}
