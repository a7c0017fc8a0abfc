"""The attacks of the literature, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from attacks.methods import evolution, gradient, kfool, layered, linearised, penalty, topk, universal
from attacks.methods.method import Method, Variant

_FAMILIES = (gradient, penalty, linearised, topk, kfool, universal, evolution, layered)
METHODS: Mapping[str, Method] = MappingProxyType({each.name: each for family in _FAMILIES for each in family.METHODS})

__all__ = ["METHODS", "Method", "Variant"]
