"""Turns what engines found into proofs that the checker accepts."""

from verifier.certify.lemmas import lemmas

__all__ = ["lemmas"]
