"""The report: every table of the study in Markdown, from records alone."""

from collections.abc import Sequence

from benchmarks.attack_study import threshold_tables, topk_tables
from benchmarks.attack_study.cells import Scale, all_cells, key
from benchmarks.attack_study.stats import Record
from benchmarks.topk.machine import in_words as machine_in_words
from benchmarks.topk.tables import table

_SECTIONS = (
    threshold_tables.showing_many,
    threshold_tables.programmes,
    threshold_tables.ranks,
    topk_tables.top_k,
    topk_tables.kfool,
    topk_tables.universal,
    threshold_tables.coding,
)


def in_words(record: Record) -> str:
    """A record in some words, for progress."""
    if "error" in record:
        return f"ERROR {record['error']}"
    if "network" in record:
        return f"all labels right {record['labels_right']:.2f}, ranked first {record['ranked_first']:.2f}"
    marks = record.get("held_out", record["success"])
    return f"{marks.count('1')} of {len(marks)}, {record['seconds']:.1f} s"


def render(records: Sequence[Record], scale: Scale) -> str:
    """All tables that the records of one scale allow."""
    own = of_scale(records, scale)
    sections = [
        ("Measured on", _measured_on(records, own, len(all_cells(scale)))),
        ("Networks", _networks(records, scale)),
    ]
    sections += [pair for section in _SECTIONS for pair in section(own)]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in sections if text)


def of_scale(records: Sequence[Record], scale: Scale) -> list[Record]:
    """The records of this scale's cells; what was measured for other cells must not be mixed with them."""
    wanted = {key(cell.identity) for cell in all_cells(scale)}
    return [record for record in records if "claim" in record and key(record) in wanted]


def _measured_on(records: Sequence[Record], own: Sequence[Record], wanted: int) -> str:
    lines = [f"- {machine_in_words(record)}" for record in records if "cpu" in record]
    ended = [record for record in own if "error" not in record]
    seconds = sum(record["seconds"] for record in ended)
    codes = ", ".join(sorted({record["code"] for record in ended}))
    errors = len(own) - len(ended)
    lines.append(
        f"- {len(ended)} of {wanted} cells measured, {errors} ended in an error; {seconds / 60:.0f} minutes of processor time; "
        f"code {codes or 'none'}"
    )
    return "\n".join(lines)


def _networks(records: Sequence[Record], scale: Scale) -> str:
    own = [record for record in records if "network" in record and record["steps"] == scale.steps]
    own = sorted((r for r in own if "error" not in r), key=lambda r: (r["network"], r["seed"]))
    rows = [
        [r["network"], r["seed"], r["weights"], f"{r['labels_right']:.3f}", f"{r['ranked_first']:.3f}"] for r in own
    ]
    header = ["images", "training", "weights", "every label on its side of the threshold", "true labels ranked first"]
    return table(header, rows) if rows else ""
