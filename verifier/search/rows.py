"""Upper bounds of a batch of rows, each the least of a few forms over one subproblem, optimised over all parameters at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.search.clipping import candidate_bounds, clipped_by_phases, clipped_by_planes
from verifier.search.domain import Domain, Split, domain_of
from verifier.search.options import Descent
from verifier.search.planes import Held, MaxPlanes, Planes, ReluPlanes, centre_on, onto_simplex
from verifier.search.skeleton import Skeleton

_ROUNDING = 1e-9
_CLIPPING_SLACK = 1e-8
"""Times the forms' scale: outside a clipped box a row's plane lies this far below 0, and a row's bound never counts for less."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where each parameter lies in a parameter vector: the combination first, then stage by stage.

    Attributes:
        members: Forms per row.
        pieces: By stage: slices of the weights, fractions and multipliers.
        size: The length of the vector.
        rates: (size, 1), learning rates relative to the options'.
    """

    members: int
    pieces: tuple[tuple[slice, slice, slice], ...]
    size: int

    @classmethod
    def of(cls, skeleton: Skeleton, members: int) -> "Layout":
        """The layout for rows of so many forms."""
        position, pieces = members, []
        for stage in skeleton.stages:
            width = 1 if stage.is_relu else stage.slots
            lengths = (stage.windows * width, 0 if stage.is_relu else stage.windows, stage.windows * width)
            ends = [position + sum(lengths[: i + 1]) for i in range(3)]
            pieces.append((slice(position, ends[0]), slice(ends[0], ends[1]), slice(ends[1], ends[2])))
            position = ends[2]
        return cls(members, tuple(pieces), position)

    def held(self, skeleton: Skeleton, matrix: Tensor) -> list[Held]:
        """Views of a parameter matrix (size, batch), by stage."""
        found = []
        for stage, (weights, fractions, multipliers) in zip(skeleton.stages, self.pieces, strict=True):
            shape = (stage.windows, -1) if stage.is_relu else (stage.windows, stage.slots, matrix.shape[1])
            found.append(Held(matrix[weights].view(shape), matrix[fractions], matrix[multipliers].view(shape)))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A batch of rows.

    Attributes:
        skeleton: The problem.
        layout: Of the parameters.
        members: int64 (members, batch), the forms of each row.
        domain: What the splits leave.
        planes: By stage.
        lower, upper: (inputs, batch), or (inputs, 1) where all rows have the same: a box that holds every violation of the row.
    """

    skeleton: Skeleton
    layout: Layout
    members: Tensor
    domain: Domain
    planes: tuple[Planes, ...]
    lower: Tensor
    upper: Tensor

    @classmethod
    def of(cls, skeleton: Skeleton, members: Sequence[Sequence[int]], splits: Sequence[Sequence[Split]]) -> "Rows":
        """Rows for subproblems given by their splits; every row has equally many members."""
        device = skeleton.lower.device
        listed = torch.tensor(members, dtype=torch.int64, device=device).reshape(len(splits), -1).T.contiguous()
        domain = domain_of(skeleton, splits)
        lower, upper = clipped_by_phases(skeleton, domain)
        planes = _planes(skeleton, domain, lower, upper)
        return cls(skeleton, Layout.of(skeleton, len(listed)), listed, domain, planes, lower, upper)

    @property
    def batch(self) -> int:
        """How many rows there are."""
        return int(self.members.shape[1])

    @property
    def infeasible(self) -> Tensor:
        """Rows (bool (batch,)) whose subproblem is empty."""
        empty = torch.zeros(self.batch, dtype=torch.bool, device=self.members.device)
        for planes in self.planes:
            empty = empty | planes.infeasible
        return empty

    @property
    def undecided(self) -> Tensor:
        """How many windows each row's subproblem leaves undecided, int64 (batch,)."""
        counts = torch.zeros(self.batch, dtype=torch.int64, device=self.members.device)
        for planes in self.planes:
            counts = counts + planes.undecided.sum(dim=0)
        return counts

    def selected(self, rows: Tensor) -> "Rows":
        """Some of the rows."""
        lower, upper = (side if side.shape[1] == 1 else side.index_select(1, rows) for side in (self.lower, self.upper))
        return replace(
            self,
            members=self.members.index_select(1, rows),
            domain=self.domain.selected(rows),
            planes=tuple(planes.selected(rows) for planes in self.planes),
            lower=lower,
            upper=upper,
        )

    def clipped(self, walk: "Walk") -> "Rows":
        """The same rows over boxes that their own planes have clipped: see `clipped_by_planes`."""
        slack = _CLIPPING_SLACK * self.skeleton.scale
        lower, upper = clipped_by_planes(walk.slopes, walk.bounds, self.lower, self.upper, slack)
        return replace(self, planes=_planes(self.skeleton, self.domain, lower, upper), lower=lower, upper=upper)

    def first_parameters(self) -> Tensor:
        """CROWN's parameters and uniform combinations, (size, batch)."""
        matrix = self.skeleton.lower.new_zeros((self.layout.size, self.batch))
        matrix[: self.layout.members] = 1.0 / self.layout.members
        for planes, held in zip(self.planes, self.layout.held(self.skeleton, matrix), strict=True):
            planes.first(held)
        return matrix

    def project(self, matrix: Tensor) -> None:
        """Moves a parameter matrix into its range, in place."""
        head = matrix[: self.layout.members]
        head.copy_(onto_simplex(head, torch.ones_like(head, dtype=torch.bool), dim=0))
        for planes, held in zip(self.planes, self.layout.held(self.skeleton, matrix), strict=True):
            planes.project(held)

    def walk(self, matrix: Tensor) -> "Walk":
        """The bounds at given parameters, which must lie in range."""
        skeleton = self.skeleton
        chosen = matrix.new_zeros((len(skeleton.form_constants), self.batch))
        chosen.scatter_add_(0, self.members, matrix[: self.layout.members])
        rows = skeleton.form_products.transpose(chosen)
        constants = (skeleton.form_constants * chosen).sum(dim=0)
        coefficients: list[Tensor] = []
        held = self.layout.held(skeleton, matrix)
        for stage, planes, parameters in zip(
            reversed(skeleton.stages), reversed(self.planes), reversed(held), strict=True
        ):
            outputs = rows[stage.start : stage.start + stage.windows]
            on_candidates, constant, total = planes.backward(stage, outputs, parameters)
            constants = constants + constant + (stage.constants * on_candidates).sum(dim=0)
            rows = rows[: stage.start]
            rows = rows + stage.products.transpose(on_candidates)
            coefficients.append(total)
        centre = 0.5 * (self.lower + self.upper)
        radius = self.upper - centre
        corner = torch.addcmul(centre, torch.sign(rows), radius)
        bounds = constants + (rows * corner).sum(dim=0)
        return Walk(self, matrix, held, bounds, rows, corner, coefficients[::-1])


def bounds_at(rows: Rows, matrix: Tensor) -> Tensor:
    """Upper bounds (batch,) of the rows at these parameters, which are moved into their range, each over its own clipped box."""
    rows.project(matrix)
    walk = rows.walk(matrix)
    clipped = rows.clipped(walk)
    clipped.project(matrix)
    again = clipped.walk(matrix).bounds.clamp(min=-_CLIPPING_SLACK * rows.skeleton.scale)
    return torch.where(rows.infeasible, -torch.inf, torch.minimum(walk.bounds, again))


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """One evaluation.

    Attributes:
        rows: The rows.
        matrix: (size, batch), the parameters; `held` are views of it.
        held: By stage.
        bounds: (batch,).
        slopes: (inputs, batch), the row's plane over the inputs.
        corners: (inputs, batch), where it attains its bound.
        coefficients: By stage, (windows, batch), on the outputs.
    """

    rows: Rows
    matrix: Tensor
    held: list[Held]
    bounds: Tensor
    slopes: Tensor
    corners: Tensor
    coefficients: list[Tensor]

    def gradient(self) -> Tensor:
        """The bounds' derivatives, (size, batch), tangent to the simplices."""
        rows, skeleton = self.rows, self.rows.skeleton
        slopes = torch.zeros_like(self.matrix)
        columns = self.corners
        out = rows.layout.held(skeleton, slopes)
        for index, (stage, planes) in enumerate(zip(skeleton.stages, rows.planes, strict=True)):
            z = stage.products.forward(columns) + stage.constants
            y = planes.forward(stage, z, self.coefficients[index], self.held[index])
            planes.gradient(stage, z, y, self.coefficients[index], self.held[index], out[index])
            planes.tangent(out[index])
            columns = torch.cat([columns, y])
        forms = skeleton.form_products.forward(columns) + skeleton.form_constants
        head = slopes[: rows.layout.members]
        head.copy_(forms.gather(0, rows.members))
        centre_on(head, torch.ones_like(head, dtype=torch.bool), dim=0)
        return slopes

    def gaps(self) -> list[tuple[Tensor, Tensor]]:
        """What each window adds to the bound, by stage: (windows, batch) >= 0, with the candidates (candidates, batch) there.

        At the corner x*, the bound is the row's value at x* in the subproblem's network (outputs the largest alternative in A,
        multipliers included) plus the sum of these: coefficient times (plane - maximum), telescoping over the stages.
        """
        rows, skeleton = self.rows, self.rows.skeleton
        columns, found = self.corners, []
        for index, (stage, planes) in enumerate(zip(skeleton.stages, rows.planes, strict=True)):
            z = stage.products.forward(columns) + stage.constants
            y = planes.maxima(stage, z)
            plane = planes.forward(stage, z, self.coefficients[index], self.held[index])
            gap = torch.where(planes.undecided, self.coefficients[index] * (plane - y), 0.0)
            found.append((gap, z))
            columns = torch.cat([columns, y])
        return found


def _planes(skeleton: Skeleton, domain: Domain, lower: Tensor, upper: Tensor) -> tuple[Planes, ...]:
    slack = _ROUNDING * skeleton.scale
    planes: list[Planes] = []
    for stage, alive, dropped in zip(skeleton.stages, domain.alive, domain.dropped, strict=True):
        low, high = candidate_bounds(stage, lower, upper, slack)
        if stage.is_relu:
            planes.append(ReluPlanes.of(low, high, alive, dropped, slack))
        else:
            low, high = (bound.expand(-1, alive.shape[2]) for bound in (low, high))
            planes.append(MaxPlanes.of(stage, low, high, alive, dropped, slack))
    return tuple(planes)


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """The least bounds found.

    Attributes:
        bounds: (batch,), -inf where the subproblem is empty.
        parameters: (size, batch), those that gave them.
        corners: (inputs, batch), where the planes attain the bounds.
        means: (inputs, batch), the mean corner over the later steps: where the bounds' linear program is nearly attained, since
            averages of the maximisers that a subgradient method meets tend to a primal solution (Shor 1985).
    """

    bounds: Tensor
    parameters: Tensor
    corners: Tensor
    means: Tensor


_MOMENTUM, _MEMORY = 0.8, 0.95


def minimise(
    rows: Rows,
    start: Tensor,
    *,
    descent: Descent,
    threshold: float,
    must_stop: Callable[[], bool] = lambda: False,
    clips: bool = True,
) -> Bounded:
    """The least upper bounds found from the starting parameters (size, batch).

    Rows whose bound falls below the threshold are left alone from then on. If it `clips`, each row clips its box half way by its
    own plane: the parameters returned may then give the bound over the clipped box alone.

    Soundness: every iterate is projected before it is evaluated, so each bound holds up to rounding; over a clipped box a bound
    counts as no less than what is known outside it.
    """
    matrix = start.clone()
    rows.project(matrix)
    best = torch.where(rows.infeasible, -torch.inf, torch.inf).to(matrix.dtype)
    kept, corners = matrix.clone(), matrix.new_zeros((rows.skeleton.inputs, rows.batch))
    means = torch.zeros_like(corners)
    active = (best > 0).nonzero().squeeze(1)
    rows, matrix = _narrowed(rows, matrix, active)
    first, second = torch.zeros_like(matrix), torch.zeros_like(matrix)
    rates, floor = None, -torch.inf
    for iteration in range(descent.iterations + 1):
        if not len(active):
            break
        walk = rows.walk(matrix)
        bounds = walk.bounds.clamp(min=floor)
        improves = bounds < best[active]
        places = active[improves]
        best[places] = bounds[improves]
        kept[:, places] = matrix[:, improves]
        corners[:, places] = walk.corners[:, improves]
        weight = 1.0 / (1 + iteration // 2)
        means[:, active] = torch.lerp(means[:, active], walk.corners, weight)
        if iteration == descent.iterations or must_stop():
            break
        gradient = walk.gradient()
        rates = _rates(walk, descent) if rates is None else rates
        rate = descent.decay**iteration
        first.mul_(_MOMENTUM).add_(gradient, alpha=1 - _MOMENTUM)
        second.mul_(_MEMORY).addcmul_(gradient, gradient, value=1 - _MEMORY)
        scale = (second / (1 - _MEMORY ** (iteration + 1))).sqrt_().add_(1e-12)
        step = first.div(scale).mul_(rates * (rate / (1 - _MOMENTUM ** (iteration + 1))))
        is_open = best[active] >= threshold
        if int(is_open.sum()) < 0.8 * len(active):
            left = is_open.nonzero().squeeze(1)
            active = active[left]
            rows = rows.selected(left)
            matrix, step = matrix[:, left], step[:, left]
            first, second = first[:, left], second[:, left]
        matrix = matrix - step
        if clips and iteration == descent.iterations // 2:
            # The best parameters so far: in range, as those of a step not yet projected are not.
            rows = rows.clipped(rows.walk(kept[:, active]))
            floor = -_CLIPPING_SLACK * rows.skeleton.scale
        rows.project(matrix)
    return Bounded(best, kept, corners, means)


def _narrowed(rows: Rows, matrix: Tensor, active: Tensor) -> tuple[Rows, Tensor]:
    if len(active) == rows.batch:
        return rows, matrix
    return rows.selected(active), matrix[:, active].contiguous()


def _rates(walk: Walk, descent: Descent) -> Tensor:
    """(size, 1): the learning rate of each parameter."""
    layout = walk.rows.layout
    rates = walk.matrix.new_full((layout.size, 1), descent.learning_rate)
    for (_, _, multipliers), coefficients in zip(layout.pieces, walk.coefficients, strict=True):
        scale = float(coefficients.abs().amax()) if coefficients.numel() else 0.0
        rates[multipliers] = descent.multiplier_rate * scale
    return rates
