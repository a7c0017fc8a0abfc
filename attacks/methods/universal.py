"""TkML-AP-Uv and kUAP: one perturbation for all images. Rows depend on one another here, and only here."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.ball import Ball, Norm
from attacks.engine import Ascent, StopRule, run
from attacks.gradient_steps import DeltaSpace, SgdStep, Unit, UnitStep
from attacks.methods.kfool import KFOOL, KFoolOptions
from attacks.methods.method import Method, Variant, at_least
from attacks.methods.topk import pushed_out
from attacks.problem import Outcome, Problem, ascend
from attacks.score_losses import TopKLoss

_KAPPA, _NEARLY = 0.05, 1e-9
_UNITS: dict[Norm, Unit] = {"linf": "sign", "l2": "l2", "l1": "sparse"}


@dataclass(frozen=True, slots=True)
class UniversalOptions:
    """Of the universal attacks.

    Attributes:
        iterations: Steps of the perturbation (TkML-AP-Uv fixed).
        step_share: Their length as a share of eps.
        passes: Over the images, for the variants that add up perturbations of single images.
        inner: Iterations of the attack on a single image.
        rate: The inner attack's learning rate (TkML-AP-Uv released).
        enough: The fooling rate at which to stop.
    """

    iterations: int = 100
    step_share: float = 0.05
    passes: int = 5
    inner: int = 50
    rate: float = 0.01
    enough: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, iterations=1, step_share=0, passes=1, inner=1, rate=0, enough=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """The engine's view of one perturbation v as a single row: the scores of all images clipped(x + v)."""

    problem: Problem
    loss: TopKLoss

    def model(self, points: Float[Tensor, "one pixels"]) -> Float[Tensor, "rows labels"]:
        moved = self.problem.clean + points
        # The clipping is not differentiated: at the bounds its gradient would be lost.
        clipped = moved + (moved.clamp(0.0, 1.0) - moved).detach()
        return self.problem.model(clipped)

    def mean_loss(
        self, scores: Float[Tensor, "rows labels"], points: Float[Tensor, "one pixels"]
    ) -> Float[Tensor, " one"]:
        """The mean over the images."""
        return self.loss(scores, points).mean()[None]

    def fooling_rate(
        self, scores: Float[Tensor, "rows labels"], points: Float[Tensor, "one pixels"]
    ) -> Float[Tensor, " one"]:
        """The share of images that meet the goal; among equals the smaller mean loss counts more, by less than one image."""
        rate = self.problem.goal.satisfied(scores).double().mean()
        return (rate - _NEARLY + _NEARLY / (1.0 - self.loss(scores, points).double().mean()))[None]


def _descent(problem: Problem, options: UniversalOptions, variant: Variant) -> Outcome:
    """The perturbation itself is the variable; as released, perturbations of single images are added up."""
    if variant is Variant.RELEASED:
        return _accumulate(problem, options, lambda part: _plain_descent(part, options), starts_moved=True)
    shared = _Shared(problem, TopKLoss(problem.goal, pushed_out(problem.goal, "S"), "k-th", kappa=_KAPPA))
    zero = torch.zeros_like(problem.clean[:1])
    size = _reach(problem, zero) * options.step_share
    ascent = Ascent(
        loss=shared.mean_loss,
        objective=shared.fooling_rate,
        domain=_changes(problem),
        step=UnitStep(size, _UNITS[problem.norm]),
        stop=StopRule(above=options.enough - 2 * _NEARLY, at_first=False),
        iterations=options.iterations,
        record=lambda scores: problem.goal.satisfied(scores).to(scores.dtype).mean()[None],
    )
    found = run(ascent, shared.model, zero, problem.deadline)
    return _outcome(problem, found.points, int(found.steps[0]), found.history)


def _plain_descent(problem: Problem, options: UniversalOptions) -> Outcome:
    """TkML-AP untargeted without momentum or hinge; the last point, success or not."""
    loss = TopKLoss(problem.goal, pushed_out(problem.goal, "Y"), "average", is_hinged=False)
    step = SgdStep(DeltaSpace(problem.clean), options.rate)
    return ascend(problem, loss, step, options.inner, keeps_last=True)


def _added(problem: Problem, options: UniversalOptions, variant: Variant) -> Outcome:
    """kUAP: kFool's perturbations of single images added up; as released, found at x instead of x + v."""
    inner = KFoolOptions(iterations=options.inner)
    is_fixed = variant is Variant.FIXED
    return _accumulate(problem, options, lambda part: KFOOL.search(part, inner, Variant.FIXED), starts_moved=is_fixed)


def _accumulate(
    problem: Problem, options: UniversalOptions, attack: Callable[[Problem], Outcome], *, starts_moved: bool
) -> Outcome:
    """Passes over the images; the perturbation of each one not yet fooled is added and the sum projected."""
    changes = _changes(problem)
    shared = best = torch.zeros_like(problem.clean[:1])
    rates = [_rate(problem, shared)]
    steps = 0
    for _ in range(options.passes):
        for row in range(len(problem.clean)):
            part = problem.at(torch.tensor([row], device=problem.clean.device))
            moved = (part.clean + shared).clamp(0.0, 1.0)
            with torch.no_grad():
                is_fooled = bool(part.goal.satisfied(problem.model(moved)))
            if is_fooled or problem.deadline.has_expired:
                continue
            start = moved if starts_moved else part.clean
            found = attack(replace(part, ball=Ball.around(start, None, None), eps=None))
            shared = changes.project(shared + found.points - start)
            steps += int(found.steps[0])
        rates.append(_rate(problem, shared))
        best = shared if rates[-1] > max(rates[:-1]) else best
        if rates[-1] >= options.enough or problem.deadline.has_expired:
            break
    return _outcome(problem, best, steps, problem.clean.new_tensor(rates)[:, None])


def _rate(problem: Problem, shared: Tensor) -> float:
    """The share of images that meet the goal with this perturbation."""
    with torch.no_grad():
        scores = problem.model((problem.clean + shared).clamp(0.0, 1.0))
    return float(problem.goal.satisfied(scores).double().mean())


def _outcome(problem: Problem, shared: Tensor, steps: int, rates: Float[Tensor, "visits one"]) -> Outcome:
    rows = len(problem.clean)
    return Outcome(
        points=(problem.clean + shared).clamp(0.0, 1.0),
        values=problem.clean.new_zeros(rows),
        steps=torch.full((rows,), steps),
        history=rates.expand(-1, rows),
        shared=shared[0],
    )


def _reach(problem: Problem, like: Tensor) -> Tensor:
    return torch.as_tensor(1.0 if problem.eps is None else problem.eps, dtype=like.dtype, device=like.device)


def _changes(problem: Problem) -> Ball:
    """The perturbations allowed: a ball around 0, within [-1, 1]."""
    zero = torch.zeros_like(problem.clean[:1])
    reach = torch.ones_like(zero)
    if problem.ball.norm == "linf":
        reach = torch.minimum(reach, _reach(problem, zero).expand_as(zero))
    return Ball(zero, -reach, reach, problem.ball.norm, problem.ball.radius[:1])


_NOT_DONE = "not reproduced: tanh without its inverse, and a search without end where the fooling rate is never reached"

METHODS = (
    Method(
        "tkml-ap-uv",
        "one perturbation for all images, by descent on their mean loss",
        "Hu et al. 2021",
        UniversalOptions,
        _descent,
        f"adds up perturbations of single images, each found from x + v without momentum; {_NOT_DONE}",
        "l2",
        4.0,
        {"enough": 0.7},
        is_universal=True,
    ),
    Method(
        "kuap",
        "one perturbation for all images, kFool's perturbations of single images added up",
        "Tursynbek et al. 2022",
        UniversalOptions,
        _added,
        f"perturbations are found at x instead of x + v; {_NOT_DONE}",
        "l2",
        4.0,
        {"enough": 0.7},
        is_universal=True,
    ),
)
