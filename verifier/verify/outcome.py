"""What `verify` returns: a verdict and how it came about."""

from dataclasses import dataclass, field

from verifier.certify import Proof
from verifier.search import Cover
from verifier.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run.

    Attributes:
        name: "points", "analysis", "bounds", "attack", "tightening", "search", "MILP" or "certificate".
        seconds: Wall time.
        upper_bound: The least proved upper bound of the margin after this stage; inf while there is none.
        detail: What happened, in a few words.
    """

    name: str
    seconds: float
    upper_bound: float
    detail: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """How a verdict came about.

    Attributes:
        stages: In the order they ran.
        unstable_units: ReLUs and window maxima that bounds left open; None if no bounds were computed.
        open_forms: Forms that may reach 0; None likewise.
        open_subsets: Count-subsets of forms not refuted; None likewise, or where there were too many to list.
        solver: The MILP solver that ran, if one did.
        seconds: Wall time from first to last.
    """

    stages: tuple[Stage, ...]
    unstable_units: int | None
    open_forms: int | None
    open_subsets: int | None
    solver: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict with its statistics.

    Attributes:
        verdict: The answer.
        statistics: How it came about.
        cover: The splits that a search made, if one ran: they start the next one on a region much like this one.
        proof: Behind a `Robust` that was to be certified: what the checker accepted, item by item.
        uncertified: Why there is no proof although an engine claims to have one and a certificate was asked for; else None.
    """

    verdict: Verdict
    statistics: Statistics
    cover: Cover | None = field(default=None, repr=False)
    proof: Proof | None = field(default=None, repr=False)
    uncertified: str | None = None
