"""How far float64 rounding can move scores over a region: engines that round to nearest are believed only beyond that.

Networks can be built so that float64 drops what matters, by adding and subtracting a large number (Zombori et al. 2021; Jia and
Rinard 2021). Engines prove the wrong thing about them, with whatever margin of safety that looks at the scores alone.
"""

import numpy as np
from jaxtyping import Float

from verifier.check.float32 import form_errors
from verifier.check.knowledge import Knowledge
from verifier.check.steps import steps_of, with_forms
from verifier.errors import UnsupportedOpError
from verifier.network import Network
from verifier.proof.errors import CertificateError
from verifier.property import Property
from verifier.region import Box

_SHARE = 2.0**-29
"""Of float32's unit roundoff, float64's. Bounds of float32 errors grow at least in proportion to it."""
_PASSES = 2.0
"""A bound goes through the network backwards, on relaxations whose own parameters were rounded."""


def score_roundings(network: Network, box: Box) -> Float[np.ndarray, " labels"]:
    """By score: twice what float64 rounding can change in any evaluation in the box, in any order; inf where nothing is known.

    An estimate for bounds, whose sums are those of an evaluation with magnitudes in place of values; a proof is the checker's
    business alone.
    """
    every = Property("every score", np.eye(network.labels), np.zeros(network.labels), 1)
    try:
        steps = with_forms(steps_of(network), every)
        knowledge = Knowledge.of(steps, box.lower.ravel(), box.upper.ravel(), {})
        return np.asarray(_PASSES * _SHARE * form_errors(knowledge, every))
    except (CertificateError, UnsupportedOpError):
        return np.full(network.labels, np.inf)
