"""Sound and complete per-label top-k verification of multi-label classifiers.

Names are imported on first use, so that `import aureole` alone loads neither torch nor a solver.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aureole.api import classify_labels, grow, grow_zones, influence_map, load_network, verify
    from aureole.certificate_files import SavedCertificate, save_certificate
    from aureole.heatmap import draw_heatmap, draw_heatmaps
    from aureole.images import read_image
    from aureole.influence_picture import draw_influence
    from synth.cutting import CutRule
    from synth.goals import labels_survive
    from synth.grow import GrowOptions
    from synth.influence import Influence, InfluenceMap
    from synth.result import GrowResult, GrowStep
    from synth.size import Size, SizeKind
    from synth.zones import Sides, Zones
    from verifier.certificate import Certificate, TrustedClaim
    from verifier.check.certificates import CheckReport, check_certificate
    from verifier.errors import AureoleError, ContradictionError, InputError, SolverUnavailableError, UnsupportedOpError
    from verifier.labels import LabelClassification, LabelResult, LabelState
    from verifier.layered import LayeredNeighbourhood
    from verifier.network import Network
    from verifier.property import (
        Property,
        keeps_thresholds,
        keeps_top_k_set,
        stays_in_top_k,
        stays_out_of_top_k,
    )
    from verifier.query import Query
    from verifier.region import Box
    from verifier.verdict import Counterexample, Robust, Unknown, UnknownReason, Verdict, Vulnerable
    from verifier.verify import Outcome, Statistics

__version__ = "0.1.0"

_HOMES = {
    "aureole.api": ("classify_labels", "grow", "grow_zones", "influence_map", "load_network", "verify"),
    "aureole.certificate_files": ("SavedCertificate", "save_certificate"),
    "aureole.heatmap": ("draw_heatmap", "draw_heatmaps"),
    "aureole.images": ("read_image",),
    "aureole.influence_picture": ("draw_influence",),
    "synth.cutting": ("CutRule",),
    "synth.goals": ("labels_survive",),
    "synth.grow": ("GrowOptions",),
    "synth.influence": ("Influence", "InfluenceMap"),
    "synth.result": ("GrowResult", "GrowStep"),
    "synth.size": ("Size", "SizeKind"),
    "synth.zones": ("Sides", "Zones"),
    "verifier.certificate": ("Certificate", "TrustedClaim"),
    "verifier.check.certificates": ("CheckReport", "check_certificate"),
    "verifier.errors": (
        "AureoleError",
        "ContradictionError",
        "InputError",
        "SolverUnavailableError",
        "UnsupportedOpError",
    ),
    "verifier.labels": ("LabelClassification", "LabelResult", "LabelState"),
    "verifier.layered": ("LayeredNeighbourhood",),
    "verifier.network": ("Network",),
    "verifier.property": (
        "Property",
        "keeps_thresholds",
        "keeps_top_k_set",
        "stays_in_top_k",
        "stays_out_of_top_k",
    ),
    "verifier.query": ("Query",),
    "verifier.region": ("Box",),
    "verifier.verdict": ("Counterexample", "Robust", "Unknown", "UnknownReason", "Verdict", "Vulnerable"),
    "verifier.verify": ("Outcome", "Statistics"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AureoleError",
    "Box",
    "Certificate",
    "CheckReport",
    "ContradictionError",
    "Counterexample",
    "CutRule",
    "GrowOptions",
    "GrowResult",
    "GrowStep",
    "Influence",
    "InfluenceMap",
    "InputError",
    "LabelClassification",
    "LabelResult",
    "LabelState",
    "LayeredNeighbourhood",
    "Network",
    "Outcome",
    "Property",
    "Query",
    "Robust",
    "SavedCertificate",
    "Sides",
    "Size",
    "SizeKind",
    "SolverUnavailableError",
    "Statistics",
    "TrustedClaim",
    "Unknown",
    "UnknownReason",
    "UnsupportedOpError",
    "Verdict",
    "Vulnerable",
    "Zones",
    "__version__",
    "check_certificate",
    "classify_labels",
    "draw_heatmap",
    "draw_heatmaps",
    "draw_influence",
    "grow",
    "grow_zones",
    "influence_map",
    "keeps_thresholds",
    "keeps_top_k_set",
    "labels_survive",
    "load_network",
    "read_image",
    "save_certificate",
    "stays_in_top_k",
    "stays_out_of_top_k",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'aureole' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
