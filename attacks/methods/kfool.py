"""kFool: DeepFool for the top k, a step along the mean normalised direction in which k others overtake a label."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attacks.ball import norms
from attacks.domains import Domain
from attacks.engine import Model
from attacks.goals import Goal, Rule
from attacks.gradient_steps import SqueezedSpace
from attacks.linearise import hardest, jacobian
from attacks.methods.linearised import Jump
from attacks.methods.method import Method, Variant, at_least
from attacks.methods.topk import pushed_out
from attacks.problem import Outcome, Problem, ascend
from attacks.steps import Stepper
from verifier.errors import InputError

Rows = Float[Tensor, "rows pixels"]
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class KFoolOptions:
    """Of kFool.

    Attributes:
        iterations: Steps at most; a row ends at its first success.
        overshoot: How much longer than needed to first order a step is.
        kappa: The logit margin aimed at.
        scope: "S": push out the labels the goal names; "Y": all relevant labels, as TkMIA's authors ran it.
    """

    iterations: int = 300
    overshoot: float = 0.02
    kappa: float = 1e-3
    scope: str = "S"

    def __post_init__(self) -> None:
        at_least(self, iterations=1, overshoot=0, kappa=0)
        if self.scope not in ("S", "Y"):
            raise InputError(f"option scope: got {self.scope!r}, wanted 'S' or 'Y'")


def _kfool(problem: Problem, options: KFoolOptions, variant: Variant) -> Outcome:
    if variant is Variant.FIXED:
        return ascend(problem, None, Jump(Overtaking(problem, options)), options.iterations)
    space = SqueezedSpace(problem.clean)
    start = space.decode(torch.zeros_like(problem.clean))
    step = _ReleasedStep(problem.model, problem.goal, pushed_out(problem.goal, options.scope), problem.clean)
    found = ascend(problem, None, step, options.iterations, starts=start, keeps_last=True)
    change = norms(space.encode(found.points).double(), "l2")
    return Outcome(found.points, found.values, found.steps, found.history, {"l2_before_tanh": change})


class Overtaking:
    """The step of a row to first order: the label whose constraint is next, against those that must overtake it."""

    def __init__(self, problem: Problem, options: KFoolOptions) -> None:
        self._problem, self._options = problem, options
        self._goal = problem.goal
        self._scope = pushed_out(problem.goal, options.scope)

    def at(self, rows: Tensor) -> "Overtaking":
        """The steps of some rows."""
        return Overtaking(self._problem.at(rows), self._options)

    def __call__(self, points: Rows) -> Rows:
        """The step of each row."""
        scores, matrix = jacobian(self._problem.model, lambda values: values, points)
        pivot, sign = self._pivot(scores)
        rows = torch.arange(len(points), device=points.device)
        own = matrix[rows, pivot]
        if self._goal.k is None:
            gaps = (sign * (self._goal.threshold - scores[rows, pivot]))[:, None]
            return self._step(sign[:, None, None] * own[:, None, :], gaps, torch.ones_like(gaps, dtype=torch.bool))
        others = self._others(scores, sign)
        directions = sign[:, None, None] * (own[:, None, :] - matrix)
        gaps = sign[:, None] * (scores - scores[rows, pivot][:, None])
        return self._step(directions, gaps, others)

    def _pivot(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The label to move and which way."""
        pivot = hardest(self._goal, self._goal.margins(scores))
        sign = self._goal.sign.gather(1, pivot[:, None])[:, 0].to(scores.dtype)
        if self._goal.rule is Rule.TOP_K and self._options.scope == "Y":
            highest = scores.masked_fill(~self._scope, -torch.inf).argmax(dim=1)
            pivot = torch.where(self._scope.any(dim=1), highest, pivot)
        return pivot, torch.where(sign == 0, -1.0, sign)

    def _others(self, scores: Tensor, sign: Tensor) -> Bool[Tensor, "rows labels"]:
        """Falling: the k highest labels outside the scope. Rising: the highest label that need not rise."""
        k = self._goal.k or 1
        outside = ~torch.where((sign < 0)[:, None], self._scope, self._goal.on)
        ranked = scores.masked_fill(~outside, -torch.inf).topk(k, dim=1).indices
        wanted = torch.where(sign < 0, k, 1)
        places = torch.arange(k, device=scores.device) < wanted[:, None]
        return torch.zeros_like(outside).scatter(1, ranked, places) & outside

    def _step(self, directions: Tensor, gaps: Tensor, used: Tensor) -> Rows:
        lengths = torch.linalg.vector_norm(directions, dim=2)
        missing = gaps + self._options.kappa
        # A label that has overtaken already, as another relevant label often has at the start, is no target: its share of the
        # mean would shorten every step, so that the others are approached for ever and never overtake.
        used = used & (lengths > 0) & (missing > 0)
        count = used.sum(dim=1).clamp(min=1)
        lengths = lengths.clamp(min=_TINY)
        unit = torch.where(used[:, :, None], directions / lengths[:, :, None], 0.0).sum(dim=1)
        far = torch.where(used, missing / lengths, 0.0).sum(dim=1) / count
        size = torch.linalg.vector_norm(unit, dim=1).clamp(min=_TINY)
        return (1.0 + self._options.overshoot) * (far / size)[:, None] * unit


@dataclass(frozen=True, slots=True, eq=False)
class _ReleasedStep:
    """The released step, mistakes included.

    The label is the highest of the scope at the clean image for ever, the others are the k + 1 highest labels, other relevant
    ones included; the distances are summed, so that steps grow with k; gradients are those of the squeezed image, but the
    step is taken before the squeezing.
    """

    model: Model
    goal: Goal
    scope: Bool[Tensor, "rows labels"]
    clean: Rows

    def at(self, rows: Tensor) -> "_ReleasedStep":
        """The rule for some rows."""
        return _ReleasedStep(self.model, self.goal.at(rows), self.scope[rows], self.clean[rows])

    def begin(self, domain: Domain, starts: Rows, iterations: int) -> Stepper:  # noqa: ARG002
        """At the start, with the label of the clean image."""
        with torch.no_grad():
            scores = self.model(self.clean)
            falling = scores.masked_fill(~self.scope, -torch.inf).argmax(dim=1)
            rising = scores.masked_fill(~self.goal.on, torch.inf).argmin(dim=1)
        is_falling = self.scope.any(dim=1)
        return _ReleasedStepper(self, torch.where(is_falling, falling, rising), is_falling)


class _ReleasedStepper:
    def __init__(self, rule: _ReleasedStep, pivot: Tensor, is_falling: Tensor) -> None:
        self._rule, self._pivot = rule, pivot
        self._sign = torch.where(is_falling, -1.0, 1.0).to(rule.clean.dtype)
        self._variables = torch.zeros_like(rule.clean)

    def keep(self, rows: Tensor) -> None:
        self._rule, self._pivot = self._rule.at(rows), self._pivot[rows]
        self._sign, self._variables = self._sign[rows], self._variables[rows]

    def advance(self, points: Rows, losses: Tensor, gradients: Rows) -> Rows:  # noqa: ARG002
        scores, matrix = jacobian(self._rule.model, lambda values: values, points)
        # Derivatives by an image in [-1, 1] are half of those by one in [0, 1].
        matrix, sign = 0.5 * matrix, self._sign
        rows = torch.arange(len(points), device=points.device)
        own, mine = matrix[rows, self._pivot], scores[rows, self._pivot]
        if self._rule.goal.k is None:
            directions, gaps = own[:, None, :], (self._rule.goal.threshold - mine)[:, None]
            used = torch.ones_like(gaps, dtype=torch.bool)
        else:
            directions, gaps = own[:, None, :] - matrix, scores - mine[:, None]
            highest = scores.topk(min(self._rule.goal.k + 1, scores.shape[1]), dim=1).indices
            used = torch.zeros_like(self._rule.scope).scatter(1, highest, True)
            used[rows, self._pivot] = False
        directions = sign[:, None, None] * directions
        lengths = torch.linalg.vector_norm(directions, dim=2).clamp(min=_TINY)
        unit = torch.where(used[:, :, None], directions / lengths[:, :, None], 0.0).sum(dim=1)
        far = torch.where(used, gaps / lengths, 0.0).sum(dim=1).abs()
        size = torch.linalg.vector_norm(unit, dim=1).clamp(min=_TINY)
        step = torch.nan_to_num((far / size)[:, None] * unit, nan=0.0, posinf=0.0, neginf=0.0)
        self._variables = self._variables + step
        return SqueezedSpace(self._rule.clean).decode(self._variables)


KFOOL = Method(
    "kfool",
    "DeepFool for the top k",
    "Tursynbek et al. 2022",
    KFoolOptions,
    _kfool,
    "sums the distances to the others, so that steps grow with k; never updates the label to be overtaken, counts other "
    "relevant labels among the others, and mixes the spaces before and after tanh; no overshoot, no clipping",
    released={"iterations": 1000, "overshoot": 0.0, "kappa": 0.0, "scope": "Y"},
)

METHODS = (KFOOL,)
