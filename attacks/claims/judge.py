"""Judges a table of claims: every claimed success by its image, every claimed failure and robust accuracy by the verifier."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from attacks.claims.accuracy import judge_accuracy
from attacks.claims.certified import judge_certified
from attacks.claims.claim import Claim, ClaimKind, ClaimVerdict, Judgement
from attacks.claims.distance import check_bound, enclosing_box, is_within
from attacks.claims.reach import MAX_WAYS, Decide, Reach, Territory, decide_reach
from attacks.claims.success import judge_success, reached, usable_image
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, ImportedNetworkError, InputError, SolverUnavailableError
from verifier.network import Network
from verifier.query import Query
from verifier.verdict import Robust, Unknown, UnknownReason

LARGEST = 2**24
"""Values of one image, of all layers together, that the proving engines are asked about; images are replayed on any network."""
_NOT_THE_CLAIMS_FAULT = (SolverUnavailableError, ImportedNetworkError)


@dataclass(frozen=True, slots=True, eq=False)
class Court:
    """Who decides, and for how long.

    Attributes:
        decide: The verifier with all its engines: what can be reached within a bound?
        prove: The verifier without attack: would it call a region robust that holds a success?
        timeout: Seconds for each claim; None for no limit.
    """

    decide: Decide
    prove: Decide
    timeout: float | None = None


def judge_claims(
    claims: Sequence[Claim], network: Network, court: Court, on_judgement: Callable[[Judgement], None] | None = None
) -> tuple[Judgement, ...]:
    """A judgement for each claim, in their order.

    Claimed successes come first: their images, checked, are tried on all claims about the same clean image, and on every
    certificate. Ctrl-C ends the work; what is not judged then is missing from what `on_judgement` was told.

    On a network with more than `LARGEST` values an image nothing is proved: images are replayed, the rest is `UNDECIDED`.

    Soundness: `CONFIRMED` and `REFUTED_*` rest on replayed images and on the verifier's proofs, nothing else; a claim that cannot
    be read, or that speaks of another network, is `NOT_VALID`.

    Raises:
        SolverUnavailableError: An engine that `court` names is missing.
        ImportedNetworkError: ONNX Runtime cannot run the network.
        KeyboardInterrupt: Ctrl-C.
    """
    judged: dict[int, Judgement] = {}

    def settle(places: Iterable[int], judge: Callable[[Claim], Judgement]) -> None:
        for place in places:
            began = time.monotonic()
            judged[place] = replace(_guarded(claims[place], judge), seconds=time.monotonic() - began)
            if on_judgement is not None:
                on_judgement(judged[place])

    shown: list[int] = []
    proved: list[int] = []
    asked: list[int] = []
    averaged: list[int] = []
    for place, claim in enumerate(claims):
        if claim.kind is ClaimKind.ROBUST_ACCURACY:
            averaged.append(place)
        elif claim.certificate is not None:
            proved.append(place)
        else:
            (shown if claim.kind is ClaimKind.SUCCESS and claim.adversarial is not None else asked).append(place)
    settle(shown, lambda claim: _confronted(judge_success(claim, network), network, court))
    images = _Images([judged[place] for place in shown])
    found = images.every()
    settle(proved, lambda claim: judge_certified(claim, network, found, MAX_WAYS))
    settle(asked, lambda claim: _judge_reach(claim, network, court, images))
    members = [judged[place] for place in (*shown, *proved, *asked)]
    settle(
        averaged,
        lambda claim: judge_accuracy(claim, members, lambda member: _judge_reach(member, network, court, images)),
    )
    return tuple(judged[place] for place in range(len(claims)))


class _Images:
    """Adversarial images that were claimed, by clean image."""

    def __init__(self, judgements: Sequence[Judgement]) -> None:
        self._of: dict[bytes, list[np.ndarray]] = {}
        for judgement in judgements:
            clean, found = judgement.claim.image, judgement.counterexample
            if clean is not None and found is not None:
                self._of.setdefault(_key(clean), []).append(found.image)

    def every(self) -> list[np.ndarray]:
        """All of them."""
        return [image for images in self._of.values() for image in images]

    def of(self, clean: np.ndarray) -> list[np.ndarray]:
        """Those of one clean image that were replayed."""
        return self._of.get(_key(clean), [])


def _key(image: np.ndarray) -> bytes:
    return image.astype(np.float32).tobytes()


def _guarded(claim: Claim, judge: Callable[[Claim], Judgement]) -> Judgement:
    """The judgement, where reading, input and engines allow one."""
    if claim.problem:
        return Judgement(claim, ClaimVerdict.NOT_VALID, claim.problem)
    try:
        check_bound(claim.norm, claim.bound)
        return judge(claim)
    except ContradictionError as error:
        return Judgement(claim, ClaimVerdict.CONTRADICTION, str(error), contradiction=error)
    except _NOT_THE_CLAIMS_FAULT:
        raise
    except InputError as error:
        return Judgement(claim, ClaimVerdict.NOT_VALID, str(error))


def _confronted(judgement: Judgement, network: Network, court: Court) -> Judgement:
    """The judgement, unless the verifier proves that the region of a confirmed success holds none.

    Raises:
        ContradictionError: It does.
    """
    claim, found, region = judgement.claim, judgement.counterexample, judgement.region
    if found is None or region is None or claim.aim is None or claim.bound is None or not region.contains(found.image):
        return judgement
    if network.entries > LARGEST:
        return replace(judgement, reason=f"{judgement.reason}; not held against proofs, which {_too_large(network)}")
    violated = reached(network, found.image.astype(np.float32), claim.aim, found.found_by).query.property
    query = Query(network, region, violated)
    verdict = court.prove(query, np.zeros((0, *region.shape)), Deadline.after(court.timeout)).verdict
    if isinstance(verdict, Unknown) and verdict.reason is UnknownReason.INTERRUPTED:
        raise KeyboardInterrupt
    if isinstance(verdict, Robust):
        raise ContradictionError(
            f"claim {claim.name}: its image reaches the aim in exact arithmetic and in ONNX Runtime, inside a region that"
            f" {verdict.certificate.engine} calls robust",
            query=query,
            details={"image": found.image, "margin_lower": found.margin_lower, "certificate": verdict.certificate},
        )
    return judgement


def _judge_reach(claim: Claim, network: Network, court: Court, images: _Images) -> Judgement:
    """A claim without an image of its own that matters: can the aim be reached within the bound?"""
    if claim.image is None or claim.aim is None:
        raise InputError(f"claim {claim.name}: wanted a clean image and an aim")
    clean = usable_image(claim.image, network.input_shape)
    box = enclosing_box(clean, claim.norm, claim.bound)
    territory = Territory(network, clean, box, claim.norm, claim.bound)
    starts = images.of(clean)
    if claim.adversarial is not None and claim.adversarial.shape == clean.shape:
        starts = [*starts, np.nan_to_num(claim.adversarial).astype(np.float32)]
    if network.entries > LARGEST:
        return replace(_by_images(claim, network, clean, starts), region=box)
    found = decide_reach(territory, claim.aim, court.decide, starts, Deadline.after(court.timeout))
    return replace(_read(found, claim), region=box)


def _by_images(
    claim: Claim, network: Network, clean: Float32[np.ndarray, "..."], images: Sequence[Float32[np.ndarray, "..."]]
) -> Judgement:
    """Without any proof: an image that is known and reaches the aim within the bound decides, everything else stays open."""
    for image in (np.clip(each, np.float32(0.0), np.float32(1.0)) for each in images):
        lies_within = claim.norm is None or claim.bound is None or is_within(clean, image, claim.norm, claim.bound)
        if claim.aim is None or not lies_within:
            continue
        found = reached(network, image, claim.aim, claim.attack or "another claim").counterexample
        if found is not None:
            return _read(Reach(counterexample=found), claim)
    return Judgement(claim, ClaimVerdict.UNDECIDED, f"no image shows it, and proofs {_too_large(network)}")


def _too_large(network: Network) -> str:
    return f"are not tried: the network has {network.entries:,} values an image, above {LARGEST:,}"


def _judge_member(claim: Claim, network: Network, court: Court, images: _Images) -> Judgement:
    """A claim that nobody made: what a robust accuracy needs to know of one image. Images that cannot be used stay open."""
    try:
        return _judge_reach(claim, network, court, images)
    except _NOT_THE_CLAIMS_FAULT:
        raise
    except InputError as error:
        return Judgement(claim, ClaimVerdict.NOT_VALID, str(error))


def _read(found: Reach, claim: Claim) -> Judgement:
    """What an answer means for a claim of failure, or for one of success without an image."""
    is_failure = claim.kind is not ClaimKind.SUCCESS
    if found.counterexample is not None:
        verdict = ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE if is_failure else ClaimVerdict.CONFIRMED
        reason = f"an image within the bound reaches the aim (found by: {found.counterexample.found_by})"
        return Judgement(claim, verdict, reason, counterexample=found.counterexample)
    if found.certificates:
        verdict = ClaimVerdict.CONFIRMED if is_failure else ClaimVerdict.REFUTED_BY_CERTIFICATE
        engines = ", ".join(dict.fromkeys(certificate.engine for certificate in found.certificates))
        trusted = tuple(dict.fromkeys(item.value for certificate in found.certificates for item in certificate.trusted))
        reason = f"no image within the bound reaches the aim, as {engines} proved"
        return Judgement(claim, verdict, reason, engine=engines, trusted=trusted)
    return Judgement(claim, ClaimVerdict.UNDECIDED, found.reason)
