"""Step rules of the attacks of the literature: along a normalised gradient, or by SGD or Adam on a change of variable."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.domains import Domain
from attacks.steps import Stepper, rows_of

Rows = Float[Tensor, "rows pixels"]
Unit = Literal["sign", "l2", "sparse"]
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class UnitStep:
    """x <- P(x + size * u(g)), where u makes the gradient a step of length 1; rows without a gradient stay.

    Attributes:
        size: The length, in the norm that belongs to `unit`: a number, or a matrix with one row for all rows or one for each.
        unit: "sign" (FGSM, BIM, PGD), "l2" (FGM), or "sparse": the sign of the largest |g|, of l1 norm 1 (SLIDE).
        momentum: If given, u is taken of m <- momentum * m + g / |g|_1 (MI-FGSM).
        sparsity: For "sparse", the share of pixels left alone.
    """

    size: float | Tensor
    unit: Unit = "sign"
    momentum: float | None = None
    sparsity: float = 0.95

    def begin(self, domain: Domain, starts: Rows, iterations: int) -> Stepper:  # noqa: ARG002
        """Fresh momentum."""
        return _UnitStepper(self, domain, None if self.momentum is None else torch.zeros_like(starts))


class _UnitStepper:
    def __init__(self, rule: UnitStep, domain: Domain, momentum: Tensor | None) -> None:
        self._rule, self._domain, self._momentum = rule, domain, momentum
        self._size = rule.size

    def keep(self, rows: Tensor) -> None:
        self._domain = self._domain.at(rows)
        if isinstance(self._size, Tensor) and self._size.ndim == 2:
            self._size = rows_of(self._size, rows)
        if self._momentum is not None:
            self._momentum = self._momentum[rows]

    def advance(self, points: Rows, losses: Tensor, gradients: Rows) -> Rows:  # noqa: ARG002
        direction = gradients
        if self._rule.momentum is not None and self._momentum is not None:
            length = gradients.abs().sum(dim=1, keepdim=True).clamp(min=_TINY)
            self._momentum = direction = self._rule.momentum * self._momentum + gradients / length
        # The unit step is fresh, so it is scaled and moved in place.
        return self._domain.project(_unit(direction, self._rule).mul_(self._size).add_(points))


def _unit(direction: Rows, rule: UnitStep) -> Rows:
    if rule.unit == "sign":
        return direction.sign()
    if rule.unit == "l2":
        # Scaled first, so that squares of tiny gradients do not vanish.
        scaled = direction / direction.abs().amax(dim=1, keepdim=True).clamp(min=_TINY)
        return scaled / torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp(min=_TINY)
    size = direction.abs()
    count = max(1, round((1.0 - rule.sparsity) * direction.shape[1]))
    kept = torch.zeros_like(direction).scatter(1, size.topk(count, dim=1).indices, 1.0)
    signs = direction.sign() * kept
    return signs / signs.abs().sum(dim=1, keepdim=True).clamp(min=1.0)


@runtime_checkable
class Space(Protocol):
    """A change of variable: the optimiser moves w, the network sees an image."""

    def decode(self, variables: Rows) -> Rows:
        """The images."""

    def encode(self, points: Rows) -> Rows:
        """Variables that decode to the images, up to rounding."""

    def chained(self, gradients: Rows, variables: Rows) -> Rows:
        """Gradients by the variables, from gradients by the pixels at what the variables decode to."""

    def follow(self, moved: Rows, images: Rows, inside: Rows) -> Rows:
        """Variables of the projected images `inside`: the moved ones where the projection left their images alone.

        Where it did not, a variable must follow, or it drifts away and its gradient dies.
        """

    def at(self, rows: Tensor) -> "Space":
        """The space of some rows."""


@dataclass(frozen=True, slots=True, eq=False)
class DeltaSpace:
    """The difference to the clean image itself."""

    clean: Rows

    def decode(self, variables: Rows) -> Rows:
        """The clean image plus the variable."""
        return self.clean + variables

    def encode(self, points: Rows) -> Rows:
        """The difference."""
        return points - self.clean

    def chained(self, gradients: Rows, variables: Rows) -> Rows:  # noqa: ARG002
        """The gradients themselves."""
        return gradients

    def follow(self, moved: Rows, images: Rows, inside: Rows) -> Rows:
        """The variables with what the projection added; bit for bit the same where it moved nothing."""
        return (inside - images).add_(moved)

    def at(self, rows: Tensor) -> "DeltaSpace":
        """The space of some rows."""
        return DeltaSpace(self.clean[rows])


@dataclass(frozen=True, slots=True, eq=False)
class TanhSpace:
    """The box through tanh (Carlini and Wagner 2017): every variable decodes to an image inside."""

    lower: Rows
    upper: Rows

    def decode(self, variables: Rows) -> Rows:
        """Images strictly inside, up to rounding."""
        return self.lower + 0.5 * (variables.tanh() + 1.0) * (self.upper - self.lower)

    def encode(self, points: Rows) -> Rows:
        """The inverse, with the published factor 0.999999 against infinite variables at the bounds."""
        widths = (self.upper - self.lower).clamp(min=_TINY)
        return torch.atanh(0.999999 * (2.0 * (points - self.lower) / widths - 1.0).clamp(-1.0, 1.0))

    def chained(self, gradients: Rows, variables: Rows) -> Rows:
        """The gradients times the derivative of `decode`."""
        return gradients * (0.5 * (1.0 - variables.tanh() ** 2) * (self.upper - self.lower))

    def follow(self, moved: Rows, images: Rows, inside: Rows) -> Rows:
        """Encoded anew where the projection moved a pixel."""
        return torch.where(inside == images, moved, self.encode(inside))

    def at(self, rows: Tensor) -> "TanhSpace":
        """The space of some rows."""
        return TanhSpace(self.lower[rows], self.upper[rows])


@dataclass(frozen=True, slots=True, eq=False)
class SqueezedSpace:
    """tanh without its inverse, as in the released top-k attacks: the network sees tanh(z + w) for z = 2 x - 1.

    Even w = 0 changes the image: its contrast shrinks to tanh(1) = 0.76 of the range.
    """

    clean: Rows

    def decode(self, variables: Rows) -> Rows:
        """The squeezed image plus the variable, in [0, 1]."""
        return 0.5 * (torch.tanh(2.0 * self.clean - 1.0 + variables) + 1.0)

    def encode(self, points: Rows) -> Rows:
        """The variable that the released code measures."""
        return torch.atanh((2.0 * points - 1.0).clamp(-0.999999, 0.999999)) - (2.0 * self.clean - 1.0)

    def chained(self, gradients: Rows, variables: Rows) -> Rows:
        """The gradients times the derivative of `decode`."""
        return gradients * (0.5 * (1.0 - torch.tanh(2.0 * self.clean - 1.0 + variables) ** 2))

    def follow(self, moved: Rows, images: Rows, inside: Rows) -> Rows:
        """Encoded anew where the projection moved a pixel."""
        return torch.where(inside == images, moved, self.encode(inside))

    def at(self, rows: Tensor) -> "SqueezedSpace":
        """The space of some rows."""
        return SqueezedSpace(self.clean[rows])


@dataclass(frozen=True, slots=True, eq=False)
class SgdStep:
    """Gradient steps with momentum on a change of variable; each row on its own, projected after the step.

    Attributes:
        space: The change of variable.
        rate: The learning rate.
        momentum: v <- momentum * v + g.
        decay: Weight decay, g <- g - decay * w.
    """

    space: Space
    rate: float
    momentum: float = 0.0
    decay: float = 0.0

    def begin(self, domain: Domain, starts: Rows, iterations: int) -> Stepper:  # noqa: ARG002
        """Fresh momentum at the starts' variables."""
        return _VariableStepper(domain, self.space, starts, _Sgd(self, starts))


class _Sgd:
    def __init__(self, rule: SgdStep, starts: Tensor) -> None:
        self._rule, self._velocity = rule, torch.zeros_like(starts)

    def keep(self, rows: Tensor) -> None:
        self._velocity = self._velocity[rows]

    def move(self, variables: Rows, gradients: Rows) -> Rows:
        self._velocity = self._rule.momentum * self._velocity + gradients - self._rule.decay * variables
        return variables + self._rule.rate * self._velocity


@dataclass(frozen=True, slots=True, eq=False)
class AdamStep:
    """Adam (Kingma and Ba 2015) on a change of variable, with every row's own moments.

    Attributes:
        space: The change of variable.
        rate: The learning rate.
    """

    space: Space
    rate: float

    def begin(self, domain: Domain, starts: Rows, iterations: int) -> Stepper:  # noqa: ARG002
        """Fresh moments at the starts' variables."""
        return _VariableStepper(domain, self.space, starts, _Adam(self.rate, starts))


class _Adam:
    def __init__(self, rate: float, starts: Tensor) -> None:
        self._rate, self._taken = rate, 0
        self._mean, self._square = torch.zeros_like(starts), torch.zeros_like(starts)

    def keep(self, rows: Tensor) -> None:
        self._mean, self._square = self._mean[rows], self._square[rows]

    def move(self, variables: Rows, gradients: Rows) -> Rows:
        self._taken += 1
        # In few passes over memory, the corrections of both moments taken into the factors (Kingma and Ba, end of section 2): as
        # plain formulae these lines took a tenth of a whole step of ML-CW. Not torch's fused Adam, in which the last bits of a
        # row depend on where in memory it lies.
        self._mean.lerp_(gradients, 0.1)
        self._square.mul_(0.999).addcmul_(gradients, gradients, value=0.001)
        correction = math.sqrt(1.0 - 0.999**self._taken)
        size = self._square.sqrt().add_(1e-8 * correction)
        return torch.addcdiv(variables, self._mean, size, value=self._rate * correction / (1.0 - 0.9**self._taken))


class _VariableStepper:
    def __init__(self, domain: Domain, space: Space, starts: Tensor, mover: _Sgd | _Adam) -> None:
        self._domain, self._space, self._mover = domain, space, mover
        self._variables = space.encode(starts)

    def keep(self, rows: Tensor) -> None:
        self._domain, self._space, self._variables = self._domain.at(rows), self._space.at(rows), self._variables[rows]
        self._mover.keep(rows)

    def advance(self, points: Rows, losses: Tensor, gradients: Rows) -> Rows:  # noqa: ARG002
        chained = self._space.chained(gradients, self._variables)
        moved = self._mover.move(self._variables, chained)
        images = self._space.decode(moved)
        inside = self._domain.project(images)
        self._variables = self._space.follow(moved, images, inside)
        return inside
