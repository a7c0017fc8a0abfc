"""How a property's margin bound changes with the epsilons of a layered neighbourhood.

What is differentiated: the upper bound of the least form of the critical count-subset (the one whose bound is largest), through
CROWN's or alpha-CROWN's planes, through the intermediate bounds they rest on, each through the bounds before it, down to the
box and from there to the epsilons. Held fixed: the optimised slopes, weights, thresholds (as fractions of their range) and
subset weights, and which side each entry takes; where those jump the bound has no derivative and this is one of its one-sided
values.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from verifier.bounds.adjoint import rows_gradient
from verifier.bounds.alpha import Combinations, RowProblem, bound_rows
from verifier.bounds.crown import Analysis, analyse_values, region_bounds
from verifier.bounds.graph import TorchGraph, torch_graph
from verifier.bounds.options import BoundMethod, BoundOptions
from verifier.bounds.relaxation import relax
from verifier.bounds.results import PropertyBound
from verifier.bounds.sparse_walk import Rows, units
from verifier.bounds.topk import bound_property
from verifier.canonical import Affine, CanonicalNetwork
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.property import Property
from verifier.region import Box

_NEGLIGIBLE = 1e-12
_ROWS_PER_CHUNK = 512

BoundGradients = dict[int, list[Float[np.ndarray, "_"]]]


def margin_bound_and_gradient(
    canonical: CanonicalNetwork,
    image: Float[np.ndarray, " inputs"],
    layer_of_entry: Int[np.ndarray, " inputs"],
    epsilons: Float[np.ndarray, " layers"],
    property: Property,
    *,
    options: BoundOptions | None = None,
    deadline: Deadline | None = None,
) -> tuple[float, Float[np.ndarray, " layers"]]:
    """A proved upper bound of the margin over the layered neighbourhood, and a gradient of it by the epsilons.

    The bound is `bound_property`'s; the gradient is that of the critical subset's bound, see the module's text. An entry that is
    clipped to [0, 1] on one side does not move there.

    Args:
        canonical: The network.
        image: The centre, flat, in [0, 1].
        layer_of_entry: Each entry's layer.
        epsilons: Each layer's epsilon, >= 0.
        property: The property whose margin is bounded.
        options: Of the bounds; the interval method has no gradient of its own and uses CROWN's planes at its bounds.
        deadline: When to stop improving the bound.

    Raises:
        InputError: Shapes or layers do not fit, or the property reads another number of labels.
    """
    options, deadline = options or BoundOptions(), deadline or Deadline()
    layers = np.asarray(layer_of_entry)
    if layers.shape != np.shape(image) or (len(layers) and not 0 <= layers.min() <= layers.max() < len(epsilons)):
        raise InputError(f"layers: wanted one of 0 to {len(epsilons) - 1} for each of the {np.size(image)} entries")
    widths = np.asarray(epsilons, dtype=np.float64)[layers]
    box = Box.around(np.asarray(image, dtype=np.float64), widths)
    analysis = analyse_values(canonical, box, options=options, deadline=deadline)
    bound = bound_property(region_bounds(canonical, box, analysis), property, options=options, deadline=deadline)
    members = critical_members(bound, property)
    by_lower, by_upper = box_gradient(canonical, analysis, property, members, options)
    moves_down, moves_up = image - widths > 0.0, image + widths < 1.0
    per_entry = np.where(moves_up, by_upper, 0.0) - np.where(moves_down, by_lower, 0.0)
    return bound.upper, np.bincount(layers, weights=per_entry, minlength=len(epsilons))


def critical_members(bound: PropertyBound, property: Property) -> Int[np.ndarray, "rows count"]:
    """The rows that the bound may hinge on.

    First the open subset with the largest bound, or without one the forms with the largest bounds; then its form with the least
    bound, alone (repeated, so that both rows have `count` members).
    """
    subset = np.argsort(-bound.form_uppers, kind="stable")[: property.count]
    if bound.open_subsets and property.count > 1:
        subset = np.array(bound.open_subsets[0])
    alone = subset[np.argmin(bound.form_uppers[subset])]
    return np.array([subset, np.full_like(subset, alone)])


def box_gradient(
    canonical: CanonicalNetwork,
    analysis: Analysis,
    property: Property,
    members: Int[np.ndarray, "rows count"],
    options: BoundOptions,
) -> tuple[Float[np.ndarray, " inputs"], Float[np.ndarray, " inputs"]]:
    """The derivatives of the least of the rows' bounds by the box's lower and upper ends."""
    graph = torch_graph(canonical)
    gradients = _output_gradient(graph, analysis, property, members, options)
    for index in range(len(canonical.nodes) - 1, -1, -1):
        value, node = index + 1, canonical.nodes[index]
        if value not in gradients:
            continue
        by_lower, by_upper = gradients.pop(value)
        by_lower, by_upper = _through_crown(graph, analysis, value, by_lower, by_upper, gradients)
        if isinstance(node, Affine):
            _through_affine(canonical, index, node, by_lower, by_upper, gradients)
        else:
            _through_maximum(graph, analysis, index, node.input, by_lower, by_upper, gradients)
    nothing = np.zeros(canonical.input_size)
    by_lower, by_upper = gradients.get(0, [nothing, nothing])
    return by_lower, by_upper


def _add(gradients: BoundGradients, value: int, by_lower: np.ndarray, by_upper: np.ndarray) -> None:
    held = gradients.get(value)
    gradients[value] = [by_lower, by_upper] if held is None else [held[0] + by_lower, held[1] + by_upper]


def _output_gradient(
    graph: TorchGraph,
    analysis: Analysis,
    property: Property,
    members: Int[np.ndarray, "rows count"],
    options: BoundOptions,
) -> BoundGradients:
    """The derivatives of the least row's bound by the intervals its planes rest on."""
    read = graph.canonical.nonlinear_inputs()
    row = Combinations(graph.tensor(property.coefficients[members]), graph.tensor(property.offsets[members]))
    fixed = {value: analysis.known[value] for value in read}
    problem = RowProblem.of(graph, fixed, *analysis.known[0])
    iterations = options.iterations if options.method is BoundMethod.ALPHA_CROWN else 0
    best = bound_rows(
        problem, row, options=options, iterations=iterations, deadline=Deadline(), is_settled=lambda _: False
    )
    leaves = {value: tuple(side.clone().requires_grad_() for side in analysis.known[value]) for value in (0, *read)}
    sides = [side for pair in leaves.values() for side in pair]
    moving = RowProblem.of(graph, {value: (leaves[value][0], leaves[value][1]) for value in read}, *leaves[0])
    # CROWN's own thresholds move with the bounds; optimised ones are stationary, so their movement does not count.
    parameters = best.parameters if iterations else moving.first_parameters(row)
    bounds, _ = moving.evaluate(row, parameters)
    found = torch.autograd.grad(bounds.min(), sides, allow_unused=True, materialize_grads=True)
    pairs = zip(found[::2], found[1::2], strict=True)
    return {value: [lower[0].numpy(), upper[0].numpy()] for value, (lower, upper) in zip(leaves, pairs, strict=True)}


def _through_crown(
    graph: TorchGraph,
    analysis: Analysis,
    value: int,
    by_lower: Float[np.ndarray, " n"],
    by_upper: Float[np.ndarray, " n"],
    gradients: BoundGradients,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Passes the derivatives by CROWN's bounds of a value on to earlier bounds; what the interval bounds gave is returned."""
    nothing = np.zeros(0, dtype=np.int64)
    entries_by_side = analysis.refined.get(value, (nothing, nothing))
    size = graph.canonical.value_size(value)
    scale = _NEGLIGIBLE * max(1.0, float(np.abs(by_lower).max(initial=0.0)), float(np.abs(by_upper).max(initial=0.0)))
    rest = by_lower.copy(), by_upper.copy()
    for side, gradient, sign in ((0, by_lower, -1.0), (1, by_upper, 1.0)):
        entries = entries_by_side[side]
        wanted = entries[np.abs(gradient[entries]) > scale]
        rest[side][entries] = 0.0
        for first in range(0, len(wanted), _ROWS_PER_CHUNK):
            part = wanted[first : first + _ROWS_PER_CHUNK]
            # A lower bound is the negative of an upper bound of the negative row.
            _through_rows(graph, analysis, value, sign * units(part, size), sign * gradient[part], gradients)
    return rest


def _through_rows(
    graph: TorchGraph,
    analysis: Analysis,
    value: int,
    rows: Rows,
    weights: Float[np.ndarray, " rows"],
    gradients: BoundGradients,
) -> None:
    lower, upper = (side[0].numpy() for side in analysis.known[0])
    found = rows_gradient(graph.canonical, analysis.planes, value, rows, weights, lower, upper)
    _add(gradients, 0, found.lower, found.upper)
    for index, (slopes, constants) in found.planes.items():
        node = graph.canonical.nodes[index]
        if isinstance(node, Affine):
            continue
        _add(gradients, node.input, *_through_plane(graph, analysis.known, index, node.input, slopes, constants))


def _through_plane(
    graph: TorchGraph,
    known: Mapping[int, tuple[Tensor, Tensor]],
    index: int,
    read: int,
    by_slopes: Float[np.ndarray, "size width"],
    by_constants: Float[np.ndarray, " size"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The derivatives by a node's input bounds, given those by its planes above."""
    lower, upper = (side.clone().requires_grad_() for side in known[read])
    relaxation = relax(graph.windows[index], lower, upper)
    slopes, constants = relaxation.plane_above(relaxation.first_fraction())
    total = (slopes[0] * torch.from_numpy(by_slopes)).sum() + (constants[0] * torch.from_numpy(by_constants)).sum()
    found = torch.autograd.grad(total, [lower, upper], allow_unused=True, materialize_grads=True)
    return found[0][0].numpy(), found[1][0].numpy()


def _through_affine(
    canonical: CanonicalNetwork,
    index: int,
    node: Affine,
    by_lower: Float[np.ndarray, " n"],
    by_upper: Float[np.ndarray, " n"],
    gradients: BoundGradients,
) -> None:
    if not (by_lower.any() or by_upper.any()):
        return
    for term, read in enumerate(node.inputs):
        matrix = canonical.matrix(index, term)
        by_centre, by_radius = matrix.T @ (by_lower + by_upper), abs(matrix).T @ (by_upper - by_lower)
        _add(gradients, read, 0.5 * (by_centre - by_radius), 0.5 * (by_centre + by_radius))


def _through_maximum(
    graph: TorchGraph,
    analysis: Analysis,
    index: int,
    read: int,
    by_lower: Float[np.ndarray, " n"],
    by_upper: Float[np.ndarray, " n"],
    gradients: BoundGradients,
) -> None:
    lower, upper = (side.clone().requires_grad_() for side in analysis.known[read])
    relaxation = relax(graph.windows[index], lower, upper)
    total = (relaxation.least[0] * torch.from_numpy(by_lower)).sum()
    total = total + (relaxation.most[0] * torch.from_numpy(by_upper)).sum()
    found = torch.autograd.grad(total, [lower, upper], allow_unused=True, materialize_grads=True)
    _add(gradients, read, found[0][0].numpy(), found[1][0].numpy())
