"""The report: every table of the benchmark in Markdown, from records alone."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.topk.certificates import certificates_table, rejected
from benchmarks.topk.certificates import in_words as certificate_in_words
from benchmarks.topk.growth import growth_tables
from benchmarks.topk.machine import in_words as machine_in_words
from benchmarks.topk.queries import FILES, GRID_EPSILONS, HARD, PEER, Hard, K, Question
from benchmarks.topk.results import Record, contradictions, question_of
from benchmarks.topk.tables import grouped, is_decided, largest, median, seconds, share, summary, table, times

STATES = ("always in", "always out", "can be both", "undecided")
_PUBLISHED_MINUTES = 23


def recheck_file(results: Path) -> Path:
    """Where the second check of a results file is kept."""
    return results.with_name(f"{results.stem}-recheck.jsonl")


def in_words(record: Record) -> str:
    """A record in some words, for progress."""
    if "error" in record:
        return f"ERROR {record['error']}"
    spent = f"{seconds(record['seconds'])} s"
    match record["kind"]:
        case "query":
            return f"{_verdict(record)}, {spent}"
        case "certificate":
            return certificate_in_words(record)
        case "labels":
            states = Counter(answer["state"] for answer in record["answers"])
            return ", ".join(f"{states[state]} {state}" for state in STATES) + f", {spent}"
        case _:
            found = "VIOLATED" if record["violated"] else "nothing found"
            return f"{found}, best margin {record['margin']}, {record['restarts_done']} restarts, {spent}"


def render(records: Sequence[Record], rechecked: Sequence[Record], limit: float) -> str:
    """All tables that the records of one limit allow, after the machine and anything that contradicts itself."""
    used = [record for record in records if record["kind"] != "machine" and record["limit"] == limit]
    asked = [record for record in used if record["kind"] == "query"]
    of_grid = [record for record in asked if is_of_grid(record)]
    sections = [
        ("Measured on", _measured_on(records, used, limit)),
        ("Hard list", _hard_list(asked)),
        ("Grid", _grid(of_grid)),
        ("Grid by network, engine auto", _by_network(of_grid)),
        ("Both decide", _both_decide(of_grid)),
        ("Where auto decides", _where_decided(of_grid)),
        ("All labels of an image", _all_labels([record for record in used if record["kind"] == "labels"])),
        *growth_tables(asked),
        ("Certificates", certificates_table(used)),
        ("Second check", _second_check(rechecked)),
    ]
    wrong = [*contradictions(records), *rejected(records)]
    alarm = [("CONTRADICTIONS", "\n".join(f"- {line}" for line in wrong))] if wrong else []
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in [*alarm, *sections] if text)


def is_of_grid(record: Record) -> bool:
    """Whether a record of kind "query" belongs to the grid: the ladders ask about the same labels, so k and epsilon tell."""
    return record["k"] == K and record["stays_in"] and record["epsilon"] in GRID_EPSILONS


def _measured_on(records: Sequence[Record], used: Sequence[Record], limit: float) -> str:
    if not used:
        return f"nothing was measured under a limit of {limit:g} s"
    lines = [machine_in_words(record) for record in records if record["kind"] == "machine"]
    codes = sorted({record["code"] for record in used if "code" in record})
    loads = [record["load"] for record in used if "load" in record]
    over = [record["seconds"] - limit for record in used if "error" not in record]
    lines.append(f"Limit {limit:g} s; code {', '.join(codes)}; one thread a process.")
    if loads:
        lines.append(f"Load when a measurement began: median {statistics.median(loads):.1f}, largest {max(loads):.1f}.")
    if over:
        lines.append(f"The longest went {max(0.0, *over):.1f} s past its limit.")
    if errors := sum("error" in record for record in used):
        lines.append(f"{errors} measurements ended in an error; they count as undecided.")
    return "  \n".join(lines)


def _verdict(record: Record) -> str:
    if "error" in record:
        return record["error"].partition(":")[0]
    if record["verdict"] != "unknown":
        return record["verdict"]
    bound = record["bound"]
    return "open" if bound is None else f"open at {bound:.3g}"


def _engines(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["engine"] for record in records))


def _hard_list(asked: Sequence[Record]) -> str:
    found = {(question_of(record), record["engine"]): record for record in asked}
    engines = [engine for engine in _engines(asked) if any((entry.question, engine) in found for entry in HARD)]
    if not engines:
        return ""
    rows = [
        [q.network, f"{q.epsilon:g}", f"{q.image}, {q.label}", _peer(entry)]
        + [_hard_cell(found.get((q, engine))) for engine in engines]
        for entry in HARD
        for q in [entry.question]
    ]
    peer_decided = sum(entry.peer_seconds is not None for entry in HARD)
    counts = [f"{sum(is_decided(found.get((e.question, n), {})) for e in HARD)} of {len(HARD)}" for n in engines]
    rows.append(["decided", "", "", f"{peer_decided} of {len(HARD)}", *counts])
    rows.append(["median where both decide, against the peer's", "", "", "", *(_against(found, n) for n in engines)])
    return table(["network", "eps", "image, label", "peer", *engines], rows) + f"\n\nPeer: {PEER}."


def _peer(entry: Hard) -> str:
    return "time-out" if entry.peer_seconds is None else f"{entry.peer} {entry.peer_seconds:g} s"


def _hard_cell(record: Record | None) -> str:
    if record is None:
        return ""
    return _verdict(record) if "error" in record else f"{_verdict(record)}, {seconds(record['seconds'])} s"


def _against(found: dict[tuple[Question, str], Record], engine: str) -> str:
    pairs = [
        (record["seconds"], entry.peer_seconds)
        for entry in HARD
        if entry.peer_seconds is not None and is_decided(record := found.get((entry.question, engine), {}))
    ]
    if not pairs:
        return ""
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return f"{seconds(ours)} s against {seconds(theirs)} s ({len(pairs)})"


def _grid(records: Sequence[Record]) -> str:
    by_engine = grouped(records, lambda record: record["engine"])
    rows = []
    for engine, own in by_engine.items():
        cells = [summary([record for record in own if record["epsilon"] == size]) for size in GRID_EPSILONS]
        verdicts = Counter(record.get("verdict") for record in own)
        rows.append([engine, len(own), *cells, summary(own), f"{verdicts['robust']} / {verdicts['vulnerable']}"])
    if not rows:
        return ""
    header = ["engine", "asked", *(f"eps {size:g}" for size in GRID_EPSILONS), "all", "robust / vulnerable"]
    return "Share decided, median / longest seconds.\n\n" + table(header, rows)


def _by_network(records: Sequence[Record]) -> str:
    own = [record for record in records if record["engine"] == "auto"]
    rows = [
        [network, *(summary([r for r in some if r["epsilon"] == size]) for size in GRID_EPSILONS), summary(some)]
        for network in FILES
        if (some := [record for record in own if record["network"] == network])
    ]
    return table(["network", *(f"eps {size:g}" for size in GRID_EPSILONS), "all"], rows) if rows else ""


def _both_decide(records: Sequence[Record]) -> str:
    by_engine = {
        engine: {question_of(record): record for record in own}
        for engine, own in grouped(records, lambda record: record["engine"]).items()
    }
    ours = by_engine.pop("auto", {})
    rows = []
    for engine, theirs in by_engine.items():
        both = ours.keys() & theirs.keys()
        decided = [q for q in both if is_decided(ours[q]) and is_decided(theirs[q])]
        only_ours = sum(is_decided(ours[q]) and not is_decided(theirs[q]) for q in both)
        only_theirs = sum(is_decided(theirs[q]) and not is_decided(ours[q]) for q in both)
        medians = [median([side[q]["seconds"] for q in decided]) for side in (ours, theirs)]
        rows.append([engine, len(both), len(decided), *medians, only_ours, only_theirs])
    header = [
        "engine",
        "asked of both",
        "both decide",
        "median s, auto",
        "median s, engine",
        "only auto",
        "only engine",
    ]
    return table(header, rows) if rows else ""


def _where_decided(records: Sequence[Record]) -> str:
    own = [record for record in records if record["engine"] == "auto" and is_decided(record)]
    rows = [
        [stage, len(some), median(times(some)), largest(times(some))]
        for stage, some in grouped(own, lambda record: record["stages"][-1]["name"]).items()
    ]
    trusted = Counter(claim for record in own for claim in record.get("trusted", []))
    words = ", ".join(f"{claim} {count}" for claim, count in trusted.most_common())
    tail = f"\n\nClaims taken on trust, by number of robust verdicts: {words}." if words else ""
    return table(["last stage", "decided", "median s", "longest s"], rows) + tail if rows else ""


def _all_labels(records: Sequence[Record]) -> str:
    rows = []
    groups = grouped(records, lambda r: (r["engine"], r["epsilon"], r["k"], r["network"]))
    for (engine, size, k, network), own in sorted(groups.items()):
        good = [record for record in own if "error" not in record]
        states = Counter(answer["state"] for record in good for answer in record["answers"])
        asked = states.total()
        decided = share(asked - states["undecided"], asked) if asked else "errors"
        spent = times(good)
        mean = seconds(statistics.fmean(spent)) if spent else ""
        counts = " / ".join(str(states[state]) for state in STATES)
        rows.append([engine, network, k, f"{size:g}", len(own), decided, counts, mean, median(spent), largest(spent)])
    if not rows:
        return ""
    header = [
        "engine",
        "network",
        "k",
        "eps",
        "images",
        "labels decided",
        " / ".join(STATES),
        "mean s",
        "median s",
        "longest s",
    ]
    peer = (
        f"The published verifier of these networks reports {_PUBLISHED_MINUTES} minutes on average for a neighbourhood."
    )
    return table(header, rows) + f"\n\n{peer}"


def _second_check(rechecked: Sequence[Record]) -> str:
    attacks = [record for record in rechecked if record["kind"] == "attack"]
    rows = list(_attack_rows(attacks))
    header = [
        "questions",
        "restarts each",
        "steps each",
        "device",
        "violated",
        "errors",
        "nearest margin",
        "median s",
        "longest s",
    ]
    return table(header, rows) if rows else ""


def _attack_rows(attacks: Sequence[Record]) -> Iterator[list[object]]:
    for (restarts, steps), own in grouped(attacks, lambda r: (r["restarts"], r["steps"])).items():
        good = [record for record in own if "error" not in record]
        devices = ", ".join(sorted({record["device"] for record in good}))
        nearest = max((record["margin"] for record in good if record["margin"] is not None), default=float("nan"))
        violated, errors = sum(record["violated"] for record in good), len(own) - len(good)
        spent = times(good)
        yield [
            len(own),
            f">= {restarts}",
            steps,
            devices,
            violated,
            errors,
            f"{nearest:.3g}",
            median(spent),
            largest(spent),
        ]
