"""How an attack moves: step rules, each row on its own."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from attacks.domains import Domain


@runtime_checkable
class Stepper(Protocol):
    """The state of one run of a step rule."""

    def advance(
        self, points: Float[Tensor, "rows ..."], losses: Float[Tensor, " rows"], gradients: Float[Tensor, "rows ..."]
    ) -> Float[Tensor, "rows ..."]:
        """The next points, inside the domain, given the loss and its gradient at the present ones."""

    def keep(self, rows: Tensor) -> None:
        """Forgets all rows but these, given by index: from now on they are all there are."""


@runtime_checkable
class StepRule(Protocol):
    """A way to move uphill."""

    def begin(self, domain: Domain, starts: Float[Tensor, "rows ..."], iterations: int) -> Stepper:
        """Fresh state for a run of at most `iterations` steps from `starts`."""


@dataclass(frozen=True, slots=True)
class SignStep:
    """x <- P(x + size * widths * sign(gradient)): basic iterative ascent with a constant step (Madry et al. 2018)."""

    size: float = 0.1

    def begin(self, domain: Domain, starts: Float[Tensor, "rows ..."], iterations: int) -> Stepper:  # noqa: ARG002
        """The rule has no memory."""
        return _SignStepper(domain, self.size)


class _SignStepper:
    def __init__(self, domain: Domain, size: float) -> None:
        self._domain, self._size = domain, size

    def keep(self, rows: Tensor) -> None:
        self._domain = self._domain.at(rows)

    def advance(
        self,
        points: Float[Tensor, "rows ..."],
        losses: Float[Tensor, " rows"],  # noqa: ARG002
        gradients: Float[Tensor, "rows ..."],
    ) -> Float[Tensor, "rows ..."]:
        return self._domain.project(points + self._size * self._domain.widths * gradients.sign())


@dataclass(frozen=True, slots=True)
class AutoStep:
    """Sign steps with momentum whose length halves where progress stalls (Croce and Hein 2020, algorithm 1: APGD).

    The step is measured in the width of each entry, so entries of a layered region move in proportion to their layer.

    Attributes:
        initial: The first step, as a share of each entry's whole width (APGD's 2 epsilon is 1.0).
        momentum: The weight of the new step against the previous movement (APGD's alpha).
        progress: The share of improving steps in a period below which the step is halved (APGD's rho).
    """

    initial: float = 0.5
    momentum: float = 0.75
    progress: float = 0.75

    def begin(self, domain: Domain, starts: Float[Tensor, "rows ..."], iterations: int) -> Stepper:
        """State at the starts; check points at 22 % of the steps, then ever denser, as published."""
        return _AutoStepper(self, domain, starts, iterations)


def check_points(iterations: int) -> tuple[int, ...]:
    """The steps after which APGD reconsiders its step size: w_j = ceil(p_j n), p_0 = 0, p_1 = 0.22, gaps shrinking to 0.06."""
    # In hundredths, so that ceil is exact.
    percents = [0, 22]
    while percents[-1] < 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    return tuple(sorted({-(-percent * iterations // 100) for percent in percents[1:] if percent <= 100}))


class _AutoStepper:
    """Per row: step size, previous point, best point with its gradient, improvements in this period."""

    def __init__(self, rule: AutoStep, domain: Domain, starts: Float[Tensor, "rows ..."], iterations: int) -> None:
        rows = len(starts)
        self._rule, self._domain = rule, domain
        self._checks = check_points(iterations)
        self._step = 0
        self._size = starts.new_full((rows,), rule.initial)
        self._size_at_check = self._size.clone()
        self._previous = starts
        self._previous_loss = starts.new_full((rows,), -torch.inf)
        self._best, self._best_gradient = starts, torch.zeros_like(starts)
        self._best_loss = starts.new_full((rows,), -torch.inf)
        self._best_at_check = self._best_loss.clone()
        self._improvements = starts.new_zeros((rows,))
        self._last_check = 0

    def keep(self, rows: Tensor) -> None:
        self._domain = self._domain.at(rows)
        self._size, self._size_at_check = self._size[rows], self._size_at_check[rows]
        self._previous, self._previous_loss = self._previous[rows], self._previous_loss[rows]
        self._best, self._best_gradient = self._best[rows], self._best_gradient[rows]
        self._best_loss, self._best_at_check = self._best_loss[rows], self._best_at_check[rows]
        self._improvements = self._improvements[rows]

    def advance(
        self, points: Float[Tensor, "rows ..."], losses: Float[Tensor, " rows"], gradients: Float[Tensor, "rows ..."]
    ) -> Float[Tensor, "rows ..."]:
        self._record(points, losses, gradients)
        if self._step in self._checks:
            points, gradients = self._reconsider(points, gradients)
        moved = self._domain.project(points + per_row(self._size, points) * self._domain.widths * gradients.sign())
        share = self._rule.momentum if self._step else 1.0
        following = self._domain.project(points + share * (moved - points) + (1.0 - share) * (points - self._previous))
        self._previous = points
        self._step += 1
        return following

    def _record(
        self, points: Float[Tensor, "rows ..."], losses: Float[Tensor, " rows"], gradients: Float[Tensor, "rows ..."]
    ) -> None:
        self._improvements += (losses > self._previous_loss).to(losses.dtype)
        self._previous_loss = losses
        better = losses > self._best_loss
        self._best_loss = torch.where(better, losses, self._best_loss)
        self._best = torch.where(per_row(better, points), points, self._best)
        self._best_gradient = torch.where(per_row(better, points), gradients, self._best_gradient)

    def _reconsider(
        self, points: Float[Tensor, "rows ..."], gradients: Float[Tensor, "rows ..."]
    ) -> tuple[Float[Tensor, "rows ..."], Float[Tensor, "rows ..."]]:
        """Halves the step of the rows that stall, and sends these back to their best point."""
        period = self._step - self._last_check
        is_slow = self._improvements < self._rule.progress * period
        is_stuck = (self._size == self._size_at_check) & (self._best_loss <= self._best_at_check)
        halve = is_slow | is_stuck
        self._size_at_check, self._best_at_check = self._size.clone(), self._best_loss.clone()
        self._size = torch.where(halve, 0.5 * self._size, self._size)
        self._improvements = torch.zeros_like(self._improvements)
        self._last_check = self._step
        back = per_row(halve, points)
        self._previous = torch.where(back, self._best, self._previous)
        return torch.where(back, self._best, points), torch.where(back, self._best_gradient, gradients)


def rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """Some rows of what is given row by row; what all rows share stays as it is."""
    return values if len(values) == 1 else values[rows]


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """One value per row, shaped to broadcast against `like`."""
    return values.reshape(-1, *([1] * (like.ndim - 1)))
