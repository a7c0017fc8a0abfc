"""The report: every table of the study in Markdown, from records alone."""

import statistics
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.topk.machine import in_words as machine_in_words
from benchmarks.topk.results import Record
from benchmarks.topk.tables import share, table
from benchmarks.training_study.measure import ATTACKED, BOUNDED, EFFORTS, OPEN, REFUTED, SEARCHED, WRONG
from benchmarks.training_study.questions import KINDS
from benchmarks.training_study.records import of
from benchmarks.training_study.subjects import SUBJECTS
from verifier.errors import InputError

VERIFIED, SEARCHED_ONLY = EFFORTS[1:], EFFORTS[2:]
_WHOLE, _OTHER = KINDS


@dataclass(frozen=True, slots=True)
class Tally:
    """How many images came to what, at one epsilon.

    Attributes:
        proved: What must hold is proved.
        open: Neither proved nor broken.
        unbroken: Right as they are, and the attack found nothing; the proved and the open ones, and what only the verifier broke.
        total: All images.
    """

    proved: int
    open: int
    unbroken: int
    total: int

    @property
    def broken(self) -> int:
        """A replayed counterexample is known, the image itself included."""
        return self.total - self.proved - self.open

    @classmethod
    def of(cls, marks: str) -> "Tally":
        """Counts the letters of `measure`.

        Raises:
            InputError: There are other letters.
        """
        found = Counter(marks)
        if not set(found) <= {WRONG, ATTACKED, REFUTED, BOUNDED, SEARCHED, OPEN}:
            raise InputError(f"marks: got {marks!r}, wanted the letters of benchmarks.training_study.measure")
        return cls(
            found[BOUNDED] + found[SEARCHED],
            found[OPEN],
            len(marks) - found[WRONG] - found[ATTACKED],
            len(marks),
        )


def tallies(records: Sequence[Record], kind: str, network: str, efforts: Collection[str] = EFFORTS) -> dict[str, Tally]:
    """By epsilon, as text, over a network's blocks of images measured with one of the efforts; each block once, with the most."""
    best: dict[int, Record] = {}
    for record in sorted(of(records, kind, network), key=lambda record: EFFORTS.index(record["effort"])):
        if record["effort"] in efforts:
            best[record["first"]] = record
    epsilons = [f"{epsilon:g}" for epsilon in KINDS[kind].epsilons]
    return {epsilon: Tally.of("".join(r["marks"][epsilon] for r in best.values())) for epsilon in epsilons if best}


def in_words(record: Record) -> str:
    """A record in some words, for progress."""
    if "error" in record:
        return f"ERROR {record['error']}"
    if "marks" in record:
        return (
            f"{' '.join(f'{epsilon}:{marks}' for epsilon, marks in record['marks'].items())}, {record['seconds']:.0f} s"
        )
    if "clean" in record:
        return f"clean {record['clean']:.4f}, training {record['train_seconds']:.0f} s"
    return f"size {record['weighted_size']}, {record['seconds']:.0f} s"


def render(records: Sequence[Record]) -> str:
    """All tables that the records allow."""
    sections = [
        ("Measured on", _measured_on(records)),
        ("Networks", _networks(records)),
        ("All at a glance", _summary(records)),
        ("Every pixel changes: both labels stay in the top 2", _proofs(records, _WHOLE)),
        ("The same, right before and after the attack alone", _attacked(records)),
        ("The same on the images where the complete verifier was asked", _proofs(records, _WHOLE, SEARCHED_ONLY)),
        ("One digit's ink changes: the other digit's label stays in the top 2", _proofs(records, _OTHER)),
        ("Maximal layered neighbourhood of one digit in which the other's label stays", _neighbourhoods(records)),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in sections if text)


def _measured_on(records: Sequence[Record]) -> str:
    lines = [f"- {machine_in_words(record)}" for record in records if record["kind"] == "machine"]
    ended = [record for record in records if "seconds" in record and "error" not in record]
    errors = sum("error" in record for record in records)
    codes = ", ".join(sorted({record["code"] for record in ended}))
    loads = statistics.median(record["load"] for record in ended) if ended else 0
    seconds = sum(record["seconds"] for record in ended)
    lines.append(
        f"- {len(ended)} tasks, {errors} ended in an error; {seconds / 60:.0f} minutes of processor time, one thread each;"
        f" median load {loads:.1f}; code {codes or 'none'}"
    )
    return "\n".join(lines)


def _rows(cells: Callable[[str], Sequence[str]]) -> list[list[str]]:
    """One row for each network that has cells."""
    found = {name: cells(name) for name in SUBJECTS}
    return [[f"`{name}`", *row] for name, row in found.items() if row]


def _networks(records: Sequence[Record]) -> str:
    def cells(name: str) -> Sequence[str]:
        for record in of(records, "network", name):
            seen = f"{record['steps']:,} x {record['batch']}"
            seconds = f"{record['train_seconds']:.0f}{' (scaled)' if record['is_scaled'] else ''}"
            return [SUBJECTS[name].summary, seen, seconds, f"{record['clean']:.4f}"]
        return []

    rows = _rows(cells)
    return table(["network", "learns from", "steps x images", "training, s", "exact top-2"], rows) if rows else ""


def _summary(records: Sequence[Record]) -> str:
    """Accuracy, shares after the attack and proved at the larger epsilons, median neighbourhood, training seconds."""
    epsilons = [f"{epsilon:g}" for epsilon in KINDS[_WHOLE].epsilons[1:]]

    def cells(name: str) -> Sequence[str]:
        attacked, proved = tallies(records, _WHOLE, name), tallies(records, _WHOLE, name, VERIFIED)
        grown = sizes(records, name)
        if not proved or not grown:
            return []
        trained = [(f"{100 * r['clean']:.1f}%", f"{r['train_seconds']:.0f}") for r in of(records, "network", name)]
        clean, spent = trained[0] if trained else ("-", "-")
        after = [share(attacked[epsilon].unbroken, attacked[epsilon].total) for epsilon in epsilons]
        certified = [share(proved[epsilon].proved, proved[epsilon].total) for epsilon in epsilons]
        return [clean, *after, *certified, f"{statistics.median(grown):.3f}", spent]

    rows = _rows(cells)
    measured = [f"{what} {epsilon}" for what in ("attacked,", "proved,") for epsilon in epsilons]
    header = ["network", "clean", *measured, "median neighbourhood", "training, s"]
    return table(header, rows) if rows else ""


def _proofs(records: Sequence[Record], kind: str, efforts: Collection[str] = VERIFIED) -> str:
    def cells(name: str) -> Sequence[str]:
        found = tallies(records, kind, name, efforts)
        return [str(max(t.total for t in found.values())), *map(_cell, found.values())] if found else []

    header = ["network", "images", *(f"epsilon {epsilon:g}" for epsilon in KINDS[kind].epsilons)]
    rows = _rows(cells)
    return f"Proved / open / broken.\n\n{table(header, rows)}" if rows else ""


def _cell(tally: Tally) -> str:
    return " / ".join(share(part, tally.total) for part in (tally.proved, tally.open, tally.broken))


def _attacked(records: Sequence[Record]) -> str:
    def cells(name: str) -> Sequence[str]:
        found = tallies(records, _WHOLE, name)
        shares = [share(tally.unbroken, tally.total) for tally in found.values()]
        return [str(max(t.total for t in found.values())), *shares] if found else []

    header = ["network", "images", *(f"epsilon {epsilon:g}" for epsilon in KINDS[_WHOLE].epsilons)]
    rows = _rows(cells)
    return table(header, rows) if rows else ""


def sizes(records: Sequence[Record], network: str) -> list[float]:
    """The weighted sizes of a network's neighbourhoods; 0 where the label is not shown by the image itself."""
    return [record["weighted_size"] or 0.0 for record in of(records, "grown", network)]


def _neighbourhoods(records: Sequence[Record]) -> str:
    def cells(name: str) -> Sequence[str]:
        own = of(records, "grown", name)
        if not own:
            return []
        uppers = [record["upper_bound"] or 0.0 for record in own]
        found = sorted(sizes(records, name))
        spread = f"{found[0]:.3f}-{found[-1]:.3f}"
        return [str(len(own)), f"{statistics.median(found):.3f}", spread, f"{statistics.median(uppers):.3f}"]

    rows = _rows(cells)
    return (
        table(["network", "images", "median weighted size", "smallest to largest", "median upper bound"], rows)
        if rows
        else ""
    )


def price(records: Sequence[Record], epsilon: str) -> Mapping[str, tuple[float, float]]:
    """For each network its clean accuracy and the share of images proved at an epsilon, where both were measured."""
    found = {}
    for name in SUBJECTS:
        tally = tallies(records, _WHOLE, name, VERIFIED).get(epsilon)
        for record in of(records, "network", name):
            if tally is not None:
                found[name] = (record["clean"], tally.proved / tally.total)
    return found
