"""Every choice of a training run: schedule, loss, changes of images, defence and heads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from nets.augmentation import Augmentation, Rectangles
from nets.certified import ROBUST_LOSSES
from nets.label_graph import LabelGraph
from nets.losses import LOSSES, ProjectedGradient
from nets.mixed_perturbations import PERTURBATIONS
from nets.tasks import TASKS
from verifier.errors import InputError

_WARM_UP: Final = 0.05
_UNCHANGED: Final = Augmentation()


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast. The rate rises over the first 5% of the steps, then falls along a cosine to 0.

    Attributes:
        steps: batches seen.
        batch_size: images a batch.
        learning_rate: the highest rate of AdamW.
        weight_decay: its decoupled weight decay; small weights are easier to certify.
    """

    steps: int
    batch_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        """Refuse values that do not describe a run."""
        if self.steps < 1 or self.batch_size < 1:
            raise InputError(f"{self}: wanted steps and batch_size of 1 or more")
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise InputError(f"{self}: wanted learning_rate above 0 and weight_decay 0 or more")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ..., steps - 1."""
        warm_up = max(1, round(_WARM_UP * self.steps))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        progress = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def ramp(step: int, steps: int, clean_share: float, ramp_share: float) -> float:
    """The strength of a defence at one step of a run, from 0 to 1.

    0 for the first `clean_share` of the steps, then rising linearly over `ramp_share` of them, then 1.
    """
    begin, length = clean_share * steps, ramp_share * steps
    if step < begin:
        return 0.0
    return min(1.0, (step - begin + 1) / (length + 1))


@dataclass(frozen=True, slots=True)
class AdversarialTraining:
    """The L-infinity defence: learn from images that PGD made worse (Madry et al. 2018).

    Attributes:
        attack: the attack at full strength.
        clean_share: share of the steps, at the start, that see clean images only.
        ramp_share: share of the steps after that in which epsilon rises linearly from 0.
    """

    attack: ProjectedGradient = field(default_factory=lambda: ProjectedGradient(0.03, 4, 0.4))
    clean_share: float = 0.2
    ramp_share: float = 0.3

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1]."""
        if not (min(self.clean_share, self.ramp_share) >= 0 and self.clean_share + self.ramp_share <= 1):
            raise InputError(f"{self}: wanted shares of 0 or more with a sum of at most 1")

    def epsilon(self, step: int, steps: int) -> float:
        """The radius at one step of a run of `steps`."""
        return self.attack.epsilon * ramp(step, steps, self.clean_share, self.ramp_share)


@dataclass(frozen=True, slots=True)
class CertifiedTraining:
    """Learn from upper bounds of margins over boxes: IBP, CROWN-IBP, and either on small boxes.

    With the strength s rising from 0 to 1 as `ramp` says, a step minimises
    w clean loss + (1 - w) robust loss with w = 1 - s (1 - clean_weight), at radius s epsilon, bounded with a share
    (1 - s) crown_share of CROWN-IBP, the rest being interval bounds (Gowal et al. 2018; Zhang et al. 2020).

    Attributes:
        attack: its epsilon is the radius at full strength; its steps find the centres of small boxes.
        box_share: the boxes' radius as a share of epsilon; below 1 they lie around adversarial images (SABR, Mueller et al. 2023).
        robust_loss: "set", the ranking loss at its worst, or "top-k", on each label's bound of staying in the top n.
        crown_share: the share of CROWN-IBP bounds at the start; 0 for interval bounds alone.
        rivals: While CROWN-IBP has a share, how many competitors of every label are bounded, those with the highest interval bounds
            (`nets.certified.difference_uppers`); None for all, which "top-k" needs.
        clean_weight: the weight of the clean loss at full strength.
        clean_share, ramp_share: shares of the steps, as in `AdversarialTraining`.
    """

    attack: ProjectedGradient = field(default_factory=lambda: ProjectedGradient(0.02, 4, 0.4))
    box_share: float = 1.0
    robust_loss: str = "set"
    crown_share: float = 1.0
    rivals: int | None = None
    clean_weight: float = 0.0
    clean_share: float = 0.1
    ramp_share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1], unknown losses and less than one rival."""
        shares = (self.crown_share, self.clean_weight, self.clean_share, self.ramp_share)
        if not (min(shares) >= 0 and max(shares) <= 1 and self.clean_share + self.ramp_share <= 1):
            raise InputError(f"{self}: wanted shares and weights in [0, 1], clean_share + ramp_share at most 1")
        if not 0 < self.box_share <= 1:
            raise InputError(f"{self}: wanted box_share in (0, 1]")
        if self.robust_loss not in ROBUST_LOSSES:
            raise InputError(f"{self}: unknown robust_loss; wanted one of {', '.join(ROBUST_LOSSES)}")
        if self.rivals is not None and (self.rivals < 1 or self.robust_loss != "set"):
            raise InputError(f"{self}: wanted rivals None, or 1 or more with the robust_loss 'set'")

    def strength(self, step: int, steps: int) -> float:
        """S at one step of a run of `steps`."""
        return ramp(step, steps, self.clean_share, self.ramp_share)


@dataclass(frozen=True, slots=True)
class TaskTraining:
    """Multi-task training: auxiliary heads on the same trunk (Hyun, Park 2024).

    Attributes:
        auxiliaries: keys of `nets.tasks.TASKS`.
        perturbation: a key of `nets.mixed_perturbations.PERTURBATIONS`; it counts under `AdversarialTraining`.
        is_targeted: whether perturbations lower every task's loss towards wrong answers, drawn anew for every batch,
            instead of raising the loss of the right ones.
    """

    auxiliaries: tuple[str, ...]
    perturbation: str = "MP"
    is_targeted: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown names and repeated tasks."""
        if self.perturbation not in PERTURBATIONS:
            raise InputError(f"perturbation {self.perturbation!r}: unknown; wanted one of {', '.join(PERTURBATIONS)}")
        if not set(self.auxiliaries) <= set(TASKS) or len(set(self.auxiliaries)) < len(self.auxiliaries):
            raise InputError(f"auxiliary tasks {self.auxiliaries}: wanted different ones of {', '.join(TASKS)}")


Defence = Rectangles | AdversarialTraining | CertifiedTraining | None


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Every choice of a run except the network, the digits and the seed.

    Attributes:
        schedule: length and rates.
        loss: a key of `nets.losses.LOSSES`.
        augmentation: changes of single digits.
        defence: `Rectangles` (L0), `AdversarialTraining` (L-infinity), `CertifiedTraining` or None.
        clearance: the change of a blank background under which the first layer's units should keep their phase;
            0 asks for nothing. See `background_penalty`; above 0, biases are free of weight decay.
        graph: an ML-GCN head in place of the last layer, or None.
        tasks: auxiliary tasks, or None.
    """

    schedule: Schedule
    loss: str = "ranking"
    augmentation: Augmentation = _UNCHANGED
    defence: Defence = None
    clearance: float = 0.0
    graph: LabelGraph | None = None
    tasks: TaskTraining | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown loss, a negative clearance, and auxiliary tasks under certified training."""
        if not self.clearance >= 0:
            raise InputError(f"clearance {self.clearance}: wanted 0 or more")
        if self.loss not in LOSSES:
            raise InputError(f"loss {self.loss!r}: unknown; wanted one of {', '.join(LOSSES)}")
        if self.tasks is not None and isinstance(self.defence, CertifiedTraining):
            raise InputError(
                "auxiliary tasks: not with certified training, which bounds one head; leave out one of the two"
            )
