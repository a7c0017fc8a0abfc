"""CROWN bounds of every value that a ReLU or Max reads: interval bounds, then the backward walk where they decide too little."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int

from verifier.bounds.backward import relaxations
from verifier.bounds.graph import TorchGraph, torch_graph
from verifier.bounds.interval import Interval, intersect
from verifier.bounds.options import BoundMethod, BoundOptions
from verifier.bounds.relaxation import relax
from verifier.bounds.results import NodeBounds, RegionBounds
from verifier.bounds.sparse_walk import Planes, concretised, crown_planes, units, upper_planes
from verifier.canonical import Affine, CanonicalNetwork, Vector
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.region import Box, frozen

_log = logging.getLogger(__name__)
_ENTRIES_PER_CHUNK = 4_000_000


def crown_interval(
    canonical: CanonicalNetwork,
    planes: Mapping[int, Planes],
    value: int,
    entries: Int[np.ndarray, " n"],
    lower: Vector,
    upper: Vector,
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


def _entries_to_refine(graph: TorchGraph, value: int, interval: Interval) -> Int[np.ndarray, " n"]:
    """The entries that some undecided maximum still depends on; every entry of the scores."""
    if value == graph.canonical.output:
        return np.arange(graph.canonical.labels)
    needed = torch.zeros(interval[0].shape[1], dtype=torch.bool)
    for index, windows in graph.windows.items():
        node = graph.canonical.nodes[index]
        if isinstance(node, Affine) or node.input != value:
            continue
        relaxation = relax(windows, *interval)
        wanted = relaxation.alive & relaxation.undecided.unsqueeze(-1)
        needed |= windows.scatter(wanted.double(), needed.shape[0])[0] > 0
    return np.flatnonzero(needed.numpy())


def _refined(
    graph: TorchGraph, planes: Mapping[int, Planes], value: int, known: Mapping[int, Interval], deadline: Deadline
) -> Interval:
    """The interval of a value intersected with CROWN's bounds where they can matter; as it was, once time is up."""
    entries = _entries_to_refine(graph, value, known[value])
    lower, upper = (part[0].numpy() for part in known[0])
    tight = known[value][0].clone(), known[value][1].clone()
    chunk = max(64, _ENTRIES_PER_CHUNK // max(graph.canonical.value_size(v) for v in range(value + 1)))
    for start in range(0, len(entries), chunk):
        if deadline.has_expired:
            _log.info("time is up: value %d keeps interval bounds for %d entries", value, len(entries) - start)
            break
        part = entries[start : start + chunk]
        found = crown_interval(graph.canonical, planes, value, part, lower, upper)
        for side, array in zip(tight, found, strict=True):
            side[0, part] = torch.from_numpy(array)
    return intersect(known[value], tight)


def count_unstable(graph: TorchGraph, known: Mapping[int, Interval]) -> int:
    """The ReLUs and windows that the bounds leave undecided."""
    return sum(int(relaxation.undecided.sum()) for relaxation in relaxations(graph, known).values())


def analyse_region(
    canonical: CanonicalNetwork, box: Box, *, options: BoundOptions | None = None, deadline: Deadline | None = None
) -> RegionBounds:
    """Bounds of the scores and of every value that a ReLU or Max reads, over the box.

    Interval bounds, intersected (unless the method is interval) with CROWN's for the entries that an undecided maximum depends on.
    Once the deadline has passed the rest keeps interval bounds.

    Raises:
        InputError: The box has another number of entries than the network's input.

    Soundness: every bound holds at every point of the box, up to float64 rounding.
    """
    options, deadline = options or BoundOptions(), deadline or Deadline()
    if box.lower.size != canonical.input_size:
        raise InputError(f"region: got {box.lower.size} entries, wanted the network's input, {canonical.input_size}")
    graph = torch_graph(canonical)
    known: dict[int, Interval] = {0: (graph.tensor(box.lower.reshape(1, -1)), graph.tensor(box.upper.reshape(1, -1)))}
    planes: dict[int, Planes] = {}
    wanted = {*canonical.nonlinear_inputs(), canonical.output}
    for index, node in enumerate(canonical.nodes):
        value = index + 1
        if isinstance(node, Affine):
            known[value] = _affine_interval(canonical, index, node, known)
        else:
            relaxation = relax(graph.windows[index], *known[node.input])
            planes[index] = crown_planes(relaxation, canonical.value_size(node.input))
            known[value] = relaxation.least, relaxation.most
        if value in wanted and planes and options.method is not BoundMethod.INTERVAL:
            known[value] = _refined(graph, planes, value, known, deadline)
    return RegionBounds(
        canonical,
        frozen(box.lower.ravel()),
        frozen(box.upper.ravel()),
        NodeBounds(
            {value: known[value][0][0].numpy() for value in wanted},
            {value: known[value][1][0].numpy() for value in wanted},
        ),
        count_unstable(graph, {value: known[value] for value in wanted}),
    )
