"""The smallest ball in which an attack succeeds, image by image: what makes attacks comparable at equal success."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.face import NetworkLike, run
from attacks.goals import Goal, GoalOptions
from attacks.results import AttackResult
from attacks.steps import per_row
from verifier.errors import InputError

_MERGED = ("images", "success", "met", "margin", "scores", "l1", "l2", "linf")


def run_smallest(
    network: NetworkLike,
    images: Tensor | np.ndarray,
    labels: Any,
    *,
    norm: str,
    eps: float,
    halvings: int = 8,
    method: str = "pgd",
    variant: str = "fixed",
    goal: str | Goal = "hiding-all",
    goal_options: GoalOptions | None = None,
    k: int | None = None,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
    batch: int = 128,
    device: str = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> AttackResult:
    """The success of least norm that bisection on the radius finds for each image; failures as at radius `eps`.

    Each image has its own radius. After a success it is halved towards the largest radius that failed, starting from the
    norm of the success itself; after a failure it grows towards the smallest success. Iterations add up; the history is that
    of the first run. The result's ball is the first one.

    Raises:
        InputError: As `attacks.run`, or halvings < 0.
    """
    if halvings < 0:
        raise InputError(f"halvings: got {halvings}, wanted a number >= 0")

    def attempt(radius: float | Tensor, aim: str | Goal) -> AttackResult:
        return run(
            network,
            images,
            labels,
            method=method,
            variant=variant,
            goal=aim,
            goal_options=goal_options,
            k=k,
            norm=norm,
            eps=radius,
            options=options,
            seed=seed,
            batch=batch,
            device=device,
        )

    best = attempt(eps, goal)
    failed = torch.zeros(len(best.images), dtype=torch.float64)
    for halving in range(halvings):
        # Rows that fail at the largest radius are not tried at smaller ones: a radius of 0 ends them at once.
        if not bool((best.success & ~best.already_met).any()):
            break
        tried = torch.where(best.success, 0.5 * (failed + getattr(best, norm)), 0.0)
        found = attempt(tried[:, None], best.goal)
        failed = torch.where(best.success & ~found.success, tried, failed)
        wins = found.success & (getattr(found, norm) < getattr(best, norm))
        best = _merged(best, found, wins)
        if on_step is not None:
            on_step(halving + 1)
    return best


def _merged(best: AttackResult, found: AttackResult, wins: Tensor) -> AttackResult:
    """The rows of `found` where it wins; iterations of both."""
    fields: dict[str, Any] = {
        name: torch.where(per_row(wins, getattr(best, name)), getattr(found, name), getattr(best, name))
        for name in _MERGED
    }
    return replace(best, iterations=best.iterations + found.iterations, **fields)
