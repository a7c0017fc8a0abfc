"""From command-line words to a property, a region and an object: the question a command asks."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from aureole import images
from aureole.exits import UsageError
from aureole.layers_file import read_layers
from aureole.options import PropertyKind, PropertyWords, RegionWords
from synth import segmentation
from verifier.errors import InputError
from verifier.network import Head, Network
from verifier.property import (
    Property,
    check_k,
    keeps_thresholds,
    keeps_top_k_set,
    stays_in_top_k,
    stays_out_of_top_k,
)
from verifier.region import Box

DEFAULT_PROBABILITY = 0.5
INK_PREFIX = "ink:"


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A box and how it was described.

    Attributes:
        box: The box.
        kind: "epsilon", "widths" or "layers".
        text: For people.
        epsilon: The one number of an L-infinity ball, else None.
        source: The file of widths or layers, else None.
    """

    box: Box
    kind: str
    text: str
    epsilon: float | None = None
    source: str | None = None


@contextmanager
def as_usage() -> Iterator[None]:
    """Turns an InputError about an option's value into a UsageError with the same text."""
    try:
        yield
    except InputError as error:
        raise UsageError(str(error)) from error


def top_labels(scores: Float[np.ndarray, " labels"], k: int) -> list[int]:
    """The k labels of highest score, highest first; of equal scores the lower label comes first."""
    return [int(label) for label in np.argsort(-np.asarray(scores), kind="stable")[:k]]


def build_property(words: PropertyWords, network: Network, scores: Float[np.ndarray, " labels"]) -> Property:
    """The property the options describe, for a network whose scores at the image are `scores`.

    Raises:
        UsageError: A label, k, threshold or number of flips is out of range, missing, or means nothing for this network.
        InputError: The image's own top k, or its side of a threshold, is a tie.
    """
    if words.kind is PropertyKind.THRESHOLDS:
        return _thresholds(words, network, scores)
    with as_usage():
        check_k(words.k, network.labels)
    if words.kind is PropertyKind.TOP_K_SET:
        ranked = np.sort(scores)[::-1]
        if ranked[words.k - 1] == ranked[words.k]:
            raise InputError(f"image: scores {words.k} and {words.k + 1} are equal, so its top {words.k} is no set")
        return keeps_top_k_set(top_labels(scores, words.k), network.labels)
    if words.label is None:
        raise UsageError(f"--label: missing; --property {words.kind} asks about one label, 0 to {network.labels - 1}")
    constructor = stays_in_top_k if words.kind is PropertyKind.STAYS_IN else stays_out_of_top_k
    with as_usage():
        return constructor(words.label, words.k, network.labels)


def _thresholds(words: PropertyWords, network: Network, scores: Float[np.ndarray, " labels"]) -> Property:
    logit = threshold_on_logits(network.head, words.threshold)
    signs = [int(sign) for sign in np.sign(scores - logit)]
    if 0 in signs:
        raise InputError(f"image: label {signs.index(0)} scores exactly the threshold, so it is neither on nor off")
    with as_usage():
        return keeps_thresholds(signs, [logit] * network.labels, words.flips)


def threshold_on_logits(head: Head, threshold: float | None) -> float:
    """The threshold in logit space: as given without a head, ln(p / (1 - p)) under a sigmoid, rounded to nearest.

    Raises:
        UsageError: Not finite, not a probability under a sigmoid, or any threshold under a softmax.
    """
    if head in (Head.SOFTMAX, Head.LOG_SOFTMAX):
        raise UsageError(
            f"--property thresholds: the network ends in {head.value}, where each output depends on every logit, so a"
            " threshold on it is none on a logit; export the network without it"
        )
    if head is Head.SIGMOID:
        probability = DEFAULT_PROBABILITY if threshold is None else threshold
        if not 0 < probability < 1:
            raise UsageError(
                f"--threshold: got {probability:g}, wanted a probability between 0 and 1 (sigmoid network)"
            )
        return math.log(probability) - math.log1p(-probability)
    logit = 0.0 if threshold is None else threshold
    if not math.isfinite(logit):
        raise UsageError(f"--threshold: got {logit:g}, wanted a finite logit")
    return logit


def build_region(image: Float[np.ndarray, "..."], words: RegionWords) -> Region:
    """The region that exactly one of the three options describes.

    Raises:
        UsageError: None or several are given, or epsilon is negative or not finite.
        InputError: A file does not fit the image.
    """
    epsilon, widths, layers = words.epsilon, words.widths, words.layers
    given = [
        name for name, value in (("--eps", epsilon), ("--widths", widths), ("--layers", layers)) if value is not None
    ]
    if len(given) != 1:
        raise UsageError(
            f"region: got {' and '.join(given) or 'none'}, wanted exactly one of --eps, --widths, --layers"
        )
    if epsilon is not None:
        if not math.isfinite(epsilon) or epsilon < 0:
            raise UsageError(f"--eps: got {epsilon:g}, wanted a finite number >= 0")
        box = Box.around(image, epsilon)
        return Region(box, "epsilon", f"every pixel within {epsilon:g} of the image", epsilon=epsilon)
    if widths is not None:
        box = Box.around(image, images.read_widths(widths, image.shape))
        return Region(box, "widths", f"every pixel within its width in {widths}", source=str(widths))
    if layers is None:
        raise UsageError("region: wanted --eps, --widths or --layers")
    neighbourhood = read_layers(layers, image)
    text = f"the layered neighbourhood of {len(neighbourhood.epsilons)} layers in {layers}"
    return Region(neighbourhood.box(), "layers", text, source=str(layers))


def object_pixels(reference: str, image: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "height width"]:
    """The pixels of the perturbed object.

    Args:
        reference: `TOP,LEFT,BOTTOM,RIGHT` (the last two past the box), `ink:N` for the N-th of two digits from the left,
            `shipped:I:N` for digit N of shipped image I, or a PNG or NPY mask file.
        image: The image, (channels, height, width).

    Raises:
        UsageError: A box or number is out of range.
        MissingFileError, InputError: The mask file is missing, damaged, empty or of another size.
    """
    if image.ndim != 3:
        raise InputError(
            f"image: got shape {image.shape}, wanted (channels, height, width) for a layered neighbourhood"
        )
    size = (int(image.shape[1]), int(image.shape[2]))
    if reference.startswith(INK_PREFIX):
        return _nth(segmentation.ink_pixels(image), reference.removeprefix(INK_PREFIX), reference)
    if reference.startswith(images.SHIPPED_PREFIX):
        from nets import shipped

        which, _, digit = reference.removeprefix(images.SHIPPED_PREFIX).partition(":")
        masks = shipped.images().masks
        chosen = masks[images.shipped_index(images.SHIPPED_PREFIX + which, len(masks))]
        return segmentation.mask_pixels(_nth(tuple(chosen), digit, reference), size)
    corners = reference.split(",")
    if len(corners) == 4 and all(corner.strip().lstrip("-").isdecimal() for corner in corners):
        top, left, bottom, right = (int(corner) for corner in corners)
        with as_usage():
            return segmentation.box_pixels((top, left, bottom, right), size)
    return images.read_mask(Path(reference), image.shape)


def _nth(masks: tuple[np.ndarray, ...], number: str, reference: str) -> Bool[np.ndarray, "height width"]:
    if not number.isdecimal() or int(number) >= len(masks):
        raise UsageError(f"--object {reference!r}: wanted a digit number from 0 to {len(masks) - 1}, left to right")
    return masks[int(number)]


def shown_k(words: PropertyWords, network: Network) -> int:
    """How many labels a report ranks: k, or as many as fit where the property has no k."""
    return max(1, min(words.k, network.labels - 1))
