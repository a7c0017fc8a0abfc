"""The layered margin attack: ascent of the goal's margin in a box whose width may differ from pixel to pixel."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attacks.goals import Goal, Rule
from attacks.margin import MarginAttack, MarginAttackOptions
from attacks.methods.method import Method, Variant, at_least
from attacks.problem import Outcome, Problem, ascend
from attacks.score_losses import MarginLoss
from attacks.steps import AutoStep
from verifier.network import Network
from verifier.property import Property, stays_in_top_k, stays_out_of_top_k
from verifier.query import Query
from verifier.region import Box

_CLEAR = 1e-3


@dataclass(frozen=True, slots=True)
class LayeredOptions:
    """Of the layered margin attack.

    Attributes:
        iterations: Steps from each start: the image, both extreme corners, and random points.
        starts: Random points.
        rounds: Rounds of the verifier's own attack for rows still without success, on networks of ours and goals that are
            one property; 0 for none.
    """

    iterations: int = 40
    starts: int = 2
    rounds: int = 1

    def __post_init__(self) -> None:
        at_least(self, iterations=1, starts=0, rounds=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Highest:
    """Keeps the point with the highest margin: what a failed attack has to say is how near it came."""

    goal: Goal

    def at(self, rows: Tensor) -> "_Highest":
        return _Highest(self.goal.at(rows))

    def __call__(self, scores: Float[Tensor, "rows labels"], points: Tensor) -> Float[Tensor, " rows"]:  # noqa: ARG002
        return self.goal.search_margin(scores.double())


def _attack(problem: Problem, options: LayeredOptions, variant: Variant) -> Outcome:
    del variant
    ball = problem.ball
    corners = [ball.lower, ball.upper]
    best = _climb(problem, problem.clean, options.iterations)
    for start in [*corners, *(ball.drawn(problem.generators) for _ in range(options.starts))]:
        # Rows that have succeeded stay where they are.
        begin = torch.where((best.values > _CLEAR)[:, None], best.points, ball.project(start))
        best = best.better(_climb(problem, begin, options.iterations))
    if options.rounds and problem.network is not None and ball.norm in (None, "linf"):
        best = _patient(problem, problem.network, best, options.rounds)
    return best


def _climb(problem: Problem, start: Tensor, iterations: int) -> Outcome:
    goal = problem.goal
    return ascend(
        problem, MarginLoss(goal), AutoStep(), iterations, starts=start, objective=_Highest(goal), above=_CLEAR
    )


def _patient(problem: Problem, network: Network, best: Outcome, rounds: int) -> Outcome:
    """The verifier's attack for each row without success, starting from the best point known."""
    points, values = best.points.clone(), best.values.clone()
    for row in (best.values <= _CLEAR).nonzero()[:, 0].tolist():
        goal = problem.goal.at(torch.tensor([row], device=points.device))
        question = as_property(goal)
        if question is None or problem.deadline.has_expired:
            continue
        lower, upper = (
            edge[row].double().cpu().numpy().reshape(problem.shape) for edge in (problem.ball.lower, problem.ball.upper)
        )
        options = MarginAttackOptions(restarts=rounds, keep=1, device=points.device.type)
        attack = MarginAttack(options, seed=problem.generators[row].initial_seed() % 2**31)
        start = points[row].double().cpu().numpy().reshape(1, *problem.shape)
        images = attack(Query(network, Box(lower, upper), question), starts=start, deadline=problem.deadline)
        if images:
            found = torch.from_numpy(np.ascontiguousarray(images[0])).to(points).reshape(1, -1)
            with torch.no_grad():
                reached = goal.search_margin(problem.model(found).double())[0]
            if bool(reached > values[row]):
                points[row], values[row] = found[0], reached
    return Outcome(points, values, best.steps, best.history)


def as_property(goal: Goal) -> Property | None:
    """The property of the verifier whose margin is this one-row goal's; None if it has not that shape.

    Thresholds always have it; about the top k, one label leaving or entering it, and k labels becoming it.
    """
    labels = goal.labels.shape[1]
    sign = goal.sign[0].cpu().numpy()
    asked = np.flatnonzero(sign)
    needed = int(goal.needed[0])
    if needed < 1:
        return None
    if goal.rule is Rule.THRESHOLD:
        rows = np.zeros((len(asked), labels))
        rows[np.arange(len(asked)), asked] = sign[asked]
        return Property(f"never {goal.name}", rows, -sign[asked] * goal.threshold, needed)
    k = int(goal.k or 1)
    if len(asked) == 1:
        label = int(asked[0])
        return stays_in_top_k(label, k, labels) if sign[label] < 0 else stays_out_of_top_k(label, k, labels)
    if needed == len(asked) == k and (sign >= 0).all():
        pairs = [(i, o) for i in asked for o in range(labels) if sign[o] == 0]
        rows = np.zeros((len(pairs), labels))
        for place, (inside, outside) in enumerate(pairs):
            rows[place, inside], rows[place, outside] = 1.0, -1.0
        return Property(f"never {goal.name}", rows, np.zeros(len(pairs)), len(pairs))
    return None


METHODS = (
    Method(
        "layered",
        "ascent of the goal's margin, with steps in proportion to each pixel's width",
        "Mour 2023 (neighbourhoods); this project",
        LayeredOptions,
        _attack,
        "",
        "linf",
        0.1,
    ),
)
