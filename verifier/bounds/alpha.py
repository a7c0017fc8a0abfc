"""alpha-CROWN: the free parameters of the backward walk, optimised for every row of its own (Xu et al. 2021).

A row here bounds the least of a few linear forms of the scores, min_i v_i <= sum_i c_i v_i for any c on the simplex (a Lagrangian
relaxation); with one form it bounds that form. The combination c is optimised together with the slopes below ReLUs, the weights
below maxima and the thresholds above them. Intermediate bounds stay fixed.

Parameters are projected onto their range after each step and no gradient passes through the projection: `torch.clamp` has
gradient 0 at its bounds since torch 2.14, and CROWN's slopes start on theirs.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounds.backward import Slopes, concretise, corners, first_slopes, planes_over_input, relaxations
from verifier.bounds.graph import TorchGraph
from verifier.bounds.interval import Interval
from verifier.bounds.options import BoundOptions
from verifier.bounds.relaxation import Relaxation, project_to_simplex
from verifier.deadline import Deadline

_log = logging.getLogger(__name__)
_INTERIOR = 0.02
_WORTHWHILE = 1e-3
# Shorter memories than Adam's usual ones: 40 steps must do, and gradients jump where planes change sides.
_MOMENTUM, _SCALE_MEMORY = 0.8, 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Combinations:
    """What each row bounds: the least of `members` linear forms of the scores.

    Attributes:
        coefficients: (rows, members, labels).
        offsets: (rows, members).
    """

    coefficients: Tensor
    offsets: Tensor

    def part(self, rows: slice) -> "Combinations":
        """Some of the rows."""
        return Combinations(self.coefficients[rows], self.offsets[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """The free parameters of a batch of rows: (batch, rows, ...) each.

    Attributes:
        slopes: By node, those of the node's undecided windows only; a ReLU's `fractions` are empty, (batch, rows, 0).
        combination: (batch, rows, members), on the simplex.
    """

    slopes: dict[int, Slopes]
    combination: Tensor

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        return [self.combination, *(part for s in self.slopes.values() for part in (s.weights, s.fractions))]

    def replaced(self, tensors: list[Tensor]) -> "Parameters":
        """The same structure around other tensors, in the order of `tensors`."""
        rest = iter(tensors[1:])
        return Parameters({index: Slopes(next(rest), next(rest)) for index in self.slopes}, tensors[0])

    def mixed(self, mixing: Tensor, combination: Tensor) -> "Parameters":
        """Parameters of new rows as means of old ones.

        Args:
            mixing: (new rows, old rows), each row on the simplex; ranges are convex, so the means lie within them.
            combination: (batch, new rows, members).
        """

        def mix(tensor: Tensor) -> Tensor:
            return torch.tensordot(mixing, tensor, dims=([1], [1])).transpose(0, 1).contiguous()

        slopes = {index: Slopes(mix(s.weights), mix(s.fractions)) for index, s in self.slopes.items()}
        return Parameters(slopes, combination)


@dataclass(frozen=True, slots=True, eq=False)
class RowBounds:
    """Upper bounds of a batch of rows.

    Attributes:
        upper: (batch, rows), the least bound found for each row.
        points: (batch, rows, inputs), where the plane that gave it is largest.
        parameters: The last parameters, to start related rows from.
    """

    upper: Tensor
    points: Tensor
    parameters: Parameters


@dataclass(frozen=True, slots=True, eq=False)
class RowProblem:
    """A network over a batch of regions, ready to bound rows over its scores.

    Attributes:
        graph: The network.
        relaxed: By node, the relaxation over the regions.
        free: By node, the windows that some region leaves undecided: int64 (n,).
        base: By node, CROWN's parameters, shared by all rows; with the weights on the best midpoints, and on the best lower bounds.
        lower, upper: (batch, inputs).
    """

    graph: TorchGraph
    relaxed: Mapping[int, Relaxation]
    free: Mapping[int, Tensor]
    base: tuple[Mapping[int, Slopes], Mapping[int, Slopes]]
    lower: Tensor
    upper: Tensor

    @classmethod
    def of(cls, graph: TorchGraph, known: Mapping[int, Interval], lower: Tensor, upper: Tensor) -> "RowProblem":
        """The problem over boxes [lower, upper], (batch, inputs), with bounds of every nonlinear node's input."""
        relaxed = relaxations(graph, known)
        free = {index: relaxation.undecided.any(0).nonzero().squeeze(-1) for index, relaxation in relaxed.items()}
        base = first_slopes(relaxed), first_slopes(relaxed, by_lower=True)
        return cls(graph, relaxed, free, base, lower, upper)

    def slopes(self, parameters: Parameters) -> dict[int, Slopes]:
        """Parameters of every window: the free ones where there is a choice, CROWN's elsewhere."""
        full = {}
        for index, held in parameters.slopes.items():
            base, free = self.base[0][index], self.free[index]
            weights = _filled(base.weights, free, held.weights)
            is_relu = self.graph.windows[index].is_identity
            full[index] = Slopes(weights, base.fractions if is_relu else _filled(base.fractions, free, held.fractions))
        return full

    def evaluate(self, combinations: Combinations, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """The bounds (batch, rows) at these parameters, and the planes' coefficients (batch, rows, inputs)."""
        mixed = torch.einsum("brm,rml->brl", parameters.combination, combinations.coefficients)
        offsets = (parameters.combination * combinations.offsets).sum(-1)
        output = self.graph.canonical.output
        planes, constants = planes_over_input(self.graph, self.relaxed, self.slopes(parameters), output, mixed)
        return concretise(planes, constants + offsets, self.lower, self.upper), planes

    def first_parameters(self, combinations: Combinations) -> Parameters:
        """CROWN's parameters and uniform combinations; where a network has maxima, each row takes the better of two starts."""
        batch, (rows, members) = len(self.lower), combinations.offsets.shape
        combination = self.lower.new_full((batch, rows, members), 1.0 / members)
        starts = [self._expanded(base, combination) for base in self.base]
        if all(windows.is_identity for windows in self.graph.windows.values()):
            return starts[0]
        bounds = [self.evaluate(combinations, start)[0] for start in starts]
        takes_second = bounds[1] < bounds[0]
        pairs = zip(*(start.tensors() for start in starts), strict=True)
        return starts[0].replaced(
            [torch.where(takes_second.reshape(batch, rows, *[1] * (a.ndim - 2)), b, a) for a, b in pairs]
        )

    def _expanded(self, base: Mapping[int, Slopes], combination: Tensor) -> Parameters:
        """Shared parameters, repeated for every row."""
        rows = combination.shape[1]
        slopes = {}
        for index, shared in base.items():
            weights, fractions = (part.index_select(2, self.free[index]) for part in (shared.weights, shared.fractions))
            if self.graph.windows[index].is_identity:
                fractions = fractions[..., :0]
            slopes[index] = Slopes(weights.repeat(1, rows, 1, 1), fractions.repeat(1, rows, 1))
        return Parameters(slopes, combination)


def _filled(base: Tensor, index: Tensor, held: Tensor) -> Tensor:
    """(batch, 1, size, ...) repeated per row, with the entries at `index` replaced by `held`, (batch, rows, n, ...)."""
    return base.expand(-1, held.shape[1], *base.shape[2:]).index_copy(2, index, held)


def _projected(problem: RowProblem, parameters: Parameters) -> Parameters:
    """The nearest parameters within range."""
    slopes = {
        index: Slopes(
            problem.relaxed[index].chosen(problem.free[index]).with_row_axis().project_weights(held.weights),
            held.fractions.clamp(min=0.0, max=1.0),
        )
        for index, held in parameters.slopes.items()
    }
    everyone = torch.ones_like(parameters.combination, dtype=torch.bool)
    return Parameters(slopes, project_to_simplex(parameters.combination, everyone))


def _interior(problem: RowProblem, parameters: Parameters) -> Parameters:
    """Weights of maxima moved slightly off the corners of their simplex.

    At a corner the other candidates' coefficients are exactly 0, and a gradient there cannot know which plane they would take.
    """
    moved = {}
    for index, held in parameters.slopes.items():
        relaxation = problem.relaxed[index].chosen(problem.free[index])
        if relaxation.windows.is_identity:
            moved[index] = held
            continue
        share = relaxation.alive / (relaxation.alive.sum(-1) + relaxation.floor_alive).clamp(min=1).unsqueeze(-1)
        weights = (1 - _INTERIOR) * held.weights + _INTERIOR * share.unsqueeze(1)
        moved[index] = Slopes(weights, held.fractions)
    return Parameters(moved, parameters.combination)


def _tangent(problem: RowProblem, parameters: Parameters, gradients: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradients of weights that must sum to 1, less their mean.

    What a projection would take back must not enter Adam's scaling, which turns a common shift of all weights into full steps.
    """
    split = parameters.replaced(list(gradients))
    slopes = {}
    for index, held in split.slopes.items():
        relaxation = problem.relaxed[index].chosen(problem.free[index]).with_row_axis()
        if relaxation.windows.is_identity:
            slopes[index] = held
            continue
        alive = relaxation.alive.to(held.weights.dtype)
        among = alive.sum(-1, keepdim=True).clamp(min=1.0)
        mean = (held.weights * alive).sum(-1, keepdim=True) / among
        is_bound = ~relaxation.floor_alive.unsqueeze(-1)
        slopes[index] = Slopes((held.weights - mean * is_bound) * alive, held.fractions)
    return Parameters(slopes, split.combination - split.combination.mean(-1, keepdim=True)).tensors()


class _Adam:
    """Adam's update (Kingma and Ba 2015) on a list of tensors, kept here because projected iterates leave no room for closures."""

    def __init__(self, tensors: list[Tensor], options: BoundOptions) -> None:
        self._options = options
        self._first = [torch.zeros_like(tensor) for tensor in tensors]
        self._second = [torch.zeros_like(tensor) for tensor in tensors]
        self._steps = 0

    def step(self, tensors: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The tensors after one step downhill; neither they nor the gradients are kept."""
        self._steps += 1
        rate = self._options.learning_rate * self._options.decay ** (self._steps - 1)
        moved = []
        for tensor, gradient, first, second in zip(tensors, gradients, self._first, self._second, strict=True):
            first.mul_(_MOMENTUM).add_(gradient, alpha=1 - _MOMENTUM)
            second.mul_(_SCALE_MEMORY).addcmul_(gradient, gradient, value=1 - _SCALE_MEMORY)
            scale = (second / (1 - _SCALE_MEMORY**self._steps)).sqrt_().add_(1e-12)
            moved.append(tensor - (rate / (1 - _MOMENTUM**self._steps)) * first / scale)
        return moved


def bound_rows(
    problem: RowProblem,
    combinations: Combinations,
    *,
    options: BoundOptions,
    iterations: int,
    deadline: Deadline,
    is_settled: Callable[[Tensor], bool],
    start: Parameters | None = None,
) -> RowBounds:
    """The least upper bounds found of every row over every region, optimised for `iterations` steps.

    Iteration 0 evaluates the starting parameters (CROWN's, unless given), so more iterations never loosen a bound. Stops early when
    `is_settled` says so of the bounds so far (batch, rows), when no row improves any more, or when time is up.

    Soundness: every iterate is evaluated after projection, so each bound holds up to rounding.
    """
    with torch.no_grad():
        parameters = problem.first_parameters(combinations) if start is None else start
    best = torch.full(
        parameters.combination.shape[:2], torch.inf, dtype=problem.lower.dtype, device=problem.lower.device
    )
    points = torch.zeros_like(problem.lower).unsqueeze(1).repeat(1, best.shape[1], 1)
    optimiser, stalled = _Adam(parameters.tensors(), options), 0
    for iteration in range(iterations + 1):
        tensors = [part.detach().requires_grad_(iteration < iterations) for part in parameters.tensors()]
        bounds, planes = problem.evaluate(combinations, parameters.replaced(tensors))
        with torch.no_grad():
            improves = bounds < best
            is_stall = bool((bounds >= best - _WORTHWHILE * best.abs()).all())
            stalled = stalled + 1 if is_stall else 0
            points[improves] = corners(planes, problem.lower, problem.upper)[improves]
            best = torch.where(improves, bounds, best)
        if iteration == iterations or stalled >= options.patience or is_settled(best) or deadline.has_expired:
            _log.debug("%d rows: stopped after %d of %d iterations", best.shape[1], iteration, iterations)
            break
        gradients = torch.autograd.grad(bounds.sum(), tensors, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            if iteration == 0 and start is None:
                parameters = _interior(problem, parameters)
            moved = optimiser.step(parameters.tensors(), _tangent(problem, parameters, gradients))
            parameters = _projected(problem, parameters.replaced(moved))
    return RowBounds(best, points, parameters)
