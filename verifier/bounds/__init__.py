"""Sound bounds of a network over a box: interval, CROWN and alpha-CROWN on the canonical form."""

from verifier.bounds.crown import analyse_region, tightened_region
from verifier.bounds.engine import BoundEngine, OwnEngine
from verifier.bounds.gradient import margin_bound_and_gradient
from verifier.bounds.options import SAFETY_SLACK, BoundMethod, BoundOptions, check_size
from verifier.bounds.results import NodeBounds, PropertyBound, RegionBounds
from verifier.bounds.shallow import shallow_values
from verifier.bounds.topk import bound_property

__all__ = [
    "SAFETY_SLACK",
    "BoundEngine",
    "BoundMethod",
    "BoundOptions",
    "NodeBounds",
    "OwnEngine",
    "PropertyBound",
    "RegionBounds",
    "analyse_region",
    "bound_property",
    "check_size",
    "margin_bound_and_gradient",
    "shallow_values",
    "tightened_region",
]
