"""The attacks of the literature, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from attacks.methods import gradient
from attacks.methods.method import Method, Variant

METHODS: Mapping[str, Method] = MappingProxyType({each.name: each for each in gradient.METHODS})

__all__ = ["METHODS", "Method", "Variant"]
