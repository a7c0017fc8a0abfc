"""Certificates: a file and a network go in, a report of what is proved comes out."""

import io
import time
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from verifier.check.judge import Judge
from verifier.check.replay import replay
from verifier.errors import InputError
from verifier.network import Network
from verifier.onnx_import import load_network
from verifier.proof.codes import Kind
from verifier.proof.errors import CertificateError
from verifier.proof.reader import CertificateReader
from verifier.proof.records import Statement
from verifier.query import Query


def is_about(statement: Statement, query: Query) -> bool:
    """Whether a statement is the query's, to the last bit; its words for the property bind nobody."""
    box, goal = statement.box, statement.property
    return (
        statement.network_sha256 == query.network.sha256
        and np.array_equal(box.lower, query.region.lower)
        and np.array_equal(box.upper, query.region.upper)
        and np.array_equal(goal.coefficients, query.property.coefficients)
        and np.array_equal(goal.offsets, query.property.offsets)
        and goal.count == query.property.count
    )


@dataclass(frozen=True, slots=True, eq=False)
class CheckReport:
    """What a check found.

    Attributes:
        accepted: Whether the certificate shows what it states.
        is_proof: Whether it is a proof; otherwise it is a counterexample. None if that could not be read.
        statement: What it states, or None if that could not be read.
        covers_float32: Whether the proof was asked to cover float32 inference too.
        lemmas, refutations, leaves: How many were accepted.
        largest_bound: The number nearest to 0 by which a refutation's leaf was closed, -inf if there is none; how little room is
            left, not a bound of the margin. For a counterexample the rigorous lower bound of its margin.
        runtime_margin: For an accepted counterexample its margin in ONNX Runtime's float32 scores, > 0; otherwise None.
        reason: Why it was rejected; "" if it was not.
        seconds: Spent, reading included, the network's excluded.
    """

    accepted: bool
    is_proof: bool | None
    statement: Statement | None
    covers_float32: bool
    lemmas: int
    refutations: int
    leaves: int
    largest_bound: float
    runtime_margin: float | None
    reason: str
    seconds: float


def check_certificate(
    certificate: Path | str | bytes, network: Path | str | Network, *, covers_float32: bool = False
) -> CheckReport:
    """Whether a certificate proves what it states about this network. Nothing it says is taken on trust.

    Args:
        certificate: A file, or its bytes.
        network: The ONNX file, or the network read from it.
        covers_float32: Accept a proof only if it holds for every float32 evaluation too, see `verifier.check.float32`.

    Raises:
        InputError: The certificate cannot be opened, or the network not be used.

    Soundness: an accepted proof shows that the supremum of the margin over the box is < 0, in exact arithmetic on the file's
    float32 weights. It rests on Python, NumPy (IEEE 754 doubles) and the reading of the ONNX file, and on nothing else. An accepted
    counterexample lies in the box, exactly; its margin is > 0 in interval arithmetic and in a run of ONNX Runtime.
    """
    exact = network if isinstance(network, Network) else load_network(network)
    started = time.perf_counter()
    run = _Run(exact, covers_float32)
    try:
        if isinstance(certificate, bytes):
            run.check(io.BytesIO(certificate), len(certificate))
        else:
            path = Path(certificate)
            try:
                with path.open("rb") as source:
                    run.check(source, path.stat().st_size)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        reason = ""
    except CertificateError as error:
        reason = str(error) or "damaged"
    return run.report(reason, time.perf_counter() - started)


class _Run:
    """One check, and how far it came."""

    def __init__(self, network: Network, covers_float32: bool) -> None:
        self._network, self._covers_float32 = network, covers_float32
        self._reader: CertificateReader | None = None
        self._judge: Judge | None = None
        self._margin = float("-inf")
        self._runtime_margin: float | None = None

    def check(self, source: BufferedIOBase, size: int) -> None:
        """Raises CertificateError unless the certificate shows what it states."""
        self._reader = reader = CertificateReader(source, size)
        statement = reader.statement
        if statement.network_sha256 != self._network.sha256:
            raise CertificateError(
                f"the certificate is about the network with SHA-256 {statement.network_sha256}, this one has {self._network.sha256}"
            )
        try:
            # Also refuses questions that make no sense, such as thresholds behind a softmax.
            query = Query(self._network, statement.box, statement.property)
        except InputError as error:
            raise CertificateError(str(error)) from error
        if reader.kind is Kind.COUNTEREXAMPLE:
            self._replay(query, reader)
            return
        self._judge = Judge(self._network, statement.box, statement.property, covers_float32=self._covers_float32)
        for item in reader.items():
            self._judge.judge(item)
        if not self._judge.is_proved:
            raise CertificateError("the refuted sets of forms leave a way to violate the property")

    def _replay(self, query: Query, reader: CertificateReader) -> None:
        found = replay(query, reader.image(), "certificate")
        if found is None:
            raise CertificateError("the image does not violate the property strictly, or lies outside the region")
        self._margin, self._runtime_margin = found.margin_lower, found.runtime_margin

    def report(self, reason: str, seconds: float) -> CheckReport:
        """What was found."""
        judge, reader = self._judge, self._reader
        return CheckReport(
            accepted=not reason,
            is_proof=None if reader is None else reader.kind is Kind.PROOF,
            statement=None if reader is None else reader.statement,
            covers_float32=self._covers_float32,
            lemmas=0 if judge is None else judge.lemmas,
            refutations=0 if judge is None else judge.refutations,
            leaves=0 if judge is None else judge.leaves,
            largest_bound=self._margin if judge is None else judge.largest_bound,
            runtime_margin=self._runtime_margin,
            reason=reason,
            seconds=seconds,
        )
