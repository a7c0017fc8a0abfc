"""Sound bounds of a network over a box: interval, CROWN and alpha-CROWN on the canonical form."""

from verifier.bounds.crown import analyse_region
from verifier.bounds.options import SAFETY_SLACK, BoundMethod, BoundOptions
from verifier.bounds.results import NodeBounds, PropertyBound, RegionBounds
from verifier.bounds.topk import bound_property

__all__ = [
    "SAFETY_SLACK",
    "BoundMethod",
    "BoundOptions",
    "NodeBounds",
    "PropertyBound",
    "RegionBounds",
    "analyse_region",
    "bound_property",
]
