"""TkML-AP untargeted and targeted, ML-CW-U and TkMIA: gradient descent on order statistics of the scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import norms
from attacks.goals import Goal, Rule
from attacks.gradient_steps import DeltaSpace, SgdStep, SqueezedSpace
from attacks.methods.method import Method, Variant, at_least
from attacks.problem import Outcome, Problem, ascend
from attacks.score_losses import HingeLoss, Penalised, TopKLoss
from verifier.errors import InputError


@dataclass(frozen=True, slots=True)
class DescentOptions:
    """Of the gradient descent.

    Attributes:
        iterations: Steps at most; a row ends at its first success unless `stops` is False.
        rate: The learning rate.
        momentum: Of the descent.
        penalty: a in a/2 |delta|^2.
        kappa: The logit margin aimed at.
        scope: "S": push out the labels the goal names; "Y": all relevant labels, as TkMIA's authors ran its competitors.
        stops: Whether a row ends at its first success.
    """

    iterations: int = 300
    rate: float = 1e-3
    momentum: float = 0.9
    penalty: float = 0.0
    kappa: float = 0.05
    scope: str = "S"
    stops: bool = True

    def __post_init__(self) -> None:
        at_least(self, iterations=1, rate=0, momentum=0, penalty=0, kappa=0)
        if self.scope not in ("S", "Y"):
            raise InputError(f"option scope: got {self.scope!r}, wanted 'S' or 'Y'")


@dataclass(frozen=True, slots=True)
class PenalisedOptions(DescentOptions):
    """TkMIA: with a penalty on the change."""

    penalty: float = 1e-4


@dataclass(frozen=True, slots=True)
class TargetedOptions(DescentOptions):
    """TkML-AP targeted: every iteration is run and the smallest success kept."""

    stops: bool = False


def pushed_out(goal: Goal, scope: str) -> Tensor:
    """The labels that an attack pushes out: those of the goal, or all relevant ones if the goal pushes any out."""
    if scope == "S" or goal.rule is Rule.THRESHOLD:
        return goal.off
    return goal.off | (goal.labels & goal.off.any(dim=1, keepdim=True))


def _descend(problem: Problem, options: DescentOptions, loss: TopKLoss | HingeLoss, variant: Variant) -> Outcome:
    """SGD on delta inside the ball; as released, on a variable w inside tanh(2 x - 1 + w) with weight decay on w."""
    ones = torch.ones_like(problem.ball.radius, dtype=problem.clean.dtype)
    if variant is Variant.FIXED:
        step = SgdStep(DeltaSpace(problem.clean), options.rate, options.momentum)
        climbed = Penalised(loss, problem.clean, 0.5 * options.penalty, ones)
        return ascend(problem, climbed, step, options.iterations, stops=options.stops)
    space = SqueezedSpace(problem.clean)
    step = SgdStep(space, options.rate, options.momentum, options.penalty)
    found = ascend(
        problem,
        loss,
        step,
        options.iterations,
        starts=space.decode(torch.zeros_like(problem.clean)),
        keeps_last=options.stops,
        stops=options.stops,
    )
    change = norms(space.encode(found.points).double(), "l2")
    return Outcome(found.points, found.values, found.steps, found.history, {"l2_before_tanh": change})


def _untargeted(problem: Problem, options: DescentOptions, variant: Variant) -> Outcome:
    scope = pushed_out(problem.goal, options.scope)
    is_fixed = variant is Variant.FIXED
    loss = TopKLoss(problem.goal, scope, "average", is_hinged=is_fixed, kappa=options.kappa)
    return _descend(problem, options, loss, variant)


def _all_below(problem: Problem, options: DescentOptions, variant: Variant) -> Outcome:
    statistic = "lowest" if variant is Variant.RELEASED else "k-th"
    loss = TopKLoss(problem.goal, pushed_out(problem.goal, options.scope), statistic, kappa=options.kappa)
    return _descend(problem, options, loss, variant)


def _imperceptible(problem: Problem, options: DescentOptions, variant: Variant) -> Outcome:
    scope = pushed_out(problem.goal, options.scope)
    is_fixed = variant is Variant.FIXED
    loss = TopKLoss(problem.goal, scope, "average", keeps=True, is_hinged=is_fixed, kappa=options.kappa)
    return _descend(problem, options, loss, variant)


def _targeted(problem: Problem, options: DescentOptions, variant: Variant) -> Outcome:
    return _descend(problem, options, HingeLoss(problem.goal, options.kappa), variant)


_SQUEEZED = (
    "the network sees tanh(2 x - 1 + w), which squeezes the contrast even for w = 0, and |w| is reported as the norm"
)

METHODS = (
    Method(
        "tkml-ap-u",
        "relevant labels below the mean of the lowest scores",
        "Hu et al. 2021",
        DescentOptions,
        _untargeted,
        f"{_SQUEEZED}; no momentum, no hinge, 1000 iterations, the last image where it fails",
        released={"iterations": 1000, "rate": 0.01, "momentum": 0.0, "kappa": 0.0, "scope": "Y"},
    ),
    Method(
        "tkml-ap-t",
        "given labels above the k-th score",
        "Hu et al. 2021",
        TargetedOptions,
        _targeted,
        f"{_SQUEEZED}; no momentum, no margin, 1000 iterations; not reproduced: an all-zero image where it fails",
        released={"iterations": 1000, "rate": 0.01, "momentum": 0.0, "kappa": 0.0},
    ),
    Method(
        "ml-cw-u",
        "relevant labels below the k-th of the others",
        "Sun et al. 2023, appendix B.2",
        DescentOptions,
        _all_below,
        f"as printed, every other label must be above every relevant one; {_SQUEEZED}",
        released={"rate": 5e-4, "penalty": 1e-4, "kappa": 0.0, "scope": "Y"},
    ),
    Method(
        "tkmia",
        "labels S out of the top k, the other relevant ones kept in, the change penalised",
        "Sun et al. 2023",
        PenalisedOptions,
        _imperceptible,
        f"{_SQUEEZED}; no hinge, so that the loss has no end; the penalty is weight decay on w",
        released={"rate": 5e-4, "penalty": 1e-4, "kappa": 0.0},
    ),
)
