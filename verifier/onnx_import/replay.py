"""The comparison of an imported network with ONNX Runtime on the file it came from."""

import hashlib
from dataclasses import replace

import numpy as np
import onnx
from jaxtyping import Float, Float32

from verifier import runtime
from verifier.errors import ImportedNetworkError, ReplayMismatchError
from verifier.evaluation import apply_head, walk_values
from verifier.network import Head, Network
from verifier.onnx_import.head import Tail
from verifier.onnx_import.source import Source

# Own float32 evaluation against float64 shows how much rounding matters in this network; ONNX Runtime sums in another order.
_ROUNDING_FACTOR = 64.0
_RELATIVE_FLOOR = 2.0**-20
_SEED = 20241
# Values of one image, from which on an image takes seconds.
_LARGE = 2**24


def check_replay(network: Network, source: Source, tail: Tail) -> None:
    """Refuses a network whose evaluation differs from ONNX Runtime's by more than float32 rounding explains.

    Compared on eight images in [0, 1]: four uniform, two of zeros and ones at random, all zeros, all ones; of a network with more
    than 2^24 values an image on two, a uniform one and one of zeros and ones. Where the file has a
    head, the scores before it are compared too, so that a saturated softmax hides nothing. The tolerance is 64 times the largest
    difference between our own float32 and float64 scores, plus 2^-20 of the largest value anywhere in the network.

    Raises:
        ReplayMismatchError: A score differs by more, or a value has another shape than its node says.
        ImportedNetworkError: A score is not finite, or ONNX Runtime cannot run the file.
    """
    images = _images(network)
    with np.errstate(all="ignore"):
        # One image at a time: the values of a large network at eight images would not fit.
        walks = [_walked(network, image[None].astype(np.float64)) for image in images]
        single = np.concatenate([_walked(network, image[None])[0] for image in images])
    exact = np.concatenate([scores for scores, _ in walks])
    if not (np.isfinite(exact).all() and np.isfinite(single).all()):
        raise ImportedNetworkError(f"{network.path}: scores of random images are not finite; check the weights")
    largest = max(1.0, *(magnitude for _, magnitude in walks))
    tolerance = _ROUNDING_FACTOR * float(np.abs(single - exact).max()) + _RELATIVE_FLOOR * largest
    if network.head is not Head.NONE:
        _compare(_without_head(network, source, tail), images, exact, tolerance)
    # No head moves a score by more than twice what its input moves.
    _compare(network, images, exact, 2.0 * tolerance)


def _walked(network: Network, images: Float[np.ndarray, "one *shape"]) -> tuple[Float[np.ndarray, "one labels"], float]:
    """The scores, and the largest magnitude of any value.

    Raises:
        ReplayMismatchError: A value has another shape than its node says.
    """
    largest = 0.0
    for index, value in enumerate(walk_values(network, images)):
        if value.shape[1:] != network.value_shape(index):
            name = network.nodes[index - 1].name
            raise ReplayMismatchError(
                f"{network.path}: node {name!r} evaluates to shape {value.shape[1:]}, "
                f"its network node says {network.value_shape(index)}; please report this file"
            )
        largest = max(largest, float(np.abs(value).max(initial=0.0)))
    return value, largest


def _images(network: Network) -> Float32[np.ndarray, "images *shape"]:
    generator = np.random.default_rng(_SEED)
    uniform = generator.random((4, *network.input_shape), dtype=np.float32)
    binary = generator.integers(0, 2, (2, *network.input_shape)).astype(np.float32)
    if network.entries > _LARGE:
        return np.concatenate([uniform[:1], binary[:1]])
    return np.concatenate([uniform, binary, np.zeros_like(binary[:1]), np.ones_like(binary[:1])])


def _without_head(network: Network, source: Source, tail: Tail) -> Network:
    """The same network with a file that returns the scores before the head."""
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    kept = [node for node in model.graph.node if not set(node.output) & {source.output_name}]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.node.append(
        onnx.helper.make_node("Identity", [tail.scores], [source.output_name], name="scores before the head")
    )
    data = model.SerializeToString()
    return replace(network, head=Head.NONE, onnx_bytes=data, sha256=hashlib.sha256(data).hexdigest())


def _compare(
    network: Network,
    images: Float32[np.ndarray, "images *shape"],
    scores: Float[np.ndarray, "images labels"],
    tolerance: float,
) -> None:
    ours = apply_head(network.head, scores)
    theirs = runtime.run(network, images)
    difference = np.abs(ours - theirs)
    if not (difference <= tolerance).all():
        image, label = np.unravel_index(np.argmax(difference), difference.shape)
        raise ReplayMismatchError(
            f"{network.path}: our evaluation and ONNX Runtime's differ by {difference.max():.3g} (label {label} of random image "
            f"{image}: {ours[image, label]:.9g} and {theirs[image, label]:.9g}), tolerance {tolerance:.3g}; please report this file"
        )
