"""Where to grow next: steps in epsilon space with the constraint "margin < 0" relaxed into the objective."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier.region import frozen

Vector = Float[np.ndarray, " layers"]

NO_COST = 1e-12
"""A layer cheaper than this counts as free."""


class ProposalRule(Enum):
    """How a step is chosen."""

    LINEARISED = "linearised"
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


def linearised_step(epsilons: Vector, weights: Vector, slope: Slope, trade_off: float, radius: Vector) -> Vector:
    """The best neighbourhood within `radius` of this one for the linearised margin; layers may be traded for each other.

    Maximises w . delta subject to g . delta <= -trade_off * margin, |delta_d| <= radius_d and 0 <= eps + delta <= 1. By
    duality it is a sign-gradient step of the Lagrangian w . eps - mu * margin: layers with w_d > mu g_d grow by their radius, the
    others shrink by it, and one layer makes up the balance. The continuous knapsack solves it exactly: spend the budget by
    falling w_d / g_d (ties: inner layer first).
    """
    low = -np.minimum(radius, epsilons)
    high = np.minimum(radius, 1.0 - epsilons)
    cost = np.where(slope.gradient > NO_COST, slope.gradient, 0.0)
    budget = max(0.0, -trade_off * slope.margin) - float(cost @ low)
    delta = low.copy()
    # A layer that costs nothing comes first, also where it is worth nothing.
    rate = np.where(cost > 0.0, weights / np.where(cost > 0.0, cost, 1.0), np.inf)
    for layer in np.argsort(-rate, kind="stable"):
        room = high[layer] - low[layer]
        spent = room if cost[layer] * room <= budget else max(0.0, budget) / cost[layer]
        delta[layer] += spent
        budget -= cost[layer] * spent
    return frozen(np.clip(epsilons + delta, 0.0, 1.0))


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
