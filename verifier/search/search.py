"""Complete branch and bound over window splits and label membership: one tree, one batch, for a whole property."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from verifier.bounds import SAFETY_SLACK, RegionBounds
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.milp.solvers.highs import HighsSolver
from verifier.property import Property
from verifier.search.branching import candidate_splits, choose_splits
from verifier.search.candidates import Candidates, OnCandidates
from verifier.search.leaf_solver import PROOF_SLACK, LeafSolver, Settlement
from verifier.search.leaves import solve_leaf
from verifier.search.options import Descent, SearchOptions, SearchOutcome, SearchProgress, SearchStatus
from verifier.search.rows import Rows, minimise
from verifier.search.skeleton import Skeleton, skeleton_of
from verifier.search.tree import OpenSubproblems, Subproblem

_LOG = logging.getLogger(__name__)
_NO_GAP = 1e-9


def search(
    region: RegionBounds,
    goal: Property,
    open_subsets: Sequence[tuple[int, ...]] | None,
    *,
    options: SearchOptions | None = None,
    on_candidates: OnCandidates,
    deadline: Deadline | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
) -> SearchOutcome:
    """Whether some point of the region brings all forms of an open count-subset to >= 0.

    KeyboardInterrupt ends it with what is known so far.

    Args:
        region: The network, the box and its bounds.
        goal: The property.
        open_subsets: Count-subsets of forms that may be violated together, all others refuted before. None or empty: not listed,
            so every subset counts as open.
        options: Choices; the batch size does not change the verdict.
        on_candidates: The replay: given points of the box whose margin is > 0 in float64, best first, whether one was accepted.
        deadline: Checked between steps that take a fraction of a second.
        on_progress: Called after each batch.

    Soundness: the children of a subproblem cover it (`domain`, `Subproblem.completed`), and one is dropped only when its bound is
    below 0 by the safety slack, or a solver that `trusted` names calls it infeasible. A point is never more than a candidate: only
    `on_candidates` makes it a WITNESS.
    """
    chosen = options or SearchOptions()
    skeleton = skeleton_of(region, goal, device=torch.device(chosen.device))
    candidates = Candidates(skeleton, goal, chosen, on_candidates)
    return _Run(skeleton, goal, chosen, candidates, deadline or Deadline(), on_progress).search(open_subsets)


class _Run:
    """The state of one search; everything it hands out is frozen."""

    def __init__(
        self,
        skeleton: Skeleton,
        goal: Property,
        options: SearchOptions,
        candidates: Candidates,
        deadline: Deadline,
        on_progress: Callable[[SearchProgress], None] | None,
    ) -> None:
        self._skeleton, self._goal, self._options = skeleton, goal, options
        self._candidates, self._deadline, self._on_progress = candidates, deadline, on_progress
        self._slack = SAFETY_SLACK * skeleton.scale
        self._open = OpenSubproblems(options.most_open)
        self._stuck: list[Subproblem] = []
        self._solver = LeafSolver(HighsSolver(), options.leaf_windows)
        self._explored = self._programs = 0
        self._refuted_bound = self._bound = -np.inf

    def search(self, open_subsets: Sequence[tuple[int, ...]] | None) -> SearchOutcome:
        """Runs until nothing is open, a candidate is accepted, or time is up."""
        is_interrupted = False
        try:
            self._open.extend(self._first(open_subsets))
            while len(self._open) and not self._is_over:
                self._bound = self._largest_bound()
                batch = self._open.pop(self._options.batch)
                self._advance(batch)
                self._report()
        except KeyboardInterrupt:
            is_interrupted = True
        return self._outcome(is_interrupted)

    def _first(self, open_subsets: Sequence[tuple[int, ...]] | None) -> list[Subproblem]:
        """Subproblems without splits that cover the property."""
        if open_subsets:
            return [Subproblem(tuple(map(int, subset)), (), (), np.inf, None) for subset in open_subsets]
        return [Subproblem((), tuple(range(len(self._goal.offsets))), (), np.inf, None)]

    @property
    def _is_over(self) -> bool:
        return self._candidates.is_accepted or self._deadline.has_expired

    # One step: branch a batch, bound the children, keep those that stay open.

    def _advance(self, batch: list[Subproblem]) -> None:
        """Replaces a batch of subproblems with equally many members by what is left of them."""
        fresh = [subproblem for subproblem in batch if subproblem.members and not np.isfinite(subproblem.bound)]
        bounded = [subproblem for subproblem in batch if not subproblem.members or np.isfinite(subproblem.bound)]
        self._settle(fresh, self._options.root)
        if bounded and len(bounded[0].members) < self._goal.count:
            children = [child for parent in bounded for child in parent.completed(self._goal.count)]
            self._settle(children, self._options.root)
        elif bounded:
            self._settle(self._branched(self._unsolved(bounded)), self._options.step)

    def _unsolved(self, batch: list[Subproblem]) -> list[Subproblem]:
        """The batch less the one that a mixed-integer solver refutes, if it is asked: the one with fewest undecided windows."""
        if not self._solver.may_try:
            return batch
        undecided = self._rows(batch).undecided.tolist()
        smallest = min(range(len(batch)), key=lambda position: undecided[position])
        if undecided[smallest] > self._solver.limit:
            return batch
        settlement, inputs = self._solver.settle(self._skeleton, batch[smallest], undecided[smallest], self._deadline)
        if settlement is Settlement.REFUTED:
            self._refuted_bound = max(self._refuted_bound, -PROOF_SLACK * self._skeleton.scale)
            return [*batch[:smallest], *batch[smallest + 1 :]]
        if inputs is not None:
            self._candidates.offer_one(inputs, batch[smallest].members)
        return batch

    def _branched(self, batch: list[Subproblem]) -> list[Subproblem]:
        """The children of a batch; subproblems that linear programs refute on the way have none."""
        if not batch or self._is_over:
            return batch
        rows = self._rows(batch)
        parameters = self._parameters(rows, batch)
        candidates, gaps = candidate_splits(rows.walk(parameters), self._options.lookahead)
        is_settled = (gaps <= _NO_GAP * self._skeleton.scale).tolist()
        children: list[Subproblem] = []
        regular = []
        for position, subproblem in enumerate(batch):
            if is_settled[position] or not candidates[position]:
                children.extend(self._leaf(subproblem))
            else:
                regular.append(position)
        if regular:
            index = torch.tensor(regular, device=parameters.device)
            chosen = choose_splits(
                rows.selected(index),
                parameters[:, index],
                [batch[position].splits for position in regular],
                [candidates[position] for position in regular],
                chunk=2 * self._options.batch,
                deadline=self._deadline,
            )
            for position, split in zip(regular, chosen, strict=True):
                children.extend(batch[position].halves(split))
        return children

    def _leaf(self, subproblem: Subproblem) -> list[Subproblem]:
        """What a linear program leaves of a subproblem without a gap to branch on: nothing, halves, or, out of time, all of it."""
        leaf = solve_leaf(self._skeleton, subproblem.members, subproblem.splits, self._deadline)
        self._programs += 1
        improved = subproblem.improved(leaf.bound)
        if self._is_refuted(improved.bound):
            return []
        if leaf.inputs is None:
            return [improved]
        self._candidates.offer_one(leaf.inputs, subproblem.members)
        if leaf.split is None:
            # The program's optimum is a point of the subproblem: a near-tie, or a violation that the replay refused.
            self._stuck.append(improved)
            return []
        return improved.halves(leaf.split)

    def _settle(self, subproblems: list[Subproblem], descent: Descent) -> None:
        """Bounds subproblems and puts those that stay open into the tree; where time runs out, with the bounds they have."""
        for first in range(0, len(subproblems), 2 * self._options.batch):
            if self._is_over:
                self._open.extend(subproblems[first:])
                return
            part = subproblems[first : first + 2 * self._options.batch]
            rows = self._rows(part)
            start = self._parameters(rows, part)
            found = minimise(
                rows, start, descent=descent, threshold=-self._slack, must_stop=lambda: self._deadline.has_expired
            )
            self._explored += len(part)
            self._keep(part, found.bounds, found.parameters)
            is_open = found.bounds >= -self._slack
            points = torch.cat([found.means[:, is_open], found.corners[:, is_open]], dim=1)
            self._candidates.offer(points, rows.members[:, is_open].repeat(1, 2))

    def _keep(self, part: list[Subproblem], bounds: Tensor, parameters: Tensor) -> None:
        compact = parameters.T.to(torch.float32)
        for position, (subproblem, bound) in enumerate(zip(part, bounds.tolist(), strict=True)):
            improved = subproblem.improved(bound)
            if not self._is_refuted(improved.bound):
                self._open.extend([improved.starting_from(compact[position].clone())])

    def _is_refuted(self, bound: float) -> bool:
        """Whether a bound refutes a subproblem; NaN never does."""
        if not bound < -self._slack:
            return False
        self._refuted_bound = max(self._refuted_bound, bound)
        return True

    def _rows(self, subproblems: list[Subproblem]) -> Rows:
        return Rows.of(self._skeleton, [s.members for s in subproblems], [s.splits for s in subproblems])

    def _parameters(self, rows: Rows, subproblems: list[Subproblem]) -> Tensor:
        """The parameters each subproblem starts from, in range: its parent's, or CROWN's."""
        matrix = rows.first_parameters()
        for column, subproblem in enumerate(subproblems):
            if subproblem.start is not None:
                matrix[:, column] = subproblem.start.to(matrix)
        rows.project(matrix)
        return matrix

    # Outcomes.

    def _largest_bound(self) -> float:
        return max(self._open.largest_bound(), self._refuted_bound, *(s.bound for s in self._stuck), -np.inf)

    def _report(self) -> None:
        progress = SearchProgress(self._largest_bound(), len(self._open) + len(self._stuck), self._explored)
        _LOG.debug("bound %g, %d open, %d explored", progress.best_bound, progress.open_nodes, progress.nodes_explored)
        if self._on_progress is not None:
            self._on_progress(progress)

    def _outcome(self, is_interrupted: bool) -> SearchOutcome:
        left = len(self._open) + len(self._stuck)
        status = SearchStatus.UNDECIDED if left or is_interrupted else SearchStatus.REFUTED
        if self._candidates.is_accepted:
            status = SearchStatus.WITNESS
        # Mid-step, subproblems may be in no list: then the bound from before the step holds.
        is_whole = not is_interrupted and status is not SearchStatus.WITNESS
        solver = (TrustedClaim.MIP_SOLVER_STATUS,) if self._solver.refuted else ()
        return SearchOutcome(
            status,
            float(self._largest_bound() if is_whole else self._bound),
            left,
            self._explored,
            self._candidates.seeds(),
            () if status is SearchStatus.WITNESS else (*solver, TrustedClaim.FLOAT64_ROUNDING),
            is_interrupted,
            f"{self._explored} subproblems bounded, {left} open; {self._programs} linear programs, "
            f"{self._solver.models} mixed-integer models",
        )
