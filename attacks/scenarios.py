"""The goals of the literature by name: which labels must change, and which images are eligible.

Sources: Song et al. 2018 (random, extreme, reduction, augmentation), Zhou et al. 2021 (hiding), Liu et al. 2023 (showing
many), Hu et al. 2021 (top k), Sun et al. 2023 (specified labels), Mour 2023 (target miss).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from torch import Tensor

from attacks import threshold_goals, top_k_goals
from attacks.goals import Goal, GoalOptions, Rule
from attacks.situation import Mask, Situation
from attacks.threshold_goals import expected_labels
from verifier.errors import InputError


@dataclass(frozen=True, slots=True)
class Scenario:
    """A goal by name.

    Attributes:
        name: As on the command line.
        rule: How scores become labels.
        summary: One line for listings.
        source: Who proposed it.
        build: Makes the goal.
    """

    name: str
    rule: Rule
    summary: str
    source: str
    build: Callable[[Situation], Goal]


def make_goal(
    name: str,
    labels: Mask,
    scores: Float[Tensor, "rows labels"],
    options: GoalOptions | None = None,
    *,
    keys: Sequence[int] | None = None,
    seed: int = 0,
) -> Goal:
    """The goal `name` for images with these labels and clean logits, on the CPU.

    Args:
        name: A key of `GOALS`.
        labels: The relevant labels of each row.
        scores: The clean logits of each row.
        options: What the scenario is told.
        keys: A number for each row that its random choices come from, together with the seed; default its position.
        seed: The other half.

    Raises:
        InputError: Unknown name, a label or k out of range, S outside the labels, or an option that is missing.
    """
    if name not in GOALS:
        raise InputError(f"goal: got {name!r}, wanted one of {', '.join(GOALS)}")
    if labels.shape != scores.shape:
        raise InputError(
            f"labels: got shape {tuple(labels.shape)}, wanted {tuple(scores.shape)}, one row of 0 and 1 an image"
        )
    given = options if options is not None else GoalOptions()
    for label in (*given.members, *(() if given.label is None else (given.label,))):
        if not 0 <= label < labels.shape[1]:
            raise InputError(f"goal {name}: label {label} is outside the network's labels 0 to {labels.shape[1] - 1}")
    draws = [np.random.default_rng([seed, key]) for key in (range(len(labels)) if keys is None else keys)]
    return GOALS[name].build(Situation(labels.cpu(), scores.detach().cpu(), given, draws))


_ENTRIES = (
    Scenario(
        "hiding-single",
        Rule.THRESHOLD,
        "one random relevant label off, the rest held",
        "Zhou et al. 2021",
        threshold_goals.hiding_single,
    ),
    Scenario(
        "hiding-all",
        Rule.THRESHOLD,
        "every relevant label off, the rest held",
        "Zhou et al. 2021",
        threshold_goals.hiding_all,
    ),
    Scenario(
        "random",
        Rule.THRESHOLD,
        "one relevant label off, one other on, the rest held",
        "Song et al. 2018",
        threshold_goals.random,
    ),
    Scenario("extreme", Rule.THRESHOLD, "every label inverted", "Song et al. 2018", threshold_goals.extreme),
    Scenario(
        "person-reduction",
        Rule.THRESHOLD,
        "one given relevant label off, the rest held",
        "Song et al. 2018",
        threshold_goals.reduction,
    ),
    Scenario(
        "sheep-augmentation",
        Rule.THRESHOLD,
        "one given label on, the rest held",
        "Song et al. 2018",
        threshold_goals.augmentation,
    ),
    Scenario(
        "showing-many",
        Rule.THRESHOLD,
        "at least expected_labels(n) labels on",
        "Liu et al. 2023",
        threshold_goals.showing_many,
    ),
    Scenario(
        "top-k-untargeted", Rule.TOP_K, "no relevant label in the top k", "Hu et al. 2021", top_k_goals.top_k_untargeted
    ),
    Scenario(
        "top-k-targeted", Rule.TOP_K, "the top k are k given labels", "Hu et al. 2021", top_k_goals.top_k_targeted
    ),
    Scenario(
        "specified-labels",
        Rule.TOP_K,
        "the labels S leave the top k, others stay",
        "Sun et al. 2023",
        top_k_goals.specified_labels,
    ),
    Scenario("target-miss", Rule.TOP_K, "one label leaves the top k", "Mour 2023", top_k_goals.target_miss),
)

GOALS: Mapping[str, Scenario] = MappingProxyType({entry.name: entry for entry in _ENTRIES})

__all__ = ["GOALS", "Scenario", "expected_labels", "make_goal"]
