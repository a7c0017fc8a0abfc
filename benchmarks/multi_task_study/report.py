"""The report: every table of the study in Markdown, from records alone."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.multi_task_study.cells import AUXILIARIES, PERTURBATIONS, Scale, all_cells
from benchmarks.multi_task_study.records import Record, of_scale
from benchmarks.topk.machine import in_words as machine_in_words
from benchmarks.topk.tables import grouped, table

Value = Callable[[Record], float | None]
# Hyun, Park 2024, MNIST with one auxiliary task, PGD untargeted: adversarial accuracy in percent.
PUBLISHED = {"STA": 94.46, "MTA": 93.77, "MP": 94.35}
PUBLISHED_ANGLE, PUBLISHED_VARIANCE = 8.88, 10.3211

MEASURES: dict[str, Value] = {
    "PGD untargeted": lambda record: record["untargeted"][0],
    "PGD targeted": lambda record: record["targeted"],
    "ML-CW in the ball": lambda record: record["cw_accuracy"],
}


def in_words(record: Record) -> str:
    """A cell in some words, for progress."""
    return (
        f"clean {record['clean'][0]:.3f}, PGD {record['untargeted'][0]:.3f}, targeted {record['targeted']:.3f}, "
        f"CW {record['cw_accuracy']:.2f}, {record['seconds']:.0f} s"
    )


def render(records: Sequence[Record], scale: Scale) -> str:
    """All tables that the records of one scale allow."""
    own = of_scale(records, scale)
    single, double = ([record for record in own if record["problem"] == name] for name in ("single", "double"))
    sections = [
        ("Measured on", _measured_on(records, own, len(all_cells(scale)))),
        ("The paper's row: main task and one auxiliary task", paper_row(single)),
        ("Single digits", configurations(single)),
        ("What MP and MTA bring over STA, trained alike from the same seed", gains(single)),
        ("The auxiliary tasks' own heads", heads(single)),
        ("Seconds per epoch", costs(single)),
        ("Two digits", configurations(double)),
        ("What MP and MTA bring over STA on two digits", gains(double)),
        ("Inter-class variance of the training digits", variance(records)),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in sections if text)


def paper_row(records: Sequence[Record]) -> str:
    """Adversarial accuracy under untargeted PGD with one auxiliary task, beside the published numbers."""
    own = [record for record in records if record["auxiliaries"] == ["odd"] and not record["is_targeted"]]
    if not own:
        return ""
    mine = [spread(chosen(own, perturbation=name), MEASURES["PGD untargeted"]) for name in PERTURBATIONS]
    rows = [["published, %", *(f"{PUBLISHED[name]:.2f}" for name in PERTURBATIONS)], ["here, %", *mine]]
    angles = spread([r for r in own if r["perturbation"] == "STA"], lambda r: _angle(r, 0), 1, "{:.2f}")
    note = (
        f"Standard deviation of the angle between the two tasks' perturbations, under STA: {angles} degrees; "
        f"published: {PUBLISHED_ANGLE}."
    )
    return f"{table(['accuracy under untargeted PGD', *PERTURBATIONS], rows)}\n\n{note}"


def configurations(records: Sequence[Record]) -> str:
    """Every choice of training with what it measured: the mean over seeds, lowest and highest in brackets."""
    rows = []
    for (names, perturbation, is_targeted), own in _choices(records).items():
        row = [_tasks(names), _training(perturbation, is_targeted), spread(own, lambda r: r["clean"][0])]
        row += [spread(own, value) for value in MEASURES.values()]
        row.append(spread(own, lambda r: r["cw_l2"], 1, "{:.2f}"))
        row += [spread(own, lambda r, place=place: _angle(r, place), 1, "{:.1f}") for place in (0, 1)]
        rows.append(row)
    header = ["tasks", "training", "clean, %", *(f"{name}, %" for name in MEASURES), "ML-CW l2"]
    return table([*header, "angle to odd", "angle to prime"], rows) if rows else ""


def gains(records: Sequence[Record]) -> str:
    """Differences to STA in percentage points, one number a seed, and their mean."""
    rows = []
    for (names, is_targeted), own in grouped(records, lambda r: (tuple(r["auxiliaries"]), r["is_targeted"])).items():
        for perturbation in PERTURBATIONS[1:]:
            pairs = [differences(own, perturbation, value) for value in MEASURES.values()]
            if names and any(pairs):
                rows.append([_tasks(names), _training(perturbation, is_targeted), *map(_signed, pairs)])
    header = ["tasks", "training", *MEASURES]
    return table(header, rows) if rows else ""


def differences(records: Sequence[Record], perturbation: str, value: Value) -> list[float]:
    """The value under a perturbation less that under STA, for every seed that has both, in the order of seeds.

    The records are of one set of tasks and one aim.
    """
    by_seed = grouped(records, lambda record: record["seed"])
    found = []
    for seed in sorted(by_seed):
        held = {record["perturbation"]: value(record) for record in by_seed[seed]}
        ours, base = held.get(perturbation), held.get("STA")
        if ours is not None and base is not None:
            found.append(ours - base)
    return found


def heads(records: Sequence[Record]) -> str:
    """Clean accuracy and accuracy under untargeted PGD on the head itself, for the auxiliary heads."""
    rows = []
    for (names, perturbation, is_targeted), own in _choices(records).items():
        if not names:
            continue
        row = [_tasks(names), _training(perturbation, is_targeted)]
        for place in (1, 2):
            for field in ("clean", "untargeted"):
                row.append(spread(own, lambda r, f=field, p=place: r[f][p] if len(r[f]) > p else None))
        rows.append(row)
    header = ["tasks", "training", "odd, clean, %", "odd, PGD, %", "prime, clean, %", "prime, PGD, %"]
    return table(header, rows) if rows else ""


def costs(records: Sequence[Record]) -> str:
    """The mean processor seconds of an epoch by perturbation and number of auxiliary tasks, and their ratio to none."""
    base = _mean(record["seconds_per_epoch"] for record in records if _is(record, 0, "STA"))
    rows = []
    for perturbation in PERTURBATIONS:
        cells = []
        for count in range(len(AUXILIARIES)):
            # Without auxiliary tasks the three are one.
            name = perturbation if count else "STA"
            own = _mean(record["seconds_per_epoch"] for record in records if _is(record, count, name))
            cells.append("-" if own is None else f"{own:.1f}" + (f" ({own / base:.2f}x)" if base else ""))
        rows.append([perturbation, *cells])
    return (
        table(["training", *(f"{count} auxiliary task{'s' * (count != 1)}" for count in range(len(AUXILIARIES)))], rows)
        if base
        else ""
    )


def variance(records: Iterable[Record]) -> str:
    """The mean distance between classes, by number of digits."""
    rows = [
        [f"the first {r['digits']:,} training digits here", f"{r['variance']:.4f}"] for r in records if "digits" in r
    ]
    rows.append(["published, 60,000 training digits", str(PUBLISHED_VARIANCE)])
    return table(["points", "variance"], rows) if len(rows) > 1 else ""


def chosen(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records with these values."""
    return [record for record in records if all(record[name] == value for name, value in wanted.items())]


def spread(records: Iterable[Record], value: Value, scale: float = 100, form: str = "{:.1f}") -> str:
    """The mean over seeds, with the lowest and highest in brackets if there are several; "-" where nothing was measured."""
    numbers = [scale * number for number in map(value, records) if number is not None]
    if not numbers:
        return "-"
    mean = form.format(statistics.fmean(numbers))
    return mean if len(numbers) == 1 else f"{mean} ({form.format(min(numbers))}-{form.format(max(numbers))})"


def _choices(records: Sequence[Record]) -> dict[tuple[tuple[str, ...], str, bool], list[Record]]:
    return grouped(records, lambda r: (tuple(r["auxiliaries"]), r["perturbation"], r["is_targeted"]))


def _tasks(names: Sequence[str]) -> str:
    return " + ".join(["main", *names])


def _training(perturbation: str, is_targeted: bool) -> str:
    return "clean" if perturbation == "none" else f"{perturbation}, {'targeted' if is_targeted else 'untargeted'}"


def _is(record: Record, auxiliaries: int, perturbation: str) -> bool:
    return len(record["auxiliaries"]) == auxiliaries and record["perturbation"] == perturbation


def _angle(record: Record, place: int) -> float | None:
    return record["angles"][place] if len(record["angles"]) > place else None


def _mean(numbers: Iterable[float]) -> float | None:
    held = list(numbers)
    return statistics.fmean(held) if held else None


def _signed(numbers: Sequence[float]) -> str:
    if not numbers:
        return "-"
    each = ", ".join(f"{100 * number:+.1f}" for number in numbers)
    return f"{100 * statistics.fmean(numbers):+.2f} ({each})"


def _measured_on(records: Sequence[Record], own: Sequence[Record], wanted: int) -> str:
    lines = [f"- {machine_in_words(record)}" for record in records if "cpu" in record]
    minutes = sum(record["seconds"] for record in own) / 60
    codes = ", ".join(sorted({record["code"] for record in own}))
    lines.append(
        f"- {len(own)} of {wanted} cells measured; {minutes:.0f} minutes of processor time; code {codes or 'none'}"
    )
    return "\n".join(lines)
