"""The entry point: one query, one verdict."""

import numpy as np
from jaxtyping import Float

from verifier.bounds import RegionBounds
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.query import Query
from verifier.search import Cover
from verifier.verdict import Robust, Unknown, UnknownReason
from verifier.verify.certification import certified
from verifier.verify.falsifier import Falsifier
from verifier.verify.investigation import Investigation
from verifier.verify.options import VerifyOptions
from verifier.verify.outcome import Outcome
from verifier.verify.plan import Plan, plan_for
from verifier.verify.territory import Territory


def verify(
    query: Query,
    *,
    falsifier: Falsifier | None = None,
    options: VerifyOptions | None = None,
    deadline: Deadline | None = None,
    region_bounds: RegionBounds | None = None,
    starts: Float[np.ndarray, "n ..."] | None = None,
    plan: Plan | None = None,
    cover: Cover | None = None,
) -> Outcome:
    """Decides the query: cheap points, bounds, attack, tighter bounds, search, MILP, until the first sound verdict.

    KeyboardInterrupt (Ctrl-C) ends it with what is known so far: Unknown, reason INTERRUPTED, unless the verdict stands.

    Where the options ask for a certificate, `Robust` is derived again as a proof that the checker accepts, within as long again as
    `deadline` leaves at entry (Ctrl-C ends that too, and keeps the verdict without a proof). Then nothing is trusted, and
    `Outcome.proof` holds the proof; otherwise `Outcome.uncertified` says why, and the verdict lists what it trusts, or is Unknown
    if a certificate is required. A counterexample is its own certificate.

    Where float64 rounding could explain an engine's proof, only a proof that the checker accepts counts, asked for or not.

    Soundness: `Robust` carries what it takes on trust; `Vulnerable` carries an image that `check.replay` accepted. Every proof is
    confronted with every image tried.

    Args:
        query: The question.
        falsifier: An attack, such as `attacks.margin.MarginAttack`; without one only corners and engines' points are tried.
        options: Engines and their settings.
        deadline: With none left at entry the answer is Unknown at once.
        region_bounds: Bounds of the query's region computed before, shared between properties.
        starts: Images to try first, such as the clean image.
        plan: Engines to use in place of those that `options` names.
        cover: Of an earlier outcome on the same network and a region or property much like this one: a branch and bound starts from
            its splits instead of finding them again. It changes how soon, not what is answered.

    Raises:
        InputError: `region_bounds` or `starts` do not fit the query.
        SolverUnavailableError: A named solver or engine is missing.
        ContradictionError: An engine's claim is disproved by an image; the error keeps the query.
    """
    limit = deadline if deadline is not None else Deadline()
    territory = Territory(query.network, query.region, region_bounds, cover)
    points = np.zeros((0, *query.region.shape)) if starts is None else np.asarray(starts, dtype=np.float64)
    if points.shape[1:] != query.region.shape:
        raise InputError(f"starts: got shape {points.shape}, wanted (n, {query.region.shape})")
    settings, allowance = options if options is not None else VerifyOptions(), limit.remaining()
    engines = plan if plan is not None else plan_for(settings)
    investigation = Investigation(query, territory, engines, falsifier)
    was_interrupted = False
    try:
        investigation.first_pass(points, engines.before_decide(limit))
        investigation.solve(limit)
    except KeyboardInterrupt:
        investigation.interrupt()
        was_interrupted = True
    outcome = investigation.outcome()
    is_unclear = isinstance(outcome.verdict, Unknown) and outcome.verdict.reason is UnknownReason.ROUNDING
    if settings.wants_certificate:
        limit = Deadline.after(allowance)
    elif not is_unclear:
        return outcome
    outcome = certified(query, outcome, territory, settings, None if was_interrupted else limit)
    if isinstance(outcome.verdict, Robust):
        investigation.hold_against_points(outcome.verdict.certificate)
    return outcome
