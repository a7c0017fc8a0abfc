"""Replays: a violation becomes a counterexample only here."""

import numpy as np
from jaxtyping import Float, Float32

from verifier import runtime
from verifier.check.enclosure import evaluate_enclosure
from verifier.check.interval import Interval, point
from verifier.check.margins import margin_ends
from verifier.errors import InputError
from verifier.network import Head
from verifier.property import Property
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Counterexample


def inside_box_float32(box: Box, candidate: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."] | None:
    """The float32 image inside the box that is nearest to a candidate, or None where some entry of the box holds no float32.

    The box is one of doubles: where rounding an entry to float32 leaves it, the next float32 toward the inside is taken.
    Candidates outside the box are moved in. (Of two equally near float32, the one with the even last bit.)

    Raises:
        InputError: The candidate has another shape than the box, or is not finite.
    """
    if candidate.shape != box.shape or not np.isfinite(candidate).all():
        raise InputError(
            f"image: got shape {candidate.shape}, wanted finite numbers of shape {box.shape}, the region's"
        )
    least, largest = box.lower.astype(np.float32), box.upper.astype(np.float32)
    least = np.where(least < box.lower, np.nextafter(least, np.float32(np.inf)), least)
    largest = np.where(largest > box.upper, np.nextafter(largest, np.float32(-np.inf)), largest)
    if (least > largest).any():
        return None
    # Clipped before the conversion as well, so that huge candidates do not overflow float32.
    rounded = np.clip(candidate, box.lower, box.upper).astype(np.float32)
    return np.clip(rounded, least, largest)


def replay(query: Query, image: Float[np.ndarray, "..."], found_by: str) -> Counterexample | None:
    """The image as a counterexample to the query, or None unless everything below holds.

    The image, exactly as given, lies in the region. Its nearest float32 image inside the region (itself, if it is float32)
    has a margin whose rigorous lower bound in exact arithmetic is > 0, and the margin of ONNX Runtime's float32 scores for it
    is > 0 as well. A tie, a near tie that rounding could explain, and a NaN anywhere give None.

    Soundness: nothing that the engine which found the image computed is used. Candidates that an engine knows only up to a
    tolerance go through `inside_box_float32` first, since nothing is clipped here.

    Raises:
        ImportedNetworkError: ONNX Runtime cannot run the file.
    """
    if not query.region.contains(image):
        return None
    candidate = inside_box_float32(query.region, np.asarray(image))
    if candidate is None or not query.region.contains(candidate):
        return None
    lower, upper = evaluate_enclosure(query.network, candidate)
    margin_lower, _ = margin_ends(query.property, Interval(lower, upper))
    if not (margin_lower > 0.0 and np.isfinite(lower).all() and np.isfinite(upper).all()):
        return None
    outputs = runtime.run(query.network, candidate[None])[0]
    runtime_margin = _runtime_margin(query.property, query.network.head, outputs)
    if not runtime_margin > 0.0:
        return None
    scores = 0.5 * lower + 0.5 * upper
    for array in (candidate, scores, outputs):
        array.setflags(write=False)
    return Counterexample(candidate, scores, margin_lower, outputs, runtime_margin, found_by)


def _runtime_margin(property: Property, head: Head, outputs: Float32[np.ndarray, " labels"]) -> float:
    """A lower bound of the property's margin for a file's outputs; -inf if they do not settle its sign.

    Every head increases with the score and treats all labels alike, so rankings are read off the outputs. Thresholds speak
    about logits: a sigmoid's outputs are mapped back, and a softmax's cannot be.
    """
    if np.isnan(outputs).any():
        return -np.inf
    if property.is_ranking or head is Head.NONE:
        return margin_ends(property, point(outputs))[0]
    if head is Head.SIGMOID and outputs.min() >= 0.0 and outputs.max() <= 1.0:
        return margin_ends(property, _logits(outputs))[0]
    return -np.inf


def _logits(outputs: Float32[np.ndarray, " labels"]) -> Interval:
    """The logits that a sigmoid may have rounded to these float32 outputs.

    The neighbouring float32 numbers are mapped back. One such step moves the logit by more than 2^-25, far above the rounding
    of the logarithms here. Outputs of 0 and 1 stand for all logits beyond the last that float32 tells apart.
    """
    below = np.maximum(np.nextafter(outputs, np.float32(-1.0)), np.float32(0.0)).astype(np.float64)
    above = np.minimum(np.nextafter(outputs, np.float32(2.0)), np.float32(1.0)).astype(np.float64)
    with np.errstate(divide="ignore"):
        return Interval(np.log(below) - np.log1p(-below), np.log(above) - np.log1p(-above))
