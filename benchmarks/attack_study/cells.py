"""What is measured: one cell is one attack towards one goal on one trained network."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

Value = int | float | str | bool | tuple[int, ...]
Settings = tuple[tuple[str, Value], ...]

LEVELS = (0.125, 0.25, 0.5, 1.0)
NS = (0, 1, 2, 3)
QUALITIES = (95, 75, 50)
RADII = (2.0, 4.0, 6.0, 8.0)
ONE_STEP = ("fgsm", "fgm")
BALLS = (*ONE_STEP, "bim", "pgd", "mi-fgsm", "slide")
SONG_GOALS = ("random", "person-reduction", "sheep-augmentation", "extreme")
ABLATION = "mla-lp-ablation"
ABLATIONS = ("released", "kept", "raised", "no-reset", "best", "box", "elastic")
TOP_K = {
    "double k=1 one": ("double", (("k", 1), ("scheme", "random"), ("size", 1))),
    "triple k=1 one": ("triple", (("k", 1), ("scheme", "random"), ("size", 1))),
    "triple k=2 one": ("triple", (("k", 2), ("scheme", "random"), ("size", 1))),
    "quad k=2 two": ("quad", (("k", 2), ("scheme", "random"), ("size", 2))),
    "quad k=3 one": ("quad", (("k", 3), ("scheme", "random"), ("size", 1))),
    "quad k=2 even": ("quad", (("k", 2), ("scheme", "global"), ("members", (0, 2, 4, 6, 8)))),
    "six k=3 two": ("six", (("k", 3), ("scheme", "random"), ("size", 2))),
    "six k=4 one": ("six", (("k", 4), ("scheme", "random"), ("size", 1))),
}
"""The settings of the specified-label attacks by name: images, k, and S.

S is one or two random labels of the clean top k, or all even digits. In every one there are k relevant labels or more besides S,
and with six digits more than k, as the paper wants and its code does not.
"""
COMPETITORS = ("tkml-ap-u", "kfool", "ml-cw-u")

RELEASED_RATE, KFOOL_STEPS = 5e-3, 60

_PIXELS = 64 * 64
# The published radii at full level, carried over to images of 64 x 64 by the mean (l1) and the root mean square (l2) change.
_FULL = {"linf": 0.3, "l2": 0.3 * _PIXELS**0.5, "l1": 10000 / 602112 * _PIXELS}
_NORMS = {"fgm": "l2", "slide": "l1"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement; two cells with equal fields are the same.

    Attributes:
        claim: What it is for: "showing-many", "mla-lp", "ranks", "top-k", "universal" or "jpeg".
        canvas: Of the images, a key of `victims.CANVASES`.
        seed: Of the training, of the images and of the attack.
        goal: A goal's name, with its options.
        method: An attack's name, with its variant and options; or `ABLATION`, whose variant is one of `ABLATIONS`.
        norm, eps: The ball; None for the method's.
        through: The JPEG quality of a defended network that the attack knows of; None for the plain network.
        images: How many images at most.
        steps: Training steps of the network.
    """

    claim: str
    canvas: str
    seed: int
    goal: str
    method: str
    variant: str = "fixed"
    goal_options: Settings = ()
    options: Settings = ()
    norm: str | None = None
    eps: float | None = None
    through: int | None = None
    images: int = 60
    steps: int = 3000

    @property
    def identity(self) -> dict[str, Any]:
        """The fields, as they lie in the results file."""
        return {**asdict(self), "goal_options": dict(self.goal_options), "options": dict(self.options)}

    @property
    def name(self) -> str:
        """For people, and for choosing by pattern: claim/canvas/seed/goal/method."""
        goal = _joined(self.goal, self.goal_options)
        ball = f" {self.norm} {self.eps:g}" if self.norm is not None and self.eps is not None else ""
        through = "" if self.through is None else f" through jpeg {self.through}"
        method = _joined(f"{self.method} {self.variant}", self.options)
        return f"{self.claim}/{self.canvas}/{self.seed}/{goal}/{method}{ball}{through}"


def _joined(name: str, settings: Settings) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in settings)])


FIELDS = tuple(Cell.__dataclass_fields__)


def key(record: Mapping[str, Any]) -> str:
    """What makes two records the same measurement; the same before and after a way through JSON.

    Raises:
        KeyError: The record is of no cell.
    """
    return json.dumps([record[name] for name in FIELDS], sort_keys=True)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        seeds: One training each.
        steps: Of a training.
        images: Of a cell.
        programme_images: Of a cell that solves linear programmes.
        universal_images: That a universal perturbation is found on; as many others judge it, twice.
        levels: Shares of the published radii.
        ns: Levels of showing many.
        searches, adam_steps: Of the attacks with a penalty.
        descent_steps: Of the top-k attacks.
        passes: Over the images, of the universal attacks that add up perturbations.
        radii: l2, of universal perturbations.
        settings: Keys of `TOP_K`.
        qualities: Of JPEG.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 3000
    images: int = 60
    programme_images: int = 30
    universal_images: int = 60
    levels: tuple[float, ...] = LEVELS
    ns: tuple[int, ...] = NS
    searches: int = 7
    adam_steps: int = 150
    descent_steps: int = 300
    passes: int = 3
    radii: tuple[float, ...] = RADII
    settings: tuple[str, ...] = tuple(TOP_K)
    qualities: tuple[int, ...] = QUALITIES


FULL = Scale()
QUICK = Scale(
    seeds=(0,),
    steps=300,
    images=8,
    programme_images=2,
    universal_images=6,
    levels=(0.25, 1.0),
    ns=(0, 2),
    searches=3,
    adam_steps=30,
    descent_steps=60,
    passes=1,
    radii=(4.0,),
    settings=("triple k=1 one", "quad k=2 two"),
    qualities=(75,),
)
"""A smoke test: its networks are hardly trained, so its numbers mean nothing."""


def all_cells(scale: Scale) -> list[Cell]:
    """Every cell, one training after the other, so that an early end leaves whole trainings."""
    return [cell for seed in scale.seeds for family in _FAMILIES for cell in family(scale, seed)]


def _penalty(scale: Scale) -> Settings:
    return (("searches", scale.searches), ("iterations", scale.adam_steps))


def _balls(base: Cell, levels: Sequence[float], methods: Sequence[str] = BALLS) -> Iterator[Cell]:
    for method in methods:
        norm = _NORMS.get(method, "linf")
        for level in levels:
            yield replace(base, method=method, norm=norm, eps=round(level * _FULL[norm], 6))


def showing_many(scale: Scale, seed: int) -> Iterator[Cell]:
    """Every attack but MLA-LP at every level n of showing many."""
    for n in scale.ns:
        base = Cell(
            "showing-many",
            "double",
            seed,
            "showing-many",
            "ml-cw",
            goal_options=(("n", n),),
            images=scale.images,
            steps=scale.steps,
        )
        yield from _balls(base, scale.levels)
        yield replace(base, options=_penalty(scale))
        yield replace(base, method="ml-dp")
        yield replace(base, method="ml-dp", variant="released")


def programmes(scale: Scale, seed: int) -> Iterator[Cell]:
    """MLA-LP as released, and with one part of it after the other put right.

    It drives all labels on, whatever n: how many are on at the end answers for every n.
    """
    base = Cell(
        "mla-lp",
        "double",
        seed,
        "showing-many",
        ABLATION,
        goal_options=(("n", NS[-1]),),
        images=scale.programme_images,
        steps=scale.steps,
    )
    for n in scale.ns:
        yield replace(base, claim="showing-many", goal_options=(("n", n),), method="mla-lp")
    for ablation in ABLATIONS:
        yield replace(base, variant=ablation)


def ranks(scale: Scale, seed: int) -> Iterator[Cell]:
    """The goals of Song et al. 2018 with their attacks."""
    for goal in SONG_GOALS:
        base = Cell("ranks", "double", seed, goal, "ml-cw", images=scale.images, steps=scale.steps)
        yield from _balls(base, scale.levels, ONE_STEP)
        for variant in ("fixed", "released"):
            for method in ("ml-cw", "rank-1", "rank-2"):
                yield replace(base, method=method, variant=variant, options=_penalty(scale))
            yield replace(base, method="ml-dp", variant=variant)


def top_k(scale: Scale, seed: int) -> Iterator[Cell]:
    """TkMIA and its competitors: as released, and put right with scope Y and with scope S."""
    steps = ("iterations", scale.descent_steps)
    for name in scale.settings:
        canvas, options = TOP_K[name]
        base = Cell(
            "top-k",
            canvas,
            seed,
            "specified-labels",
            "tkmia",
            goal_options=options,
            options=(steps,),
            images=scale.images,
            steps=scale.steps,
        )
        yield base
        # At the published rates, 1e-3 and less, not all attacks reach their goal here within the steps.
        yield replace(base, variant="released", options=(steps, ("rate", RELEASED_RATE)))
        for method in COMPETITORS:
            # kFool takes ten gradients a step, and what it does not reach soon it does not reach.
            ours = (("iterations", min(KFOOL_STEPS, scale.descent_steps)),) if method == "kfool" else (steps,)
            for scope in ("S", "Y"):
                yield replace(base, method=method, options=(*ours, ("scope", scope)))
            # The harness of the TkMIA code ran its competitors with its own optimiser.
            own = () if method == "kfool" else (("rate", RELEASED_RATE), ("momentum", 0.9), ("penalty", 1e-4))
            yield replace(base, method=method, variant="released", options=(*ours, *own, ("scope", "Y")))


def universal(scale: Scale, seed: int) -> Iterator[Cell]:
    """One perturbation for all images, judged on others."""
    for radius in scale.radii:
        base = Cell(
            "universal",
            "double",
            seed,
            "top-k-untargeted",
            "tkml-ap-uv",
            goal_options=(("k", 2),),
            norm="l2",
            eps=radius,
            images=scale.universal_images,
            steps=scale.steps,
        )
        for method in ("tkml-ap-uv", "kuap"):
            for variant in ("fixed", "released"):
                inner = (("passes", scale.passes), ("inner", 30))
                yield replace(base, method=method, variant=variant, options=inner)


def through_jpeg(scale: Scale, seed: int) -> Iterator[Cell]:
    """Attacks whose images are coded afterwards, and the same attacks against the network that codes its images."""
    for through in (None, *scale.qualities):
        base = Cell(
            "jpeg", "double", seed, "hiding-single", "ml-cw", through=through, images=scale.images, steps=scale.steps
        )
        yield replace(base, options=_penalty(scale))
        yield from _balls(base, (0.25,), ("pgd", "mi-fgsm"))
        if through is None:
            yield replace(base, method="ml-dp")
            yield replace(base, method="mla-lp", images=scale.programme_images)


_FAMILIES = (showing_many, ranks, universal, through_jpeg, top_k, programmes)
