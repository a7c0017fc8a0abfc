"""Tables about goals under a threshold: showing many, MLA-LP, the goals of Song et al., JPEG."""

from collections.abc import Iterable, Iterator, Sequence

from attacks import expected_labels
from benchmarks.attack_study.cells import ABLATION, ABLATIONS, BALLS, NS, ONE_STEP, QUALITIES, SONG_GOALS
from benchmarks.attack_study.records import measured
from benchmarks.attack_study.stats import Record, at_equal_success, attacked, estimate, rate, smallest, values
from benchmarks.topk.tables import table
from nets.architectures import CLASSES

CAP = 20.0
"""The root mean square change, of 255, within which attacks with and without a ball are compared."""
PER_RMSD = 255.0 / 64.0
"""RMSD of 255 for each unit of the l2 norm on a canvas of 64 x 64."""
METHODS = (*BALLS, "ml-dp", "ml-cw", "mla-lp")
_AVERAGE = 2.0


def of(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records with these fields; `n` and `k` are those of the goal's options."""
    return [
        record
        for record in records
        if all(
            (record["goal_options"].get(name) if name in ("n", "k") else record[name]) == value
            for name, value in wanted.items()
        )
    ]


def marks(records: Iterable[Record]) -> dict[int, str]:
    """The successes of each training."""
    return {record["seed"]: record["success"] for record in records}


def success_within(records: Sequence[Record], cap: float) -> str:
    """The share of images with a success of at most this RMSD, over all radii."""
    found: dict[int, str] = {}
    best = smallest(records)
    for record in records:
        near = [best.get((record["seed"], place), float("inf")) * PER_RMSD <= cap for place in range(record["rows"])]
        found[record["seed"]] = "".join("1" if each else "0" for each in near)
    return rate(found)


def showing_many(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Success by n at equal change, by radius, and the change needed."""
    own = of(measured(records, "showing-many"), variant="fixed")
    ns = [n for n in NS if of(own, n=n)]
    if not ns:
        return
    header = ["attack", *(f"n={n}: {expected_labels(n, CLASSES, _AVERAGE)} labels on" for n in ns)]
    rows = [[method, *(success_within(of(own, method=method, n=n), CAP) for n in ns)] for method in METHODS]
    yield f"Showing many: success within RMSD {CAP:g} of 255", table(header, rows)
    rows = []
    for method in BALLS:
        radii = sorted({record["eps"] for record in of(own, method=method)})
        for radius in radii:
            shown = [rate(marks(of(own, method=method, n=n, eps=radius))) for n in ns]
            norm = of(own, method=method)[0]["norm"]
            rows.append([method, f"{norm} {radius:.3g}", *shown])
    yield "Showing many: success by radius", table(["attack", "radius", *header[1:]], rows)
    rows = [[method, *_changes(own, method, ns)] for method in METHODS]
    text = table(["attack", *(f"n={n}" for n in ns)], [row for row in rows if any(cell != "-" for cell in row[1:])])
    yield "Showing many: median RMSD of 255 of the smallest success, at equal success", text


def _changes(own: Sequence[Record], method: str, ns: Sequence[int]) -> list[str]:
    """By n, over the images on which all attacks succeed that succeed on half of them; "-" for the others."""
    cells = []
    for n in ns:
        sizes = {each: smallest(of(own, method=each, n=n)) for each in METHODS}
        asked = {each: attacked(of(own, method=each, n=n)) for each in METHODS}
        able = [each for each in METHODS if asked[each] and len(sizes[each]) >= asked[each] / 2]
        common = at_equal_success([sizes[each] for each in able])
        chosen = [sizes[method][image] * PER_RMSD for image in common] if method in able else []
        cells.append(str(estimate(chosen, "median")))
    return cells


def programmes(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """MLA-LP by n: as released, with parts put right, and fixed, asked for all labels or for as many as n needs."""
    released = measured(records, "mla-lp")
    fixed = of(measured(records, "showing-many"), method="mla-lp")
    if not released:
        return
    rows = []
    for parts in ABLATIONS:
        own = of(released, method=ABLATION, variant=parts)
        rows.append([parts, *(rate(met_marks(own, n)) for n in NS), _median_met(own)])
    whole = of(fixed, n=NS[-1])
    rows.append(["fixed, all labels asked for", *(rate(met_marks(whole, n)) for n in NS), _median_met(whole)])
    rows.append(["fixed, as many as n needs", *(rate(marks(of(fixed, n=n))) for n in NS), "-"])
    header = ["MLA-LP", *(f"n={n}: {expected_labels(n, CLASSES, _AVERAGE)} on" for n in NS), "labels on, median"]
    yield "MLA-LP: success by n, whatever the change", table(header, rows)


def met_marks(records: Iterable[Record], n: int) -> dict[int, str]:
    """Which images have enough labels on for level n, of attacks that drive all labels on."""
    needed = expected_labels(n, CLASSES, _AVERAGE)
    return {record["seed"]: "".join("1" if met >= needed else "0" for met in record["met"]) for record in records}


def _median_met(records: Iterable[Record]) -> str:
    return str(estimate(values(records, "met").values(), "median"))


def ranks(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """The goals of Song et al., one table each."""
    for goal in SONG_GOALS:
        own = of(measured(records, "ranks"), goal=goal)
        rows = [_rank_row(of(own, method=method, variant="fixed"), method) for method in ONE_STEP]
        for variant in ("fixed", "released"):
            for method in ("ml-cw", "rank-1", "rank-2", "ml-dp"):
                rows.append(_rank_row(of(own, method=method, variant=variant), f"{method} {variant}"))
        rows = [row for row in rows if row]
        if rows:
            header = ["attack", "success", "RMSD, median", "Hamming A", "Hamming B", "tau-b"]
            yield f"Goal {goal}, {attacked(own)} images", table(header, rows)


def _rank_row(own: Sequence[Record], name: str) -> list[str]:
    """Of the radius with the most successes, for attacks in a ball; all images, successful or not."""
    if not own:
        return []
    radii = sorted({record["eps"] or 0.0 for record in own})
    by_radius = {radius: [record for record in own if (record["eps"] or 0.0) == radius] for radius in radii}
    best = max(by_radius.values(), key=lambda each: sum(record["success"].count("1") for record in each))
    changes = [size * PER_RMSD for size in values(best, "l2").values()]
    radius = best[0]["eps"]
    shown = name if radius is None else f"{name} ({best[0]['norm']} {radius:.3g})"
    means = [estimate(values(best, field).values(), "mean") for field in ("hamming_flip", "hamming_hold", "tau")]
    return [shown, rate(marks(best)), str(estimate(changes, "median")), *map(str, means)]


def coding(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """What JPEG undoes, and what an attack that knows of it reaches all the same."""
    own = measured(records, "jpeg")
    plain = of(own, through=None)
    if not plain:
        return
    rows = []
    for method in ("pgd", "mi-fgsm", "ml-cw", "ml-dp", "mla-lp"):
        mine = of(plain, method=method)
        if mine:
            adaptive = [rate(marks(of(own, method=method, through=each))) for each in QUALITIES]
            rows.append([method, rate(marks(mine)), *(rate(survivors(mine, each)) for each in QUALITIES), *adaptive])
    header = ["attack", "plain", *(f"left at {q}" for q in QUALITIES), *(f"adaptive at {q}" for q in QUALITIES)]
    yield (
        "JPEG, goal hiding-single: success, share of it left after coding, success against the coding network",
        table(header, rows),
    )
    header = ["attack", "plain", *(f"adaptive at {quality}" for quality in QUALITIES)]
    stages = (None, *QUALITIES)
    sizes = [
        [method, *(str(estimate(smallest(of(own, method=method, through=each)).values(), "median")) for each in stages)]
        for method in ("pgd", "mi-fgsm", "ml-cw")
        if of(plain, method=method)
    ]
    yield "JPEG: median l2 of the successes", table(header, sizes)


def survivors(records: Iterable[Record], quality: int) -> dict[int, str]:
    """Of each training's successes, which are successes after coding too."""
    found = {}
    for record in records:
        pairs = zip(record["success"], record["coded"][str(quality)], strict=True)
        found[record["seed"]] = "".join(after for before, after in pairs if before == "1")
    return found
