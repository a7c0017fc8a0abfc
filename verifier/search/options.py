"""What a caller of the search chooses, and what it answers."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.certificate import TrustedClaim
from verifier.errors import InputError
from verifier.search.frontier import Frontier


@dataclass(frozen=True, slots=True)
class Descent:
    """How a row's parameters are optimised.

    Attributes:
        iterations: Steps.
        learning_rate: The first step, of parameters in [0, 1].
        decay: The factor per step.
        multiplier_rate: The first step of the multipliers, relative to the largest coefficient of their stage.
    """

    iterations: int = 10
    learning_rate: float = 0.1
    decay: float = 0.95
    multiplier_rate: float = 0.1


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Choices of the branch and bound. None of them changes what is true of an answer.

    Attributes:
        batch: The most subproblems branched at a time; fewer where a step would take long or much memory.
        lookahead: Splits tried per subproblem before one is chosen; 1 takes the best by estimate.
        root: How the first rows are optimised.
        step: How children are, starting from their parent's parameters.
        climbers: Points per batch that are moved uphill before they are offered as counterexamples.
        climbs: How often.
        leaf_windows: Subproblems with at most this many undecided windows are offered to a mixed-integer solver; 0 leaves it out.
        solver: That solver, as `verifier.milp.solvers` names it; "auto" is HiGHS.
        memory_bytes: About the most memory that rows and open subproblems take. Batches are made smaller to honour it, open
            subproblems forget their parameters, and at last the search goes deep rather than wide.
        device: Where rows are bounded, as torch names it.
        precision: "float64"; "float32", in which parameters are found, while every bound is derived again in float64 from them; or
            "auto": float32 on a GPU, float64 elsewhere.

    Raises:
        InputError: A number is out of range.
    """

    batch: int = 64
    lookahead: int = 4
    root: Descent = field(default=Descent(iterations=40, decay=0.93))
    step: Descent = field(default=Descent())
    climbers: int = 8
    climbs: int = 5
    leaf_windows: int = 150
    solver: str = "auto"
    memory_bytes: int = 2 * 1024**3
    device: str = "cpu"
    precision: str = "auto"

    @property
    def is_single(self) -> bool:
        """Whether parameters are found in float32."""
        return self.precision == "float32" or (self.precision == "auto" and not self.device.startswith("cpu"))

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "float64"):
            raise InputError(f"search options: precision is {self.precision!r}, wanted auto, float32 or float64")
        for name, least in (
            ("batch", 1),
            ("lookahead", 1),
            ("leaf_windows", 0),
            ("memory_bytes", 1),
            ("climbers", 1),
            ("climbs", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"search options: {name} is {getattr(self, name)}, wanted at least {least}")


class SearchStatus(Enum):
    """How the search ended."""

    REFUTED = "every subproblem was refuted"
    WITNESS = "a violation was found and its replay accepted it"
    UNDECIDED = "subproblems are open"


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """Where a running search is.

    Attributes:
        best_bound: An upper bound of the margin.
        open_nodes: Subproblems still open.
        nodes_explored: Subproblems bounded so far.
    """

    best_bound: float
    open_nodes: int
    nodes_explored: int


@dataclass(frozen=True, slots=True, eq=False)
class SearchOutcome:
    """The search's answer about the open subsets it was given.

    Attributes:
        status: REFUTED rests on `trusted`, WITNESS on the replay alone.
        best_bound: An upper bound of the margin over these subsets; < 0 iff REFUTED.
        open_nodes: Subproblems left open.
        nodes_explored: Subproblems bounded.
        seeds: float64 (n, inputs), the points with the largest margins met: places to start an attack.
        trusted: What the answer takes on trust.
        is_interrupted: Whether the user stopped it (KeyboardInterrupt).
        detail: What happened, in one line.
        frontier: Where it stands: to resume it, or, by its cover, to search other regions.
    """

    status: SearchStatus
    best_bound: float
    open_nodes: int
    nodes_explored: int
    seeds: Float[np.ndarray, "n inputs"]
    trusted: tuple[TrustedClaim, ...]
    is_interrupted: bool
    detail: str
    frontier: Frontier | None = None
