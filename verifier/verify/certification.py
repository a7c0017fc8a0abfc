"""From a verdict that trusts its engine to one that trusts nothing."""

import math
import time
from dataclasses import replace

from verifier.certificate import Certificate
from verifier.certify import Proof, certify
from verifier.check.certificates import is_about
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.query import Query
from verifier.verdict import Robust, Unknown, UnknownReason, Verdict
from verifier.verify.options import VerifyOptions
from verifier.verify.outcome import Outcome, Stage
from verifier.verify.territory import Territory


def certified(
    query: Query, outcome: Outcome, territory: Territory, options: VerifyOptions, deadline: Deadline | None
) -> Outcome:
    """The outcome with a proof in the place of what `Robust` trusts, or with the reason why there is none.

    So too where an engine's proof was not believed for its rounding; other outcomes stay as they are.

    Args:
        query: The question.
        outcome: The answer to it.
        territory: Where to find bounds of the region, and splits to start from.
        options: Whether a certificate is required, and whether it is to cover float32 inference.
        deadline: For the proof; None if the user stopped the run already.

    Raises:
        ContradictionError: The proof is about another question; the error keeps the query.
    """
    claimed = _claimed(outcome.verdict)
    if claimed is None:
        return outcome
    started = time.monotonic()
    proof: Proof | None = None
    why: str | None = "interrupted"
    try:
        if deadline is not None:
            cover = outcome.cover if outcome.cover is not None else territory.cover
            found = certify(query, region=territory.bounds, cover=cover, deadline=deadline, float32=options.float32)
            proof, why = found.proof, found.reason
    except KeyboardInterrupt:
        deadline = None
    if proof is not None and not is_about(proof.statement, query):
        raise ContradictionError(
            f"{query.network.path}: {query.property.name}: the certificate speaks about another question; please report the"
            " query this error keeps",
            query=query,
        )
    verdict, detail = outcome.verdict, f"none: {why}"
    if proof is not None:
        # The engine's bound rests on its own arithmetic; certified is that the margin is < 0.
        verdict, detail = Robust(Certificate(claimed, None, ())), f"{proof.leaves} leaves accepted by the checker"
    elif options.require_certificate and isinstance(verdict, Robust):
        # Nothing is certified, so no bound is known.
        verdict = Unknown(UnknownReason.INTERRUPTED if deadline is None else UnknownReason.NOT_CERTIFIED, math.inf)
    stages, seconds = outcome.statistics.stages, time.monotonic() - started
    stage = Stage("certificate", seconds, stages[-1].upper_bound if stages else math.inf, detail)
    statistics = replace(outcome.statistics, stages=(*stages, stage), seconds=outcome.statistics.seconds + seconds)
    uncertified = None if proof is not None else why
    return replace(outcome, verdict=verdict, statistics=statistics, proof=proof, uncertified=uncertified)


def _claimed(verdict: Verdict) -> str | None:
    """What a certificate would name as the engine; None where no engine claims a proof."""
    match verdict:
        case Robust(certificate):
            return f"{certificate.engine}, certified"
        case Unknown(reason=UnknownReason.ROUNDING):
            return "certified bounds and splits"
        case _:
            return None
