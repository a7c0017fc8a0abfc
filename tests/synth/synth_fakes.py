"""Oracles with known answers. Images are strips: pixel d is layer d, all 0, so that a point's radii are its values."""

from dataclasses import dataclass, field

import numpy as np

from synth.oracle import Effort
from synth.proposal import Slope
from synth.zones import Zones
from verifier.certificate import Certificate
from verifier.verdict import Counterexample, Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import Outcome, Statistics

STATISTICS = Statistics((), None, None, None, None, 0.0)
ROBUST = Outcome(Robust(Certificate("fake", -0.1, ())), STATISTICS)
UNKNOWN = Outcome(Unknown(UnknownReason.INCOMPLETE, 0.5), STATISTICS)


def strip(layers):
    """The zones of an image of 0 whose layer d is pixel d."""
    pixels = np.zeros((1, layers), dtype=np.bool_)
    pixels[0, 0] = True
    return Zones.of_layers(np.zeros((1, 1, layers)), pixels)


def violation(values):
    """A counterexample whose radii are these values."""
    image = np.array(values)[None, None]
    return Counterexample(image, np.zeros(2), 0.1, np.zeros(2, dtype=np.float32), 0.1, "fake")


@dataclass
class StripOracle:
    """What all fakes share; records every question."""

    layers: int
    asked: list = field(default_factory=list)

    @property
    def sizes(self):
        return np.ones(self.layers)

    @property
    def reach(self):
        return np.ones(self.layers)

    @property
    def free_layers(self):
        return np.zeros(self.layers, dtype=np.bool_)

    def radii(self, image):
        return np.asarray(image, dtype=np.float64)[0, 0]

    def violates(self, epsilons):
        """Whether the image with these values violates."""
        return False

    def falsify(self, epsilons, deadline, starts=(), *, is_quick=False):
        return None

    def replay(self, image, epsilons, found_by):
        values = self.radii(image)
        return violation(values) if (values <= epsilons).all() and self.violates(values) else None

    def projected(self, image, epsilons):
        return np.minimum(image, epsilons[None, None])

    def margins(self, images):
        return np.array([1.0 if self.violates(self.radii(image)) else -1.0 for image in images])

    def slope(self, epsilons, effort, deadline):
        return Slope(-1.0, np.ones(self.layers))

    def decide(self, epsilons, effort, deadline):
        self.asked.append((np.array(epsilons), effort))
        return self.answer(np.asarray(epsilons), effort)


@dataclass
class LinearOracle(StripOracle):
    """The margin is costs @ eps - room: robust iff that is < 0. Bounds prove it up to a factor on the room."""

    costs: np.ndarray = None
    room: float = 1.0
    bounds_share: float = 0.5
    says_unknown: bool = False

    def margin(self, epsilons):
        return float(self.costs @ epsilons) - self.room

    def answer(self, epsilons, effort):
        share = self.bounds_share if effort is Effort.BOUNDS else 1.0
        if self.costs @ epsilons < share * self.room:
            return ROBUST
        if effort is Effort.BOUNDS or self.says_unknown:
            return UNKNOWN
        found = self.falsify(epsilons, None)
        return UNKNOWN if found is None else Outcome(Vulnerable(found), STATISTICS)

    def slope(self, epsilons, effort, deadline):
        share = self.bounds_share if effort is Effort.BOUNDS else 1.0
        return Slope(float(self.costs @ epsilons) - share * self.room, self.costs)

    def violates(self, epsilons):
        return self.costs @ epsilons >= self.room

    def falsify(self, epsilons, deadline, starts=(), *, is_quick=False):
        return violation(epsilons) if self.violates(epsilons) and not self.says_unknown else None


@dataclass
class StaircaseOracle(StripOracle):
    """Robust iff no forbidden corner lies below eps: an arbitrary downward closed set with known counterexamples."""

    corners: np.ndarray = None
    gradient: np.ndarray = None
    silent: tuple = ()

    def hit(self, epsilons):
        return [i for i, corner in enumerate(self.corners) if (epsilons >= corner).all()]

    def violates(self, epsilons):
        return bool(self.hit(epsilons))

    def answer(self, epsilons, effort):
        hit = self.hit(epsilons)
        if not hit:
            return ROBUST
        if effort is Effort.BOUNDS or hit[0] in self.silent:
            return UNKNOWN
        return Outcome(Vulnerable(violation(self.corners[hit[0]])), STATISTICS)

    def slope(self, epsilons, effort, deadline):
        return Slope(-0.1, self.gradient)


@dataclass
class SilentOracle(StripOracle):
    """Never proves anything."""

    def answer(self, epsilons, effort):
        return UNKNOWN
