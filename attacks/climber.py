"""One query's tools of ascent: the network, its smoothed stand-in, the box, the margin, random numbers and the deadline."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attacks.domains import BoxDomain
from attacks.engine import Ascent, Model, OfScores, StopRule, run
from attacks.losses import PropertyMargin, SubsetMargin
from attacks.steps import AutoStep
from attacks.surrogate import SurrogateNetwork
from verifier import network as typed
from verifier.deadline import Deadline
from verifier.network import Network

_CPU_ROWS = 32
_CPU_PRODUCTS = 2**27
_OTHER_PRODUCTS = 2**34

LEAK, TEMPERATURE, NOISE = 0.1, 0.15, 0.3
COOLED = 1 / 3
INITIAL_STEPS = (0.5, 0.2, 0.05)


def rows_at_once(network: Network, device: torch.device) -> int:
    """How many rows to evaluate together: few enough that a step takes some hundredths of a second.

    On a CPU more than 32 rows were slower a row, since intermediate values leave the caches.
    """
    products = sum(_products(node) for node in network.nodes)
    if device.type == "cpu":
        return max(1, min(_CPU_ROWS, _CPU_PRODUCTS // products))
    return max(1, _OTHER_PRODUCTS // products)


def _products(node: typed.Node) -> int:
    """Multiplications of one evaluation, or entries where there are none."""
    match node.op:
        case typed.Conv() as op:
            return prod(node.shape) * prod(op.weight.shape[1:])
        case typed.Dense() as op:
            return prod(node.shape) * op.weight.shape[1]
        case _:
            return prod(node.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Climber:
    """Climbs the least of a row's subset of forms, or the margin where the subset is empty.

    Attributes:
        model: The scores of the network.
        surrogate: The same network, to be smoothed.
        domain: The box.
        margin: Of the property.
        clear: A margin above this is a success that a replay will not take back.
        rows: Evaluated together at most.
        generator: The source of all randomness, on the CPU.
        deadline: Looked at before every evaluation but the first.
    """

    model: Model
    surrogate: SurrogateNetwork
    domain: BoxDomain
    margin: PropertyMargin
    clear: float
    rows: int
    generator: torch.Generator
    deadline: Deadline

    def forms(self, points: Float[Tensor, "rows ..."]) -> Float[Tensor, "evaluated forms"]:
        """The forms at the points, in order; those of the last ones are missing once time is over."""
        found = [self.margin.forms(self.model(points[:0]))]
        with torch.no_grad():
            for batch in points.split(self.rows):
                found.append(self.margin.forms(self.model(batch)))
                if self.deadline.has_expired:
                    break
        return torch.cat(found)

    def climb(
        self,
        points: Float[Tensor, "rows ..."],
        members: Bool[Tensor, "rows forms"],
        steps: int,
        *,
        initial: float = INITIAL_STEPS[0],
    ) -> Float[Tensor, "climbed ..."]:
        """The best point each row met on the network itself; rows are missing after a clear success or once time is over."""
        best = []
        stop = StopRule(above=self.clear, at_first=True)
        for batch, subset in zip(points.split(self.rows), members.split(self.rows), strict=True):
            loss = SubsetMargin(self.margin, subset)
            found = run(self._ascent(loss, steps, initial, stop), self.model, batch, self.deadline)
            best.append(found.points)
            if bool(found.succeeded.any()) or self.deadline.has_expired:
                break
        return torch.cat(best)

    def climb_smoothed(
        self, points: Float[Tensor, "rows ..."], members: Bool[Tensor, "rows forms"], steps: int
    ) -> Float[Tensor, "climbed ..."]:
        """As `climb`, after a third of the steps on a strongly and a third on a weakly smoothed stand-in of each row's own."""
        best = []
        for batch, subset in zip(points.split(self.rows), members.split(self.rows), strict=True):
            warm = self._warm_up(batch, subset, steps // 3)
            best.append(self.climb(warm, subset, steps - 2 * (steps // 3), initial=INITIAL_STEPS[2]))
            if self.deadline.has_expired or float(self.margin(self.model(best[-1])).max()) > self.clear:
                break
        return torch.cat(best)

    def _warm_up(
        self, points: Float[Tensor, "rows ..."], members: Bool[Tensor, "rows forms"], steps: int
    ) -> Float[Tensor, "rows ..."]:
        # Every row draws its own strengths: no single one suits all networks.
        leak, temperature, noise = (
            2.0 * mean * torch.rand(len(points), generator=self.generator) for mean in (LEAK, TEMPERATURE, NOISE)
        )
        smoothing = self.surrogate.draw(leak, temperature, noise, self.generator)
        loss = SubsetMargin(self.margin, members)
        for share, initial in zip((1.0, COOLED), INITIAL_STEPS, strict=False):
            ascent = self._ascent(loss, steps, initial, StopRule())
            points = run(ascent, self.surrogate.smoothed(smoothing.times(share)), points, self.deadline).points
        return points

    def _ascent(self, loss: SubsetMargin, steps: int, initial: float, stop: StopRule) -> Ascent:
        return Ascent(
            loss=OfScores(loss),
            objective=OfScores(loss),
            domain=self.domain,
            step=AutoStep(initial=initial),
            stop=stop,
            iterations=steps,
        )
