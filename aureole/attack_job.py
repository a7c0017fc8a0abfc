"""What an attack on many images is to do: every word checked, every image's goal settled, before any work."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

import attacks
from attacks.goals import Goal, GoalOptions, Rule
from attacks.jpeg import Purified, check_jpeg
from attacks.methods import Method, Variant
from attacks.victim import prepare
from aureole.attack_options import AttackRun, GoalWords, MethodWords, named_values
from aureole.exits import UsageError
from aureole.image_sets import NamedImage
from aureole.questions import as_usage, top_labels
from verifier.errors import InputError
from verifier.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What is to be done.

    Attributes:
        network: The network.
        images, labels: What is attacked, and the true labels.
        goal: What each image is to become, from all of them together.
        method, variant, method_options: The attack.
        words: As given, for the ball and the defence.
        run: Seed, device and batch.
        keys: A name for each row that its image, labels and goal alone decide.
    """

    network: Network
    images: tuple[NamedImage, ...]
    labels: Bool[np.ndarray, "rows labels"]
    goal: Goal
    method: Method
    variant: Variant
    method_options: Mapping[str, object]
    words: MethodWords
    run: AttackRun
    keys: tuple[str, ...]

    def pixels(self, rows: Sequence[int]) -> Float[np.ndarray, "rows ..."]:
        """Some clean images in one array; never all of a large set without need."""
        return np.stack([self.images[row].pixels for row in rows])

    @property
    def target(self) -> Any:
        """What is attacked: the network, or the network behind the defence."""
        return attacked_network(self.network, self.words)


def attacked_network(network: Network, words: MethodWords) -> Any:
    """The network, or for an adaptive attack the network behind JPEG."""
    return Purified(network, words.jpeg) if words.is_adaptive and words.jpeg is not None else network


def make_job(
    network: Network,
    images: Sequence[NamedImage],
    labels: Bool[np.ndarray, "rows labels"] | None,
    goal_words: GoalWords,
    words: MethodWords,
    run: AttackRun,
) -> Job:
    """Checks every word before any work, and settles what each image is to become.

    Without labels an image's true labels are those the network gives it: its top k, or all above the threshold.

    Raises:
        UsageError: An unknown method, variant, goal or option, or a value out of range.
        InputError: No image is eligible for the goal, or a threshold goal on a softmax head.
    """
    options = _goal_options(goal_words)
    with as_usage():
        if words.name not in attacks.METHODS:
            raise InputError(f"--method: got {words.name!r}, wanted one of {', '.join(attacks.METHODS)}")
        if goal_words.name not in attacks.GOALS:
            raise InputError(f"--goal: got {goal_words.name!r}, wanted one of {', '.join(attacks.GOALS)}")
        method, variant = attacks.METHODS[words.name], _variant(words.variant)
        given = named_values(words.options, "--option")
        method.configure(variant, given)
        method.ball(norm_of(words.norm), words.epsilon, int(np.prod(network.input_shape)))
        if words.jpeg is not None:
            check_jpeg(network.input_shape, words.jpeg)
    pixels = np.stack([image.pixels for image in images])
    scores = clean_scores(network, words, pixels, run)
    is_top_k = attacks.GOALS[goal_words.name].rule is Rule.TOP_K
    truth = labels if labels is not None else _own_labels(scores, options, options.k if is_top_k else None)
    with as_usage():
        goal = attacks.make_goal(
            goal_words.name, torch.from_numpy(truth), scores, options, keys=row_keys(pixels, truth), seed=run.seed
        )
    if not bool(goal.eligible.any()):
        raise InputError(f"goal {goal.name}: no eligible image among {len(images)}; wanted: {goal.requirement}")
    keys = tuple(_key(pixels[row], truth[row], goal, row) for row in range(len(images)))
    return Job(network, tuple(images), truth, goal, method, variant, given, words, run, keys)


def clean_scores(network: Network, words: MethodWords, pixels: np.ndarray, run: AttackRun) -> torch.Tensor:
    """The logits of the network that is attacked."""
    target, head = attacked_network(network, words), network.head.value
    victim = prepare(target, network.input_shape, torch.device(run.device), None if target is network else head)
    return victim.scores(torch.from_numpy(pixels.reshape(len(pixels), -1).copy()), run.batch)


def row_keys(pixels: np.ndarray, labels: np.ndarray) -> list[int]:
    """The numbers that `attacks.run` draws each row's random choices from, so that both choose the same."""
    return [
        int.from_bytes(hashlib.blake2b(image.tobytes() + truth.tobytes(), digest_size=8).digest(), "big")
        for image, truth in zip(pixels, labels, strict=True)
    ]


def settings(job: Job, goal_words: GoalWords) -> dict[str, Any]:
    """All that decides a row's result besides its image, labels and goal: what `run.json` holds."""
    return {
        "network_sha256": job.network.sha256,
        "method": job.method.name,
        "variant": job.variant.value,
        "method_options": dict(job.method_options),
        "goal": goal_words.name,
        "k": goal_words.k,
        "goal_options": list(goal_words.options),
        "norm": job.words.norm,
        "eps": job.words.epsilon,
        "jpeg": job.words.jpeg,
        "is_adaptive": job.words.is_adaptive,
        "seed": job.run.seed,
    }


def _goal_options(words: GoalWords) -> GoalOptions:
    given = named_values(words.options, "--goal-option")
    if "members" in given and isinstance(given["members"], int):
        given["members"] = (given["members"],)
    known = {each.name for each in fields(GoalOptions)} - {"k"}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise UsageError(f"--goal-option {unknown[0]}: unknown; wanted {', '.join(sorted(known))}")
    with as_usage():
        try:
            return replace(GoalOptions(k=words.k), **given)  # type: ignore[arg-type]  # checked by its constructor
        except TypeError as error:
            raise UsageError(f"--goal-option: {error}") from error


def _own_labels(scores: torch.Tensor, options: GoalOptions, k: int | None) -> Bool[np.ndarray, "rows labels"]:
    """The labels that the network itself gives each image: its top k, or those above the threshold."""
    values = scores.numpy()
    if k is None:
        return values > options.threshold
    marks = np.zeros(values.shape, dtype=np.bool_)
    for row, row_scores in enumerate(values):
        marks[row, top_labels(row_scores, min(k, values.shape[1]))] = True
    return marks


def _variant(name: str) -> Variant:
    try:
        return Variant(name)
    except ValueError:
        raise InputError(f"--variant: got {name!r}, wanted {' or '.join(each.value for each in Variant)}") from None


def norm_of(name: str | None) -> Any:
    """The norm's name, checked.

    Raises:
        InputError: It is none of ours.
    """
    if name is not None and name not in ("l1", "l2", "linf"):
        raise InputError(f"--norm: got {name!r}, wanted l1, l2 or linf")
    return name


def _key(pixels: np.ndarray, truth: np.ndarray, goal: Goal, row: int) -> str:
    asked = f"{goal.sign[row].tolist()} {int(goal.needed[row])} {goal.k} {goal.threshold}"
    return hashlib.sha256(pixels.tobytes() + truth.tobytes() + asked.encode()).hexdigest()[:20]
