"""The questions growing asks about a vector of epsilons, and how a network answers them."""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float

from attacks.sensitivity import layer_means
from synth.proposal import Slope
from verifier.bounds import BoundOptions, margin_bound_and_gradient
from verifier.canonical import Affine, CanonicalNetwork, Max, Relu
from verifier.check import replay
from verifier.deadline import Deadline
from verifier.layered import LayeredNeighbourhood
from verifier.lowering import lower
from verifier.network import Network
from verifier.property import Property
from verifier.query import Query
from verifier.search import Cover
from verifier.torch_network import TorchNetwork
from verifier.verdict import Counterexample, Unknown, UnknownReason
from verifier.verify import EngineChoice, Falsifier, Outcome, VerifyOptions, verify

Vector = Float[np.ndarray, " layers"]
SOFTMAX_POINTS = 8
SLOPE_FLOOR = 1e-4


class Effort(Enum):
    """How hard a query is tried: bounds alone answer fast and often "unknown"; everything includes attack and MILP."""

    BOUNDS = "bounds"
    COMPLETE = "complete"


@runtime_checkable
class Oracle(Protocol):
    """Decides neighbourhoods by their epsilons. Only `decide` is believed; the rest guides the search."""

    @property
    def layers(self) -> int:
        """The number of layers."""
        ...

    @property
    def sizes(self) -> Vector:
        """The number of entries of each layer."""
        ...

    @property
    def reach(self) -> Vector:
        """Per layer, the epsilon from which on its pixels are unrestricted: larger ones name the same neighbourhood."""
        ...

    @property
    def free_layers(self) -> Bool[np.ndarray, " layers"]:
        """Layers whose pixels cannot matter to any score."""
        ...

    def decide(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Outcome:
        """The verifier's answer for the whole neighbourhood."""
        ...

    def slope(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Slope | None:
        """The margin to first order: of the proved bound, or (complete effort) of the network at the weakest points found."""
        ...

    def falsify(self, epsilons: Vector, deadline: Deadline) -> Counterexample | None:
        """A replayed violation inside the neighbourhood, if the attack finds one."""
        ...

    def radii(self, image: Float[np.ndarray, "..."]) -> Vector:
        """The largest change per layer of an image: no robust epsilons reach all of a violation's radii."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class NetworkOracle:
    """A network's answers, through `verifier.verify` and the caller's attack.

    Attributes:
        network: What is verified.
        goal: The property, such as `stays_in_top_k(target, k, labels)`.
        zero: The neighbourhood with all epsilons 0: image and object.
        falsifier: The attack, or None.
        options: How queries of complete effort are verified; bounds effort uses its bound options alone.
        quick_bounds: For bounds effort and gradients of bounds: quicker and hardly looser.

    The splits of one complete query start the next one's search: neighbourhoods are nested, more or less.
    """

    network: Network
    goal: Property
    zero: LayeredNeighbourhood
    falsifier: Falsifier | None
    options: VerifyOptions
    quick_bounds: BoundOptions
    _covers: list[Cover] = field(default_factory=list, init=False, repr=False)

    @property
    def layers(self) -> int:
        """The number of layers of the mask."""
        return len(self.zero.epsilons)

    @property
    def sizes(self) -> Vector:
        """Pixels of each layer times channels."""
        return len(self.zero.image) * np.bincount(self.zero.layers.ravel()).astype(np.float64)

    @property
    def reach(self) -> Vector:
        """max(x, 1 - x) over the entries of each layer."""
        extent = np.maximum(self.zero.image, 1.0 - self.zero.image).max(axis=0)
        reach = np.zeros(self.layers)
        np.maximum.at(reach, self.zero.layers.ravel(), extent.ravel())
        return reach

    @property
    def free_layers(self) -> Bool[np.ndarray, " layers"]:
        """Layers none of whose entries has a path of nonzero weights to any score."""
        matters = entries_that_matter(lower(self.network)).reshape(self.zero.image.shape).any(axis=0)
        return np.bincount(self.zero.layers.ravel(), weights=matters.ravel(), minlength=self.layers) == 0

    def query(self, epsilons: Vector) -> Query:
        """The question whether the whole neighbourhood is robust."""
        return Query(self.network, self.zero.with_epsilons(epsilons).box(), self.goal)

    def decide(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Outcome:
        """One call of `verify`: where any engine may decide, bounds effort asks the bounds alone, without the attack.

        Raises:
            KeyboardInterrupt: The user interrupted it.
        """
        if effort is Effort.BOUNDS and self.options.engine is EngineChoice.AUTO:
            options = replace(self.options, engine=EngineChoice.BOUNDS, solver="auto", bounds=self.quick_bounds)
            return _uninterrupted(verify(self.query(epsilons), falsifier=None, options=options, deadline=deadline))
        outcome = verify(
            self.query(epsilons),
            falsifier=self.falsifier,
            options=self.options,
            deadline=deadline,
            cover=self._covers[-1] if self._covers else None,
        )
        if outcome.cover is not None and outcome.cover.trees:
            self._covers[:] = [outcome.cover]
        return _uninterrupted(outcome)

    def slope(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Slope | None:
        """Of alpha-CROWN's margin bound, or of the margin at the weakest points; None if the attack finds no points."""
        if effort is Effort.COMPLETE:
            return self._weakest_slope(epsilons, deadline)
        # At epsilon 0 the bound's derivative is that of a point and says little, so it is taken a little outside.
        bound, gradient = margin_bound_and_gradient(
            lower(self.network),
            self.zero.image.ravel(),
            np.broadcast_to(self.zero.layers, self.zero.image.shape).ravel(),
            np.maximum(epsilons, SLOPE_FLOOR),
            self.goal,
            options=self.quick_bounds,
            deadline=deadline,
        )
        return Slope(float(bound), np.maximum(gradient, 0.0))

    def falsify(self, epsilons: Vector, deadline: Deadline) -> Counterexample | None:
        """The first of the attack's candidates that the replay accepts."""
        query = self.query(epsilons)
        for candidate in self._candidates(query, deadline):
            found = replay(query, np.asarray(candidate, dtype=np.float64), "attack")
            if found is not None:
                return found
        return None

    def radii(self, image: Float[np.ndarray, "..."]) -> Vector:
        """The largest |x' - x| over the entries of each layer."""
        return self.zero.radii(image)

    def sensitivity(self) -> Vector:
        """The mean absolute gradient of the property's margin at the image, per layer (Simonyan et al. 2013; Mour 2023)."""
        _, gradients = margin_gradients(self.network, self.goal, self.zero.image[None])
        return layer_means(gradients[0], self.zero.layers)

    def _candidates(self, query: Query, deadline: Deadline) -> list[Float[np.ndarray, "..."]]:
        if self.falsifier is None:
            return []
        return list(self.falsifier(query, starts=np.asarray(query.region.centre)[None], deadline=deadline))

    def _weakest_slope(self, epsilons: Vector, deadline: Deadline) -> Slope | None:
        query = self.query(epsilons)
        points = self._candidates(query, deadline)[:SOFTMAX_POINTS]
        if not points:
            return None
        margins, gradients = margin_gradients(self.network, self.goal, np.stack(points).astype(np.float64))
        shares = np.exp(margins - margins.max())
        pull = np.tensordot(shares / shares.sum(), np.abs(gradients), axes=1)
        per_layer = np.bincount(self.zero.layers.ravel(), weights=pull.sum(axis=0).ravel(), minlength=self.layers)
        return Slope(float(margins.max()), per_layer)


def _uninterrupted(outcome: Outcome) -> Outcome:
    """The outcome; `verify` answers Ctrl-C with one, but here a whole run is to stop."""
    if isinstance(outcome.verdict, Unknown) and outcome.verdict.reason is UnknownReason.INTERRUPTED:
        raise KeyboardInterrupt
    return outcome


def margin_gradients(
    network: Network, wanted: Property, images: Float[np.ndarray, "n ..."]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n ..."]]:
    """The property's margin at each image and its gradient with respect to the image, in float64, rounded to nearest."""
    model = TorchNetwork(network, torch.device("cpu"), torch.float64)
    with torch.enable_grad():
        points = torch.from_numpy(np.array(images, dtype=np.float64)).requires_grad_()
        forms = model(points) @ torch.from_numpy(wanted.coefficients.copy()).T + torch.from_numpy(wanted.offsets.copy())
        margins = forms.sort(dim=1, descending=True).values[:, wanted.count - 1]
        (gradients,) = torch.autograd.grad(margins.sum(), points)
    return margins.detach().numpy(), gradients.numpy()


def entries_that_matter(canonical: CanonicalNetwork) -> Bool[np.ndarray, " inputs"]:
    """The input entries with a path of nonzero weights to some score; the others cannot change any score."""
    matters = [np.zeros(canonical.value_size(value), dtype=np.bool_) for value in range(canonical.output + 1)]
    matters[canonical.output][:] = True
    for index in reversed(range(len(canonical.nodes))):
        node, wanted = canonical.nodes[index], matters[index + 1]
        match node:
            case Affine():
                for term, value in enumerate(node.inputs):
                    matters[value] |= abs(canonical.matrix(index, term)).T @ wanted.astype(np.float64) > 0.0
            case Max():
                members = node.windows[wanted]
                matters[node.input][members[members >= 0]] = True
            case Relu():
                matters[node.input] |= wanted
    return matters[0]
