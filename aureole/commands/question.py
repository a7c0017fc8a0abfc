"""What the commands that ask about an image have in common: the network, the image, its scores."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from aureole import api, images
from aureole.images import write_file
from verifier.errors import ContradictionError
from verifier.evaluation import evaluate
from verifier.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network and an image, with the names the user gave them.

    Attributes:
        network_name, image_name: As on the command line.
        network: The network.
        image: float32, the network's input shape.
        scores: float64, the network's scores at the image before any head.
    """

    network_name: str
    network: Network
    image_name: str
    image: Float32[np.ndarray, "..."]
    scores: Float[np.ndarray, " labels"]

    @property
    def short_network_name(self) -> str:
        """The network's name without folders and suffix."""
        return Path(self.network_name).stem

    @property
    def short_image_name(self) -> str:
        """The image's name without folders and suffix."""
        return Path(self.image_name).stem


def load_subject(network_name: str, image_name: str) -> Subject:
    """Reads both.

    Raises:
        MissingFileError, InputError: One is missing or unusable, or they do not fit.
    """
    network = api.load_network(network_name)
    image = images.read_image(image_name, network.input_shape)
    return Subject(network_name, network, image_name, image, evaluate(network, image[None].astype(np.float64))[0])


@contextmanager
def keeping_contradictions(out: Path) -> Iterator[None]:
    """Saves the query of a contradiction for a bug report, and says in the error where."""
    try:
        yield
    except ContradictionError as error:
        path = out / "contradiction.pickle"
        write_file(path, pickle.dumps({"message": str(error), "query": error.query, "details": error.details}))
        raise ContradictionError(
            f"{error}; kept for a bug report: {path}", query=error.query, details=error.details
        ) from error
