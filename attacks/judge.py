"""What an image shows: measured and decided here, wherever the image comes from."""

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.ball import NORMS, norms
from attacks.goals import Goal
from attacks.results import AttackResult
from attacks.victim import Victim


def judge(
    victim: Victim,
    goal: Goal,
    clean: Float[Tensor, "rows pixels"],
    images: Float[Tensor, "rows pixels"],
    clean_scores: Float[Tensor, "rows labels"],
    batch: int,
) -> AttackResult:
    """Measures flat float32 images, wherever they come from: success by float64 scores, norms by exact differences."""
    scores = victim.scores(images, batch)
    deltas = images.double() - clean.double()
    size = {norm: norms(deltas, norm) for norm in NORMS}
    rows = len(images)
    return AttackResult(
        method="",
        variant="",
        goal=goal,
        images=images,
        clean=clean,
        success=goal.satisfied(scores) & goal.eligible,
        already_met=goal.satisfied(clean_scores),
        met=goal.met(scores),
        margin=goal.margin(scores),
        scores=scores,
        clean_scores=clean_scores,
        l1=size["l1"],
        l2=size["l2"],
        linf=size["linf"],
        iterations=torch.zeros(rows, dtype=torch.int64),
        history=torch.zeros((0, rows)),
    )
