"""The layered margin attack: projected gradient ascent of a property's margin with one width per pixel.

The domain is the query's box, so a layered neighbourhood (Mour 2023) is attacked with steps in proportion to each layer's
epsilon and pixels of zero width never move. The margin, a count-th largest form, is not concave in the forms, so rows also
climb the minimum over single count-subsets, all in one batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attacks.domains import BoxDomain
from attacks.engine import Ascent, Found, Model, StopRule, run
from attacks.losses import PropertyMargin, SubsetMargin, likely_subsets
from attacks.steps import AutoStep, StepRule
from verifier.deadline import Deadline
from verifier.errors import InputError
from verifier.network import Network
from verifier.query import Query
from verifier.torch_network import TorchNetwork


@dataclass(frozen=True, slots=True)
class MarginAttackOptions:
    """How hard to try.

    Attributes:
        scout_steps: Steps of the first, small batch: the margin itself from the starts, the centre and random corners.
        steps: Steps of the second batch: every likely subset from the best points, a random corner and random points.
        restarts: Random starts of each subset beside the best point known.
        max_subsets: Subsets of forms that get rows of their own, the likeliest first.
        clear_margin: A float32 margin above this times max(1, largest |score| at the centre) ends the attack: the rounding
            of a replay cannot take such a success back.
        keep: Candidates returned at most.
        device: The torch device.
        step: The step rule.

    Raises:
        InputError: A number out of range.
    """

    scout_steps: int = 15
    steps: int = 40
    restarts: int = 1
    max_subsets: int = 40
    clear_margin: float = 1e-4
    keep: int = 8
    device: str = "cpu"
    step: StepRule = AutoStep()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        for name in ("scout_steps", "steps", "restarts", "max_subsets"):
            if getattr(self, name) < 0:
                raise InputError(f"attack option {name}: got {getattr(self, name)}, wanted a number >= 0")
        if self.keep < 1 or not self.clear_margin >= 0:
            raise InputError("attack options: wanted keep >= 1 and clear_margin >= 0")


class MarginAttack:
    """Searches a query's box for images with a positive margin; promises nothing but that they lie inside.

    Calls with the same query, starts and seed return the same images unless a deadline cuts one short.
    """

    def __init__(self, options: MarginAttackOptions | None = None, seed: int = 0) -> None:
        self.options = options if options is not None else MarginAttackOptions()
        self.seed = seed
        self._prepared: tuple[Network, Model] | None = None

    def __call__(
        self, query: Query, *, starts: Float[np.ndarray, "n ..."], deadline: Deadline
    ) -> list[Float[np.ndarray, "..."]]:
        """Float32 images inside the box, the largest float32 margin first, without repetition; none if no float32 fits.

        Args:
            query: Network, region and property.
            starts: Points to climb from, moved into the box first; those that are not finite are passed over.
            deadline: When to return the best so far. With none left nothing is tried.

        Raises:
            InputError: The starts have another shape than the network's input.
        """
        device = torch.device(self.options.device)
        domain = BoxDomain.inside(query.region, device)
        if starts.shape[1:] != query.region.shape:
            raise InputError(f"attack starts: got shape {starts.shape}, wanted (n, {query.region.shape})")
        if domain is None or deadline.has_expired:
            return []
        search = _Search(
            self.options, self._model(query.network, device), domain, PropertyMargin.of(query.property, device)
        )
        return search.candidates(starts, torch.Generator().manual_seed(self.seed), deadline)

    def _model(self, network: Network, device: torch.device) -> Model:
        if self._prepared is None or self._prepared[0] is not network:
            self._prepared = (network, TorchNetwork(network, device, torch.float32))
        return self._prepared[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """One call of the attack."""

    options: MarginAttackOptions
    model: Model
    domain: BoxDomain
    margin: PropertyMargin

    def candidates(
        self, starts: Float[np.ndarray, "n ..."], generator: torch.Generator, deadline: Deadline
    ) -> list[Float[np.ndarray, "..."]]:
        known = self._first_points(starts, generator)
        with torch.no_grad():
            centre_scores = self.model(known[-1:])
        clear = self.options.clear_margin * max(1.0, float(centre_scores.abs().max()))
        scouted = self._climb(known, self._no_subsets(len(known)), self.options.scout_steps, clear, deadline)
        if bool(scouted.succeeded.any()) or deadline.has_expired or self.options.steps == 0:
            return self._best([scouted])
        rows, members = self._second_batch(scouted, generator)
        return self._best([scouted, self._climb(rows, members, self.options.steps, clear, deadline)])

    def _first_points(
        self, starts: Float[np.ndarray, "n ..."], generator: torch.Generator
    ) -> Float[Tensor, "rows ..."]:
        """Given starts, both extreme corners, two random corners, and last the centre."""
        usable = starts[np.isfinite(starts).all(axis=tuple(range(1, starts.ndim)))]
        lower, upper = self.domain.lower, self.domain.upper
        given = torch.from_numpy(usable.astype(np.float32)).to(lower.device)
        centre = lower + 0.5 * (upper - lower)
        corners = self.domain.random_corners(2, generator)
        return self.domain.project(torch.cat([given, lower[None], upper[None], corners, centre[None]]))

    def _second_batch(
        self, scouted: Found, generator: torch.Generator
    ) -> tuple[Float[Tensor, "rows ..."], Bool[Tensor, "rows forms"]]:
        """Rows = likely subsets x (the known point that suits the subset best, and restarts), then the margin from restarts."""
        with torch.no_grad():
            forms = self.margin.forms(self.model(scouted.points))
        subsets = torch.from_numpy(
            likely_subsets(forms.cpu().numpy().astype(np.float64), self.margin.count, self.options.max_subsets)
        ).to(forms.device)
        within = torch.where(subsets[None], forms[:, None], torch.inf).amin(dim=2)
        points, members = [scouted.points[within.argmax(dim=0)]], [subsets]
        for restart in range(self.options.restarts):
            draw = self.domain.random if restart % 2 else self.domain.random_corners
            points.append(draw(len(subsets), generator))
            members.append(subsets)
        points.append(self.domain.random(max(2, self.options.restarts), generator))
        members.append(self._no_subsets(len(points[-1])))
        return torch.cat(points), torch.cat(members)

    def _no_subsets(self, rows: int) -> Bool[Tensor, "rows forms"]:
        return torch.zeros((rows, len(self.margin.offsets)), dtype=torch.bool, device=self.margin.offsets.device)

    def _climb(
        self,
        points: Float[Tensor, "rows ..."],
        members: Bool[Tensor, "rows forms"],
        steps: int,
        clear: float,
        deadline: Deadline,
    ) -> Found:
        ascent = Ascent(
            loss=SubsetMargin(self.margin, members),
            objective=self.margin,
            domain=self.domain,
            step=self.options.step,
            stop=StopRule(above=clear, at_first=True),
            iterations=steps,
        )
        return run(ascent, self.model, points, deadline)

    def _best(self, batches: list[Found]) -> list[Float[np.ndarray, "..."]]:
        """The best rows over all batches, sorted by margin, each image once."""
        points = torch.cat([found.points for found in batches])
        values = torch.cat([found.values for found in batches])
        images: dict[bytes, np.ndarray] = {}
        for row in torch.argsort(values, descending=True, stable=True).tolist():
            if len(images) == self.options.keep or not bool(values[row].isfinite()):
                break
            image = points[row].cpu().numpy().astype(np.float32)
            images.setdefault(image.tobytes(), image)
        return list(images.values())
