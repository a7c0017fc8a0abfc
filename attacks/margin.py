"""The layered margin attack: ascent of a property's margin with one width per pixel.

The domain is the query's box, so a layered neighbourhood (Mour 2023) is attacked with steps in proportion to each layer's
epsilon and pixels of zero width never move. The margin, a count-th largest form, is not concave in the forms, so rows climb
the minimum over single count-subsets. How, and what it finds: docs/attacks.md.
"""

from dataclasses import dataclass
from itertools import count
from math import inf

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attacks.climber import Climber, rows_at_once
from attacks.domains import BoxDomain
from attacks.engine import Model
from attacks.losses import PropertyMargin, likely_subsets
from attacks.population import Population
from attacks.rounds import SURVIVORS, next_subset, play_round
from attacks.surrogate import SurrogateNetwork
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.network import Network
from verifier.query import Query
from verifier.torch_network import TorchNetwork


@dataclass(frozen=True, slots=True)
class MarginAttackOptions:
    """How hard to try.

    Attributes:
        scout_steps: Steps of the first, small batch: the margin itself from the starts, the centre and corners.
        steps: Steps of a row in all that follows, two thirds of them on smoothed stand-ins of the network. First every
            likely subset of forms is climbed from the best point known.
        restarts: Rounds after that, in which many rows climb one subset again and the best tiles of their points are put
            together; None for as many as the deadline allows.
        rows: Rows of a round.
        max_subsets: Subsets of forms that are climbed, the likeliest.
        clear_margin: A float32 margin above this times max(1, largest |score| at the centre) ends the attack: the rounding
            of a replay cannot take such a success back.
        keep: Candidates returned at most.
        device: The torch device.

    Raises:
        InputError: A number out of range.
    """

    scout_steps: int = 15
    steps: int = 24
    restarts: int | None = 1
    rows: int = 32
    max_subsets: int = 40
    clear_margin: float = 1e-4
    keep: int = 8
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("scout_steps", "steps", "restarts", "max_subsets"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"attack option {name}: got {getattr(self, name)}, wanted a number >= 0")
        if self.rows < 1 or self.keep < 1 or not self.clear_margin >= 0:
            raise InputError("attack options: wanted rows >= 1, keep >= 1 and clear_margin >= 0")

    @classmethod
    def persistent(cls, *, device: str = "cpu", keep: int = 24) -> "MarginAttackOptions":
        """Goes on until a clear success or the deadline, which must be finite.

        Made to be called in slices: called again with what it returned as starts, and another seed, it goes on from there.
        """
        return cls(scout_steps=5, steps=36, restarts=None, keep=keep, device=device)


class MarginAttack:
    """Searches a query's box for images with a positive margin; promises nothing but that they lie inside.

    Calls with the same query, starts and seed return the same images unless a deadline cuts one short.
    """

    def __init__(self, options: MarginAttackOptions | None = None, seed: int = 0) -> None:
        self.options = options if options is not None else MarginAttackOptions()
        self.seed = seed
        self._prepared: tuple[Network, Model, SurrogateNetwork] | None = None

    def __call__(
        self, query: Query, *, starts: Float[np.ndarray, "n ..."], deadline: Deadline
    ) -> list[Float[np.ndarray, "..."]]:
        """Float32 images inside the box, the largest float32 margin first, without repetition; none if no float32 fits.

        Args:
            query: Network, region and property.
            starts: Points to climb from, moved into the box first; those that are not finite are passed over.
            deadline: When to return the best so far. It is looked at between steps of a batch, and with none left nothing
                is tried.

        Raises:
            InputError: The starts have another shape than the network's input, or neither restarts nor deadline has an end.
        """
        device = torch.device(self.options.device)
        if starts.shape[1:] != query.region.shape:
            raise InputError(f"attack starts: got shape {starts.shape}, wanted (n, {query.region.shape})")
        if self.options.restarts is None and deadline.at == inf:
            raise InputError("attack: a persistent attack needs a deadline; give one, or a number of restarts")
        domain = BoxDomain.inside(query.region, device)
        if domain is None or deadline.has_expired:
            return []
        model, surrogate = self._networks(query.network, device)
        margin = PropertyMargin.of(query.property, device)
        with torch.no_grad():
            centre_scores = model((domain.lower + 0.5 * domain.widths)[None])
        climber = Climber(
            model=model,
            surrogate=surrogate,
            domain=domain,
            margin=margin,
            clear=self.options.clear_margin * max(1.0, float(centre_scores.abs().max())),
            rows=rows_at_once(query.network, device),
            generator=torch.Generator().manual_seed(self.seed),
            deadline=deadline,
        )
        return _search(climber, starts, self.options).images(self.options.keep)

    def longer(self, turn: int) -> "MarginAttack":
        """The same attack without an end of its own; turns differ in their seeds."""
        options = MarginAttackOptions.persistent(device=self.options.device)
        attack = MarginAttack(options, seed=self.seed + 1 + turn)
        attack._prepared = self._prepared
        return attack

    def _networks(self, network: Network, device: torch.device) -> tuple[Model, SurrogateNetwork]:
        if self._prepared is None or self._prepared[0] is not network:
            model = TorchNetwork(network, device, torch.float32)
            self._prepared = (network, model, SurrogateNetwork(network, device))
        return self._prepared[1:]


def _search(climber: Climber, starts: Float[np.ndarray, "n ..."], options: MarginAttackOptions) -> Population:
    """Scouts, climbs every likely subset, and plays rounds, until one of them has a clear success or time is over."""
    population = _scout(climber, starts, options)
    if _is_over(climber, population) or options.steps == 0:
        return population
    subsets = likely_subsets(
        population.forms.cpu().numpy().astype(np.float64), climber.margin.count, options.max_subsets
    )
    population.subsets = torch.from_numpy(subsets).to(population.forms.device)
    if len(subsets) == 0:
        return population
    nearest = population.points[population.within().argmax(dim=0)]
    population.add(climber.climb_smoothed(nearest, population.subsets, options.steps))
    for played in range(options.restarts) if options.restarts is not None else count():
        if _is_over(climber, population) or not bool((climber.domain.widths > 0).any()):
            break
        subset = next_subset(population, climber.generator, is_first=played == 0)
        play_round(climber, population, subset, rows=options.rows, steps=options.steps)
        population.trim(subset, SURVIVORS, options.keep)
    return population


def _is_over(climber: Climber, population: Population) -> bool:
    return population.has_success or climber.deadline.has_expired or len(population.points) == 0


def _scout(climber: Climber, starts: Float[np.ndarray, "n ..."], options: MarginAttackOptions) -> Population:
    """Climbs the margin itself from the first points."""
    points = _first_points(climber, starts)
    no_subsets = torch.zeros((len(points), len(climber.margin.offsets)), dtype=torch.bool, device=points.device)
    scouted = climber.climb(points, no_subsets, options.scout_steps)
    return Population(climber, scouted)


def _first_points(climber: Climber, starts: Float[np.ndarray, "n ..."]) -> Float[Tensor, "rows ..."]:
    """Given starts, the centre, both extreme corners and two random corners."""
    usable = starts[np.isfinite(starts).all(axis=tuple(range(1, starts.ndim)))]
    domain = climber.domain
    given = torch.from_numpy(usable.astype(np.float32)).to(domain.lower.device)
    centre = domain.lower + 0.5 * domain.widths
    corners = domain.random_corners(2, climber.generator)
    return domain.project(torch.cat([given, centre[None], domain.lower[None], domain.upper[None], corners]))
