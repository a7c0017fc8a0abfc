"""CROWN bounds of every value that a ReLU or Max reads: interval bounds, then the backward walk where they decide too little."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from verifier.bounds.backward import relaxations
from verifier.bounds.graph import TorchGraph, torch_graph
from verifier.bounds.interval import Interval, intersect
from verifier.bounds.options import BoundMethod, BoundOptions, check_size
from verifier.bounds.relaxation import relax
from verifier.bounds.results import NodeBounds, RegionBounds
from verifier.bounds.shallow import ShallowTightener
from verifier.bounds.shallow_evidence import ShallowProof
from verifier.bounds.sparse_walk import Planes, concretised, crown_planes, units, upper_planes
from verifier.canonical import Affine, CanonicalNetwork, Vector
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.region import Box, frozen

_log = logging.getLogger(__name__)
_ENTRIES_PER_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything an analysis of one region found.

    Attributes:
        known: The interval (1, size) of every value.
        planes: CROWN's planes of every ReLU and Max node.
        refined: By value, the entries whose lower, and those whose upper bound is CROWN's rather than the interval's.
        shallow: What proves the bounds near exact ranges.
    """

    known: dict[int, Interval]
    planes: dict[int, Planes]
    refined: dict[int, tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]]
    shallow: list[ShallowProof] = field(default_factory=list)


def crown_interval(
    canonical: CanonicalNetwork,
    planes: Mapping[int, Planes],
    value: int,
    entries: Int[np.ndarray, " n"],
    lower: Float[np.ndarray, " inputs"],
    upper: Float[np.ndarray, " inputs"],
) -> tuple[Vector, Vector]:
    """CROWN's lower and upper bounds of some entries of a value over the box."""
    rows = units(entries, canonical.value_size(value))
    highest = concretised(*upper_planes(canonical, planes, value, rows), lower, upper)
    lowest = -concretised(*upper_planes(canonical, planes, value, -rows), lower, upper)
    return lowest, highest


def _affine_interval(canonical: CanonicalNetwork, index: int, node: Affine, known: Mapping[int, Interval]) -> Interval:
    """`interval_step` of an Affine node by sparse products, which suit a single region better than convolutions."""
    centre, radius = node.bias.copy(), np.zeros(node.size)
    for term, value in enumerate(node.inputs):
        lower, upper = (part[0].numpy() for part in known[value])
        matrix = canonical.matrix(index, term)
        centre += matrix @ (0.5 * (lower + upper))
        radius += abs(matrix) @ (0.5 * (upper - lower))
    return torch.from_numpy(centre - radius).unsqueeze(0), torch.from_numpy(centre + radius).unsqueeze(0)


def _entries_to_refine(
    graph: TorchGraph, value: int, interval: Interval, *, only_relus: bool = False
) -> Int[np.ndarray, " n"]:
    """The entries that some undecided maximum (with `only_relus`, ReLU) still depends on; every entry of the scores."""
    if value == graph.canonical.output:
        return np.arange(graph.canonical.labels)
    needed = torch.zeros(interval[0].shape[1], dtype=torch.bool)
    for index, windows in graph.windows.items():
        node = graph.canonical.nodes[index]
        if isinstance(node, Affine) or node.input != value or (only_relus and not windows.is_identity):
            continue
        relaxation = relax(windows, *interval)
        wanted = relaxation.alive & relaxation.undecided.unsqueeze(-1)
        needed |= windows.scatter(wanted.double(), needed.shape[0])[0] > 0
    return np.flatnonzero(needed.numpy())


def _refine(graph: TorchGraph, analysis: Analysis, value: int, deadline: Deadline) -> None:
    """Intersects the interval of a value with CROWN's bounds where they can matter; leaves it be once time is up."""
    known = analysis.known
    entries = _entries_to_refine(graph, value, known[value])
    lower, upper = (part[0].numpy() for part in known[0])
    tight = known[value][0].clone(), known[value][1].clone()
    chunk = max(64, _ENTRIES_PER_CHUNK // max(graph.canonical.value_size(v) for v in range(value + 1)))
    done = 0
    while done < len(entries) and not deadline.has_expired:
        part = entries[done : done + chunk]
        found = crown_interval(graph.canonical, analysis.planes, value, part, lower, upper)
        for side, array in zip(tight, found, strict=True):
            side[0, part] = torch.from_numpy(array)
        done += len(part)
    if done < len(entries):
        _log.info("time is up: value %d keeps interval bounds for %d entries", value, len(entries) - done)
    tighter = tight[0] > known[value][0], tight[1] < known[value][1]
    analysis.refined[value] = np.flatnonzero(tighter[0][0].numpy()), np.flatnonzero(tighter[1][0].numpy())
    known[value] = intersect(known[value], tight)


def count_unstable(graph: TorchGraph, known: Mapping[int, Interval]) -> int:
    """The ReLUs and windows that the bounds leave undecided."""
    return sum(int(relaxation.undecided.sum()) for relaxation in relaxations(graph, known).values())


def _solve_shallow(
    graph: TorchGraph, analysis: Analysis, value: int, shallow: ShallowTightener, deadline: Deadline
) -> None:
    """Tightens the bounds of a value one ReLU layer above the input: upper ones, and the lower ones of ReLUs.

    The lower bounds of a window's candidates hardly matter: its plane above rests on upper ones.
    """
    interval = analysis.known[value]
    sides = tuple(_entries_to_refine(graph, value, interval, only_relus=only) for only in (True, False))
    lower, upper, proofs = shallow.tightened(
        value, (sides[0], sides[1]), (interval[0][0].numpy(), interval[1][0].numpy()), deadline
    )
    analysis.shallow.extend(proofs)
    analysis.known[value] = intersect(
        interval, (torch.from_numpy(lower).unsqueeze(0), torch.from_numpy(upper).unsqueeze(0))
    )


def analyse_values(
    canonical: CanonicalNetwork,
    box: Box,
    *,
    options: BoundOptions,
    deadline: Deadline,
    start: NodeBounds | None = None,
) -> Analysis:
    """Intervals of all values over the box; see `analyse_region` and, for what a `start` does, `tightened_region`."""
    if start is None:
        check_size(canonical, options)
    if box.lower.size != canonical.input_size:
        raise InputError(f"region: got {box.lower.size} entries, wanted the network's input, {canonical.input_size}")
    graph = torch_graph(canonical)
    known: dict[int, Interval] = {0: (graph.tensor(box.lower.reshape(1, -1)), graph.tensor(box.upper.reshape(1, -1)))}
    analysis = Analysis(known, {}, {})
    wanted = {*canonical.nonlinear_inputs(), canonical.output}
    shallow = None if start is None else ShallowTightener(canonical, box.lower.ravel(), box.upper.ravel())
    for index, node in enumerate(canonical.nodes):
        value = index + 1
        if isinstance(node, Affine):
            known[value] = _affine_interval(canonical, index, node, known)
        else:
            relaxation = relax(graph.windows[index], *known[node.input])
            analysis.planes[index] = crown_planes(relaxation, canonical.value_size(node.input))
            known[value] = relaxation.least, relaxation.most
        if value in wanted and analysis.planes and options.method is not BoundMethod.INTERVAL:
            if start is not None:
                held = (graph.tensor(side[value][None]) for side in (start.lower, start.upper))
                known[value] = intersect(known[value], (next(held), next(held)))
            _refine(graph, analysis, value, deadline)
        if shallow is not None:
            read = None if isinstance(node, Affine) else known[node.input]
            shallow.follow(index, None if read is None else (read[0][0].numpy(), read[1][0].numpy()))
            if value in wanted and value != canonical.output and shallow.covers(value):
                _solve_shallow(graph, analysis, value, shallow, deadline)
    return analysis


def tightened_region(region: RegionBounds, deadline: Deadline) -> RegionBounds:
    """The region with bounds of values one ReLU layer above the input near their exact ranges, and CROWN's after them anew.

    As far as the deadline allows; what it cuts short keeps the bounds it had. The proofs found are added to the region's.

    Soundness: every new bound is intersected with the one before it.
    """
    shape = (len(region.lower),)
    box = Box(region.lower.reshape(shape), region.upper.reshape(shape))
    options = BoundOptions(method=BoundMethod.CROWN)
    found = analyse_values(region.canonical, box, options=options, deadline=deadline, start=region.node_bounds)
    tighter = region_bounds(region.canonical, box, found)
    return replace(tighter, shallow=(*region.shallow, *found.shallow))


def analyse_region(
    canonical: CanonicalNetwork, box: Box, *, options: BoundOptions | None = None, deadline: Deadline | None = None
) -> RegionBounds:
    """Bounds of the scores and of every value that a ReLU or Max reads, over the box.

    Interval bounds, intersected (unless the method is interval) with CROWN's for the entries that an undecided maximum depends on.
    Once the deadline has passed the rest keeps interval bounds.

    Raises:
        InputError: The box has another number of entries than the network's input.
        NetworkTooLargeError: The network's matrices have more entries than the options allow.

    Soundness: every bound holds at every point of the box, up to float64 rounding.
    """
    found = analyse_values(canonical, box, options=options or BoundOptions(), deadline=deadline or Deadline())
    return region_bounds(canonical, box, found)


def region_bounds(canonical: CanonicalNetwork, box: Box, analysis: Analysis) -> RegionBounds:
    """The part of an analysis that properties need."""
    wanted = {value: analysis.known[value] for value in (*canonical.nonlinear_inputs(), canonical.output)}
    return RegionBounds(
        canonical,
        frozen(box.lower.ravel()),
        frozen(box.upper.ravel()),
        NodeBounds(
            {value: lower[0].numpy() for value, (lower, _) in wanted.items()},
            {value: upper[0].numpy() for value, (_, upper) in wanted.items()},
        ),
        count_unstable(torch_graph(canonical), wanted),
    )
