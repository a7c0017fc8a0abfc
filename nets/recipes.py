"""The choices behind every shipped network, and the defaults for the rest: one table, no hidden settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, assert_never, get_args

from nets.architectures import architecture
from nets.augmentation import Augmentation, Rectangles
from nets.label_graph import LabelGraph
from nets.losses import ProjectedGradient
from nets.options import AdversarialTraining, CertifiedTraining, Defence, Schedule, TaskTraining, TrainingOptions
from nets.tasks import TASKS
from verifier.errors import InputError

DefenceName = Literal["none", "l0", "linf", "ibp", "crown-ibp", "sabr"]
DEFENCES: Final[tuple[DefenceName, ...]] = get_args(DefenceName)

# Mild enough that no digit turns into another; it helps the networks that can overfit 10,000 digits.
_MILD: Final = Augmentation(rotation_degrees=10.0, scale=0.1, shear=0.1)
_OFF: Final = Augmentation()
_LOSS: Final = "ranking"
_ROBUST_LOSS: Final = "set"
_PERTURBATION: Final = "MP"

_PLAIN: Final[dict[str, Schedule]] = {
    "cnn4k": Schedule(20_000, learning_rate=2e-2, weight_decay=1e-3),
    "strided2": Schedule(12_000, learning_rate=2e-2, weight_decay=0.1),
    "strided3": Schedule(12_000, learning_rate=2e-2, weight_decay=0.1),
    "wide150k": Schedule(7_000, learning_rate=6e-3, weight_decay=0.2),
    "digit28": Schedule(4_000, learning_rate=5e-3, weight_decay=0.1),
}
_RECTANGLE_RUNS: Final[dict[str, Schedule]] = {
    "cnn4k": Schedule(10_000, 128, learning_rate=2e-2, weight_decay=1e-2),
    "strided2": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "strided3": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "wide150k": Schedule(5_000, 128, learning_rate=6e-3, weight_decay=0.2),
    "digit28": Schedule(4_000, 128, learning_rate=5e-3, weight_decay=0.1),
}
# A step against PGD costs about three times a plain one, hence fewer images.
_ADVERSARIAL_RUNS: Final[dict[str, Schedule]] = {
    "cnn4k": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=1e-2),
    "strided2": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "strided3": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "wide150k": Schedule(5_000, 128, learning_rate=6e-3, weight_decay=0.2),
    "digit28": Schedule(4_000, 128, learning_rate=5e-3, weight_decay=0.1),
}
# Tuned for strided3 alone; the others' and those of digit28 are plain starting values.
_CERTIFIED_RUNS: Final[dict[str, Schedule]] = {
    name: Schedule(5_000, 128, learning_rate=2e-3, weight_decay=1e-4) for name in _PLAIN
} | {"strided3": Schedule(8_000, 128, learning_rate=2e-2, weight_decay=0.1)}
_SCHEDULES: Final[dict[DefenceName, dict[str, Schedule]]] = {
    "none": _PLAIN,
    "l0": _RECTANGLE_RUNS,
    "linf": _ADVERSARIAL_RUNS,
    "ibp": _CERTIFIED_RUNS,
    "crown-ibp": _CERTIFIED_RUNS,
    "sabr": _CERTIFIED_RUNS,
}
# cnn4k has too few weights to overfit; changed digits only take capacity from it.
_AUGMENTATIONS: Final[dict[str, Augmentation]] = {"cnn4k": _OFF}
# What names stand for on the command line: the head of the network.
HEADS: Final[dict[str, LabelGraph | None]] = {"linear": None, "ml-gcn": LabelGraph()}
_RECTANGLES: Final = Rectangles(most=4, longest_side=10)
_RADII: Final[dict[str, float]] = {"cnn4k": 0.02, "strided2": 0.03, "strided3": 0.03, "wide150k": 0.03, "digit28": 0.1}
# Of certified training: the largest epsilon at which the shipped network is to be provable.
_CERTIFIED_RADII: Final[dict[str, float]] = {**_RADII, "strided3": 0.05}
# Wide enough for the epsilons that undefended networks are verified at. PGD training pushes units off 0 by itself.
_CLEARANCES: Final[dict[DefenceName, float]] = {"none": 0.03, "l0": 0.03}


def defence_name(text: str) -> DefenceName:
    """The defence written as `text`.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    for known in DEFENCES:
        if text == known:
            return known
    raise InputError(f"defence {text!r}: unknown; wanted one of {', '.join(DEFENCES)}")


def recipe(name: str, defence: DefenceName) -> TrainingOptions:
    """The options an architecture is trained with under a defence.

    Raises:
        InputError: the architecture is unknown.
    """
    name = architecture(name).name
    return TrainingOptions(
        _SCHEDULES[defence][name],
        loss=_LOSS,
        augmentation=_AUGMENTATIONS.get(name, _MILD),
        defence=_defence(name, defence),
        clearance=_CLEARANCES.get(defence, 0.0),
    )


def _defence(name: str, defence: DefenceName) -> Defence:
    match defence:
        case "none":
            return None
        case "l0":
            return _RECTANGLES
        case "linf":
            return AdversarialTraining(ProjectedGradient(_RADII[name], steps=2, relative_step=0.75))
        case "ibp":
            return CertifiedTraining(_search(name), crown_share=0.0, clean_weight=0.5)
        case "crown-ibp":
            # Steps with CROWN's walk cost four times as much as others, hence a short ramp.
            return CertifiedTraining(_search(name), crown_share=1.0, rivals=1, ramp_share=0.3)
        case "sabr":
            return CertifiedTraining(_search(name), crown_share=0.0, box_share=0.1, clean_share=0.2, ramp_share=0.4)
    assert_never(defence)


def _search(name: str) -> ProjectedGradient:
    return ProjectedGradient(_CERTIFIED_RADII[name], steps=2, relative_step=0.75)


def with_pieces(
    options: TrainingOptions,
    *,
    loss: str | None = None,
    head: str = "linear",
    tasks: Sequence[str] = (),
    perturbation: str | None = None,
    is_targeted: bool = False,
    robust_loss: str | None = None,
    epsilon: float | None = None,
) -> TrainingOptions:
    """The options with other pieces, by name; without any, the options themselves.

    What is asked for has an effect: a piece that nothing would use is refused.

    Args:
        options: A recipe.
        loss: A key of `nets.losses.LOSSES`; None keeps the recipe's.
        head: A key of `HEADS`.
        tasks: Auxiliary tasks, keys of `nets.tasks.TASKS`.
        perturbation: A key of `nets.mixed_perturbations.PERTURBATIONS` in either case, with tasks under the L-infinity defence;
            None for mixed ones.
        is_targeted: As in `TaskTraining`, with tasks under the L-infinity defence.
        robust_loss: A key of `nets.certified.ROBUST_LOSSES`, in certified training; None keeps the recipe's. The top-k loss needs
            the bounds of all rivals, so it takes the place of the recipe's number of them too.
        epsilon: The radius of adversarial or certified training, in (0, 1]; None keeps the recipe's.

    Raises:
        InputError: a name is unknown, or pieces do not go together; the message lists what there is, or says what to do.
    """
    if head not in HEADS:
        raise InputError(f"head {head!r}: unknown; wanted one of {', '.join(HEADS)}")
    chosen = TaskTraining(tuple(tasks), (_PERTURBATION if perturbation is None else perturbation).upper(), is_targeted)
    if perturbation is not None:
        _refuse_unperturbed(f"perturbation {chosen.perturbation}", options.defence, chosen)
    if is_targeted:
        _refuse_unperturbed("targeted", options.defence, chosen)
    return replace(
        options,
        loss=loss or options.loss,
        graph=HEADS[head],
        tasks=chosen if tasks else None,
        defence=_with_radius(_with_robust_loss(options.defence, robust_loss), epsilon),
    )


def _refuse_unperturbed(what: str, defence: Defence, tasks: TaskTraining) -> None:
    if not tasks.auxiliaries:
        raise InputError(
            f"{what}: has no effect without auxiliary tasks; add one ({', '.join(TASKS)}), or leave it out"
        )
    if not isinstance(defence, AdversarialTraining):
        raise InputError(f"{what}: only the defence linf perturbs images for tasks; choose that, or leave it out")


def _with_robust_loss(defence: Defence, robust_loss: str | None) -> Defence:
    if robust_loss is None:
        return defence
    if not isinstance(defence, CertifiedTraining):
        raise InputError(
            f"robust loss {robust_loss}: only certified training has one; choose ibp, crown-ibp or sabr, or leave it out"
        )
    return replace(defence, robust_loss=robust_loss, rivals=defence.rivals if robust_loss == _ROBUST_LOSS else None)


def _with_radius(defence: Defence, epsilon: float | None) -> Defence:
    if epsilon is None:
        return defence
    if not isinstance(defence, AdversarialTraining | CertifiedTraining):
        raise InputError(
            f"epsilon {epsilon}: this defence has no radius; choose linf, ibp, crown-ibp or sabr, or leave it out"
        )
    if not 0 < epsilon <= 1:
        raise InputError(f"epsilon {epsilon}: wanted a radius above 0 and at most 1, pixels being in [0, 1]")
    return replace(defence, attack=replace(defence.attack, epsilon=epsilon))


def run_name(name: str, defence: str, options: TrainingOptions, epsilon: float | None = None) -> str:
    """`<architecture>-<defence>`, and what differs from a recipe's pieces: the name of a run's files.

    The radius is part of it only where `epsilon` repeats it, and neither the seed nor the schedule is.
    """
    parts = [name, defence]
    if epsilon is not None:
        parts.append(f"eps{epsilon}")
    if isinstance(options.defence, CertifiedTraining) and options.defence.robust_loss != _ROBUST_LOSS:
        parts.append(options.defence.robust_loss)
    if options.loss != _LOSS:
        parts.append(options.loss)
    if options.graph is not None:
        parts.append("ml-gcn")
    if options.tasks is not None:
        parts += options.tasks.auxiliaries
        if isinstance(options.defence, AdversarialTraining):
            parts += [options.tasks.perturbation.lower()] + ["targeted"] * options.tasks.is_targeted
    return "-".join(parts)


_STUDIED: Final[tuple[DefenceName, ...]] = ("none", "l0", "linf")
SHIPPED: Final[dict[str, tuple[str, DefenceName]]] = {
    f"{name}-{defence}": (name, defence)
    for name, defences in (("cnn4k", _STUDIED), ("strided3", (*_STUDIED, "sabr")), ("wide150k", ("none",)))
    for defence in defences
}
