"""Bounds of a property: the count-th largest of several linear forms of the scores.

A form whose upper bound is < 0 never takes part in a violation. If fewer than `count` others remain the property holds.
Otherwise a violation makes all forms of some count-subset S of those >= 0 at one point, so bounding min_{i in S} v_i below 0
for every S proves it; sum_i c_i v_i with c on the simplex bounds that minimum from above, one row per subset.
"""

from itertools import combinations
from math import comb

import numpy as np
import torch
from jaxtyping import Float, Int

from verifier.bounds.alpha import Combinations, Parameters, RowBounds, RowProblem, bound_rows
from verifier.bounds.graph import TorchGraph, torch_graph
from verifier.bounds.options import SAFETY_SLACK, BoundMethod, BoundOptions
from verifier.bounds.results import PropertyBound, RegionBounds
from verifier.canonical import Vector
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.property import Property
from verifier.region import frozen

_MOST_MINIMISERS = 32

Subsets = Int[np.ndarray, "subsets count"]


def score_intervals(region: RegionBounds, property: Property) -> Vector:
    """Upper bounds of the forms from the bounds of the scores alone."""
    lower, upper = (side[region.canonical.output] for side in (region.node_bounds.lower, region.node_bounds.upper))
    rising, falling = np.maximum(property.coefficients, 0.0), np.minimum(property.coefficients, 0.0)
    return rising @ upper + falling @ lower + property.offsets


def safety_slack(region: RegionBounds, property: Property) -> float:
    """How far below 0 a bound must be to prove anything: SAFETY_SLACK times the magnitude of the forms, at least 1."""
    lower, upper = (side[region.canonical.output] for side in (region.node_bounds.lower, region.node_bounds.upper))
    reach = np.abs(property.coefficients) @ np.maximum(np.abs(lower), np.abs(upper)) + np.abs(property.offsets)
    return SAFETY_SLACK * max(1.0, float(reach.max()))


def row_problem(graph: TorchGraph, region: RegionBounds) -> RowProblem:
    """The region as tensors, a batch of one."""
    lower, upper = region.node_bounds.lower, region.node_bounds.upper
    known = {
        value: (graph.tensor(lower[value][None]), graph.tensor(upper[value][None]))
        for value in region.canonical.nonlinear_inputs()
    }
    return RowProblem.of(graph, known, graph.tensor(region.lower[None]), graph.tensor(region.upper[None]))


def _rows(graph: TorchGraph, property: Property, subsets: Subsets) -> Combinations:
    return Combinations(graph.tensor(property.coefficients[subsets]), graph.tensor(property.offsets[subsets]))


class _Bounder:
    """One property over one region, bounded in chunks of rows; holds nothing that outlives the call."""

    def __init__(
        self, region: RegionBounds, property: Property, options: BoundOptions, deadline: Deadline, slack: float
    ) -> None:
        self._graph = torch_graph(region.canonical, torch.device(options.device))
        self._problem = row_problem(self._graph, region)
        self._property, self._options, self._deadline, self.slack = property, options, deadline, slack

    def is_open(self, upper: Float[np.ndarray, "..."]) -> np.ndarray:
        """Which bounds prove nothing; NaN and infinite ones never do."""
        return ~(upper < -self.slack)

    def bound(
        self, subsets: Subsets, iterations: int, needed: int, start: Parameters | None = None
    ) -> tuple[Vector, Float[np.ndarray, "rows inputs"], list[RowBounds]]:
        """Upper bounds of the least form of each subset, optimised until fewer than `needed` rows of a chunk are open."""
        found = []
        for first in range(0, len(subsets), self._options.row_chunk):
            part = slice(first, first + self._options.row_chunk)
            found.append(
                bound_rows(
                    self._problem,
                    _rows(self._graph, self._property, subsets[part]),
                    options=self._options,
                    iterations=iterations,
                    deadline=self._deadline,
                    is_settled=lambda best: int(self.is_open(best.cpu().numpy()).sum()) < needed,
                    start=None if start is None else _part(start, part),
                )
            )
        upper = np.concatenate([rows.upper[0].cpu().numpy() for rows in found])
        return upper, np.concatenate([rows.points[0].cpu().numpy() for rows in found]), found


def _part(parameters: Parameters, rows: slice) -> Parameters:
    return parameters.replaced([tensor[:, rows] for tensor in parameters.tensors()])


def bound_property(
    region: RegionBounds,
    property: Property,
    *,
    options: BoundOptions | None = None,
    deadline: Deadline | None = None,
) -> PropertyBound:
    """A proved upper bound of the property's margin over the region; see `PropertyBound`.

    Once the deadline has passed it returns the bounds found so far, all of them sound; at least CROWN's first evaluation is made.

    Raises:
        InputError: The property reads another number of labels than the network has.
    """
    options, deadline = options or BoundOptions(), deadline or Deadline()
    if property.labels != region.canonical.labels:
        raise InputError(f"property: reads {property.labels} labels, the network has {region.canonical.labels}")
    slack = safety_slack(region, property)
    uppers = score_intervals(region, property)
    if options.method is BoundMethod.INTERVAL:
        middle = 0.5 * (region.lower + region.upper)[None]
        return _answer(property, options, slack, uppers, None, middle)
    bounder = _Bounder(region, property, options, deadline, slack)
    iterations = options.iterations if options.method is BoundMethod.ALPHA_CROWN else 0
    forms = np.arange(len(uppers))[:, None]
    found, points, parts = bounder.bound(forms, 0, 1)
    uppers = np.minimum(uppers, found)
    opened = np.flatnonzero(bounder.is_open(uppers))
    if len(opened) >= property.count and iterations:
        found, better, parts = bounder.bound(forms[opened], iterations, property.count)
        points[opened] = better
        uppers[opened] = np.minimum(uppers[opened], found)
    survivors = np.flatnonzero(bounder.is_open(uppers))
    if property.count == 1 or not 0 < comb(len(survivors), property.count) <= options.subset_cap:
        return _answer(property, options, slack, uppers, None, points)
    return _with_subsets(bounder, property, options, uppers, points, iterations, opened, parts)


def _with_subsets(
    bounder: _Bounder,
    property: Property,
    options: BoundOptions,
    uppers: Vector,
    points: Float[np.ndarray, "rows inputs"],
    iterations: int,
    held: Int[np.ndarray, " held"],
    parts: list[RowBounds],
) -> PropertyBound:
    """The answer after bounding every count-subset of the forms that are still open, starting where their own rows ended."""
    survivors = np.flatnonzero(bounder.is_open(uppers))
    subsets = np.array(list(combinations(survivors.tolist(), property.count)), dtype=np.int64)
    start = _joint_start(parts, held, subsets) if iterations else None
    found, corner_points, _ = bounder.bound(subsets, iterations, 1, start)
    least = np.minimum(found, uppers[subsets].min(axis=1))
    order = np.argsort(-least, kind="stable")
    return _answer(
        property,
        options,
        bounder.slack,
        uppers,
        (subsets[order], least[order]),
        np.vstack([corner_points[order], points]),
    )


def _joint_start(parts: list[RowBounds], held: Int[np.ndarray, " held"], subsets: Subsets) -> Parameters:
    """The means of the members' parameters, with uniform combinations."""
    tensors = [torch.cat(group, dim=1) for group in zip(*(p.parameters.tensors() for p in parts), strict=True)]
    joined = parts[0].parameters.replaced(tensors)
    mixing = tensors[0].new_zeros((len(subsets), len(held)))
    position = {int(form): row for row, form in enumerate(held)}
    for row, subset in enumerate(subsets):
        for form in subset:
            mixing[row, position[int(form)]] = 1.0 / subsets.shape[1]
    uniform = tensors[0].new_full((1, *subsets.shape), 1.0 / subsets.shape[1])
    return joined.mixed(mixing, uniform)


def _answer(
    property: Property,
    options: BoundOptions,
    slack: float,
    uppers: Vector,
    bounded: tuple[Subsets, Float[np.ndarray, " subsets"]] | None,
    points: Float[np.ndarray, "points inputs"],
) -> PropertyBound:
    """The result from the forms' bounds and, where they were bounded, those of all count-subsets of the open forms."""
    survivors, subsets, listed = subsets_of_forms(uppers, property, slack, options.subset_cap)
    upper = float(np.sort(uppers)[-property.count])
    if bounded is not None:
        members, least = bounded
        # A subset with a closed form is bounded by the largest closed form.
        closed = float(uppers[uppers < -slack].max(initial=-np.inf))
        upper = min(upper, max(float(least.max()), closed))
        subsets = tuple(tuple(map(int, row)) for row, bound in zip(members, least, strict=True) if not bound < -slack)
    return PropertyBound(
        upper=upper,
        form_uppers=frozen(uppers),
        open_forms=survivors,
        open_subsets=subsets,
        subsets_listed=listed,
        is_robust=listed and not subsets,
        minimisers=frozen(_distinct(points)[:_MOST_MINIMISERS]),
        engine=options.method.value,
        trusted=(TrustedClaim.FLOAT64_ROUNDING,),
    )


def subsets_of_forms(
    uppers: Float[np.ndarray, " forms"], property: Property, slack: float, cap: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], bool]:
    """The forms that the bounds leave open, their count-subsets, and whether these are listed: not if more than `cap`."""
    # A bound that is NaN is not below anything, so it leaves its form open.
    survivors = tuple(int(form) for form in np.flatnonzero(~(uppers < -slack)))
    listed = comb(len(survivors), property.count) <= cap
    return survivors, tuple(combinations(survivors, property.count)) if listed else (), listed


def _distinct(points: Float[np.ndarray, "n inputs"]) -> Float[np.ndarray, "m inputs"]:
    """The points without repetition, in their order of first appearance."""
    _, first = np.unique(points, axis=0, return_index=True)
    return points[np.sort(first)]
