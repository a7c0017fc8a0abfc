"""Points of the box with their true forms: what every claim of a solver is held against."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from verifier.bounds.results import RegionBounds
from verifier.errors import ContradictionError
from verifier.property import Property

Point = Float[np.ndarray, " inputs"]
_KEPT = 64


class Evidence:
    """Evaluates points, hands possible violations to the replay, and catches bounds that a known point exceeds.

    Args:
        region: The network and box.
        prop: The property.
        on_witness: The replay: True iff it accepts the point.
        tolerance: By how much a point may exceed a bound before they contradict each other.
    """

    def __init__(
        self, region: RegionBounds, prop: Property, on_witness: Callable[[Point], bool], tolerance: float
    ) -> None:
        self._region = region
        self._property = prop
        self._on_witness = on_witness
        self._tolerance = tolerance
        self._points: list[np.ndarray] = []
        self._forms: list[np.ndarray] = []
        self.witness: Point | None = None
        self.add(np.clip(0.5 * (region.lower + region.upper), region.lower, region.upper))

    def add(self, point: Point) -> bool:
        """Records a point of the box; True iff it violates the property and the replay accepted it."""
        scores = self._region.canonical.evaluate(point[None])[-1]
        self._points.append(point)
        self._forms.append(self._property.forms(scores)[0])
        if float(self._property.margin(scores)[0]) > 0 and self._on_witness(point):
            self.witness = point
            return True
        return False

    def check(self, subset: Sequence[int] | None, bound: float, who: str) -> None:
        """Holds a bound of the least form in a subset (None: of the margin) against every point.

        Raises:
            ContradictionError: A point exceeds the bound by more than the tolerance.
        """
        forms = np.array(self._forms)
        count = self._property.count
        reached = np.sort(forms, axis=1)[:, -count] if subset is None else forms[:, list(subset)].min(axis=1)
        if float(reached.max()) > bound + self._tolerance:
            what = "the margin" if subset is None else f"the least of forms {tuple(subset)}"
            raise ContradictionError(
                f"{who}: claims that {what} of {self._property.name!r} stays below {bound:g}, but it is "
                f"{reached.max():g} at a point of the box; try another solver and report this query"
            )

    def seeds(self) -> Float[np.ndarray, "n inputs"]:
        """The recorded points, largest margin first, the first (the middle of the box) left out."""
        points, forms = self._points[1:], self._forms[1:]
        if not points:
            return np.zeros((0, len(self._region.lower)))
        margins = np.sort(np.array(forms), axis=1)[:, -self._property.count]
        return np.array(points)[np.argsort(-margins, kind="stable")[:_KEPT]]
