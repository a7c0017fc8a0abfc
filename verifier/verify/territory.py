"""What all queries on one network and one region share: the bounds of the region and the points tried in it."""

import logging
from collections.abc import Callable

from verifier.bounds import RegionBounds
from verifier.bounds.engine import BoundEngine
from verifier.deadline import Deadline
from verifier.errors import InputError, NetworkTooLargeError
from verifier.lowering import lower
from verifier.network import Network
from verifier.region import Box
from verifier.search import Cover
from verifier.verify.evidence import Evidence

_log = logging.getLogger(__name__)
_TIGHTENING_SECONDS = 10.0
_TIGHTENING_SHARE = 0.2


class Territory:
    """A network over a region, analysed at most once.

    Attributes:
        evidence: The points tried.
        bounds: The bounds of the region, once there are any.
        is_sharpened, is_tightened: Whether `sharpen` and `tighten` have run.
        is_too_large: Whether an analysis was refused because of the network's size.
        cover: Splits that the last search of this region made, or one of another region: where the next one starts.

    Raises:
        InputError: Bounds are handed over that belong to another region or another network.
    """

    def __init__(
        self, network: Network, region: Box, bounds: RegionBounds | None = None, cover: Cover | None = None
    ) -> None:
        if bounds is not None:
            _check_bounds(network, region, bounds)
        self.network, self.region, self.bounds = network, region, bounds
        self.is_sharpened = self.is_tightened = self.is_too_large = False
        self.cover = cover
        self.evidence = Evidence(network, region)

    @property
    def unstable_units(self) -> int | None:
        """ReLUs and window maxima left open; None before the analysis."""
        return None if self.bounds is None else self.bounds.unstable_units

    def analyse(self, engine: BoundEngine, deadline: Deadline) -> RegionBounds | None:
        """The bounds of the region, computed at the first call; None if the network is too large for any."""
        if self.bounds is None and not self.is_too_large:
            try:
                self.bounds = engine.analyse(lower(self.network), self.region, deadline=deadline)
            except NetworkTooLargeError as error:
                _log.warning("%s: %s", self.network.path, error)
                self.is_too_large = True
        return self.bounds

    def sharpen(self, how: Callable[[RegionBounds, Deadline], RegionBounds], deadline: Deadline) -> None:
        """Narrows the region's bounds for ten seconds at most; only the first call does anything."""
        if self.bounds is not None and not self.is_sharpened:
            self.bounds = how(self.bounds, deadline.within(_TIGHTENING_SECONDS))
            self.is_sharpened = True

    def tighten(self, how: Callable[[RegionBounds, Deadline], RegionBounds], deadline: Deadline) -> None:
        """Narrows the region's bounds for a fifth of the time left and ten seconds at most; only the first call does anything."""
        if self.bounds is not None and not self.is_tightened:
            seconds = min(_TIGHTENING_SECONDS, _TIGHTENING_SHARE * deadline.remaining())
            self.bounds = how(self.bounds, deadline.within(seconds))
            self.is_tightened = True


def _check_bounds(network: Network, region: Box, bounds: RegionBounds) -> None:
    is_same_box = (
        bounds.lower.shape == (region.lower.size,)
        and (bounds.lower == region.lower.ravel()).all()
        and (bounds.upper == region.upper.ravel()).all()
    )
    if not is_same_box:
        raise InputError("region_bounds: computed for another region than the query's; analyse the query's own region")
    if bounds.canonical is not lower(network):
        raise InputError("region_bounds: computed for another network than the query's")
