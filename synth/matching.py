"""Which label belongs to which object of an image, where nobody says so."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.network import Network


def match_labels(
    network: Network, image: Float[np.ndarray, "..."], objects: Sequence[Bool[np.ndarray, "..."]]
) -> tuple[int, ...]:
    """One of the highest labels for each object: those whose scores fall most, in total, when their objects are blanked to 0.

    As many labels as objects are given out, the highest scores. A guess, though a plain one: no claim rests on it.

    Raises:
        InputError: More objects than labels.
    """
    if not 1 <= len(objects) <= network.labels:
        raise InputError(f"objects: got {len(objects)}, wanted 1 to {network.labels}, one per label")
    blanked = [np.where(mask, 0.0, image) for mask in objects]
    clean, *without = evaluate(network, np.stack([image, *blanked]).astype(np.float64))
    labels = np.argsort(-clean, kind="stable")[: len(objects)]
    falls = np.array([clean[labels] - scores[labels] for scores in without])
    _, chosen = linear_sum_assignment(-falls)
    return tuple(int(labels[place]) for place in chosen)
