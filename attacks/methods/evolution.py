"""MLAE-DE: differential evolution on the scores alone. Black box: the network's gradients are never asked for."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.domains import Domain
from attacks.methods.method import Method, Variant, at_least
from attacks.problem import Outcome, Problem, ascend
from attacks.score_losses import in_probabilities
from attacks.steps import Stepper
from verifier.errors import InputError

_ENTRIES_AT_ONCE = 2**25
Rows = Float[Tensor, "rows pixels"]
Population = Float[Tensor, "rows members pixels"]


@dataclass(frozen=True, slots=True)
class EvolutionOptions:
    """Of differential evolution.

    Attributes:
        population: Images evolved for each row; 4 at least.
        evaluations: Of the network for each row, those of both mutations counted.
        factor: F in x1 + F (x2 - x3), and the weight of the complementary member.
        kappa: By how much probabilities must pass; 0 in the paper.
    """

    population: int = 50
    evaluations: int = 10000
    factor: float = 0.5
    kappa: float = 1e-3

    def __post_init__(self) -> None:
        at_least(self, population=4, evaluations=1, factor=0, kappa=0)
        if self.evaluations < self.population:
            raise InputError(
                f"option evaluations: got {self.evaluations}, wanted at least the population {self.population}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Evolution:
    """One generation a step; the point handed to the engine is the fittest member of each row."""

    problem: Problem
    options: EvolutionOptions
    shows_first: bool

    def begin(self, domain: Domain, starts: Rows, iterations: int) -> Stepper:  # noqa: ARG002
        """A first generation drawn uniformly."""
        return _Generations(self)


class _Generations:
    """The state: the changes of every member, and by how much each of its constraints is violated."""

    def __init__(self, rule: _Evolution) -> None:
        self._rule, self._problem = rule, rule.problem
        members = rule.options.population
        self._share_out()
        drawn = torch.stack([rule.problem.ball.drawn(rule.problem.generators) for _ in range(members)], dim=1)
        self._change: Population = drawn - rule.problem.clean[:, None]
        self._violated = self._violations(self._change)

    def _share_out(self) -> None:
        """Each member's row, with the ball and goal of that row."""
        rows = torch.arange(len(self._problem.clean), device=self._problem.clean.device)
        owner = rows.repeat_interleave(self._rule.options.population)
        self._balls, self._goals = self._problem.ball.at(owner), self._problem.goal.at(owner)

    def keep(self, rows: Tensor) -> None:
        self._problem = self._problem.at(rows)
        self._change, self._violated = self._change[rows], self._violated[rows]
        self._share_out()

    def advance(self, points: Rows, losses: Tensor, gradients: Rows) -> Rows:  # noqa: ARG002
        self._compete(self._differential())
        self._compete(self._complementary())
        fitness = self._fitness(self._violated)
        best = fitness.argmin(dim=1)
        if self._rule.shows_first:
            # The released code returns its first member unless one has succeeded.
            best = torch.where(fitness.amin(dim=1) > 0, 0, best)
        chosen = self._change[torch.arange(len(best), device=best.device), best]
        return self._problem.ball.project(self._problem.clean + chosen)

    def _differential(self) -> Population:
        """x1 + F (x2 - x3) for three different members of each row, from the row's own random numbers."""
        members = self._rule.options.population
        draws = torch.stack([torch.rand(members, members, generator=each) for each in self._problem.generators])
        first, second, third = draws.argsort(dim=2)[:, :, :3].to(self._change.device).unbind(dim=2)
        return self._pick(first) + self._rule.options.factor * (self._pick(second) - self._pick(third))

    def _complementary(self) -> Population:
        """Every member plus F times the other one that violates least of what this one violates."""
        wrong = (self._violated > 0).to(self._violated.dtype)
        burden = wrong @ self._violated.transpose(1, 2)
        itself = torch.eye(burden.shape[1], dtype=torch.bool, device=burden.device)
        burden = burden.masked_fill(itself, torch.inf)
        return self._change + self._rule.options.factor * self._pick(burden.argmin(dim=2))

    def _pick(self, members: Tensor) -> Population:
        return self._change.gather(1, members[:, :, None].expand(-1, -1, self._change.shape[2]))

    def _compete(self, trial: Population) -> None:
        """Each trial replaces the member it comes from if it is as fit."""
        clean = self._problem.clean[:, None]
        inside = self._balls.project((trial + clean).flatten(0, 1)).reshape(trial.shape) - clean
        violated = self._violations(inside)
        wins = self._fitness(violated) <= self._fitness(self._violated)
        self._change = torch.where(wins[:, :, None], inside, self._change)
        self._violated = torch.where(wins[:, :, None], violated, self._violated)

    def _violations(self, change: Population) -> Float[Tensor, "rows members labels"]:
        images = (change + self._problem.clean[:, None]).flatten(0, 1)
        with torch.no_grad():
            margins = in_probabilities(self._goals, self._problem.model(images))
        violated = (self._rule.options.kappa - margins).clamp(min=0.0)
        return violated.reshape(*change.shape[:2], -1)

    def _fitness(self, violated: Float[Tensor, "rows members labels"]) -> Float[Tensor, "rows members"]:
        """The sum of what is violated among as many constraints as are needed, the least violated ones; 0 is success."""
        goal = self._problem.goal
        ordered = violated.masked_fill((goal.sign == 0)[:, None], torch.inf).sort(dim=2).values
        counted = torch.arange(violated.shape[2], device=violated.device) < goal.needed[:, None, None]
        return torch.where(counted, ordered, 0.0).sum(dim=2)


def _evolve(problem: Problem, options: EvolutionOptions, variant: Variant) -> Outcome:
    """Groups of rows, as many as fit in memory together."""
    rows, pixels = problem.clean.shape
    group = max(1, _ENTRIES_AT_ONCE // (options.population * pixels))
    released = variant is Variant.RELEASED
    a_generation = options.population * (1 if released else 2)
    generations = max(1, (options.evaluations - options.population) // a_generation)
    found = []
    for part in torch.arange(rows, device=problem.clean.device).split(group):
        inner = problem.at(part)
        step = _Evolution(inner, options, released)
        found.append(ascend(inner, None, step, generations, keeps_last=released))
    return _joined(found)


def _joined(parts: list[Outcome]) -> Outcome:
    """Outcomes of groups of rows, one after the other; shorter histories end in NaN."""
    visits = max(len(part.history) for part in parts)

    def padded(history: Tensor) -> Tensor:
        return torch.cat([history, history.new_full((visits - len(history), history.shape[1]), torch.nan)])

    return Outcome(
        torch.cat([part.points for part in parts]),
        torch.cat([part.values for part in parts]),
        torch.cat([part.steps for part in parts]),
        torch.cat([padded(part.history) for part in parts], dim=1),
    )


METHODS = (
    Method(
        "mlae-de",
        "differential evolution with complementary mutation; black box",
        "Kong et al. 2022",
        EvolutionOptions,
        _evolve,
        "evaluations of the complementary mutation are not counted, and the first member is returned where it fails; not "
        "reproduced: members that leave the ball",
        "linf",
        0.1,
        {"kappa": 0.0},
    ),
)
