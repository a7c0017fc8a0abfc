"""Claims that an attack succeeded with a given image: the image is checked, its distance, and what the network says to it."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from attacks.claims.aim import Aim
from attacks.claims.claim import Claim, ClaimVerdict, Judgement
from attacks.claims.distance import ROUNDING, enclosing_box, is_within
from attacks.metrics import Norm, norms
from verifier import check
from verifier.check.enclosure import evaluate_enclosure
from verifier.check.interval import Interval
from verifier.check.margins import margin_ends
from verifier.errors import InputError
from verifier.network import Network
from verifier.query import Query
from verifier.region import Box, check_image
from verifier.verdict import Counterexample


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """What the network makes of an image.

    Attributes:
        margin: Rigorous bounds of the aim's margin: > 0 is a strict success.
        counterexample: The image, if exact arithmetic and ONNX Runtime both show a strict success; else None.
        query: The question at that image alone.
    """

    margin: tuple[float, float]
    counterexample: Counterexample | None
    query: Query


def usable_image(image: np.ndarray, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """The image as float32, the type a network reads.

    Raises:
        InputError: Not floating point, another shape, not finite, or outside [0, 1].
    """
    return check_image(image, shape).astype(np.float32)


def reached(network: Network, image: Float32[np.ndarray, "..."], aim: Aim, found_by: str) -> Reached:
    """Whether an image reaches the aim, in rigorous arithmetic and in ONNX Runtime.

    Soundness: where the aim is reached strictly, at least `needed` of its constraints hold strictly, so the needed-th largest of
    their own upper bounds is an upper bound of its margin.

    Raises:
        InputError: The aim speaks of a threshold and the file ends in a softmax.
    """
    lower, upper = evaluate_enclosure(network, image)
    scores = Interval(lower, upper)
    middle = np.where(np.isfinite(lower) & np.isfinite(upper), 0.5 * lower + 0.5 * upper, 0.0)
    query = Query(network, Box(image, image), aim.way_at(middle))
    least, _ = margin_ends(query.property, scores)
    largest = sorted((margin_ends(obstacle, scores)[1] for obstacle in aim.obstacles()), reverse=True)[aim.needed - 1]
    return Reached((least, largest), check.replay(query, image, found_by), query)


def judge_success(claim: Claim, network: Network) -> Judgement:
    """Whether the claim's adversarial image is what it is said to be; never `UNDECIDED` but for a near tie.

    `NOT_VALID`: an image is not one of finite values in [0, 1] of the network's shape, it lies further away than claimed by more
    than float32 rounding can explain, the aim means nothing for this network, or it is not reached.
    """
    if claim.image is None or claim.adversarial is None or claim.aim is None:
        raise InputError(f"claim {claim.name}: wanted a clean image, an adversarial image and an aim")
    judgement = Judgement(claim, ClaimVerdict.NOT_VALID, "")
    pictures = []
    for what, pixels in (("clean", claim.image), ("adversarial", claim.adversarial)):
        try:
            pictures.append(usable_image(pixels, network.input_shape))
        except InputError as error:
            return replace(judgement, reason=f"{what} {error}")
    clean, adversarial = pictures
    if claim.norm is not None and claim.bound is not None:
        judgement = replace(judgement, size=_size(clean, adversarial, claim.norm))
        if not is_within(clean, adversarial, claim.norm, claim.bound, ROUNDING):
            reason = f"the image lies {judgement.size:.9g} away in {claim.norm}, above the bound {claim.bound:.9g}"
            return replace(judgement, reason=reason)
    try:
        found = reached(network, adversarial, claim.aim, claim.attack or "the claim")
    except InputError as error:
        return replace(judgement, reason=str(error))
    judgement = replace(judgement, margin=found.margin)
    if found.counterexample is not None:
        is_exact = claim.norm is None or claim.bound is None or is_within(clean, adversarial, claim.norm, claim.bound)
        beyond = "" if is_exact else "; the bound is exceeded, by no more than float32 rounding"
        return replace(
            judgement,
            verdict=ClaimVerdict.CONFIRMED,
            reason=f"the aim is reached in exact arithmetic and in ONNX Runtime{beyond}",
            counterexample=found.counterexample,
            is_exact=is_exact,
            region=enclosing_box(clean, claim.norm, claim.bound),
        )
    least, largest = found.margin
    if largest <= 0.0:
        return replace(judgement, reason=f"the aim is not reached: its margin is at most {largest:.6g}")
    if least > 0.0:
        return replace(judgement, reason=f"ONNX Runtime does not show it, though the margin is at least {least:.6g}")
    reason = f"a near tie: the margin lies between {least:.6g} and {largest:.6g}, within rounding of 0"
    return replace(judgement, verdict=ClaimVerdict.UNDECIDED, reason=reason)


def _size(clean: np.ndarray, adversarial: np.ndarray, norm: Norm) -> float:
    return float(norms(clean[None], adversarial[None], norm)[0])
