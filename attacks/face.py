"""`attacks.run`: any attack of the literature, towards any goal, on one of our networks or a torch module."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.ball import NORMS, Norm
from attacks.goals import Goal, GoalOptions, Rule
from attacks.inputs import as_images, as_labels, radius_of, row_key, row_seed
from attacks.judge import judge
from attacks.methods import METHODS, Method, Variant
from attacks.problem import Outcome, Problem
from attacks.results import AttackResult
from attacks.scenarios import GOALS, make_goal
from attacks.victim import prepare
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.network import Network
from verifier.torch_network import TorchNetwork

NetworkLike = Network | TorchNetwork | nn.Module


def run(
    network: NetworkLike,
    images: Tensor | np.ndarray,
    labels: Any,
    *,
    method: str = "pgd",
    variant: str = "fixed",
    goal: str | Goal = "hiding-all",
    k: int | None = None,
    goal_options: GoalOptions | None = None,
    norm: str | None = None,
    eps: float | Tensor | np.ndarray | None = None,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
    batch: int = 128,
    device: str = "cpu",
    head: str | None = None,
    deadline: Deadline | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> AttackResult:
    """Attacks every image; what comes back was clipped, measured and judged here, not by the attack.

    A row's result depends on its own image, labels and the seed, not on the rest of the batch, except for universal attacks
    and for goals whose options are taken from all images (a most frequent label, an average).

    Args:
        network: A `verifier.Network`, or a torch module that maps images in [0, 1] to logits. A module is copied.
        images: (rows, ...) in [0, 1]; used in float32.
        labels: (rows, labels) of 0 and 1 or bool: the true labels.
        method: A name in `METHODS`.
        variant: "fixed", or "released" for the behaviour of the released code where it differs.
        goal: A name in `GOALS`, or a goal made before, with one row for each image.
        k: Of the top k, for goals that need one; overrides `goal_options.k`.
        goal_options: What the goal is told.
        norm: "l1", "l2" or "linf"; default the method's.
        eps: The radius; default the method's. It may be a column with one radius for each image, and for "linf" an array
            shaped like one image.
        options: The method's own options by name.
        seed: Of all randomness.
        batch: Images attacked together; it changes memory and speed, not results.
        device: A torch device.
        head: For a module, what turns its logits into probabilities; "softmax" refuses threshold goals.
        deadline: When to return the best so far.
        on_rows: Told the number of images done since the last call.

    Raises:
        InputError: Anything unusable, said with what was wanted: unknown names, k too large, labels outside the network's, a
            threshold goal on a softmax head, images outside [0, 1], or no eligible image.
    """
    attack = _method(method)
    kind = _variant(variant)
    settings = attack.configure(kind, options)
    given_norm = _norm(norm)
    if batch < 1:
        raise InputError(f"batch: got {batch}, wanted a number >= 1")
    clean = as_images(images)
    shape = tuple(clean.shape[1:])
    victim = prepare(network, shape, torch.device(device), head)
    flat = clean.reshape(len(clean), -1)
    truth = as_labels(labels, len(clean))
    clean_scores = victim.scores(flat, batch)
    if truth.shape != clean_scores.shape:
        raise InputError(
            f"labels: got {truth.shape[1]} columns, wanted {clean_scores.shape[1]}, one for each of the network's labels"
        )
    keys = [row_key(image, row) for image, row in zip(flat, truth, strict=True)]
    aim = _goal(goal, truth, clean_scores, k, goal_options, keys, seed)
    if aim.rule is Rule.THRESHOLD and victim.is_softmax(clean_scores):
        raise InputError(
            f"goal {aim.name}: sets thresholds on single labels, but this network ends in a softmax, whose outputs sum to 1; "
            "choose a goal about the top k, or a network trained with a sigmoid"
        )
    if not bool(aim.eligible.any()):
        raise InputError(f"goal {aim.name}: no eligible image among {len(clean)}; wanted: {aim.requirement}")
    radius = radius_of(attack, given_norm, eps, shape, len(flat))
    found = flat.clone()
    collected = _Collected(len(flat))
    chosen = aim.eligible.nonzero()[:, 0]
    for rows in [chosen] if attack.is_universal else chosen.split(batch):
        ball, scale = radius.around(flat[rows].to(victim.device, victim.dtype), rows)
        problem = Problem(
            model=victim.search,
            goal=aim.at(rows).to(victim.device),
            ball=ball,
            eps=scale,
            generators=tuple(torch.Generator().manual_seed(row_seed(seed, keys[row])) for row in rows.tolist()),
            deadline=deadline if deadline is not None else Deadline(),
            shape=shape,
            network=victim.network,
        )
        outcome = attack.search(problem, settings, kind)
        found[rows] = problem.ball.float32(outcome.points).cpu()
        collected.take(rows, outcome)
        if on_rows is not None:
            on_rows(len(rows))
    judged = judge(victim, aim, flat, found, clean_scores, batch)
    shared = None if collected.shared is None else collected.shared.reshape(shape)
    return replace(
        judged,
        method=attack.name,
        variant=kind.value,
        images=found.reshape(clean.shape),
        clean=clean,
        iterations=collected.steps,
        history=collected.history(),
        reported=collected.reported,
        shared=shared,
        norm=radius.norm,
        eps=radius.largest,
        seed=seed,
        options={name: getattr(settings, name) for name in attack.defaults()},
    )


class _Collected:
    """Outcomes of some rows at a time, put together."""

    def __init__(self, rows: int) -> None:
        self.steps = torch.zeros(rows, dtype=torch.int64)
        self.reported: dict[str, Tensor] = {}
        self.shared: Tensor | None = None
        self._parts: list[tuple[Tensor, Tensor]] = []

    def take(self, rows: Tensor, outcome: Outcome) -> None:
        self.steps[rows] = outcome.steps.cpu()
        self._parts.append((rows, outcome.history.detach().cpu().float()))
        for name, values in outcome.reported.items():
            every = self.reported.setdefault(name, torch.full((len(self.steps),), torch.nan, dtype=torch.float64))
            every[rows] = values.double().cpu()
        if outcome.shared is not None:
            self.shared = outcome.shared.detach().cpu().float()

    def history(self) -> Tensor:
        """One column a row; NaN where a row was not attacked, or its batch needed fewer iterations."""
        visits = max((len(part) for _, part in self._parts), default=0)
        whole = torch.full((visits, len(self.steps)), torch.nan)
        for rows, part in self._parts:
            whole[: len(part), rows] = part
        return whole


def _method(name: str) -> Method:
    if name not in METHODS:
        raise InputError(f"method: got {name!r}, wanted one of {', '.join(METHODS)}")
    return METHODS[name]


def _norm(name: str | None) -> Norm | None:
    for norm in NORMS:
        if name == norm:
            return norm
    if name is not None:
        raise InputError(f"norm: got {name!r}, wanted one of {', '.join(NORMS)}")
    return None


def _variant(name: str) -> Variant:
    try:
        return Variant(name)
    except ValueError:
        raise InputError(f"variant: got {name!r}, wanted {' or '.join(each.value for each in Variant)}") from None


def _goal(
    goal: str | Goal,
    labels: Tensor,
    scores: Tensor,
    k: int | None,
    options: GoalOptions | None,
    keys: list[int],
    seed: int,
) -> Goal:
    if isinstance(goal, Goal):
        if goal.labels.shape != scores.shape:
            raise InputError(f"goal: made for shape {tuple(goal.labels.shape)}, wanted {tuple(scores.shape)}")
        return goal.to("cpu")
    given = options if options is not None else GoalOptions()
    return make_goal(goal, labels, scores, given if k is None else replace(given, k=k), keys=keys, seed=seed)


__all__ = ["GOALS", "METHODS", "AttackResult", "GoalOptions", "as_images", "as_labels", "judge", "run"]
