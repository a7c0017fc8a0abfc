"""What bound engines return: bounds of every value that matters, and bounds of a property."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from verifier.bounds.shallow_evidence import ShallowProof
from verifier.canonical import CanonicalNetwork, Vector
from verifier.certificate import TrustedClaim
from verifier.region import frozen


@dataclass(frozen=True, slots=True, eq=False)
class NodeBounds:
    """Bounds lower <= value <= upper over the region.

    Attributes:
        lower, upper: By value index: every value a ReLU or Max reads, and the scores. float64, read-only.
    """

    lower: Mapping[int, Float[np.ndarray, "_"]]
    upper: Mapping[int, Float[np.ndarray, "_"]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", {key: frozen(array) for key, array in self.lower.items()})
        object.__setattr__(self, "upper", {key: frozen(array) for key, array in self.upper.items()})


@dataclass(frozen=True, slots=True, eq=False)
class RegionBounds:
    """A network over a box, with the bounds that all properties of that region share.

    Attributes:
        canonical: The network.
        lower, upper: The box, flat.
        node_bounds: Bounds of the inputs of all ReLU and Max nodes, and of the scores.
        unstable_units: ReLUs whose sign, and windows whose maximum, these bounds leave open.
        shallow: Proofs of bounds one ReLU layer above the input, by the network and the box alone; `node_bounds` may rest on more.
    """

    canonical: CanonicalNetwork
    lower: Vector
    upper: Vector
    node_bounds: NodeBounds
    unstable_units: int
    shallow: tuple[ShallowProof, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PropertyBound:
    """A proved upper bound of a property's margin over a region.

    Soundness: `upper` bounds the margin in exact arithmetic, up to float64 rounding, which `trusted` names.

    Attributes:
        upper: The margin never exceeds it.
        form_uppers: float64 (forms,), an upper bound of every form.
        open_forms: The forms that may reach 0, by index.
        open_subsets: The `count`-subsets of forms that may all reach 0 at one point; says nothing unless `subsets_listed`.
        subsets_listed: Whether `open_subsets` is complete.
        is_robust: Whether the margin is proved < 0: no subset is open.
        minimisers: float64 (n, inputs): points of the box where the last linear bounds are largest, most promising first; places
            to start an attack.
        engine: The engine and method, for reports.
        trusted: What the bound takes on trust.
    """

    upper: float
    form_uppers: Vector
    open_forms: tuple[int, ...]
    open_subsets: tuple[tuple[int, ...], ...]
    subsets_listed: bool
    is_robust: bool
    minimisers: Float[np.ndarray, "points inputs"]
    engine: str
    trusted: tuple[TrustedClaim, ...]
