"""The loop of the branch and bound: lend subproblems, branch them, bound their children, put back what stays open."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounds import SAFETY_SLACK
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.search.branching import candidate_splits, choose_splits
from verifier.search.candidates import Candidates
from verifier.search.goals import FormBlock
from verifier.search.leaf_solver import PROOF_SLACK, LeafSolver, Settlement
from verifier.search.leaves import solve_leaf
from verifier.search.options import Descent, SearchOptions, SearchOutcome, SearchProgress, SearchStatus
from verifier.search.pace import STEP_SECONDS, Pace, first_amount, rows_in
from verifier.search.packing import members_in, packed, rows_of, unpacked
from verifier.search.rows import Layout, Rows, bounds_at, minimise
from verifier.search.skeleton import Skeleton
from verifier.search.state import GoalState
from verifier.search.tree import Subproblem

_LOG = logging.getLogger(__name__)
_NO_GAP = 1e-9

OnProgress = Callable[[Sequence[SearchProgress]], None]
OnSettled = Callable[[int, SearchOutcome], None]


@dataclass(frozen=True, slots=True, eq=False)
class Reports:
    """Whom a search keeps informed.

    Attributes:
        on_progress: Called after each step with every goal's progress.
        on_settled: Called with a goal's number and outcome as soon as it is refuted or a violation of it accepted.
    """

    on_progress: OnProgress | None = None
    on_settled: OnSettled | None = None


class Run:
    """One search; everything it hands out is frozen.

    Args:
        skeleton: The problem, over the forms of `block`, in the precision in which parameters are found.
        exact: The same in float64; all that is claimed is derived from it.
        block: The goals' forms.
        states: The goals, by number.
        candidates: What is done with points.
        solver: For small subproblems.
        options: Choices.
        deadline: When to stop.
        reports: Whom to tell.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        exact: Skeleton,
        block: FormBlock,
        states: Sequence[GoalState],
        candidates: Candidates,
        *,
        solver: LeafSolver,
        options: SearchOptions,
        deadline: Deadline,
        reports: Reports,
    ) -> None:
        self._skeleton, self._exact, self._block, self._states = skeleton, exact, block, states
        self._candidates, self._solver, self._options = candidates, solver, options
        self._deadline, self._reports = deadline, reports
        self._slack = SAFETY_SLACK * skeleton.scale
        layout = Layout.of(skeleton, max(state.count for state in states))
        memory = 0.5 * options.memory_bytes / (1.5 if skeleton is not exact else 1.0)
        self._most_rows = min(2 * options.batch, rows_in(memory, skeleton, layout))
        first = first_amount(layout)
        self._branching = Pace(first, max(1, self._most_rows // 2))
        self._bounding = Pace(first, self._most_rows)
        self._left: list[Subproblem] = []
        self._turn = 0
        self._settled: set[int] = set()

    def run(self) -> bool:
        """Works until every goal is settled or time is up; whether the user interrupted it."""
        try:
            self._report()
            while not self._is_over:
                self._step()
                self._report()
        except KeyboardInterrupt:
            return True
        return False

    @property
    def _is_over(self) -> bool:
        return self._deadline.has_expired or not any(self._is_workable(state) for state in self._states)

    def _is_workable(self, state: GoalState) -> bool:
        return len(state.open) > 0 and not self._candidates.is_accepted(state.number)

    # One step. Until the end of it the queues keep what they lent, so that nothing is lost if it is cut short.

    def _step(self) -> None:
        self._left, started = [], time.monotonic()
        unbounded: list[Subproblem] = []
        whole: list[Subproblem] = []
        for subproblem in self._lent():
            if subproblem.members and not subproblem.is_bounded:
                unbounded.append(subproblem)
            elif len(subproblem.members) < self._states[subproblem.goal].count:
                unbounded.extend(subproblem.completed(self._states[subproblem.goal].count))
            else:
                whole.append(subproblem)
        unbounded.extend(self._branched(whole, started))
        for has_start, descent in ((True, self._options.step), (False, self._options.root)):
            self._bound([s for s in unbounded if (s.start is not None) is has_start], descent, started)
        for state in self._states:
            state.open.settle(subproblem for subproblem in self._left if subproblem.goal == state.number)

    def _lent(self) -> list[Subproblem]:
        """The next subproblems, one from each unsettled goal in turn."""
        rows = self._bounding.amount(self._deadline, self._options.step.iterations + 1.0)
        count = max(1, min(self._branching.amount(self._deadline), rows // 2))
        waiting = [state for state in self._states if self._is_workable(state)]
        first = next((place for place, state in enumerate(waiting) if state.number >= self._turn), 0)
        waiting = waiting[first:] + waiting[:first]
        lent: list[Subproblem] = []
        while waiting and len(lent) < count:
            state = waiting.pop(0)
            subproblem = state.open.lend()
            if subproblem is not None:
                lent.append(subproblem)
                waiting.append(state)
            self._turn = state.number + 1
        return lent

    # Branching.

    def _branched(self, batch: list[Subproblem], started: float) -> list[Subproblem]:
        """The children of subproblems with all their members, not bounded yet; what is left as it is goes to `_left`."""
        guided = [self._states[subproblem.goal].guided(subproblem) for subproblem in batch]
        children = [child for halves in guided for child in halves]
        batch = [subproblem for subproblem, halves in zip(batch, guided, strict=True) if not halves]
        if not batch:
            return children
        rows = rows_of(self._skeleton, self._block, batch)
        kept = self._not_refuted_by_solver(batch, rows)
        if self._is_over or not kept:
            self._left.extend(batch[position] for position in kept)
            return children
        if len(kept) < len(batch):
            rows = rows.selected(torch.tensor(kept, device=rows.members.device))
            batch = [batch[position] for position in kept]
        return children + self._split(batch, rows, started)

    def _not_refuted_by_solver(self, batch: list[Subproblem], rows: Rows) -> list[int]:
        """All positions but that of a subproblem which a mixed-integer solver refutes: it may be asked about the smallest."""
        everything = list(range(len(batch)))
        if not self._solver.may_try:
            return everything
        undecided = rows.undecided.tolist()
        smallest = min(everything, key=lambda position: undecided[position])
        if undecided[smallest] > self._solver.limit:
            return everything
        subproblem = batch[smallest]
        state, members = self._states[subproblem.goal], members_in(self._block, subproblem)
        settlement, inputs = self._solver.settle(
            self._exact, members, subproblem.splits, undecided[smallest], self._deadline
        )
        state.models += 1
        if settlement is Settlement.REFUTED:
            state.trusts_solver = True
            state.refuted_bound = max(state.refuted_bound, -PROOF_SLACK * self._skeleton.scale)
            state.open.drop(subproblem)
            return [position for position in everything if position != smallest]
        if inputs is not None:
            self._candidates.offer_one(inputs, members)
        return everything

    def _split(self, batch: list[Subproblem], rows: Rows, started: float) -> list[Subproblem]:
        began = time.monotonic()
        parameters = unpacked(rows, batch)
        candidates, gaps = candidate_splits(rows.walk(parameters), self._options.lookahead)
        is_settled = (gaps <= _NO_GAP * self._skeleton.scale).tolist()
        regular = [position for position in range(len(batch)) if candidates[position] and not is_settled[position]]
        children: list[Subproblem] = []
        if regular:
            index = torch.tensor(regular, device=parameters.device)
            chosen = choose_splits(
                rows.selected(index),
                parameters[:, index],
                [batch[position].splits for position in regular],
                [candidates[position] for position in regular],
                chunk=self._most_rows,
                deadline=self._deadline,
            )
            for position, split in zip(regular, chosen, strict=True):
                children.extend(self._states[batch[position].goal].halves(batch[position], split))
        self._branching.took(began, len(batch))
        settled = sorted(set(range(len(batch))) - set(regular))
        for position in settled:
            # One at least, or a step that is always late would never get on.
            is_late = position != settled[0] and time.monotonic() - started > STEP_SECONDS
            if self._is_over or is_late:
                self._left.append(batch[position])
            else:
                children.extend(self._leaf(batch[position]))
        return children

    def _leaf(self, subproblem: Subproblem) -> list[Subproblem]:
        """What a linear program leaves to be bounded of a subproblem without a gap to branch on: nothing or halves."""
        state, members = self._states[subproblem.goal], members_in(self._block, subproblem)
        leaf = solve_leaf(self._exact, members, subproblem.splits, self._deadline)
        state.programs += 1
        improved = subproblem.improved(leaf.bound)
        if self._is_refuted(improved):
            return []
        if leaf.inputs is None:
            self._left.append(improved)
            return []
        self._candidates.offer_one(leaf.inputs, members)
        if leaf.split is None:
            # The program's optimum is a point of the subproblem: a near-tie, or a violation that the replay refused.
            state.stuck.append(improved)
            return []
        return state.halves(improved, leaf.split)

    # Bounding.

    def _bound(self, subproblems: list[Subproblem], descent: Descent, started: float) -> None:
        """Bounds subproblems; those that stay open, and those there is no time for, go to `_left`."""
        weight = descent.iterations + 1.0
        is_first = True
        while subproblems:
            is_late = not is_first and time.monotonic() - started > STEP_SECONDS
            if self._is_over or is_late:
                self._left.extend(subproblems)
                return
            size = self._bounding.amount(self._deadline, weight)
            part, subproblems = subproblems[:size], subproblems[size:]
            self._bound_part(part, descent)
            is_first = False

    def _bound_part(self, part: list[Subproblem], descent: Descent) -> None:
        began = time.monotonic()
        rows = rows_of(self._skeleton, self._block, part)
        found = minimise(
            rows,
            unpacked(rows, part),
            descent=descent,
            threshold=-self._slack,
            must_stop=lambda: self._deadline.has_expired,
        )
        bounds = found.bounds if self._skeleton is self._exact else self._derived_again(part, found.parameters)
        starts = packed(rows, part, found.parameters)
        self._bounding.took(began, len(part), descent.iterations + 1.0)
        for subproblem, bound, start in zip(part, bounds.tolist(), starts, strict=True):
            self._states[subproblem.goal].explored += 1
            bounded = subproblem.bounded(bound, start)
            if not self._is_refuted(bounded):
                self._left.append(bounded)
        is_open = bounds >= -self._slack
        points = torch.cat([found.means[:, is_open], found.corners[:, is_open]], dim=1)
        self._candidates.offer(points, rows.members[:, is_open].repeat(1, 2))

    def _derived_again(self, part: list[Subproblem], parameters: Tensor) -> Tensor:
        """The bounds that parameters found in lower precision give in float64."""
        return bounds_at(rows_of(self._exact, self._block, part), parameters.to(self._exact.lower))

    def _is_refuted(self, subproblem: Subproblem) -> bool:
        """Whether its bound refutes a subproblem; NaN never does."""
        if not subproblem.bound < -self._slack:
            return False
        state = self._states[subproblem.goal]
        state.refuted_bound = max(state.refuted_bound, subproblem.bound)
        return True

    # Reports.

    def _report(self) -> None:
        for state in self._states:
            is_settled = not state.open_nodes or self._candidates.is_accepted(state.number)
            if is_settled and state.number not in self._settled:
                self._settled.add(state.number)
                if self._reports.on_settled is not None:
                    self._reports.on_settled(state.number, self.outcome(state, is_interrupted=False))
        progress = [SearchProgress(state.best_bound, state.open_nodes, state.explored) for state in self._states]
        _LOG.debug("%s", progress)
        if self._reports.on_progress is not None:
            self._reports.on_progress(progress)

    def outcome(self, state: GoalState, *, is_interrupted: bool) -> SearchOutcome:
        """A goal's answer as it stands."""
        left = state.open_nodes
        status = SearchStatus.UNDECIDED if left else SearchStatus.REFUTED
        if self._candidates.is_accepted(state.number):
            status = SearchStatus.WITNESS
        solver = (TrustedClaim.MIP_SOLVER_STATUS,) if state.trusts_solver else ()
        return SearchOutcome(
            status,
            float(state.best_bound),
            left,
            state.explored,
            self._candidates.seeds(state.number),
            () if status is SearchStatus.WITNESS else (*solver, TrustedClaim.FLOAT64_ROUNDING),
            is_interrupted,
            f"{state.explored} subproblems bounded, {left} open; {state.programs} linear programs, "
            f"{state.models} mixed-integer models",
            state.frontier(),
        )
