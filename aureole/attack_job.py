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
        images, labels: What is attacked, and the true labels; the images' pixels are read where they are needed.
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
        """Some clean images in one array, read anew; never all of a large set without need.

        Raises:
            InputError: One can no longer be read, or has changed.
        """
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
        is_top_k = attacks.GOALS[goal_words.name].rule is Rule.TOP_K
        if goal_words.k is not None and not is_top_k:
            raise InputError(
                f"--k: goal {goal_words.name} asks for labels above a threshold, not for the top k; leave it out"
            )
        method, variant = attacks.METHODS[words.name], _variant(words.variant)
        given = named_values(words.options, "--option")
        method.configure(variant, given)
        method.ball(norm_of(words.norm), words.epsilon, int(np.prod(network.input_shape)))
        if words.jpeg is not None:
            check_jpeg(network.input_shape, words.jpeg)
    seen = _look(network, images, words, run)
    scores = seen.scores
    truth = labels if labels is not None else _own_labels(scores, options, options.k if is_top_k else None)
    with as_usage():
        goal = attacks.make_goal(
            goal_words.name, torch.from_numpy(truth), scores, options, keys=row_keys(seen.draws, truth), seed=run.seed
        )
    if not bool(goal.eligible.any()):
        raise InputError(f"goal {goal.name}: no eligible image among {len(images)}; wanted: {goal.requirement}")
    keys = tuple(_key(begun, truth[row], goal, row) for row, begun in enumerate(seen.names))
    return Job(network, tuple(images), truth, goal, method, variant, given, words, run, keys)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What is kept of the clean images when all have been read once, a batch at a time.

    Attributes:
        scores: The logits of the network that is attacked.
        draws, names: Hashes of each image's pixels, begun: labels follow in `row_keys`, labels and goal in a row's name.
    """

    scores: torch.Tensor
    draws: Sequence[Any]
    names: Sequence[Any]


def _look(network: Network, images: Sequence[NamedImage], words: MethodWords, run: AttackRun) -> _Seen:
    """Reads every image once, a batch at a time."""
    target, head = attacked_network(network, words), network.head.value
    victim = prepare(target, network.input_shape, torch.device(run.device), None if target is network else head)
    scores: list[torch.Tensor] = []
    draws: list[Any] = []
    names: list[Any] = []
    for start in range(0, len(images), run.batch):
        pixels = np.stack([image.pixels for image in images[start : start + run.batch]])
        scores.append(victim.scores(torch.from_numpy(pixels.reshape(len(pixels), -1)), run.batch))
        draws += [begun_draw(image) for image in pixels]
        names += [hashlib.sha256(image.tobytes()) for image in pixels]
    return _Seen(torch.cat(scores), draws, names)


def begun_draw(pixels: np.ndarray) -> Any:
    """The hash that `row_keys` goes on with, so that the pixels need not be held until the labels are known."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=8)


def row_keys(draws: Sequence[Any], labels: np.ndarray) -> list[int]:
    """The numbers that `attacks.run` draws each row's random choices from, so that both choose the same.

    Args:
        draws: `begun_draw` of each row's pixels; unchanged.
        labels: Each row's true labels.
    """
    return [
        int.from_bytes(_followed(begun, truth.tobytes()).digest(), "big")
        for begun, truth in zip(draws, labels, strict=True)
    ]


def _followed(begun: Any, content: bytes) -> Any:
    """The hash of what `begun` has seen followed by this; `begun` stays as it is."""
    whole = begun.copy()
    whole.update(content)
    return whole


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


def _key(begun: Any, truth: np.ndarray, goal: Goal, row: int) -> str:
    """The row's name: a hash, begun with its pixels."""
    asked = f"{goal.sign[row].tolist()} {int(goal.needed[row])} {goal.k} {goal.threshold}"
    return str(_followed(begun, truth.tobytes() + asked.encode()).hexdigest())[:20]
