"""The words of `aureole attack`, as given."""

from dataclasses import dataclass, field
from pathlib import Path

from aureole.exits import UsageError
from aureole.options import check_folder

DEFAULT_METHOD = "pgd"
DEFAULT_GOAL = "top-k-untargeted"


@dataclass(frozen=True, slots=True)
class GoalWords:
    """What the attack is to reach; what is not given is None, and the goal's own default holds.

    Attributes:
        name: The goal.
        k: Of the top k.
        options: The goal's other options by name, as words.
    """

    name: str = DEFAULT_GOAL
    k: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodWords:
    """How to attack.

    Attributes:
        name, variant: The attack.
        norm, epsilon: The ball, or None for the attack's own.
        options: The attack's own options as NAME=VALUE.
        jpeg: The quality of a JPEG defence to measure, or None.
        is_adaptive: Whether the attack goes through that defence.

    Raises:
        UsageError: Adaptive to no defence.
    """

    name: str = DEFAULT_METHOD
    variant: str = "fixed"
    norm: str | None = None
    epsilon: float | None = None
    options: tuple[str, ...] = ()
    jpeg: int | None = None
    is_adaptive: bool = False

    def __post_init__(self) -> None:
        if self.is_adaptive and self.jpeg is None:
            raise UsageError("--adaptive: an attack adapts to a defence; add --jpeg QUALITY")


@dataclass(frozen=True, slots=True)
class AttackRun:
    """How to run and where results go.

    Attributes:
        labels: The file of true labels, or None.
        batch: Images attacked together; they are saved together.
        seed, device, as_json, out: As for every command.

    Raises:
        UsageError: `out` cannot be a folder.
    """

    labels: Path | None = None
    batch: int = 16
    seed: int = 0
    device: str = "cpu"
    as_json: bool = False
    out: Path = field(default_factory=lambda: Path("out/attack"))

    def __post_init__(self) -> None:
        check_folder(self.out)


def named_values(words: tuple[str, ...], option: str) -> dict[str, object]:
    """NAME=VALUE words as a mapping; values are read as true, false, none, whole numbers, numbers, lists 3,7 or text.

    Raises:
        UsageError: A word without "=", or a name given twice.
    """
    values: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        key = name.strip().replace("-", "_")
        if not equals or not key:
            raise UsageError(f"{option} {word!r}: wanted NAME=VALUE")
        if key in values:
            raise UsageError(f"{option} {name}: given twice")
        values[key] = _value(text.strip())
    return values


def _value(text: str) -> object:
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if "," in text and all(part.lstrip("-").isdecimal() for part in parts):
        return tuple(int(part) for part in parts)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
