"""Zones: which entries of an image share an epsilon. Layers are the plain case; bands, several objects and sides are others."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from synth.bands import OPEN, band_of
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood, layer_distances
from verifier.region import VALID_LOWER, VALID_UPPER, Box, check_image, frozen

Vector = Float[np.ndarray, " zones"]
Entries = Float[np.ndarray, "channels height width"]
FIXED = -1
"""The zone of entries that may not move."""


@runtime_checkable
class Neighbourhood(Protocol):
    """The images around one image in which each zone of entries changes by at most its epsilon."""

    @property
    def image(self) -> Float[np.ndarray, "..."]:
        """The unperturbed image, float64 (channels, height, width)."""
        ...

    @property
    def pixels(self) -> Bool[np.ndarray, "..."]:
        """The perturbed objects' pixels, (height, width)."""
        ...

    @property
    def epsilons(self) -> Float[np.ndarray, "..."]:
        """One per zone, each in [0, 1]."""
        ...

    @property
    def widths(self) -> Float[np.ndarray, "..."]:
        """The most that each entry may change."""
        ...

    def box(self) -> Box:
        """The neighbourhood as a box, intersected with [0, 1]."""
        ...

    def radii(self, image: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The largest change of another image in each zone; inf everywhere if it changes what may not change."""
        ...


class Sides(Enum):
    """Which way pixels may change."""

    BOTH = "both"
    BRIGHTER = "brighter"
    DARKER = "darker"
    APART = "apart"
    """Both, with an epsilon for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Zones:
    """A partition of "this entry grows" and "this entry falls" into zones, each with one epsilon.

    Attributes:
        image: float64 (channels, height, width) in [0, 1].
        pixels: bool (height, width), the perturbed objects.
        rising: int (channels, height, width): the zone that says how far each entry may grow; -1 if not at all.
        falling: The same for how far it may fall.
        names: One per zone, such as "layers 2-4".
        worth: What an epsilon of each zone counts by default: 1 / (1 + d) for every layer d in it; half of that each where growing
            and falling have their own.

    Raises:
        InputError: Shapes differ, a zone has no name or a name no entry.
    """

    image: Float[np.ndarray, "..."]
    pixels: Bool[np.ndarray, "..."]
    rising: Int[np.ndarray, "..."]
    falling: Int[np.ndarray, "..."]
    names: tuple[str, ...]
    worth: Float[np.ndarray, "..."]

    def __post_init__(self) -> None:
        image = check_image(self.image)
        if image.shape != self.rising.shape or image.shape != self.falling.shape or image.ndim != 3:
            raise InputError(f"zones: got shape {self.rising.shape}, wanted the image's {image.shape}")
        if self.pixels.shape != image.shape[1:]:
            raise InputError(
                f"mask: got shape {self.pixels.shape}, wanted the image's height and width {image.shape[1:]}"
            )
        used = np.union1d(self.rising, self.falling)
        if not np.array_equal(used[used != FIXED], np.arange(len(self.names))) or not self.names:
            raise InputError(
                f"zones: got numbers {used.tolist()} for {len(self.names)} names, wanted each used, from 0 on"
            )
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "pixels", frozen(self.pixels, np.bool_))
        object.__setattr__(self, "rising", frozen(self.rising, np.int64))
        object.__setattr__(self, "falling", frozen(self.falling, np.int64))
        object.__setattr__(self, "worth", frozen(self.worth))

    @classmethod
    def of_layers(cls, image: Float[np.ndarray, "..."], pixels: Bool[np.ndarray, "..."]) -> "Zones":
        """One zone per layer of one object (Mour 2023): zone d is layer d."""
        return cls.of_objects(image, [pixels])

    @classmethod
    def of_objects(
        cls,
        image: Float[np.ndarray, "..."],
        objects: Sequence[Bool[np.ndarray, "..."]],
        *,
        keep: Bool[np.ndarray, "..."] | None = None,
        bands: Sequence[tuple[int, int]] | None = None,
        sides: Sides = Sides.BOTH,
    ) -> "Zones":
        """Layers, or bands of them, around one or several objects, each object with its own.

        A pixel belongs to the nearest object, to the first of several equally near.

        Args:
            image: (channels, height, width) in [0, 1].
            objects: One mask (height, width) each, True inside.
            keep: Pixels that may not change, such as the target's own; None for none.
            bands: First and last layer of each band, from (0, ...) on without gaps; the last one may go past the farthest
                layer. None for one band a layer.
            sides: Which way pixels may change.

        Raises:
            InputError: A mask does not fit or is empty, or bands have gaps.
        """
        centre = check_image(image)
        if not objects:
            raise InputError("objects: got none, wanted the mask of at least one")
        distances = np.stack([layer_distances(mask) for mask in objects])
        if centre.ndim != 3 or distances.shape[1:] != centre.shape[1:]:
            raise InputError(
                f"mask: got shape {distances.shape[1:]}, wanted the image's height and width {centre.shape[1:]}"
            )
        owner, distance = distances.argmin(axis=0), distances.min(axis=0)
        group = distance if bands is None else band_of(distance, bands)
        groups = int(group.max()) + 1
        label = owner * groups + group
        if keep is not None:
            label = np.where(keep, FIXED, label)
        numbers, inverse = np.unique(label, return_inverse=True)
        has_fixed = int(numbers[0] == FIXED)
        zone = np.broadcast_to(inverse.reshape(label.shape) - has_fixed, centre.shape)
        numbers = numbers[has_fixed:]
        names = [_name(int(number) % groups, bands, int(number) // groups, len(objects)) for number in numbers]
        worth = [float(sum(1.0 / (1.0 + d) for d in np.unique(distance[label == number]))) for number in numbers]
        rising, falling, names, worth = _with_sides(zone, names, worth, sides)
        return cls(centre, np.any(np.stack(objects), axis=0), rising, falling, tuple(names), np.array(worth))

    @property
    def count(self) -> int:
        """How many zones there are."""
        return len(self.names)

    @property
    def sizes(self) -> Vector:
        """The number of entries of each zone."""
        also_falling = self.falling[self.falling != self.rising]
        return (self._count(self.rising) + self._count(also_falling)).astype(np.float64)

    @property
    def shares(self) -> Vector:
        """The share of the image's entries in each zone; an entry in two, for growing and for falling, counts half in each."""
        rising, falling = (np.where(other == FIXED, 1.0, 0.5) for other in (self.falling, self.rising))
        return self.total(rising, falling) / self.image.size

    @property
    def reach(self) -> Vector:
        """Per zone, the epsilon from which on its entries are unrestricted."""
        return self.largest(VALID_UPPER - self.image, self.image - VALID_LOWER)

    def box(self, epsilons: Vector) -> Box:
        """The images within these epsilons, intersected with [0, 1]; sums are rounded to nearest."""
        upper = np.clip(self.image + self.spread(epsilons, self.rising), self.image, VALID_UPPER)
        lower = np.clip(self.image - self.spread(epsilons, self.falling), VALID_LOWER, self.image)
        return Box(lower, upper)

    def spread(self, values: Vector, zones: Int[np.ndarray, "..."]) -> Entries:
        """Each entry's zone's value; 0 for entries without a zone."""
        return np.append(values, 0.0)[zones]

    def largest(self, rise: Entries, fall: Entries) -> Vector:
        """The largest of both over each zone, at least 0."""
        result = np.zeros(self.count + 1)
        np.maximum.at(result, self.rising.ravel(), rise.ravel())
        np.maximum.at(result, self.falling.ravel(), fall.ravel())
        return result[:-1]

    def total(self, by_rise: Entries, by_fall: Entries) -> Vector:
        """The sum over each zone of what its entries' growth and fall contribute."""
        result = np.zeros(self.count + 1)
        np.add.at(result, self.rising.ravel(), by_rise.ravel())
        np.add.at(result, self.falling.ravel(), by_fall.ravel())
        return result[:-1]

    def mean(self, values: Entries) -> Vector:
        """The mean over each zone's entries."""
        both = np.where(self.falling == self.rising, 0.0, values)
        return self.total(values, both) / self.sizes

    def radii(self, image: Float[np.ndarray, "..."]) -> Vector:
        """The largest change of another image in each zone; inf everywhere if it changes what may not change."""
        change = np.asarray(image, dtype=np.float64) - self.image
        if (change[self.rising == FIXED] > 0.0).any() or (change[self.falling == FIXED] < 0.0).any():
            return np.full(self.count, np.inf)
        return self.largest(change, -change)

    def neighbourhood(self, epsilons: Vector) -> Neighbourhood:
        """The neighbourhood of these epsilons: a layered one where each zone is one object's layer."""
        layers = layer_distances(self.pixels) if self.pixels.any() else None
        is_layered = layers is not None and all(
            np.array_equal(side, np.broadcast_to(layers, self.image.shape)) for side in (self.rising, self.falling)
        )
        if is_layered:
            return LayeredNeighbourhood(self.image, self.pixels, epsilons)
        return ZonedNeighbourhood(self, epsilons)

    def _count(self, zones: Int[np.ndarray, "..."]) -> Int[np.ndarray, " zones"]:
        return np.bincount(zones[zones != FIXED].ravel(), minlength=self.count)


@dataclass(frozen=True, slots=True, eq=False)
class ZonedNeighbourhood:
    """The images in which each zone changes by at most its epsilon.

    Raises:
        InputError: Not one epsilon in [0, 1] per zone.
    """

    zones: Zones
    epsilons: Float[np.ndarray, "..."]

    def __post_init__(self) -> None:
        epsilons = frozen(self.epsilons)
        if epsilons.shape != (self.zones.count,) or not ((epsilons >= 0) & (epsilons <= 1)).all():
            raise InputError(f"epsilons: wanted {self.zones.count} numbers in [0, 1], one per zone")
        object.__setattr__(self, "epsilons", epsilons)

    @property
    def image(self) -> Float[np.ndarray, "..."]:
        """The unperturbed image."""
        return self.zones.image

    @property
    def pixels(self) -> Bool[np.ndarray, "..."]:
        """The perturbed objects' pixels."""
        return self.zones.pixels

    @property
    def widths(self) -> Float[np.ndarray, "..."]:
        """The most that each entry may change, either way."""
        zones = self.zones
        return np.maximum(zones.spread(self.epsilons, zones.rising), zones.spread(self.epsilons, zones.falling))

    def box(self) -> Box:
        """The neighbourhood as a box, intersected with [0, 1]."""
        return self.zones.box(self.epsilons)

    def radii(self, image: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """See `Zones.radii`."""
        return self.zones.radii(image)


def _name(band: int, bands: Sequence[tuple[int, int]] | None, owner: int, objects: int) -> str:
    first, last = (band, band) if bands is None else bands[band]
    layers = f"layer {first}" if first == last else f"layers {first}-" + ("" if last >= OPEN else str(last))
    return layers if objects == 1 else f"object {owner + 1} {layers}"


def _with_sides(
    zone: Int[np.ndarray, "..."], names: list[str], worth: list[float], sides: Sides
) -> tuple[Int[np.ndarray, "..."], Int[np.ndarray, "..."], list[str], list[float]]:
    """The zones of growing and of falling, their names and what they count."""
    fixed = np.full(zone.shape, FIXED)
    match sides:
        case Sides.BOTH:
            return zone, zone, names, worth
        case Sides.BRIGHTER:
            return zone, fixed, [f"{name} brighter" for name in names], worth
        case Sides.DARKER:
            return fixed, zone, [f"{name} darker" for name in names], worth
        case Sides.APART:
            apart = [f"{name} {side}" for name in names for side in ("brighter", "darker")]
            halves = [0.5 * value for value in worth for _ in range(2)]
            return np.where(zone == FIXED, FIXED, 2 * zone), np.where(zone == FIXED, FIXED, 2 * zone + 1), apart, halves
