"""Every label of an image at once: always in the top k, always out, possibly both, or undecided."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from verifier import check
from verifier.deadline import Deadline
from verifier.errors import ContradictionError, InputError
from verifier.network import Network
from verifier.property import check_k, stays_in_top_k, stays_out_of_top_k
from verifier.query import Query
from verifier.region import Box, check_image
from verifier.search import SearchOutcome
from verifier.verdict import Robust, Vulnerable
from verifier.verify.falsifier import Falsifier
from verifier.verify.investigation import Investigation
from verifier.verify.options import VerifyOptions
from verifier.verify.outcome import Outcome
from verifier.verify.plan import ExploreAll, Plan, plan_for
from verifier.verify.territory import Territory

_TOGETHER_SHARE, _TOGETHER_SECONDS = 0.25, 20.0
_WORTH_RETRYING = 1.5
_LEAST_SHARE = 0.01


class LabelState(Enum):
    """What holds for a label over the whole region; the text is what reports print."""

    ALWAYS_IN = "always in"
    ALWAYS_OUT = "always out"
    BOTH = "can be both"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class LabelResult:
    """One label's answer.

    Attributes:
        label: The label.
        state: ALWAYS_IN and ALWAYS_OUT are proved, strictly; BOTH has an image on either side, each replayed strictly.
        is_in_clean: Whether the label is strictly among the k highest at the clean image, rigorously.
        stays_in: The outcome of asking whether it stays in, if that was asked; Vulnerable carries an image that shows it out.
        stays_out: The same for staying out; Vulnerable carries an image that shows it in.
    """

    label: int
    state: LabelState
    is_in_clean: bool
    stays_in: Outcome | None
    stays_out: Outcome | None


@dataclass(frozen=True, slots=True)
class LabelClassification:
    """Every label's answer.

    Attributes:
        k: The number of top labels.
        results: In the order of the labels.
        seconds: Wall time.
        unstable_units: ReLUs and window maxima that the region's bounds left open; None if no bounds were computed.
    """

    k: int
    results: tuple[LabelResult, ...]
    seconds: float
    unstable_units: int | None


def classify_labels(
    network: Network,
    image: Float[np.ndarray, "..."],
    region: Box,
    k: int,
    *,
    falsifier: Falsifier | None = None,
    options: VerifyOptions | None = None,
    deadline: Deadline | None = None,
    on_result: Callable[[LabelResult], None] | None = None,
    plan: Plan | None = None,
) -> LabelClassification:
    """Classifies every label over the region.

    A label in the clean top k is asked whether it stays in, any other whether it stays out; where the clean image ties, or its
    ranking does not replay, both are asked. The region is analysed once, and every image tried for one label counts for all. What
    bounds and attack leave open is searched together, both directions in one tree and one batch; then the open questions get
    equal shares of the time that is left. A label that time runs out on is UNDECIDED, never BOTH. KeyboardInterrupt (Ctrl-C) ends
    it with what is known so far.

    Args:
        network: The network.
        image: The clean image; it lies in the region.
        region: The images considered.
        k: How many labels count as given to an image.
        falsifier: An attack.
        options: Engines and their settings.
        deadline: For all labels together.
        on_result: Called once for each label, as soon as it is settled, undecided ones last.
        plan: Engines to use in place of those that `options` names.

    Raises:
        InputError: The image does not fit the network or lies outside the region, or k is out of range.
        ContradictionError: Engines or labels contradict each other.
    """
    check_k(k, network.labels)
    clean = check_image(image, network.input_shape)
    if not region.contains(clean):
        raise InputError("region: the clean image lies outside it; build the region around the image")
    engines = plan if plan is not None else plan_for(options if options is not None else VerifyOptions())
    started = time.monotonic()
    run = _Classification(Territory(network, region), clean, k, engines, falsifier, on_result)
    try:
        run.classify(deadline if deadline is not None else Deadline())
    except KeyboardInterrupt:
        run.interrupt()
    results = tuple(label.result() for label in run.labels)
    return LabelClassification(k, results, time.monotonic() - started, run.territory.unstable_units)


class _Label:
    """One label under investigation, asked one way or both."""

    def __init__(self, label: int, stays_in: Investigation, stays_out: Investigation) -> None:
        self.label, self.stays_in, self.stays_out = label, stays_in, stays_out
        self.is_in_clean = False
        self.asked: tuple[Investigation, ...] = ()
        self.is_reported = False

    def settle_direction(self, clean: Float[np.ndarray, "..."]) -> None:
        """Reads off the clean image which question is open. The other one is then answered, by that image, with a replay."""
        network = self.stays_in.query.network
        self.is_in_clean = check.margin_lower_bound(network, self.stays_out.query.property, clean) > 0
        self.stays_in.look()
        self.stays_out.look()
        if isinstance(self.stays_out.verdict, Vulnerable):
            self.asked = (self.stays_in,)
        elif isinstance(self.stays_in.verdict, Vulnerable):
            self.asked = (self.stays_out,)
        else:
            self.asked = (self.stays_in, self.stays_out)

    @property
    def state(self) -> LabelState:
        """What is known so far."""
        inside, outside = self.stays_in.verdict, self.stays_out.verdict
        if isinstance(inside, Robust) and isinstance(outside, Robust):
            raise ContradictionError(
                f"label {self.label}: proved always in and always out of the top k; one proof is wrong, please report",
                query=self.stays_in.query,
                details={"stays in": inside, "stays out": outside},
            )
        if isinstance(inside, Robust):
            return LabelState.ALWAYS_IN
        if isinstance(outside, Robust):
            return LabelState.ALWAYS_OUT
        is_both = isinstance(inside, Vulnerable) and isinstance(outside, Vulnerable)
        return LabelState.BOTH if is_both else LabelState.UNDECIDED

    @property
    def open(self) -> tuple[Investigation, ...]:
        """The questions still worth asking."""
        if self.state is not LabelState.UNDECIDED:
            return ()
        return tuple(investigation for investigation in self.asked if investigation.verdict is None)

    def result(self) -> LabelResult:
        """The label's answer as it stands."""

        def outcome(investigation: Investigation) -> Outcome | None:
            is_known = investigation in self.asked or investigation.verdict is not None
            return investigation.outcome() if is_known else None

        return LabelResult(self.label, self.state, self.is_in_clean, outcome(self.stays_in), outcome(self.stays_out))


class _Classification:
    """One call of `classify_labels`."""

    def __init__(
        self,
        territory: Territory,
        clean: Float[np.ndarray, "..."],
        k: int,
        plan: Plan,
        falsifier: Falsifier | None,
        on_result: Callable[[LabelResult], None] | None,
    ) -> None:
        self.territory, self._clean, self._plan, self._on_result = territory, clean, plan, on_result
        network, region = territory.network, territory.region

        def investigate(label: int, is_stays_in: bool) -> Investigation:
            constructor = stays_in_top_k if is_stays_in else stays_out_of_top_k
            query = Query(network, region, constructor(label, k, network.labels))
            return Investigation(query, territory, plan, falsifier)

        self.labels = [_Label(c, investigate(c, True), investigate(c, False)) for c in range(network.labels)]

    def classify(self, deadline: Deadline) -> None:
        self.territory.evidence.offer_near(self._clean[None], "the clean image")
        for label in self.labels:
            label.settle_direction(self._clean)
        starts = self._clean[None]
        first = self._plan.before_decide(deadline)
        if self._open() and not first.has_expired:
            # Before the passes, so that the first label's share does not limit what all labels need.
            self.territory.analyse(self._plan.analysis, first)
        together = self._plan.explore_all
        looks = together is None
        self._pass(lambda question, limit: question.first_pass(starts, limit, looks=looks), first)
        if together is not None:
            share = min(_TOGETHER_SECONDS, _TOGETHER_SHARE * deadline.remaining())
            self._search_together(together, deadline.within(share))
        if self._open() and self._plan.tighten is not None and not deadline.has_expired:
            self.territory.tighten(self._plan.tighten, deadline)
        self._solve(deadline)
        self._share()
        for label in self.labels:
            self._report(label)

    def interrupt(self) -> None:
        """Notes that the user stopped the run, and reports what is known."""
        for question in self._open():
            question.interrupt()
        for label in self.labels:
            self._report(label)

    def _search_together(self, explore_all: ExploreAll, deadline: Deadline) -> None:
        """One search of all open questions."""
        pending, bounds = self._open(), self.territory.bounds
        if not pending or bounds is None or deadline.has_expired:
            return
        started = time.monotonic()
        taken: set[int] = set()

        def take(number: int, outcome: SearchOutcome) -> None:
            seconds = (time.monotonic() - started) / len(pending)
            pending[number].take_search(outcome, f"{len(pending)} questions at once", seconds, deadline)
            taken.add(number)
            self._share()

        found = explore_all(
            bounds,
            [question.goal() for question in pending],
            on_candidates=lambda number, points: pending[number].try_candidates(points),
            on_settled=take,
            deadline=deadline,
        )
        for number, outcome in enumerate(found):
            if number not in taken:
                take(number, outcome)
        if any(outcome.is_interrupted for outcome in found):
            raise KeyboardInterrupt

    def _solve(self, deadline: Deadline) -> None:
        """MILP on what is open, again while a label that ran out of time can get clearly more than before."""
        share: float | None = None
        while pending := self._open():
            following = deadline.remaining() / len(pending)
            is_worth_it = share is None or (
                following >= _WORTH_RETRYING * share and any(question.is_out_of_time for question in pending)
            )
            if not is_worth_it:
                return
            self._pass(lambda question, limit: question.solve(limit), deadline)
            share = max(following, _LEAST_SHARE)

    def _pass(self, work: Callable[[Investigation, Deadline], None], deadline: Deadline) -> None:
        pending = self._open()
        for done, investigation in enumerate(pending):
            if investigation not in self._open():
                continue
            work(investigation, deadline.within(deadline.remaining() / (len(pending) - done)))
            self._share()

    def _open(self) -> list[Investigation]:
        return [investigation for label in self.labels for investigation in label.open]

    def _share(self) -> None:
        """Shows every question the images found since it last looked, settled ones too: a proof must survive them."""
        for label in self.labels:
            label.stays_in.look()
            label.stays_out.look()
            if label.state is not LabelState.UNDECIDED:
                self._report(label)

    def _report(self, label: _Label) -> None:
        if not label.is_reported:
            label.is_reported = True
            if self._on_result is not None:
                self._on_result(label.result())
