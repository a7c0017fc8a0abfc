"""The three answers a query can get, each carrying its evidence."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.certificate import Certificate


@dataclass(frozen=True, slots=True, eq=False)
class Counterexample:
    """An image inside the region that violates the property, replayed.

    Attributes:
        image: float32, the network's input shape; every entry lies inside the box exactly.
        scores: float64 (labels,), before any softmax or sigmoid, as evaluated here.
        margin_lower: A rigorous lower bound of the exact margin at the image; > 0.
        runtime_scores: float32 (labels,), the file's output as ONNX Runtime computes it.
        runtime_margin: The margin of ONNX Runtime's scores; > 0.
        found_by: The engine that found it.
    """

    image: Float[np.ndarray, "..."]
    scores: Float[np.ndarray, " labels"]
    margin_lower: float
    runtime_scores: Float[np.ndarray, " labels"]
    runtime_margin: float
    found_by: str


class UnknownReason(Enum):
    """Why a query stayed open; the text is the diagnosis that reports print."""

    TIME_LIMIT = "the time limit was reached; give --timeout more seconds, or another engine or solver"
    INTERRUPTED = (
        "interrupted; the bound is what was proved until then, and the same command with more time goes further"
    )
    INCOMPLETE = "the chosen engine cannot decide this query; use --engine auto or milp"
    TOO_LARGE = (
        "the network is too large for bounds and solvers, so that only a counterexample could settle it, and none was found; proofs"
        " need a smaller network or image"
    )
    NOT_REPLAYED = "a violation was found but not confirmed strictly in exact arithmetic and ONNX Runtime: a near tie"
    TIE = "the margin's supremum lies within rounding of 0: neither a strict proof nor a strict counterexample exists here"
    ROUNDING = (
        "an engine's proof is within what float64 rounding can do to this network over this region, so it is not believed; ask for"
        " a smaller region"
    )
    NOT_CERTIFIED = (
        "an engine proved it, but no certificate could be made of that and one is required; give more time, or ask without"
        " --require-certificate"
    )
    SOLVER_FAILED = "the solver returned neither a solution nor a bound; try another --solver"


@dataclass(frozen=True, slots=True)
class Robust:
    """The supremum of the margin over the region is proved < 0."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Vulnerable:
    """Some image in the region violates the property strictly."""

    counterexample: Counterexample


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither was shown.

    Attributes:
        reason: Why.
        best_bound: The least proved upper bound of the margin (inf if none).
    """

    reason: UnknownReason
    best_bound: float


Verdict = Robust | Vulnerable | Unknown
