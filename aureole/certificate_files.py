"""Certificates on disk: written beside their place, accepted there by the checker, and only then put into it."""

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from aureole import __version__
from aureole.exits import OutputError, UsageError
from aureole.options import CertificateWords
from verifier.check.certificates import CheckReport, check_certificate, is_about
from verifier.errors import ContradictionError
from verifier.proof.records import Counterexample, Statement
from verifier.proof.writer import write_counterexample
from verifier.query import Query
from verifier.verdict import Unknown, Vulnerable
from verifier.verify import Outcome


@dataclass(frozen=True, slots=True, eq=False)
class SavedCertificate:
    """A certificate on disk, accepted by the checker.

    Attributes:
        path: Where it lies.
        size: In bytes.
        seconds: To make it: to find a proof that can be certified, and to write it.
        report: What the checker found in the file, and how long that took.
    """

    path: Path
    size: int
    seconds: float
    report: CheckReport


@dataclass(frozen=True, slots=True, eq=False)
class CertificateNote:
    """What became of a certificate that was asked for.

    Attributes:
        saved: The file, or None.
        leaves: Of the proof, None where there is none.
        make_seconds: To make what there is; None where there is neither file nor proof.
        covers_float32: Whether there is a proof that holds for float32 inference too.
        reason: Why there is no certificate, or no file although one was named; None if nothing is missing.
    """

    saved: SavedCertificate | None
    leaves: int | None
    make_seconds: float | None
    covers_float32: bool
    reason: str | None


def keep_certificate(
    query: Query, outcome: Outcome, words: CertificateWords
) -> tuple[CertificateNote | None, OutputError | None]:
    """Writes the certificate if a file is named, and notes what there is; None unless one was asked for.

    A file that cannot be written costs nobody the answer: the error is returned. Ctrl-C gives up the file.

    Raises:
        ContradictionError: The checker refuses the certificate.
    """
    if not words.is_wanted:
        return None, None
    saved, failure, why = None, None, outcome.uncertified
    try:
        if words.path is not None:
            saved = save_certificate(words.path, query, outcome, covers_float32=words.covers_float32)
    except OutputError as error:
        failure, why = error, str(error)
    except KeyboardInterrupt:
        why = "interrupted"
    if isinstance(outcome.verdict, Unknown) and why is None:
        why = "the query is open"
    if saved is None and words.path is not None and words.path.exists():
        why = f"{why}; the file of that name is an earlier one"
    proof = outcome.proof
    made = proof.seconds if saved is None and proof is not None else None if saved is None else saved.seconds
    has_float32 = words.covers_float32 and proof is not None
    return CertificateNote(saved, None if proof is None else proof.leaves, made, has_float32, why), failure


def check_target(path: Path, inputs: Iterable[Path | str] = ()) -> None:
    """Refuses a place where no certificate can be written, before any work is done; creates nothing that stays.

    Raises:
        UsageError: The place is a folder, or one of the `inputs`.
        OutputError: The system does not let us write there.
    """
    if path.is_dir():
        raise UsageError(f"--certificate {path}: is a folder, wanted a file to write")
    if path.exists() and any(Path(other).exists() and path.samefile(other) for other in inputs):
        raise UsageError(f"--certificate {path}: is what the question is about; name another file")
    existing = next(place for place in path.absolute().parents if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(
            f"--certificate {path}: cannot be written ({error.strerror or error}); name another file"
        ) from error


def save_certificate(
    path: Path | str, query: Query, outcome: Outcome, *, covers_float32: bool = False
) -> SavedCertificate | None:
    """Writes the evidence of a verdict: the proof behind `Robust`, if there is one, or the counterexample behind `Vulnerable`.

    The file appears whole, once the checker has accepted it, or not at all; an earlier file of that name is replaced. Folders
    that are missing are made.

    Args:
        path: The file.
        query: The question.
        outcome: The answer; `verify(..., certify=True)` makes the proof.
        covers_float32: Whether the proof was made to hold for float32 inference too, and is to be checked for that.

    Returns:
        None if there is nothing to write: the verdict is Unknown, or Robust without a proof (`Outcome.uncertified` says why).

    Raises:
        OutputError: The system does not let us.
        ContradictionError: The checker refuses the certificate; nothing is written, and the error keeps the query.
    """
    if outcome.proof is None and not isinstance(outcome.verdict, Vulnerable):
        return None
    place = Path(path)
    started = time.perf_counter()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target:
                size = _write(target, query, outcome)
            seconds = time.perf_counter() - started + (0.0 if outcome.proof is None else outcome.proof.seconds)
            report = _accepted(temporary, query, covers_float32)
            temporary.chmod(0o644)
            temporary.replace(place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"certificate {place}: cannot be written ({error.strerror or error}); name another file"
        ) from error
    return SavedCertificate(place, size, seconds, report)


def _write(target: BufferedIOBase, query: Query, outcome: Outcome) -> int:
    if outcome.proof is not None:
        return outcome.proof.write(target)
    if not isinstance(outcome.verdict, Vulnerable):
        raise TypeError("an outcome without proof and counterexample has no certificate")
    about = Statement(query.network.sha256, query.region, query.property, f"aureole {__version__}")
    return write_counterexample(target, Counterexample(about, outcome.verdict.counterexample.image))


def _accepted(file: Path, query: Query, covers_float32: bool) -> CheckReport:
    """The checker's report on the file, if it accepts it as evidence for this very question."""
    report = check_certificate(file, query.network, covers_float32=covers_float32)
    is_same = report.statement is not None and is_about(report.statement, query)
    if not report.accepted or not is_same:
        why = report.reason or "it states something else than was asked"
        raise ContradictionError(
            f"{query.network.path}: {query.property.name}: the checker refuses the certificate just made: {why}; nothing was"
            " written, please report the query this error keeps",
            query=query,
            details={"reason": why},
        )
    return report
