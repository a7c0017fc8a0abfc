"""The choices behind every shipped network, and the defaults for the rest: one table, no hidden settings."""

from __future__ import annotations

from typing import Final, Literal, assert_never, get_args

from nets.architectures import architecture
from nets.augmentation import Augmentation, Rectangles
from nets.losses import ProjectedGradient
from nets.options import AdversarialTraining, Defence, Schedule, TrainingOptions
from verifier.errors import InputError

DefenceName = Literal["none", "l0", "linf"]
DEFENCES: Final[tuple[DefenceName, ...]] = get_args(DefenceName)

# Mild enough that no digit turns into another; it helps the networks that can overfit 10,000 digits.
_MILD: Final = Augmentation(rotation_degrees=10.0, scale=0.1, shear=0.1)
_OFF: Final = Augmentation()

_PLAIN: Final[dict[str, Schedule]] = {
    "cnn4k": Schedule(20_000, learning_rate=2e-2, weight_decay=1e-3),
    "strided2": Schedule(12_000, learning_rate=2e-2, weight_decay=0.1),
    "strided3": Schedule(12_000, learning_rate=2e-2, weight_decay=0.1),
    "wide150k": Schedule(7_000, learning_rate=6e-3, weight_decay=0.2),
}
_RECTANGLE_RUNS: Final[dict[str, Schedule]] = {
    "cnn4k": Schedule(10_000, 128, learning_rate=2e-2, weight_decay=1e-2),
    "strided2": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "strided3": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "wide150k": Schedule(5_000, 128, learning_rate=6e-3, weight_decay=0.2),
}
# A step against PGD costs about three times a plain one, hence fewer images.
_ADVERSARIAL_RUNS: Final[dict[str, Schedule]] = {
    "cnn4k": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=1e-2),
    "strided2": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "strided3": Schedule(5_000, 128, learning_rate=2e-2, weight_decay=0.1),
    "wide150k": Schedule(5_000, 128, learning_rate=6e-3, weight_decay=0.2),
}
_SCHEDULES: Final[dict[DefenceName, dict[str, Schedule]]] = {
    "none": _PLAIN,
    "l0": _RECTANGLE_RUNS,
    "linf": _ADVERSARIAL_RUNS,
}
# cnn4k has too few weights to overfit; changed digits only take capacity from it.
_AUGMENTATIONS: Final[dict[str, Augmentation]] = {"cnn4k": _OFF}
_RECTANGLES: Final = Rectangles(most=4, longest_side=10)
_RADII: Final[dict[str, float]] = {"cnn4k": 0.02, "strided2": 0.03, "strided3": 0.03, "wide150k": 0.03}
# Wide enough for the epsilons that undefended networks are verified at. PGD training pushes units off 0 by itself.
_CLEARANCES: Final[dict[DefenceName, float]] = {"none": 0.03, "l0": 0.03, "linf": 0.0}


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
        augmentation=_AUGMENTATIONS.get(name, _MILD),
        defence=_defence(name, defence),
        clearance=_CLEARANCES[defence],
    )


def _defence(name: str, defence: DefenceName) -> Defence:
    match defence:
        case "none":
            return None
        case "l0":
            return _RECTANGLES
        case "linf":
            return AdversarialTraining(ProjectedGradient(_RADII[name], steps=2, relative_step=0.75))
    assert_never(defence)


SHIPPED: Final[dict[str, tuple[str, DefenceName]]] = {
    f"{name}-{defence}": (name, defence)
    for name, defences in (("cnn4k", DEFENCES), ("strided3", DEFENCES), ("wide150k", ("none",)))
    for defence in defences
}
