"""Branch and bound: complete, batched, over ReLU phases, winners of windows, and label membership."""

from verifier.search.options import Descent, SearchOptions, SearchOutcome, SearchProgress, SearchStatus
from verifier.search.search import search

__all__ = ["Descent", "SearchOptions", "SearchOutcome", "SearchProgress", "SearchStatus", "search"]
