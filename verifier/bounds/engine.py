"""One interface over bound engines, so that callers can choose one and compare two."""

from typing import Protocol, runtime_checkable

from verifier.bounds.crown import analyse_region
from verifier.bounds.options import BoundOptions
from verifier.bounds.results import PropertyBound, RegionBounds
from verifier.bounds.topk import bound_property
from verifier.canonical import CanonicalNetwork
from verifier.deadline import Deadline
from verifier.property import Property
from verifier.region import Box


@runtime_checkable
class BoundEngine(Protocol):
    """Bounds regions, then properties over them. Soundness: what `bound` calls robust is, up to the claims it names as trusted."""

    @property
    def name(self) -> str:
        """The engine and method, for reports."""

    def analyse(self, canonical: CanonicalNetwork, box: Box, deadline: Deadline) -> RegionBounds:
        """Bounds of every value that matters, shared by all properties over the box."""

    def bound(self, region: RegionBounds, property: Property, deadline: Deadline) -> PropertyBound:
        """A proved upper bound of the property's margin over the region."""


class OwnEngine:
    """Interval, CROWN or alpha-CROWN on the canonical form, as the options say."""

    def __init__(self, options: BoundOptions | None = None) -> None:
        self._options = options or BoundOptions()

    @property
    def name(self) -> str:
        """The method's name."""
        return self._options.method.value

    def analyse(self, canonical: CanonicalNetwork, box: Box, deadline: Deadline) -> RegionBounds:
        """See `analyse_region`."""
        return analyse_region(canonical, box, options=self._options, deadline=deadline)

    def bound(self, region: RegionBounds, property: Property, deadline: Deadline) -> PropertyBound:
        """See `bound_property`."""
        return bound_property(region, property, options=self._options, deadline=deadline)
