"""What is known about one query, and the only place where a verdict is made.

Counterexamples pass `check.replay`; proofs and bounds are held against every image known in the region.
"""

import logging
import math

import numpy as np

from verifier import check
from verifier.certificate import Certificate
from verifier.errors import ContradictionError
from verifier.query import Query
from verifier.verdict import Robust, Vulnerable
from verifier.verify.evidence import Evidence, Point

_log = logging.getLogger(__name__)

CONTRADICTION_TOLERANCE = 1e-4
"""A point's margin may exceed a claimed bound by this share of the scores (a solver's tolerances) before the claim is called
false; the claim that the margin is < 0 has no such tolerance."""
TIE_TOLERANCE = 1e-5
"""A bound and a point's margin this close to 0, relative to the scores, are called a tie: bounds prove only what exceeds their
own slack."""
_REPLAYS_PER_LOOK = 3


class Case:
    """One query with its points, bounds and verdict.

    Attributes:
        query: The query.
        verdict: Robust or Vulnerable once settled, else None.
        best_bound: The least proved upper bound of the margin; inf while there is none.
        is_unclear: Whether an engine's proof was refused because float64 rounding may explain it.
        best_point: The point with the largest margin seen, and `best_margin`, that margin rounded to nearest.
    """

    def __init__(self, query: Query, evidence: Evidence) -> None:
        self.query = query
        self.verdict: Robust | Vulnerable | None = None
        self.best_bound = math.inf
        self.is_unclear = False
        self.best_point: Point | None = None
        self.best_margin = -math.inf
        self._claim = "nothing"
        self._evidence = evidence
        self._points_seen = 0
        self._scale = 1.0

    @property
    def is_tie(self) -> bool:
        """Whether the margin's supremum is known to lie within tolerances of 0."""
        return abs(self.best_bound) <= TIE_TOLERANCE * self._scale and self.is_nearly_violated

    @property
    def is_nearly_violated(self) -> bool:
        """Whether a point's margin is >= 0 within tolerances."""
        return self.best_margin >= -TIE_TOLERANCE * self._scale

    def look(self) -> None:
        """Takes up the points of the region that were added since the last look; also once settled, for a proof must survive them.

        Raises:
            ContradictionError: A point's margin, rigorously bounded from below, exceeds what was claimed.
        """
        fresh = self._evidence.points[self._points_seen :]
        self._points_seen += len(fresh)
        if not fresh:
            return
        scores = np.stack([point.scores for point in fresh])
        margins = self.query.property.margin(scores)
        self._scale = max(self._scale, float(np.abs(scores).max()))
        order = np.argsort(-margins, kind="stable")
        if margins[order[0]] > self.best_margin:
            self.best_point, self.best_margin = fresh[order[0]], float(margins[order[0]])
            self._confront()
        for index in order[:_REPLAYS_PER_LOOK]:
            if self.verdict is None and margins[index] > 0:
                self._replay(fresh[index])

    def claim_bound(self, bound: float, engine: str) -> None:
        """An engine's proved upper bound of the margin. What is no number, or -inf, is no bound and is ignored.

        Raises:
            ContradictionError: A known point exceeds it.
        """
        if math.isnan(bound) or bound == -math.inf:
            _log.error("%s returned the bound %s; ignored", engine, bound)
        elif bound < self.best_bound:
            self.best_bound, self._claim = bound, f"{engine} bounds the margin by {bound:.9g}"
            self._confront()

    def claim_robust(self, certificate: Certificate, room: float) -> None:
        """An engine's proof that the margin stays < 0; no news if the query is settled.

        Refused, and noted as unclear, if rounding can move some form by as much as the room.

        Args:
            certificate: The proof.
            room: How far below 0 everything lies that the engine bounded.

        Raises:
            ContradictionError: A known point's margin is >= 0, rigorously.
        """
        if self.verdict is not None:
            return
        roundings = self._evidence.roundings
        reach = (
            float((np.abs(self.query.property.coefficients) @ roundings).max())
            if np.isfinite(roundings).all()
            else math.inf
        )
        if not reach < room:
            _log.info("%s: room %.3g, rounding %.3g", certificate.engine, room, reach)
            self.is_unclear = True
            return
        self.accept(certificate)

    def accept(self, certificate: Certificate) -> None:
        """A proof that rounding cannot explain; no news if the query is settled.

        Raises:
            ContradictionError: A known point's margin is >= 0, rigorously.
        """
        if self.verdict is None:
            self.verdict = Robust(certificate)
            self._claim = f"{certificate.engine} proved the margin < 0 (bound {certificate.bound})"
            self._confront()

    def _replay(self, point: Point) -> None:
        counterexample = check.replay(self.query, point.image, point.origin)
        if counterexample is not None:
            self.verdict = Vulnerable(counterexample)

    def _confront(self) -> None:
        """Raises if the best point disproves the strongest claim."""
        point = self.best_point
        limit = self.best_bound + CONTRADICTION_TOLERANCE * self._scale
        limit = min(limit, 0.0) if isinstance(self.verdict, Robust) else limit
        if point is None or self.best_margin < limit:
            return
        rigorous = check.margin_lower_bound(self.query.network, self.query.property, point.image)
        if rigorous >= limit:
            raise self._contradiction(point, rigorous)

    def _contradiction(self, point: Point, rigorous: float) -> ContradictionError:
        message = (
            f"{self.query.network.path}: {self.query.property.name}: {self._claim}, but at an image inside the region (from"
            f" {point.origin}) it is at least {rigorous:.9g}; one engine is wrong, please report the query this error keeps"
        )
        details = {
            "claim": self._claim,
            "bound": self.best_bound,
            "verdict": self.verdict,
            "image": point.image,
            "margin_lower": rigorous,
            "found_by": point.origin,
        }
        return ContradictionError(message, query=self.query, details=details)
