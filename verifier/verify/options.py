"""Which engines may decide a query."""

from dataclasses import dataclass
from enum import Enum

from verifier.bounds import BoundOptions
from verifier.errors import InputError
from verifier.search import SearchOptions


class EngineChoice(Enum):
    """The engines behind one answer; every choice also searches for counterexamples."""

    AUTO = "auto"
    """Bounds where they suffice, branch and bound and MILP for the rest, in an order that follows the model: complete."""
    BOUNDS = "bounds"
    """Our bounds alone, those inside the network sharpened where it pays: fast, incomplete."""
    MILP = "milp"
    """The solver decides; bounds only size its model: complete, and a second opinion on bound proofs."""
    SEARCH = "search"
    """Bounds, then our own branch and bound: complete."""
    AUTO_LIRPA = "auto-lirpa"
    """auto-LiRPA's bounds alone: an independent cross-check, incomplete."""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """Choices of `verify`.

    Attributes:
        engine: Which engines may decide.
        solver: The MILP solver's name, or "auto".
        bounds: Options of our own bounds.
        search: Options of our own branch and bound.
        sharpens: Whether bounds inside the network may be brought near their exact ranges; that takes seconds where many units
            are unstable.
        use_pipeline: Whether MILP refutes count-subsets one by one (the default), or solves one model of the whole margin.
        certify: Whether `verify` (it alone) derives every `Robust` again as a proof that the checker accepts, whichever engine
            found it: nothing is trusted then. That gets as long again as the limit; without a limit it has none.
        require_certificate: As `certify`, and what cannot be derived again is `Unknown`.
        float32: The proof must hold for every float32 evaluation of the network too (`verifier.check.float32`).

    Raises:
        InputError: A solver is named for an engine that runs none; `float32` is asked for without a certificate.
    """

    engine: EngineChoice = EngineChoice.AUTO
    solver: str = "auto"
    bounds: BoundOptions = BoundOptions()  # noqa: RUF009 - frozen
    use_pipeline: bool = True
    search: SearchOptions = SearchOptions()  # noqa: RUF009 - frozen
    sharpens: bool = True
    certify: bool = False
    require_certificate: bool = False
    float32: bool = False

    @property
    def wants_certificate(self) -> bool:
        """Whether a proof is to be made."""
        return self.certify or self.require_certificate

    def __post_init__(self) -> None:
        without_solver = (EngineChoice.BOUNDS, EngineChoice.SEARCH, EngineChoice.AUTO_LIRPA)
        if self.solver != "auto" and self.engine in without_solver:
            raise InputError(
                f"solver {self.solver!r}: engine {self.engine.value!r} takes no MILP solver; use engine auto or milp"
            )
        if self.float32 and not self.wants_certificate:
            raise InputError("float32: says what a certificate must cover, and none is asked for; set certify as well")
