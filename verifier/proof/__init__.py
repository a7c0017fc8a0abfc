"""Proofs as data: the records that engines fill and the checker judges, and the file format that holds them.

Knows the network's typed graph, regions and properties; no engine, and nothing of the checker.
"""

from verifier.proof.errors import CertificateError
from verifier.proof.records import (
    Counterexample,
    CrownLemma,
    GroupParameters,
    Leaf,
    ParameterSet,
    Refutation,
    RowClaim,
    Split,
    Statement,
    Tree,
    TreeLemma,
    WindowGroup,
)

__all__ = [
    "CertificateError",
    "Counterexample",
    "CrownLemma",
    "GroupParameters",
    "Leaf",
    "ParameterSet",
    "Refutation",
    "RowClaim",
    "Split",
    "Statement",
    "Tree",
    "TreeLemma",
    "WindowGroup",
]
