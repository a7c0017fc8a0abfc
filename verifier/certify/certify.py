"""Makes a query's proof that other code can check: bounds inside the network, then refutations, each accepted by the checker."""

import time
from dataclasses import dataclass, replace
from io import BufferedIOBase

import numpy as np

from verifier.bounds import BoundMethod, BoundOptions, NodeBounds, RegionBounds, shallow_values, tightened_region
from verifier.bounds.engine import OwnEngine
from verifier.canonical import Affine, Relu
from verifier.certify.lemmas import lemmas
from verifier.certify.refute import Refuted, Refuter
from verifier.certify.vocabulary import Vocabulary, operations_of
from verifier.check.judge import Judge
from verifier.deadline import Deadline
from verifier.errors import UnsupportedOpError
from verifier.lowering import lower
from verifier.proof import CertificateError, Leaf, Statement
from verifier.proof.records import Item
from verifier.proof.writer import write_proof
from verifier.query import Query
from verifier.search import Cover
from verifier.search.skeleton import skeleton_of

TOOL = "aureole"


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """A proof that a query's margin is < 0 everywhere; the checker has accepted each of its items.

    Attributes:
        statement: What is proved.
        items: Lemmas, then refutations.
        leaves: How many leaves the refutations have.
        seconds: How long it took to make.
    """

    statement: Statement
    items: tuple[Item, ...]
    leaves: int
    seconds: float

    def write(self, target: BufferedIOBase) -> int:
        """Writes the certificate and returns its size in bytes."""
        return write_proof(target, self.statement, self.items)


@dataclass(frozen=True, slots=True, eq=False)
class Certification:
    """What an attempt to certify came to.

    Attributes:
        proof: The proof, or None.
        reason: Why there is none, in words, or None.
        best_bound: Without a proof, the largest bound of a part that is open; -inf with one, inf where nothing is known.
        seconds: Spent.
    """

    proof: Proof | None
    reason: str | None
    best_bound: float
    seconds: float


def certify(
    query: Query,
    *,
    region: RegionBounds | None = None,
    cover: Cover | None = None,
    deadline: Deadline | None = None,
    float32: bool = False,
) -> Certification:
    """Tries to prove that the query's margin is < 0 everywhere, in a form that `aureole check` accepts.

    It does not depend on how, or whether, anybody else proved it: what earlier work found only makes it quicker. Without a proof
    nothing is claimed.

    Args:
        query: The question.
        region: Bounds of the query's region. Only those that come with evidence are used, all others are computed again.
        cover: Splits of a search of this question, or one like it, tried first.
        deadline: When to give up.
        float32: Whether the proof must cover every float32 evaluation too (docs/certificate-format.md, "Float32").

    Soundness: a proof is returned only after `verifier.check.judge.Judge` has accepted every item and found that they prove the
    property.
    """
    started, limit = time.monotonic(), deadline or Deadline()
    try:
        refuted, items = _attempt(query, region, cover, limit, covers_float32=float32)
    except (CertificateError, UnsupportedOpError, ValueError) as error:
        return Certification(None, f"the checker cannot follow: {error}", np.inf, time.monotonic() - started)
    seconds = time.monotonic() - started
    if not refuted.is_complete:
        return Certification(None, refuted.reason, refuted.best_bound, seconds)
    leaves = sum(isinstance(node, Leaf) for item in refuted.refutations for node in item.tree.nodes)
    statement = Statement(query.network.sha256, query.region, query.property, TOOL)
    return Certification(Proof(statement, items, leaves, seconds), None, -np.inf, seconds)


def _attempt(
    query: Query, region: RegionBounds | None, cover: Cover | None, deadline: Deadline, *, covers_float32: bool
) -> tuple[Refuted, tuple[Item, ...]]:
    """Where bounds can be sharpened, first without splits on those that are there; then with splits on the sharpest."""
    start = region
    if start is None:
        start = OwnEngine(BoundOptions(method=BoundMethod.CROWN)).analyse(
            lower(query.network), query.region, deadline=deadline
        )
    can_sharpen = not start.shallow and bool(shallow_values(start.canonical))
    evidence = _Evidence(query, start, deadline, covers_float32=covers_float32)
    refuted = evidence.refute(cover, deadline, splits=not can_sharpen)
    if not refuted.is_complete and can_sharpen:
        sharper = tightened_region(start, deadline)
        if sharper.shallow:
            evidence = _Evidence(query, sharper, deadline, covers_float32=covers_float32)
        refuted = evidence.refute(cover, deadline, splits=True)
    return refuted, evidence.accepted(refuted)


class _Evidence:
    """A judge that has accepted what is known inside the network, and the problem that this leaves."""

    def __init__(self, query: Query, region: RegionBounds, deadline: Deadline, *, covers_float32: bool) -> None:
        self._query = query
        self._judge = Judge(query.network, query.region, query.property, covers_float32=covers_float32)
        self._lemmas = tuple(lemmas(query.network, region, self._judge, deadline))
        known = _as_judged(query, region, self._judge)
        self._skeleton = skeleton_of(known, query.property)
        self._vocabulary = Vocabulary(query.network, known, self._skeleton)

    def refute(self, cover: Cover | None, deadline: Deadline, *, splits: bool) -> Refuted:
        """Refutes what it can."""
        refuter = Refuter(self._skeleton, self._vocabulary, self._judge, self._query.property, cover, deadline)
        return refuter.run(splits=splits)

    def accepted(self, refuted: Refuted) -> tuple[Item, ...]:
        """All items, once the judge has accepted them as a proof; those there are, if it is not complete."""
        if refuted.is_complete:
            for refutation in refuted.refutations:
                self._judge.judge(refutation)
            if not self._judge.is_proved:
                raise CertificateError("the refuted sets of forms leave a way to violate the property; please report")
        return (*self._lemmas, *refuted.refutations)


def _as_judged(query: Query, region: RegionBounds, judge: Judge) -> RegionBounds:
    """The region with the bounds that the judge knows, and no others, of whatever an operation reads."""
    lowers, uppers = dict(region.node_bounds.lower), dict(region.node_bounds.upper)
    unstable = 0
    for index, operation in operations_of(query.network, region).items():
        node = region.canonical.nodes[index]
        if isinstance(node, Affine):
            raise TypeError(f"operation {operation} is affine")
        low, high = judge.region_bounds(operation)
        if low.shape != lowers[node.input].shape:
            raise CertificateError(
                f"operation {operation} reads {low.shape} values, the engines say {lowers[node.input].shape}"
            )
        lowers[node.input], uppers[node.input] = low, high
        if isinstance(node, Relu):
            unstable += int(((low < 0) & (high > 0)).sum())
    bounds = NodeBounds(lowers, uppers)
    return replace(region, node_bounds=bounds, unstable_units=unstable)
