"""Branch and bound: complete, batched, over ReLU phases, winners of windows, and label membership, for many goals at once."""

from verifier.search.frontier import Cover, Frontier
from verifier.search.goals import Goal
from verifier.search.options import Descent, SearchOptions, SearchOutcome, SearchProgress, SearchStatus
from verifier.search.run import OnSettled
from verifier.search.search import search, search_all

__all__ = [
    "Cover",
    "Descent",
    "Frontier",
    "Goal",
    "OnSettled",
    "SearchOptions",
    "SearchOutcome",
    "SearchProgress",
    "SearchStatus",
    "search",
    "search_all",
]
