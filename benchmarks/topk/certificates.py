"""Measures certificates: how long a question takes to solve, to certify and to check, and how many bytes the evidence takes."""

import io
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import aureole
from benchmarks.topk.machine import code_version
from benchmarks.topk.measure import answer
from benchmarks.topk.queries import FILES, Question
from benchmarks.topk.results import Record, question_of
from benchmarks.topk.tables import grouped, largest, median, seconds, share, table
from verifier.check.certificates import check_certificate
from verifier.proof.records import Counterexample, Statement
from verifier.proof.writer import write_counterexample

_GRACE_SECONDS = 240.0
_KIB_PER_MIB = 1024
_KB, _MB = 1e3, 1e6


@dataclass(frozen=True, slots=True)
class CertificateTask:
    """One question to solve, certify and check.

    Attributes:
        question: What is asked.
        engine: An engine's name, or "milp:" and a solver's name.
        limit: The time limit in seconds to solve it; certifying gets as long again.
        float32: Whether proofs must cover float32 inference.
    """

    question: Question
    engine: str
    limit: float
    float32: bool

    @property
    def patience(self) -> float:
        """Both limits, the check and a grace."""
        return 3 * self.limit + _GRACE_SECONDS

    @property
    def identity(self) -> Record:
        """The fields that name the measurement."""
        fields = ("network", "image", "label", "k", "epsilon", "stays_in")
        asked = {field: getattr(self.question, field) for field in fields}
        return {"kind": "certificate", **asked, "engine": self.engine, "limit": self.limit, "float32": self.float32}

    @property
    def name(self) -> str:
        """In one line."""
        return f"{self.question.name} {self.engine} certificate"


def certify(task: CertificateTask) -> Record:
    """Solves, certifies, writes and checks one question.

    "seconds" are those to solve it, "certify_seconds" those to make the proof, or to find that none comes. "check_seconds" and
    "bytes" are of the certificate, None without one; then "why" says what is missing. "checked" is whether the checker accepts it.
    """
    query = task.question.query()
    engine, _, solver = task.engine.partition(":")
    started = time.perf_counter()
    outcome = aureole.verify(
        query, timeout=task.limit, engine=engine, solver=solver or "auto", certify=True, float32=task.float32
    )
    spent = time.perf_counter() - started
    certifying = sum(stage.seconds for stage in outcome.statistics.stages if stage.name == "certificate")
    record = {
        **answer(outcome),
        "seconds": spent - certifying,
        "certify_seconds": certifying,
        "leaves": None if outcome.proof is None else outcome.proof.leaves,
        "why": outcome.uncertified,
        **_checked(query, outcome, float32=task.float32),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KIB_PER_MIB
    return {**record, "code": code_version(), "load": round(os.getloadavg()[0], 2), "peak_mib": peak}


def _checked(query: aureole.Query, outcome: aureole.Outcome, *, float32: bool) -> Record:
    """The certificate's size and check; the image of a counterexample is one too."""
    target = io.BytesIO()
    match outcome.verdict:
        case aureole.Vulnerable(counterexample):
            about = Statement(query.network.sha256, query.region, query.property, "benchmarks.topk")
            write_counterexample(target, Counterexample(about, counterexample.image))
        case aureole.Robust() if outcome.proof is not None:
            outcome.proof.write(target)
        case _:
            return {"bytes": None, "check_seconds": None, "checked": None}
    report = check_certificate(target.getvalue(), query.network, covers_float32=float32)
    return {"bytes": len(target.getvalue()), "check_seconds": report.seconds, "checked": report.accepted}


def in_words(record: Record) -> str:
    """A record in some words."""
    if record["bytes"] is None:
        why = f": {record['why']}" if record["why"] else ""
        return f"{record['verdict']}, {seconds(record['seconds'])} s, no certificate{why}"
    times = f"solved {seconds(record['seconds'])} s, certified {seconds(record['certify_seconds'])} s"
    found = "checked" if record["checked"] else "REJECTED after"
    return f"{record['verdict']}, {times}, {found} {seconds(record['check_seconds'])} s, {size(record['bytes'])}"


def size(number: float) -> str:
    """Bytes as short as tables need them: "4.2 kB", "83 kB", "1.2 MB"."""
    unit, name = (_MB, "MB") if number >= _MB else (_KB, "kB")
    scaled = number / unit
    return f"{scaled:.0f} {name}" if scaled >= 9.95 else f"{scaled:.1f} {name}"


def rejected(records: Sequence[Record]) -> Iterator[str]:
    """Certificates that were made and that the checker refuses, in words."""
    for record in records:
        if record["kind"] == "certificate" and record.get("checked") is False:
            yield f"{question_of(record).name} {record['engine']}: the checker rejects its certificate"


HEADER = (
    "network",
    "eps",
    "asked",
    "robust",
    "certified",
    "solve s",
    "certify s",
    "check s",
    "check / solve",
    "bytes",
    "leaves",
)


def certificates_table(records: Sequence[Record]) -> str:
    """Robust questions by network and epsilon: how many are certified, median / largest of what it takes; then what is not."""
    good = [record for record in records if record["kind"] == "certificate" and "error" not in record]
    parts = []
    for (engine, float32), own in grouped(good, lambda r: (r["engine"], r["float32"])).items():
        rows = [
            _row(network, f"{epsilon:g}", some)
            for network in FILES
            for epsilon in sorted({record["epsilon"] for record in own})
            if (some := [r for r in own if r["network"] == network and r["epsilon"] == epsilon])
        ]
        about = (
            f"Engine {engine}{', for float32 inference too' if float32 else ''}; median / largest of robust answers."
        )
        parts.append(f"{about}\n\n{table(HEADER, [*rows, _row('all', '', own)])}")
        parts += [f"No certificate: {question_of(record).name}: {record['why']}" for record in _open(own)]
    return "\n\n".join(parts)


def _open(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["verdict"] == "robust" and record["bytes"] is None]


def _row(network: str, epsilon: str, records: Sequence[Record]) -> list[object]:
    robust = [record for record in records if record["verdict"] == "robust"]
    made = [record for record in robust if record["checked"]]
    if not made:
        return [network, epsilon, len(records), len(robust), 0, *([""] * (len(HEADER) - 5))]
    fields = ("seconds", "certify_seconds", "check_seconds")
    spent = [
        f"{median(times)} / {largest(times)}" for times in ([record[field] for record in made] for field in fields)
    ]
    ratios = sorted(record["check_seconds"] / max(record["seconds"], 1e-3) for record in made)
    sizes, leaves = (sorted(record[field] for record in made) for field in ("bytes", "leaves"))
    middle = len(made) // 2
    return [
        network,
        epsilon,
        len(records),
        len(robust),
        f"{len(made)} ({share(len(made), len(robust))})",
        *spent,
        f"{ratios[middle]:.2f} / {ratios[-1]:.1f}",
        f"{size(sizes[middle])} / {size(sizes[-1])}",
        f"{leaves[middle]} / {leaves[-1]}",
    ]
