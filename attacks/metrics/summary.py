"""All metrics of one attack on many images, by name."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from attacks.metrics import labels as by_label
from attacks.metrics import ranking
from attacks.metrics.average import Average, mean_defined
from attacks.metrics.perturbation import Norm, average_perturbation, norms, rmsd, success_rate
from attacks.results import AttackResult
from verifier.errors import InputError

Scores = Float[np.ndarray, "rows labels"]
Marks = Bool[np.ndarray, "rows labels"]


@dataclass(frozen=True, slots=True, eq=False)
class Attacked:
    """What an attack made of images, eligible ones only, and what it was to reach.

    Attributes:
        sizes: Of each image's change, by norm.
        rmsd: Root mean square change of a pixel, of 255.
        clean_scores, scores: Logits before and after.
        labels: The relevant labels Y.
        sign: The goal: +1 on (or in the top k), -1 off (or out), 0 not asked.
        flip, hold: Labels to change (A) and to keep (B).
        success: Rows that reached the goal.
        k: Of the top k; None under a threshold.
        threshold: The logit above which a label is on.
    """

    sizes: Mapping[Norm, Float[np.ndarray, " rows"]]
    rmsd: Float[np.ndarray, " rows"]
    clean_scores: Scores
    scores: Scores
    labels: Marks
    sign: Int[np.ndarray, "rows labels"]
    flip: Marks
    hold: Marks
    success: Bool[np.ndarray, " rows"]
    k: int | None
    threshold: float

    @classmethod
    def of(cls, result: AttackResult) -> "Attacked":
        """The eligible rows of a result."""
        rows, goal = result.eligible.numpy(), result.goal
        clean, images = result.clean.numpy()[rows], result.images.numpy()[rows]
        return cls(
            {norm: norms(clean, images, norm) for norm in Norm},
            rmsd(clean, images),
            result.clean_scores.numpy()[rows],
            result.scores.numpy()[rows],
            goal.labels.numpy()[rows],
            goal.sign.numpy()[rows],
            goal.flip.numpy()[rows],
            goal.hold.numpy()[rows],
            result.success.numpy()[rows],
            goal.k,
            goal.threshold,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A metric before and after an attack; the drop is before minus after, and may be negative."""

    before: Average
    after: Average

    @property
    def drop(self) -> float:
        """Before minus after."""
        return self.before.value - self.after.value


@dataclass(frozen=True, slots=True)
class Summary:
    """What an attack did.

    Attributes:
        changes: Metrics of the network's answers, before and after.
        values: Metrics of the attack itself.
        ties: Rows whose ranking rests on the tie rule, before or after.
    """

    changes: Mapping[str, Change]
    values: Mapping[str, Average]
    ties: int


def summarise(attacked: Attacked) -> Summary:
    """Every metric that is defined for the goal: ranking metrics under top k, label metrics under a threshold.

    Raises:
        InputError: No row.
        SolverUnavailableError: A threshold goal, and scikit-learn is not installed.
    """
    if not len(attacked.success):
        raise InputError("summary: no image was attacked")
    size, won = attacked.sizes, attacked.success
    values = {
        "success rate": _one(success_rate(won), len(won)),
        "APer (l2, successes)": _one(average_perturbation(size[Norm.L2], won, "successes"), int(won.sum())),
        "APer (l2, all)": _one(average_perturbation(size[Norm.L2], won, "all"), len(won)),
        **{f"{norm} (successes)": mean_defined(np.where(won, size[norm], np.nan)) for norm in Norm},
        "RMSD of 255": mean_defined(attacked.rmsd),
    }
    changes = _ranking(attacked) if attacked.k is not None else _labels(attacked)
    values |= _pushed_out(attacked) if attacked.k is not None else _targets(attacked)
    ties = ranking.tied_rows(attacked.clean_scores) + ranking.tied_rows(attacked.scores)
    return Summary(changes, values, ties)


def _one(value: float, counted: int) -> Average:
    return Average(value, counted, 0)


def _ranking(at: Attacked) -> dict[str, Change]:
    k = at.k or 1
    metrics = {
        f"TkAcc@{k}": lambda s: ranking.top_k_accuracy(s, at.labels, k),
        f"P@{k}": lambda s: ranking.precision_at_k(s, at.labels, k),
        f"mAP@{k} (instances)": lambda s: ranking.map_at_k(s, at.labels, k, "instances"),
        f"mAP@{k} (labels)": lambda s: ranking.map_at_k(s, at.labels, min(k, len(s)), "labels"),
        f"NDCG@{k}": lambda s: ranking.ndcg_at_k(s, at.labels, k),
    }
    return {
        name: Change(mean_defined(metric(at.clean_scores)), mean_defined(metric(at.scores)))
        for name, metric in metrics.items()
    }


def _pushed_out(at: Attacked) -> dict[str, Average]:
    """Delta-l of the labels that the goal wants out; nothing where it wants none out."""
    wanted_out = at.sign < 0
    if not wanted_out.any():
        return {}
    pushed = ranking.labels_pushed_out(at.clean_scores, at.scores, wanted_out, at.k or 1)
    return {"delta-l": mean_defined(np.where(wanted_out.any(axis=1), pushed, np.nan))}


def _labels(at: Attacked) -> dict[str, Change]:
    """How well the network still tells the true labels."""
    truth = np.where(at.labels, 1, -1)
    metrics = {
        "Hamming loss": lambda s: by_label.hamming(s > at.threshold, truth, np.ones_like(at.labels)),
        "instance F1": lambda s: by_label.instance_f1(s > at.threshold, truth),
        "macro F1": lambda s: by_label.label_f1(s > at.threshold, truth),
        "ranking loss": lambda s: by_label.ranking_loss(s, truth),
        "mAP (labels)": lambda s: by_label.label_average_precision(s, truth),
        "mAP (instances)": lambda s: by_label.average_precision(s, truth),
    }
    changes = {
        name: Change(mean_defined(metric(at.clean_scores)), mean_defined(metric(at.scores)))
        for name, metric in metrics.items()
    }
    rows = len(truth)
    micro = [_one(by_label.micro_f1(s > at.threshold, truth), rows) for s in (at.clean_scores, at.scores)]
    return {**changes, "micro F1": Change(*micro)}


def _targets(at: Attacked) -> dict[str, Average]:
    """How near the attack came to the labels it asks for (Song et al. 2018)."""
    is_on = at.scores > at.threshold
    return {
        "Hamming A to target": mean_defined(by_label.hamming(is_on, at.sign, at.flip)),
        "Hamming B to target": mean_defined(by_label.hamming(is_on, at.sign, at.hold)),
        "instance F1 to target": mean_defined(by_label.instance_f1(is_on, at.sign)),
        "ranking loss to target": mean_defined(by_label.ranking_loss(at.scores, at.sign)),
        "mAP to target (labels)": mean_defined(by_label.label_average_precision(at.scores, at.sign)),
        "AUC to target": mean_defined(by_label.area_under_roc(at.scores, at.sign)),
        "Kendall tau-b to target": mean_defined(
            by_label.kendall_tau_b(at.scores, by_label.ranking_targets(at.labels, at.flip, at.hold))
        ),
    }
