"""Turns what engines found into proofs that the checker accepts.

- `certify`: the entry point. `lemmas`: bounds inside the network. `refute`: split trees.
- `vocabulary`: the search's terms in those of certificates.
"""

from verifier.certify.certify import Certification, Proof, certify
from verifier.certify.lemmas import lemmas

__all__ = ["Certification", "Proof", "certify", "lemmas"]
