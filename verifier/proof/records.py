"""What a proof consists of, as plain data. docs/certificate-format.md says what each part proves and why.

Windows are named by operation, position and alternative:

- Operations are the network's ReLUs, LeakyReLUs and max-pools, numbered from 0 in the file's order (`operation_numbers`). A ReLU
  and a max-pool of which one alone reads the other are one operation, with the number of the later one.
- A window is an entry of the operation's output, flat in C order.
- Its alternatives are numbered: the entries of the kernel row by row, padding counted, then the floor 0 where there is one (a ReLU
  has it, a pool merged with a ReLU too). A ReLU has its input, alternative 0, and the floor, 1. This is how rows of a canonical
  `Max` are laid out, too.

Weights and fractions are integers in units of 1 / UNIT, so that "sums to 1" is exact.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt32

from verifier.network import LeakyRelu, MaxPool, Network, Relu
from verifier.property import Property
from verifier.region import Box

UNIT = 1 << 31
"""The integer that stands for 1."""


def operation_numbers(network: Network) -> dict[int, int]:
    """The operation number of every ReLU, LeakyReLU and max-pool, by its position in the typed network."""
    places = [place for place, node in enumerate(network.nodes) if isinstance(node.op, Relu | LeakyRelu | MaxPool)]
    return {place: number for number, place in enumerate(places)}


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """What is claimed: the property holds everywhere in the box, or, for a counterexample, fails at an image of it.

    Attributes:
        network_sha256: Of the ONNX file, 64 hexadecimal digits.
        box: The region, in the network's input shape.
        property: The forms and their count; its name binds nobody.
        tool: Who wrote it, such as "aureole 0.1.0"; binds nobody.
    """

    network_sha256: str
    box: Box
    property: Property
    tool: str


@dataclass(frozen=True, slots=True)
class Split:
    """An inner node of a tree: in its first child the largest alternative of a window lies in a set, in the second outside.

    Attributes:
        operation, window: Name the window.
        alternatives: The set: bit i is alternative i.
    """

    operation: int
    window: int
    alternatives: int


@dataclass(frozen=True, slots=True, eq=False)
class WindowGroup:
    """Windows of one operation that leaves carry parameters for.

    Attributes:
        operation: Its number.
        windows: int64 (windows,), without repetition.
        alternatives: int64 (windows, slots), those that may have a weight, without repetition in a row; -1 fills, never in slot 0.
        has_fractions: Whether leaves choose the planes above; otherwise they take the default.
    """

    operation: int
    windows: Int[np.ndarray, " windows"]
    alternatives: Int[np.ndarray, "windows slots"]
    has_fractions: bool


@dataclass(frozen=True, slots=True, eq=False)
class GroupParameters:
    """One leaf's parameters for a group of windows.

    Attributes:
        weights: (windows, slots), of the plane below; they sum to UNIT in every row, 0 at filled slots.
        fractions: (windows,), at most UNIT: where the threshold of the plane above lies between the largest lower and the largest
            upper bound; (0,) if the group has none.
        places: int64 (n,), window * slots + slot, without repetition: the alternatives that have a multiplier.
        multipliers: (n,), >= 0.
    """

    weights: UInt32[np.ndarray, "windows slots"]
    fractions: UInt32[np.ndarray, " fractions"]
    places: Int[np.ndarray, " n"]
    multipliers: Float32[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class ParameterSet:
    """One linear bound.

    Attributes:
        combination: (members,), the members' weights; they sum to UNIT.
        groups: As the tree's layout.
    """

    combination: UInt32[np.ndarray, " members"]
    groups: tuple[GroupParameters, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A leaf of a tree.

    Attributes:
        sets: Each but the last clips the box for those after it; none for a leaf that its splits show to be empty.
    """

    sets: tuple[ParameterSet, ...]


Node = Split | Leaf


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A proof that the least of some forms (the members) is < 0 over the region, part by part.

    Attributes:
        layout: Which windows the leaves carry parameters for, each in one group.
        nodes: Depth first: a split, everything below its first child, everything below its second. Read once.
        clips: Whether splits of values that are affine in the input clip a leaf's box before its first parameter set is used.
    """

    layout: tuple[WindowGroup, ...]
    nodes: Iterable[Node]
    clips: bool = True


@dataclass(frozen=True, slots=True)
class CrownLemma:
    """Bounds of what an operation reads, which the checker computes itself by the default rule."""

    operation: int


@dataclass(frozen=True, slots=True, eq=False)
class RowClaim:
    """sign * z <= bound for some entries z of what an operation reads that are one function of the image, shifted.

    Attributes:
        entries: int64 (n,), n >= 1, flat in C order.
        sign: 1 or -1.
        bound: Any double.
        tree: Proves it for the first entry; its one member is sign * z - bound, for which <= 0 suffices.
    """

    entries: Int[np.ndarray, " n"]
    sign: int
    bound: float
    tree: Tree


@dataclass(frozen=True, slots=True, eq=False)
class TreeLemma:
    """Claims about what an operation reads, proved side by side: none uses another one.

    Attributes:
        operation: Its number.
        claims: Read once.
    """

    operation: int
    claims: Iterable[RowClaim]


@dataclass(frozen=True, slots=True, eq=False)
class Refutation:
    """A proof that some forms of the property are never all >= 0 at one point of the region.

    Attributes:
        members: The forms, by index.
        tree: The proof.
    """

    members: tuple[int, ...]
    tree: Tree


Item = CrownLemma | TreeLemma | Refutation


@dataclass(frozen=True, slots=True, eq=False)
class Counterexample:
    """An image of the box at which the property fails.

    Attributes:
        statement: What fails.
        image: float32, the network's input shape.
    """

    statement: Statement
    image: Float[np.ndarray, "..."]
