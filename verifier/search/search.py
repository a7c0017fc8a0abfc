"""Complete branch and bound over window splits and label membership: one tree, one batch, for one property or many."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from verifier.bounds import RegionBounds
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.property import Property
from verifier.search.candidates import Candidates, OnCandidates, OnCandidatesOf
from verifier.search.frontier import Cover, Frontier
from verifier.search.goals import FormBlock, Goal
from verifier.search.leaf_solver import LeafSolver, leaf_solver
from verifier.search.naming import Naming
from verifier.search.options import SearchOptions, SearchOutcome, SearchProgress, SearchStatus
from verifier.search.run import OnProgress, OnSettled, Reports, Run
from verifier.search.skeleton import skeleton_of
from verifier.search.state import GoalState, first_frontiers
from verifier.search.tree import OpenSubproblems


def search(
    region: RegionBounds,
    goal: Property,
    open_subsets: Sequence[tuple[int, ...]] | None,
    *,
    options: SearchOptions | None = None,
    on_candidates: OnCandidates,
    deadline: Deadline | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
    start: Frontier | Cover | None = None,
) -> SearchOutcome:
    """Whether some point of the region brings all forms of an open count-subset to >= 0: `search_all` with one goal.

    Args:
        region: The network, the box and its bounds.
        goal: The property.
        open_subsets: Count-subsets of forms that may be violated together, all others refuted before. None or empty: not listed,
            so every subset counts as open.
        options: Choices; neither they nor interruptions change the verdict of a search that ends.
        on_candidates: The replay: given points of the box whose margin is > 0 in float64, best first, whether one was accepted.
        deadline: Checked between pieces of work that take a fraction of a second.
        on_progress: Called after each step.
        start: See `Goal`.

    Raises:
        InputError: `start` does not fit the question.
        SolverUnavailableError: The options name a solver that is not usable here.
    """

    def of_the_goal(progress: Sequence[SearchProgress]) -> None:
        if on_progress is not None:
            on_progress(progress[0])

    (outcome,) = search_all(
        region,
        [Goal(goal, open_subsets, start)],
        options=options,
        on_candidates=lambda _, points: on_candidates(points),
        deadline=deadline,
        on_progress=of_the_goal,
    )
    return outcome


def search_all(
    region: RegionBounds,
    goals: Sequence[Goal],
    *,
    options: SearchOptions | None = None,
    on_candidates: OnCandidatesOf,
    deadline: Deadline | None = None,
    on_progress: OnProgress | None = None,
    on_settled: OnSettled | None = None,
) -> list[SearchOutcome]:
    """The answers about several goals on one region, bounded together in one batch, each goal in turn until it is settled.

    KeyboardInterrupt ends the search with what is known so far.

    Args:
        region: The network, the box and its bounds.
        goals: At least one.
        options: Choices; neither they nor interruptions change the verdict of a search that ends.
        on_candidates: The replay: given a goal's number and points of the box where its margin is > 0 in float64, best first,
            whether one was accepted. Points found for one goal are offered to all.
        deadline: Checked between pieces of work that take a fraction of a second.
        on_progress: Called after each step, with every goal's progress.
        on_settled: Called with a goal's number and outcome once it is refuted or a violation of it accepted.

    Raises:
        InputError: There is no goal, or the start of one does not fit it.
        SolverUnavailableError: The options name a solver that is not usable here.

    Soundness: the children of a subproblem cover it (`domain`, `Subproblem.completed`, `Naming.splits`), and one is dropped only
    when its bound is below 0 by the safety slack, or a solver that `trusted` names calls it infeasible. A resumed search takes over
    only refutations of the same question (`Frontier.asked`). A point is never more than a candidate: only `on_candidates` makes it
    a WITNESS.
    """
    chosen, limit = options or SearchOptions(), deadline or Deadline()
    starts = first_frontiers(region, goals)
    solver = leaf_solver(chosen.solver)
    run: Run | None = None
    states: list[GoalState] = []
    try:
        block = FormBlock.of(goals)
        device = torch.device(chosen.device)
        exact = skeleton_of(region, block.property, device=device)
        skeleton = exact
        if chosen.is_single:
            skeleton = skeleton_of(region, block.property, device=device, dtype=torch.float32)
        naming = Naming(region, exact)
        memory = 0.25 * chosen.memory_bytes / len(goals)
        states = [
            GoalState(number, goal, start, naming, OpenSubproblems(memory, memory), device)
            for number, (goal, start) in enumerate(zip(goals, starts, strict=True))
        ]
        candidates = Candidates(skeleton, goals, block, chosen, on_candidates)
        reports = Reports(on_progress, on_settled)
        run = Run(
            skeleton,
            exact,
            block,
            states,
            candidates,
            solver=LeafSolver(solver, chosen.leaf_windows),
            options=chosen,
            deadline=limit,
            reports=reports,
        )
    except KeyboardInterrupt:
        return [_untouched(region, start) for start in starts]
    is_interrupted = run.run()
    return [run.outcome(state, is_interrupted=is_interrupted) for state in states]


def _untouched(region: RegionBounds, start: Frontier) -> SearchOutcome:
    """The answer of a search that was interrupted before it began."""
    return SearchOutcome(
        SearchStatus.UNDECIDED,
        start.best_bound,
        len(start.parts),
        0,
        np.zeros((0, len(region.lower))),
        (TrustedClaim.FLOAT64_ROUNDING,),
        True,
        "interrupted before it began",
        start,
    )
