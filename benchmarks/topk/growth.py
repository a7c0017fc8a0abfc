"""How time grows: tables by epsilon, by k and by unstable units."""

from collections.abc import Callable, Hashable, Iterator, Sequence

from benchmarks.topk.queries import FILES, KS, LADDER_EPSILONS, K
from benchmarks.topk.results import Record
from benchmarks.topk.tables import grouped, summary, table

UNIT_BUCKETS = (0, 25, 50, 100, 200, 400, 800, 1600, 3200)


def growth_tables(asked: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Titles and tables of engine auto, from records of kind "query"."""
    own = [record for record in asked if record["engine"] == "auto" and record["stays_in"]]
    yield "Growth with epsilon", _by_epsilon(own)
    yield "Growth with k", _by_k(own)
    yield "Growth with unstable units", _by_units(own)


def ladder(records: Sequence[Record]) -> list[Record]:
    """The records at k = 2 of the labels that were asked about at every epsilon of the ladder, so that rows compare."""
    own = [record for record in records if record["k"] == K and record["epsilon"] in LADDER_EPSILONS]
    return _complete(own, lambda r: (r["network"], r["image"], r["label"]), "epsilon", LADDER_EPSILONS)


def k_series(records: Sequence[Record]) -> list[Record]:
    """The records of the images and epsilons that were asked about at every k."""
    return _complete(records, lambda r: (r["network"], r["image"], r["epsilon"]), "k", KS)


def _complete(
    records: Sequence[Record], by: Callable[[Record], Hashable], field: str, wanted: Sequence[float]
) -> list[Record]:
    """The records of the groups in which `field` takes every wanted value."""
    groups = grouped(records, by).values()
    return [record for group in groups if {r[field] for r in group} >= set(wanted) for record in group]


def _by_epsilon(own: Sequence[Record]) -> str:
    rungs = ladder(own)
    rows = []
    for size in LADDER_EPSILONS:
        here = [record for record in rungs if record["epsilon"] == size]
        cells = [_units_and_summary([r for r in here if r["network"] == network]) for network in FILES]
        rows.append([f"{size:g}", len(here), *cells, summary(here)])
    if not rungs:
        return ""
    header = ["eps", "asked", *FILES, "all"]
    return "Median unstable units: share decided, median / longest seconds.\n\n" + table(header, rows)


def _by_k(own: Sequence[Record]) -> str:
    series = k_series(own)
    sizes = sorted({record["epsilon"] for record in series})
    rows = []
    for k in KS:
        here = [record for record in series if record["k"] == k]
        cells = [summary([record for record in here if record["epsilon"] == size]) for size in sizes]
        rows.append([k, len(here), *cells])
    if not series:
        return ""
    note = "Share decided, median / longest seconds. At k = 1 only the label that ranks first is asked about."
    return f"{note}\n\n" + table(["k", "asked", *(f"eps {size:g}" for size in sizes)], rows)


def _by_units(own: Sequence[Record]) -> str:
    counted = [record for record in own if record.get("unstable_units") is not None]
    rows = []
    for low, high in zip(UNIT_BUCKETS, (*UNIT_BUCKETS[1:], None), strict=True):
        here = [r for r in counted if r["unstable_units"] >= low and (high is None or r["unstable_units"] < high)]
        if here:
            rows.append([f"{low} to {high - 1}" if high else f"{low} and more", len(here), summary(here)])
    note = "All questions at every k and epsilon, by the units that the last bounds left unstable."
    return f"{note}\n\n" + table(["unstable units", "asked", "decided, median / longest"], rows) if rows else ""


def _units_and_summary(records: Sequence[Record]) -> str:
    units = sorted(r["unstable_units"] for r in records if r.get("unstable_units") is not None)
    middle = f"{units[len(units) // 2]}: " if units else ""
    return middle + summary(records)
