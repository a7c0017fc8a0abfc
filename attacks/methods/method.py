"""What an attack is: a name, defaults, and a search of a few lines on the engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from attacks.ball import Norm
from attacks.problem import Outcome, Problem
from verifier.errors import InputError

DEFAULT_EPS: Mapping[Norm, float] = {"linf": 0.3, "l2": 1.0, "l1": 10000 / 602112}


class Variant(Enum):
    """As it should be, or as the released code does it."""

    FIXED = "fixed"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Method:
    """An attack by name.

    Attributes:
        name: As on the command line.
        summary: One line for listings.
        paper: Who proposed it.
        options: A frozen dataclass of its options, every one with a default.
        search: Searches; told the options and whether to do as the released code.
        differences: How "released" differs from "fixed"; empty where they do not.
        norm: The ball it uses by default; None for none.
        eps: The ball's default radius; for "l1" per pixel, so that it grows with the image.
        released: Option defaults of the released variant where they differ.
        is_universal: Whether all images get one perturbation; rows then depend on one another.
    """

    name: str
    summary: str
    paper: str
    options: type
    search: Callable[[Problem, Any, Variant], Outcome]
    differences: str = ""
    norm: Norm | None = None
    eps: float | None = None
    released: Mapping[str, object] = field(default_factory=dict)
    is_universal: bool = False

    def defaults(self, variant: Variant = Variant.FIXED) -> dict[str, object]:
        """Every option's default, by name."""
        changed = self.released if variant is Variant.RELEASED else {}
        return {each.name: changed.get(each.name, each.default) for each in fields(self.options)}

    def configure(self, variant: Variant, given: Mapping[str, object] | None = None) -> Any:
        """The options: defaults of the variant, then what is given.

        Raises:
            InputError: An unknown name, or a value of the wrong type or out of range.
        """
        values = self.defaults(variant)
        for name, value in (given or {}).items():
            if name not in values:
                raise InputError(f"{self.name} option {name!r}: unknown; it has {', '.join(values) or 'none'}")
            values[name] = _checked(f"{self.name} option {name}", value, values[name])
        return self.options(**values)

    def ball(self, norm: Norm | None, eps: float | None, pixels: int) -> tuple[Norm | None, float | None]:
        """The norm and radius to use when some are given.

        Raises:
            InputError: A radius without a norm, or a radius out of range.
        """
        if eps is not None and not 0 <= eps < float("inf"):
            raise InputError(f"eps: got {eps}, wanted a finite number >= 0")
        used = norm or self.norm
        if used is None and eps is not None:
            raise InputError(f"{self.name}: uses no ball by default; with eps give a norm, such as norm='linf'")
        if used is None or eps is not None:
            return used, eps
        if self.norm is None:
            return used, None
        own = self.eps if used == self.norm and self.eps is not None else DEFAULT_EPS[used]
        return used, own * pixels if used == "l1" else own


def _checked(what: str, value: object, default: object) -> object:
    """The value, if it is of the default's kind; integers pass as floats."""
    if isinstance(default, bool) or isinstance(value, bool):
        is_right = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        is_right = isinstance(value, int | float) and value == value
    elif default is None:
        is_right = value is None or isinstance(value, int | float)
    else:
        is_right = isinstance(value, type(default))
    if not is_right:
        raise InputError(f"{what}: got {value!r}, wanted a value like {default!r}")
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


def at_least(options: object, **least: float) -> None:
    """Refuses options below a number; None passes.

    Raises:
        InputError: One is below, or not a number.
    """
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and not value >= bound:
            raise InputError(f"option {name}: got {value}, wanted a number >= {bound}")
