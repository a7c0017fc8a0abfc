"""The influence map of an image: how far each object and its surroundings may change before another object's label is lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from synth.result import GrowResult, Vector
from synth.zones import Neighbourhood
from verifier.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """Why one layer or zone cannot grow by a step: a replayed counterexample in the region enlarged there alone.

    Attributes:
        layer: Its number.
        name: Such as "layer 3".
        epsilon: How far it was proved to go.
        step: By how much it was enlarged.
        margin_lower: A rigorous lower bound of the counterexample's margin, above 0.
        runtime_margin: Its margin in ONNX Runtime.
        image: The counterexample, None where only its numbers were kept.
    """

    layer: int
    name: str
    epsilon: float
    step: float
    margin_lower: float
    runtime_margin: float
    image: Float[np.ndarray, "..."] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """The nearest counterexample found outside the neighbourhood, replayed; several layers may have to grow to reach it.

    Attributes:
        exceeded: Names of the layers in which it goes further than the neighbourhood.
        margin_lower: A rigorous lower bound of its margin, above 0.
        runtime_margin: Its margin in ONNX Runtime.
        image: The counterexample, None where only its numbers were kept.
    """

    exceeded: tuple[str, ...]
    margin_lower: float
    runtime_margin: float
    image: Float[np.ndarray, "..."] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """How far one object and its surroundings may change while the label of another survives.

    Attributes:
        perturbed, kept: Numbers of the objects.
        target: The label of `kept`, which survives.
        neighbourhood: What was grown around `perturbed`; all epsilons 0 unless it is proved.
        is_proved: Whether it is proved robust.
        is_maximal: Whether it is proved and every layer below 1 has a counterexample one step further.
        weighted_size: Of the neighbourhood.
        upper_bound: No robust neighbourhood of this form has a larger weighted size.
        limits: One per layer that has such a counterexample, in the layers' order.
        undecided: Names of the layers below 1 that have none.
        unrestricted: Names of the layers with epsilon 1.
        outside: The nearest counterexample found outside, None without one.
    """

    perturbed: int
    kept: int
    target: int
    neighbourhood: Neighbourhood
    is_proved: bool
    is_maximal: bool
    weighted_size: float
    upper_bound: float
    limits: tuple[Limit, ...]
    undecided: tuple[str, ...]
    unrestricted: tuple[str, ...]
    outside: Outside | None

    @property
    def mean_epsilon(self) -> float:
        """The mean over all entries of the image of how far each may change; layers of one pixel count little here."""
        return float(self.neighbourhood.widths.mean())

    @property
    def area_above_zero(self) -> float:
        """The share of the image's pixels that may change at all."""
        return float((self.neighbourhood.widths > 0.0).any(axis=0).mean())

    @property
    def tightest(self) -> Limit | None:
        """The limit of the smallest epsilon, the first of several; None without any."""
        return min(self.limits, key=lambda limit: limit.epsilon, default=None)


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair without an answer, such as a target that the image itself does not show."""

    perturbed: int
    kept: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class InfluenceMap:
    """The influences between all objects of one image.

    Attributes:
        image: (channels, height, width).
        objects: Their masks, (height, width).
        labels: The label of each.
        pairs: One per ordered pair that has an answer.
        failures: The others.

    Raises:
        InputError: Not one label per object, or an ordered pair is missing, twice there, or of one object.
    """

    image: Float[np.ndarray, "..."]
    objects: tuple[Bool[np.ndarray, "..."], ...]
    labels: tuple[int, ...]
    pairs: tuple[Influence, ...]
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.objects)
        if len(self.labels) != count:
            raise InputError(f"influence map: got {len(self.labels)} labels for {count} objects, wanted one each")
        wanted = [(perturbed, kept) for perturbed in range(count) for kept in range(count) if perturbed != kept]
        answered = [(pair.perturbed, pair.kept) for pair in self.pairs]
        found = sorted(answered + [(failure.perturbed, failure.kept) for failure in self.failures])
        if found != wanted:
            raise InputError(f"influence map: got the pairs {found}, wanted each of {wanted} once")

    def matrix(self, measure: Callable[[Influence], float]) -> Float[np.ndarray, "objects objects"]:
        """A number per ordered pair: row by perturbed object, column by the one whose label survives; NaN without an answer."""
        table = np.full((len(self.objects), len(self.objects)), np.nan)
        for pair in self.pairs:
            table[pair.perturbed, pair.kept] = measure(pair)
        return table


def influence_of(perturbed: int, kept: int, target: int, result: GrowResult) -> Influence:
    """What a grown neighbourhood around object `perturbed` says about the label of object `kept`."""
    return Influence(
        perturbed,
        kept,
        target,
        result.neighbourhood,
        result.is_proved,
        result.is_maximal,
        result.weighted_size,
        result.upper_bound,
        limits_of(result),
        tuple(result.names[layer] for layer in result.undecided_layers),
        tuple(result.names[layer] for layer in result.saturated_layers),
        _outside_of(result),
    )


def exceeded_layers(names: Sequence[str], epsilons: Vector, radii: Vector) -> tuple[str, ...]:
    """The names of the layers in which a counterexample of these radii goes further than the epsilons."""
    return tuple(name for name, epsilon, radius in zip(names, epsilons, radii, strict=True) if radius > epsilon)


def _outside_of(result: GrowResult) -> Outside | None:
    found, radii = result.counterexample, result.counterexample_radii
    if found is None or radii is None:
        return None
    exceeded = exceeded_layers(result.names, result.neighbourhood.epsilons, radii)
    return Outside(exceeded, float(found.margin_lower), float(found.runtime_margin), found.image)


def limits_of(result: GrowResult) -> tuple[Limit, ...]:
    """The limits of a grown neighbourhood, in the layers' order."""
    epsilons = result.neighbourhood.epsilons
    return tuple(
        Limit(
            layer,
            result.names[layer],
            float(epsilons[layer]),
            result.step,
            float(found.margin_lower),
            float(found.runtime_margin),
            found.image,
        )
        for layer, found in enumerate(result.evidence)
        if found is not None
    )
