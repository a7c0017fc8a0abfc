"""Where to grow next: steps in epsilon space with the constraint "margin < 0" relaxed into the objective."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.region import frozen

Vector = Float[np.ndarray, " layers"]

SMALLEST = 1e-6
"""Where a layer at 0 starts, for a multiplicative step cannot leave 0."""

SPENT_SHARE = 0.995
"""How much of the margin an exponentiated step spends: a margin of exactly 0 is a violation."""

LARGEST_FACTOR = 4.0
"""The most an exponentiated step multiplies or divides a layer by, before rescaling."""


class ProposalRule(Enum):
    """How a step is chosen."""

    EXPONENTIATED = "exponentiated"
    MARVEL = "marvel"


@dataclass(frozen=True, slots=True, eq=False)
class Slope:
    """The margin near a neighbourhood, to first order.

    Attributes:
        margin: An estimate or bound of the largest margin inside; < 0 where there is room to grow.
        gradient: What one unit of epsilon in each layer costs; >= 0.
    """

    margin: float
    gradient: Vector


def exponentiated_step(
    epsilons: Vector, weights: Vector, slope: Slope, trade_off: float, largest_factor: float = LARGEST_FACTOR
) -> Vector:
    """An exponentiated-gradient step of the Lagrangian w . eps - mu * margin; layers are traded for each other.

    eps_d (w_d / (mu g_d))^trade_off, each factor within [1/f, f] for the largest factor f, then all rescaled so that the
    linearised margin is just below 0. The multiplier mu = (w . eps) / (g . eps) makes the price of a unit of margin the same as
    its worth on average:
    layers worth more than they cost grow, the others shrink, and at a fixed point w_d = mu g_d wherever 0 < eps_d < 1.
    (Kivinen and Warmuth 1997 for the step; with the rescaling it is the optimality-criteria update of topology optimisation.)
    Layers at 1 that cost nothing stay; a layer at 0 counts as 1e-6.
    """
    is_free = (slope.gradient <= 0.0) & (epsilons >= 1.0)
    point = np.maximum(epsilons, SMALLEST)
    cost = np.where(is_free, 0.0, np.maximum(slope.gradient, 1e-12 * max(1.0, float(slope.gradient.max(initial=0.0)))))
    spent = float(cost @ point)
    if spent <= 0.0:
        return frozen(np.ones(len(epsilons)))
    worth = np.where(is_free, 0.0, weights)
    if not worth.any():
        return epsilons
    mu = float(worth @ point) / spent
    rate = np.divide(worth, mu * cost, out=np.ones(len(point)), where=cost > 0.0)
    grown = point * np.clip(rate**trade_off, 1.0 / largest_factor, largest_factor)
    allowance = SPENT_SHARE * max(spent - slope.margin, 0.25 * spent)
    return frozen(np.where(is_free, 1.0, _scaled_to(grown, cost, allowance)))


def _scaled_to(epsilons: Vector, cost: Vector, allowance: float) -> Vector:
    """The epsilons times one factor, each at most 1, such that they cost the allowance, or all there is to spend."""
    scaled, is_full = epsilons, np.zeros(len(epsilons), dtype=np.bool_)
    while True:
        left, rest = allowance - float(cost[is_full].sum()), float(cost[~is_full] @ epsilons[~is_full])
        scaled = np.where(is_full, 1.0, epsilons * (max(left, 0.0) / rest if rest > 0.0 else 1.0))
        if not (scaled > 1.0).any():
            return scaled
        is_full |= scaled >= 1.0


def marvel_step(epsilons: Vector, gradient: Vector, trade_off: float, learning_rate: float) -> Vector:
    """A step along sign(eps) - lambda * g, negatives clipped, of length `learning_rate` (MaRVeL: Kabaha, Drachsler-Cohen 2023).

    A layer at 0 counts as positive, otherwise nothing would ever leave 0; saturated layers take no part. `gradient` is the
    mean absolute gradient per layer and enters scaled to the length of the sign vector. Nothing moves if no component is left.
    """
    is_open = epsilons < 1.0
    length = float(np.linalg.norm(gradient[is_open]))
    scaled = gradient * (np.sqrt(is_open.sum()) / length) if length > 0.0 else np.zeros_like(gradient)
    direction = np.where(is_open, np.maximum(1.0 - trade_off * scaled, 0.0), 0.0)
    norm = float(np.linalg.norm(direction))
    if norm == 0.0:
        return epsilons
    return frozen(np.minimum(epsilons + learning_rate * direction / norm, 1.0))
