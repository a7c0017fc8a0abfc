"""One goal's share of a search: what is open, what was refuted, and on what that rests."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from verifier.bounds import RegionBounds
from verifier.certificate import TrustedClaim
from verifier.errors import InputError
from verifier.search.domain import Split
from verifier.search.fingerprint import network_fingerprint, question_fingerprint
from verifier.search.frontier import Cover, Form, Frontier, OpenPart
from verifier.search.goals import Goal, forms_of, subsets_of
from verifier.search.naming import Naming
from verifier.search.record import Node, Record, nodes_of
from verifier.search.tree import OpenSubproblems, Subproblem


def first_frontiers(region: RegionBounds, goals: Sequence[Goal]) -> list[Frontier]:
    """Where the search of each goal begins.

    Raises:
        InputError: A goal's start belongs to another network, or, if it is a Frontier, to another question.
    """
    network = network_fingerprint(region.canonical)
    return [_first_frontier(region, network, goal) for goal in goals]


def _first_frontier(region: RegionBounds, network: str, goal: Goal) -> Frontier:
    question, subsets = question_fingerprint(network, region, goal.property), subsets_of(goal)
    if isinstance(goal.start, Frontier):
        return goal.start.asked(question, subsets)
    if goal.start is not None and goal.start.network != network:
        raise InputError("cover: it splits another network's windows")
    if subsets is None:
        parts = [OpenPart((), tuple(range(len(goal.property.offsets))), (), np.inf)]
    else:
        parts = [OpenPart(subset, (), (), np.inf) for subset in subsets]
    return Frontier(question, subsets, tuple(parts), -np.inf, (), "", "", Cover(network, ()))


class GoalState:
    """The state of one goal.

    Attributes:
        number: The goal's.
        count: Its property's.
        open: Subproblems to work on.
        stuck: Subproblems that nothing more can be done about: near-ties.
        refuted_bound: The largest bound of what was refuted.
        trusts_solver: Whether a mixed-integer solver refuted something.
        explored, programs, models: Subproblems bounded, linear programs and mixed-integer models solved.
    """

    def __init__(
        self,
        number: int,
        goal: Goal,
        start: Frontier,
        naming: Naming,
        open_subproblems: OpenSubproblems,
        device: torch.device,
    ) -> None:
        self.number, self.count = number, goal.property.count
        self.open = open_subproblems
        self.stuck: list[Subproblem] = []
        self.refuted_bound = start.refuted_bound
        self.trusts_solver = TrustedClaim.MIP_SOLVER_STATUS in start.trusted
        self.explored = self.programs = self.models = 0
        self._naming, self._start, self._record = naming, start, Record()
        self._forms = forms_of(goal.property)
        self._cover = goal.start if isinstance(goal.start, Cover) else None
        planted = [self._record.replant(tree) for tree in start.cover.trees]
        self.open.extend(self._opened(start, planted, device))

    def _opened(self, start: Frontier, planted: list[list[Node]], device: torch.device) -> Iterable[Subproblem]:
        is_same_layout = start.layout == self._naming.layout
        # With other bounds inside the network, mostly narrower ones, a part may be refuted before it is branched.
        are_bounds_same = start.inside == self._naming.inside
        for part in start.parts:
            splits = self._naming.splits(part.splits)
            if splits is None:
                continue
            parameters = None
            if is_same_layout and part.start is not None:
                parameters = torch.tensor(np.array(part.start), device=device)
            leaf = None if part.leaf is None else planted[part.leaf[0]][part.leaf[1]]
            is_bounded = part.is_bounded and are_bounds_same
            yield Subproblem(
                part.members, part.rest, splits, part.bound, is_bounded, parameters, leaf, None, self.number
            )

    @property
    def open_nodes(self) -> int:
        """Subproblems that are not refuted."""
        return len(self.open) + len(self.stuck)

    @property
    def best_bound(self) -> float:
        """An upper bound of the margin over the subsets asked about."""
        return max([self.open.largest_bound(), self.refuted_bound, *(subproblem.bound for subproblem in self.stuck)])

    def guided(self, subproblem: Subproblem) -> list[Subproblem]:
        """The halves of a subproblem that another search's tree proposes; [] where it proposes nothing more."""
        hint = subproblem.hint
        if hint is None and not subproblem.splits and self._cover is not None:
            tree = self._cover.likely(self._forms_of(subproblem.members))
            hint = None if tree is None else nodes_of(tree)[0]
        while hint is not None and hint.split is not None and hint.sides:
            split = self._naming.proposed(subproblem.splits, hint.split)
            if isinstance(split, Split):
                return self._halved(subproblem, split, hint.sides)
            # The other side is empty here.
            hint = hint.sides[0 if split else 1]
        return []

    def halves(self, subproblem: Subproblem, split: Split) -> list[Subproblem]:
        """The two sides of a split; together they cover the subproblem."""
        return self._halved(subproblem, split if split.wins else split.opposite, (None, None))

    def _halved(self, subproblem: Subproblem, split: Split, hints: Sequence[Node | None]) -> list[Subproblem]:
        leaf = subproblem.leaf
        if leaf is None and not subproblem.splits:
            leaf = self._record.plant(self._forms_of(subproblem.members))
        (named,) = self._naming.names([split])
        return subproblem.halves(split, self._record.grow(leaf, named), hints)

    def _forms_of(self, members: tuple[int, ...]) -> tuple[Form, ...]:
        return tuple(self._forms[form] for form in members)

    def frontier(self) -> Frontier:
        """Where the search stands."""
        cover, leaves = self._record.cover(self._start.cover.network)
        parts = tuple(
            OpenPart(
                subproblem.members,
                subproblem.rest,
                self._naming.names(subproblem.splits),
                subproblem.bound,
                subproblem.is_bounded,
                leaves.get(id(subproblem.leaf)),
                None if subproblem.start is None else subproblem.start.cpu().numpy(),
            )
            for subproblem in [*self.open, *self.stuck]
        )
        start = self._start
        trusted = (TrustedClaim.MIP_SOLVER_STATUS,) if self.trusts_solver else ()
        layout, inside = self._naming.layout, self._naming.inside
        return Frontier(start.question, start.subsets, parts, self.refuted_bound, trusted, layout, inside, cover)
