"""The attacks of the literature, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from attacks.methods import gradient, linearised, penalty, topk
from attacks.methods.method import Method, Variant

METHODS: Mapping[str, Method] = MappingProxyType(
    {each.name: each for family in (gradient, penalty, linearised, topk) for each in family.METHODS}
)

__all__ = ["METHODS", "Method", "Variant"]
