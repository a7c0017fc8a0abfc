"""An attack on many images, a few at a time, each finished image kept at once."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

import attacks
from attacks.goals import Goal, GoalOptions, Rule
from attacks.jpeg import Purified, check_jpeg, jpeg
from attacks.methods import Method, Variant
from attacks.metrics import Attacked, Norm, norms, rmsd
from attacks.victim import prepare
from aureole.attack_journal import Journal, Row, adversarial_name, clean_name
from aureole.attack_options import AttackRun, GoalWords, MethodWords, named_values
from aureole.exits import UsageError
from aureole.image_sets import NamedImage
from aureole.questions import as_usage, top_labels
from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.network import Network

_ABOVE_ROUNDING = 2.0**-40


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

    @property
    def pixels(self) -> Float[np.ndarray, "rows ..."]:
        """The clean images in one array."""
        return np.stack([image.pixels for image in self.images])

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
        method.ball(_norm(words.norm), words.epsilon, int(np.prod(network.input_shape)))
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


def attack_all(job: Job, journal: Journal, on_rows: Callable[[int, str], None]) -> None:
    """Attacks the eligible images that the journal does not hold yet; each batch is kept before the next begins."""
    eligible: list[int] = job.goal.eligible.nonzero()[:, 0].tolist()
    waiting = [row for row in eligible if job.keys[row] not in journal.rows]
    on_rows(len(eligible) - len(waiting), "")
    # One perturbation for all images cannot be found for some of them.
    size = len(eligible) if job.method.is_universal else job.run.batch
    pending = eligible if job.method.is_universal and waiting else waiting
    for start in range(0, len(pending), size):
        rows = pending[start : start + size]
        for row, (values, image) in zip(rows, _attack(job, rows), strict=True):
            journal.add(values, image, job.images[row].pixels)
        on_rows(len(rows), job.images[rows[-1]].name)


def result_rows(job: Job, journal: Journal) -> list[Row]:
    """A row for each image that is finished, or was not eligible, in the order given."""
    rows: list[Row] = []
    for place, key in enumerate(job.keys):
        if key in journal.rows:
            rows.append({**journal.rows[key], "name": job.images[place].name})
        elif not bool(job.goal.eligible[place]):
            rows.append({**_common(job, place), "claim": "none", "eligible": False})
    return rows


def attacked_rows(job: Job, journal: Journal) -> Attacked | None:
    """The finished rows for the metrics; None if there are none."""
    places = [place for place, key in enumerate(job.keys) if key in journal.rows]
    if not places:
        return None
    rows = [journal.rows[job.keys[place]] for place in places]
    goal = job.goal
    return Attacked(
        job.pixels[places],
        np.stack([journal.image(job.keys[place]) for place in places]),
        np.array([row["clean_scores"] for row in rows]),
        np.array([row["scores"] for row in rows]),
        job.labels[places],
        goal.sign.numpy()[places],
        goal.flip.numpy()[places],
        goal.hold.numpy()[places],
        np.array([row["success"] for row in rows], dtype=np.bool_),
        goal.k,
        goal.threshold,
    )


def _attack(job: Job, rows: Sequence[int]) -> list[tuple[Row, np.ndarray]]:
    """The results of some rows and their adversarial images."""
    began = time.monotonic()
    goal, head = job.goal.at(torch.tensor(rows)), job.network.head.value
    result = attacks.run(
        job.target,
        torch.from_numpy(job.pixels[list(rows)]),
        torch.from_numpy(job.labels[list(rows)]),
        method=job.method.name,
        variant=job.variant.value,
        goal=goal,
        norm=_norm(job.words.norm),
        eps=job.words.epsilon,
        options=job.method_options,
        seed=job.run.seed,
        batch=len(rows),
        device=job.run.device,
        head=None if job.target is job.network else head,
    )
    images, seconds = result.images.numpy(), (time.monotonic() - began) / len(rows)
    clean = result.clean.numpy()
    size = {norm: norms(clean, images, norm) for norm in Norm}
    deviation = rmsd(clean, images)
    # Claims are about the network of the file, whatever the attack went through.
    plain = goal.satisfied(torch.from_numpy(evaluate(job.network, images.astype(np.float64))))
    coded = None
    if job.words.jpeg is not None:
        seen = jpeg(images, job.words.jpeg).astype(np.float64)
        coded = goal.satisfied(torch.from_numpy(evaluate(job.network, seen)))
    finished: list[tuple[Row, np.ndarray]] = []
    for place, row in enumerate(rows):
        is_plain = bool(plain[place])
        norm, bound = result.norm, result.eps
        if norm is None and is_plain:
            # A little above the computed norm, so that the claim holds exactly.
            norm, bound = Norm.L2.value, float(size[Norm.L2][place]) * (1.0 + _ABOVE_ROUNDING)
        values = {
            **_common(job, row),
            "claim": "none" if norm is None else "success" if is_plain else "failure",
            "adversarial": adversarial_name(job.keys[row]),
            "norm": norm,
            "bound": bound,
            "eligible": True,
            "success": bool(result.success[place]),
            "already_met": bool(result.already_met[place]),
            "jpeg_success": None if coded is None else bool(coded[place]),
            "met": int(result.met[place]),
            "margin": float(result.margin[place]),
            **{each.value: float(size[each][place]) for each in Norm},
            "rmsd": float(deviation[place]),
            "iterations": int(result.iterations[place]),
            "seconds": seconds,
            "clean_scores": result.clean_scores[place].tolist(),
            "scores": result.scores[place].tolist(),
        }
        finished.append((values, images[place]))
    return finished


def _common(job: Job, row: int) -> dict[str, Any]:
    """What is known of a row before it is attacked."""
    sign, goal = job.goal.sign[row], job.goal
    attack = job.method.name if job.variant is Variant.FIXED else f"{job.method.name} ({job.variant.value})"
    return {
        "key": job.keys[row],
        "name": job.images[row].name,
        "claim": "none",
        "attack": attack,
        "image": clean_name(job.keys[row]),
        "adversarial": None,
        "on": (sign > 0).nonzero()[:, 0].tolist(),
        "off": (sign < 0).nonzero()[:, 0].tolist(),
        "needed": int(goal.needed[row]),
        "k": goal.k,
        "threshold": goal.threshold if goal.k is None else None,
        "norm": None,
        "bound": None,
        "goal": goal.name,
        "labels": np.flatnonzero(job.labels[row]).tolist(),
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


def _norm(name: str | None) -> Any:
    if name is not None and name not in ("l1", "l2", "linf"):
        raise InputError(f"--norm: got {name!r}, wanted l1, l2 or linf")
    return name


def _key(pixels: np.ndarray, truth: np.ndarray, goal: Goal, row: int) -> str:
    asked = f"{goal.sign[row].tolist()} {int(goal.needed[row])} {goal.k} {goal.threshold}"
    return hashlib.sha256(pixels.tobytes() + truth.tobytes() + asked.encode()).hexdigest()[:20]
