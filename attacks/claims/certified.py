"""Claims of failure that bring a certificate: the checker reads it, and no engine is asked."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from attacks.claims.aim import Aim
from attacks.claims.claim import Claim, ClaimVerdict, Judgement
from attacks.claims.distance import enclosing_box
from attacks.claims.success import usable_image
from attacks.domains import float32_bounds
from verifier import check
from verifier.check.certificates import check_certificate
from verifier.errors import ContradictionError, InputError
from verifier.network import Network
from verifier.proof.records import Statement
from verifier.property import Property
from verifier.query import Query
from verifier.region import Box


def judge_certified(
    claim: Claim, network: Network, reached: Sequence[Float32[np.ndarray, "..."]], max_ways: int
) -> Judgement:
    """Whether the claim's certificate proves the claim.

    `NOT_VALID`: the checker rejects it, it is no proof, or it speaks of a smaller region or of something else than the aim.

    Soundness: an accepted proof covers its box; the box must hold every float32 image within the bound, and the property must be
    one whose proof alone puts the aim out of reach.

    Args:
        claim: With a clean image, an aim and a certificate.
        network: The network.
        reached: Images of confirmed successes, whatever they are about.
        max_ways: Above it the ways to reach an aim are not listed.

    Raises:
        InputError: The claim lacks an image, an aim or a readable certificate.
        ContradictionError: The certificate is accepted, and one of the images violates what it proves.
    """
    if claim.image is None or claim.aim is None or claim.certificate is None:
        raise InputError(f"claim {claim.name}: wanted a clean image, an aim and a certificate")
    clean = usable_image(claim.image, network.input_shape)
    region = enclosing_box(clean, claim.norm, claim.bound)
    judgement = Judgement(claim, ClaimVerdict.NOT_VALID, "", region=region)
    report = check_certificate(claim.certificate, network)
    if not report.accepted or report.statement is None:
        return replace(judgement, reason=f"the certificate is rejected: {report.reason}")
    if not report.is_proof:
        return replace(judgement, reason="the certificate holds a counterexample, not a proof")
    _confront(claim, report.statement, network, reached)
    lower, upper = float32_bounds(region)
    if not report.statement.box.encloses(Box(lower, upper)):
        return replace(
            judgement, reason="the certificate speaks of a region that does not hold every image within the bound"
        )
    if not _settles(report.statement.property, claim.aim, max_ways):
        return replace(judgement, reason="the certificate proves something else than that the aim is out of reach")
    reason = "no image within the bound reaches the aim: the checker accepts the certificate"
    return replace(judgement, verdict=ClaimVerdict.CONFIRMED, reason=reason, engine="certificate")


def _settles(proved: Property, aim: Aim, max_ways: int) -> bool:
    """Whether the aim is out of reach wherever this one property holds."""
    blocked = sum(_same_forms(proved, obstacle) for obstacle in aim.obstacles())
    if len(aim.constrained) - blocked < aim.needed:
        return True
    ways = aim.ways(max_ways)
    return ways is not None and len(ways) == 1 and _same_forms(proved, ways[0].property)


def _same_forms(first: Property, second: Property) -> bool:
    """Whether two properties are one up to the order of their forms and their names."""
    if first.count != second.count or first.coefficients.shape != second.coefficients.shape:
        return False
    return np.array_equal(_ordered(first), _ordered(second))


def _ordered(goal: Property) -> Float[np.ndarray, "forms columns"]:
    rows = np.column_stack([goal.coefficients, goal.offsets])
    return rows[np.lexsort(rows.T)]


def _confront(
    claim: Claim, statement: Statement, network: Network, images: Sequence[Float32[np.ndarray, "..."]]
) -> None:
    """Tries the images on what the certificate proves.

    Raises:
        ContradictionError: One violates it, shown in rigorous arithmetic and in ONNX Runtime.
    """
    query = Query(network, statement.box, statement.property)
    for image in images:
        found = check.replay(query, image, "a claimed success") if statement.box.contains(image) else None
        if found is not None:
            raise ContradictionError(
                f"claim {claim.name}: its certificate is accepted, and the image of a claimed success violates it in its region",
                query=query,
                details={"image": image, "margin_lower": found.margin_lower, "certificate": str(claim.certificate)},
            )
