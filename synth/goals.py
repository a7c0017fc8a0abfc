"""What must survive: one label, or every label of a set, among the k highest scores."""

from collections.abc import Sequence

import numpy as np

from verifier.errors import InputError
from verifier.evaluation import evaluate
from verifier.network import Network
from verifier.property import Property, check_k, keeps_top_k_set, stays_in_top_k


def labels_survive(targets: Sequence[int], k: int, labels: int) -> tuple[Property, ...]:
    """Properties that hold together iff every target is strictly among the k highest scores.

    One target: `stays_in_top_k`. As many as k: `keeps_top_k_set`, one property. Fewer: one per target t, violated iff
    k - |T| + 1 labels outside the set T reach t: the lowest target's rank is |T| plus the number of labels above it outside T.

    Raises:
        InputError: No target, more than k, a repeated one, or a label or k out of range.
    """
    inside = sorted(targets)
    if not inside or len(set(inside)) != len(inside):
        raise InputError(f"targets: got {list(targets)}, wanted at least one label, each once")
    check_k(k, labels)
    if len(inside) > k:
        raise InputError(f"targets: got {len(inside)} labels, wanted at most k = {k}: no more can be in the top k")
    if len(inside) == 1:
        return (stays_in_top_k(inside[0], k, labels),)
    if len(inside) == k:
        return (keeps_top_k_set(inside, labels),)
    others = [label for label in range(labels) if label not in inside]
    together = ", ".join(map(str, inside))
    goals = []
    for target in inside:
        stays_in_top_k(target, k, labels)
        rows = np.zeros((len(others), labels))
        rows[np.arange(len(others)), others] = 1.0
        rows[:, target] = -1.0
        name = f"labels {together} stay in the top {k}: {target} is above all but {k - len(inside)} of the others"
        goals.append(Property(name, rows, np.zeros(len(others)), k - len(inside) + 1))
    return tuple(goals)


def check_clean(network: Network, image: np.ndarray, goals: Sequence[Property]) -> None:
    """Refuses goals that do not hold strictly at the image itself.

    Raises:
        InputError: One does not.
    """
    scores = evaluate(network, image[None])[0]
    for goal in goals:
        if float(goal.margin(scores)) >= 0.0:
            ranked = np.argsort(-scores, kind="stable")[: max(2, goal.count)].tolist()
            raise InputError(
                f"{goal.name}: not strictly so at the image itself (the network's highest scores are {ranked}), so no"
                " neighbourhood is robust; choose a label among the highest as target"
            )
