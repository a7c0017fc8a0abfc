"""FGSM, FGM, BIM, PGD, MI-FGSM and SLIDE: normalised gradients of the labels' cross-entropy inside a ball."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Norm
from attacks.gradient_steps import Unit, UnitStep
from attacks.methods.method import Method, Variant, at_least
from attacks.problem import Outcome, Problem, ascend
from attacks.score_losses import LabelLoss

_UNITS: Mapping[Norm, Unit] = {"linf": "sign", "l2": "l2", "l1": "sparse"}
_RELEASED = (
    "probabilities are clamped to [1e-6, 1 - 1e-6], which stops the gradient of saturated labels; "
    "runs every iteration and returns the last image"
)


@dataclass(frozen=True, slots=True)
class OneStepOptions:
    """FGSM and FGM have nothing to set but the ball."""


@dataclass(frozen=True, slots=True)
class GradientOptions:
    """Of the iterated attacks.

    Attributes:
        iterations: Gradient steps.
        step_size: Their length in the ball's norm; None for `step_share` times eps.
        step_share: The published ratio of step size and eps.
        momentum: mu of MI-FGSM; None for none.
        sparsity: The share of pixels a step in l1 leaves alone.
        starts_random: Whether to start at a random point of the ball.
        restarts: Runs from different random points; further ones always start at random.
        stops: Whether a row ends at its first success.
    """

    iterations: int = 40
    step_size: float | None = None
    step_share: float = 0.02 / 0.3
    momentum: float | None = None
    sparsity: float = 0.95
    starts_random: bool = False
    restarts: int = 1
    stops: bool = True

    def __post_init__(self) -> None:
        at_least(self, iterations=1, step_size=0, step_share=0, momentum=0, sparsity=0, restarts=1)


@dataclass(frozen=True, slots=True)
class PgdOptions(GradientOptions):
    """PGD starts at a random point."""

    starts_random: bool = True


@dataclass(frozen=True, slots=True)
class MomentumOptions(GradientOptions):
    """MI-FGSM: half the step, and momentum 1."""

    step_share: float = 0.01 / 0.3
    momentum: float | None = 1.0


@dataclass(frozen=True, slots=True)
class SlideOptions(GradientOptions):
    """SLIDE: the published ratio of step size and eps in l1."""

    step_share: float = 300 / 10000


def _one_step(problem: Problem, options: OneStepOptions, variant: Variant) -> Outcome:
    """A single step as long as the ball is wide."""
    del options
    released = variant is Variant.RELEASED
    step = UnitStep(_eps(problem), _unit(problem.norm))
    return ascend(problem, LabelLoss(problem.goal, released), step, 1, keeps_last=released, stops=not released)


def _iterated(problem: Problem, options: GradientOptions, variant: Variant) -> Outcome:
    """Steps inside the ball, from the clean image or from random points; the best point of all runs."""
    released = variant is Variant.RELEASED
    size = _eps(problem) * options.step_share if options.step_size is None else options.step_size
    step = UnitStep(size, _unit(problem.norm), options.momentum, options.sparsity)

    def attempt(*, is_random: bool) -> Outcome:
        return ascend(
            problem,
            LabelLoss(problem.goal, released),
            step,
            options.iterations,
            starts=problem.ball.drawn(problem.generators) if is_random else None,
            keeps_last=released,
            stops=options.stops and not released,
        )

    best = attempt(is_random=options.starts_random)
    for _ in range(options.restarts - 1):
        best = best.better(attempt(is_random=True))
    return best


def _eps(problem: Problem) -> Tensor:
    eps = 1.0 if problem.eps is None else problem.eps
    return torch.as_tensor(eps, dtype=problem.clean.dtype, device=problem.clean.device)


def _unit(norm: Norm) -> Unit:
    return _UNITS[norm]


METHODS = (
    Method(
        "fgsm",
        "one step along the gradient's sign (FGS)",
        "Goodfellow et al. 2015; Song et al. 2018",
        OneStepOptions,
        _one_step,
        _RELEASED,
        "linf",
        0.3,
    ),
    Method(
        "fgm",
        "one step along the gradient (FG)",
        "Miyato et al. 2016; Song et al. 2018",
        OneStepOptions,
        _one_step,
        _RELEASED,
        "l2",
        1.0,
    ),
    Method(
        "bim",
        "sign steps from the image itself",
        "Kurakin et al. 2017",
        GradientOptions,
        _iterated,
        _RELEASED,
        "linf",
        0.3,
        {"iterations": 30},
    ),
    Method(
        "pgd",
        "sign steps from a random point",
        "Madry et al. 2018",
        PgdOptions,
        _iterated,
        _RELEASED,
        "linf",
        0.3,
        {"iterations": 30},
    ),
    Method(
        "mi-fgsm",
        "sign steps along accumulated gradients",
        "Dong et al. 2018",
        MomentumOptions,
        _iterated,
        _RELEASED,
        "linf",
        0.3,
    ),
    Method(
        "slide",
        "sparse steps in an l1 ball (SDA)",
        "Tramèr and Boneh 2019",
        SlideOptions,
        _iterated,
        _RELEASED,
        "l1",
        10000 / 602112,
    ),
)
