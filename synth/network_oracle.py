"""How a network answers the questions that growing asks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from synth.oracle import Effort
from synth.proposal import Slope
from synth.zones import Zones
from verifier.bounds import BoundOptions
from verifier.bounds.crown import analyse_values, region_bounds
from verifier.bounds.gradient import box_gradient, critical_members
from verifier.bounds.topk import bound_property
from verifier.canonical import Affine, CanonicalNetwork, Max, Relu
from verifier.certificate import Certificate
from verifier.check import inside_box_float32, replay
from verifier.deadline import Deadline
from verifier.lowering import lower
from verifier.network import Network
from verifier.property import Property
from verifier.query import Query
from verifier.region import VALID_LOWER, VALID_UPPER, Box
from verifier.search import Cover
from verifier.torch_network import TorchNetwork
from verifier.verdict import Counterexample, Robust, Unknown, UnknownReason, Vulnerable
from verifier.verify import EngineChoice, Falsifier, Outcome, VerifyOptions, verify

Vector = Float[np.ndarray, " layers"]
SOFTMAX_POINTS = 8
SLOPE_FLOOR = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class NetworkOracle:
    """A network's answers, through `verifier.verify` and the caller's attack.

    Attributes:
        network: What is verified.
        goals: The properties that must all hold, such as `stays_in_top_k(target, k, labels)`.
        zones: The image, and which entries share an epsilon: layers, or other zones in their place.
        falsifier: The attack, or None.
        scout: A quicker attack, or None.
        options: How queries of complete effort are verified; bounds effort uses its bound options alone.
        quick_bounds: For bounds effort and gradients of bounds: quicker and hardly looser.

    The splits of one complete query start the next one's search: neighbourhoods are nested, more or less.
    """

    network: Network
    goals: tuple[Property, ...]
    zones: Zones
    falsifier: Falsifier | None
    scout: Falsifier | None
    options: VerifyOptions
    quick_bounds: BoundOptions
    _covers: dict[int, Cover] = field(default_factory=dict, init=False, repr=False)
    _models: list[TorchNetwork] = field(default_factory=list, init=False, repr=False)

    @property
    def layers(self) -> int:
        """The number of zones."""
        return self.zones.count

    @property
    def sizes(self) -> Vector:
        """The number of entries of each zone."""
        return self.zones.sizes

    @property
    def reach(self) -> Vector:
        """The largest possible change in each zone."""
        return self.zones.reach

    @property
    def free_layers(self) -> Bool[np.ndarray, " layers"]:
        """Zones none of whose entries has a path of nonzero weights to any score."""
        matters = entries_that_matter(lower(self.network)).reshape(self.zones.image.shape).astype(np.float64)
        return self.zones.total(matters, matters) == 0.0

    def queries(self, epsilons: Vector) -> list[Query]:
        """The questions whether the whole neighbourhood is robust, one per goal."""
        box = self.zones.box(epsilons)
        return [Query(self.network, box, goal) for goal in self.goals]

    def decide(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Outcome:
        """One call of `verify` per goal: where any engine may decide, bounds effort asks the bounds alone, without the attack.

        With several goals: the first counterexample, else an undecided goal's answer, else the proof with the largest bound,
        with everything that any of the proofs takes on trust.

        Raises:
            KeyboardInterrupt: The user interrupted it.
        """
        outcomes: list[Outcome] = []
        for number, query in enumerate(self.queries(epsilons)):
            outcome = _uninterrupted(self._decide_goal(number, query, effort, deadline))
            if isinstance(outcome.verdict, Vulnerable):
                return outcome
            outcomes.append(outcome)
            if effort is Effort.BOUNDS and isinstance(outcome.verdict, Unknown):
                return outcome
        return together(outcomes)

    def _decide_goal(self, number: int, query: Query, effort: Effort, deadline: Deadline) -> Outcome:
        if effort is Effort.BOUNDS and self.options.engine is EngineChoice.AUTO:
            options = replace(
                self.options, engine=EngineChoice.BOUNDS, solver="auto", bounds=self.quick_bounds, sharpens=False
            )
            return verify(query, falsifier=None, options=options, deadline=deadline)
        outcome = verify(
            query,
            falsifier=self.falsifier,
            options=self.options,
            deadline=deadline,
            cover=self._covers.get(number),
        )
        if outcome.cover is not None and outcome.cover.trees:
            self._covers[number] = outcome.cover
        return outcome

    def slope(self, epsilons: Vector, effort: Effort, deadline: Deadline) -> Slope | None:
        """Of alpha-CROWN's margin bound, or of the margin at the weakest points; None if the attack finds no points.

        Of several goals, the one whose margin is largest.
        """
        if effort is Effort.COMPLETE:
            return self._weakest_slope(epsilons, deadline)
        # At epsilon 0 the bound's derivative is that of a point and says little, so it is taken a little outside.
        box = self.zones.box(np.maximum(epsilons, SLOPE_FLOOR))
        slopes = [self._bound_slope(box, goal, deadline) for goal in self.goals]
        return max(slopes, key=lambda slope: slope.margin)

    def _bound_slope(self, box: Box, goal: Property, deadline: Deadline) -> Slope:
        canonical, options = lower(self.network), self.quick_bounds
        analysis = analyse_values(canonical, box, options=options, deadline=deadline)
        bound = bound_property(region_bounds(canonical, box, analysis), goal, options=options, deadline=deadline)
        by_lower, by_upper = box_gradient(canonical, analysis, goal, critical_members(bound, goal), options)
        shape = self.zones.image.shape
        # An end that is clipped to [0, 1] does not move.
        by_rise = np.where(box.upper < VALID_UPPER, by_upper.reshape(shape), 0.0)
        by_fall = np.where(box.lower > VALID_LOWER, -by_lower.reshape(shape), 0.0)
        return Slope(float(bound.upper), np.maximum(self.zones.total(by_rise, by_fall), 0.0))

    def falsify(
        self,
        epsilons: Vector,
        deadline: Deadline,
        starts: Sequence[Float[np.ndarray, "..."]] = (),
        *,
        is_quick: bool = False,
    ) -> Counterexample | None:
        """The first of the attack's, or the scout's, candidates that the replay accepts."""
        attack = self.scout if is_quick else self.falsifier
        for query in self.queries(epsilons):
            for candidate in _candidates(attack, query, deadline, starts):
                found = replay(query, np.asarray(candidate, dtype=np.float64), "attack")
                if found is not None:
                    return found
        return None

    def replay(self, image: Float[np.ndarray, "..."], epsilons: Vector, found_by: str) -> Counterexample | None:
        """The first goal's replay that accepts the image; moved by rounding alone where a float32 must be found."""
        for query in self.queries(epsilons):
            candidate = inside_box_float32(query.region, np.asarray(image, dtype=np.float64))
            found = None if candidate is None else replay(query, candidate, found_by)
            if found is not None:
                return found
        return None

    def projected(self, image: Float[np.ndarray, "..."], epsilons: Vector) -> Float[np.ndarray, "..."]:
        """The image clipped to the neighbourhood's box."""
        box = self.zones.box(epsilons)
        return np.clip(np.asarray(image, dtype=np.float64), box.lower, box.upper)

    def margins(self, images: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, " n"]:
        """The largest of the goals' margins at each image, in float64 rounded to nearest."""
        with torch.no_grad():
            scores = self._model()(torch.from_numpy(np.array(images, dtype=np.float64))).numpy()
        return np.max([goal.margin(scores) for goal in self.goals], axis=0)

    def radii(self, image: Float[np.ndarray, "..."]) -> Vector:
        """The largest |x' - x| over the entries of each zone."""
        return self.zones.radii(image)

    def sensitivity(self) -> Vector:
        """The mean absolute gradient of the margin at the image, per zone (Simonyan et al. 2013; Mour 2023)."""
        _, gradients = margin_gradients(self._model(), self.goals, self.zones.image[None])
        return self.zones.mean(np.abs(gradients[0]))

    def _weakest_slope(self, epsilons: Vector, deadline: Deadline) -> Slope | None:
        points = [
            np.asarray(point, dtype=np.float64)
            for query in self.queries(epsilons)
            for point in _candidates(self.falsifier, query, deadline)[:SOFTMAX_POINTS]
        ]
        if not points:
            return None
        margins, gradients = margin_gradients(self._model(), self.goals, np.stack(points))
        shares = np.exp(margins - margins.max())
        shares /= shares.sum()
        rise = np.tensordot(shares, np.maximum(gradients, 0.0), axes=1)
        fall = np.tensordot(shares, np.maximum(-gradients, 0.0), axes=1)
        return Slope(float(margins.max()), self.zones.total(rise, fall))

    def _model(self) -> TorchNetwork:
        if not self._models:
            self._models.append(TorchNetwork(self.network, torch.device("cpu"), torch.float64))
        return self._models[0]


def _candidates(
    attack: Falsifier | None, query: Query, deadline: Deadline, starts: Sequence[Float[np.ndarray, "..."]] = ()
) -> list[Float[np.ndarray, "..."]]:
    if attack is None:
        return []
    points = np.stack([query.region.centre, *(np.asarray(start, dtype=np.float64) for start in starts)])
    return list(attack(query, starts=points, deadline=deadline))


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """The answer to "do all hold", from answers none of which is a counterexample."""
    undecided = [outcome for outcome in outcomes if isinstance(outcome.verdict, Unknown)]
    if undecided or len(outcomes) == 1:
        return (undecided or outcomes)[0]
    certificates = [outcome.verdict.certificate for outcome in outcomes if isinstance(outcome.verdict, Robust)]
    bounds = [certificate.bound for certificate in certificates]
    engines = dict.fromkeys(certificate.engine for certificate in certificates)
    trusted = dict.fromkeys(claim for certificate in certificates for claim in certificate.trusted)
    known = [bound for bound in bounds if bound is not None]
    merged = Certificate(", ".join(engines), max(known) if len(known) == len(bounds) else None, tuple(trusted))
    return replace(outcomes[-1], verdict=Robust(merged), cover=None, proof=None)


def _uninterrupted(outcome: Outcome) -> Outcome:
    """The outcome; `verify` answers Ctrl-C with one, but here a whole run is to stop."""
    if isinstance(outcome.verdict, Unknown) and outcome.verdict.reason is UnknownReason.INTERRUPTED:
        raise KeyboardInterrupt
    return outcome


def margin_gradients(
    model: TorchNetwork, goals: Sequence[Property], images: Float[np.ndarray, "n ..."]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n ..."]]:
    """The largest of the goals' margins at each image and its gradient with respect to the image, rounded to nearest."""
    with torch.enable_grad():
        points = torch.from_numpy(np.array(images, dtype=np.float64)).requires_grad_()
        scores = model(points)
        margins = torch.stack([_margin(scores, goal) for goal in goals]).amax(dim=0)
        (gradients,) = torch.autograd.grad(margins.sum(), points)
    return margins.detach().numpy(), gradients.numpy()


def _margin(scores: Float[torch.Tensor, "n labels"], goal: Property) -> Float[torch.Tensor, " n"]:
    forms = scores @ torch.from_numpy(goal.coefficients.copy()).T + torch.from_numpy(goal.offsets.copy())
    return forms.sort(dim=1, descending=True).values[:, goal.count - 1]


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
