"""Tables about the top k: TkMIA against its competitors, kFool's norm, universal perturbations."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.attack_study.cells import COMPETITORS, TOP_K
from benchmarks.attack_study.records import measured
from benchmarks.attack_study.stats import (
    MOVED,
    Record,
    at_equal_success,
    attacked,
    estimate,
    rate,
    ratios,
    smallest,
    values,
)
from benchmarks.attack_study.threshold_tables import marks
from benchmarks.topk.tables import table

GROUPS = {
    "released, scope Y": ("released", "Y"),
    "fixed, scope Y": ("fixed", "Y"),
    "fixed, scope S": ("fixed", "S"),
}
"""How the competitors are run: as released all relevant labels are pushed out, TkMIA alone pushes S; fair is S for all."""
DROPS = ("TkAcc", "P", "AP", "NDCG")
ATTACKS = ("tkmia", *COMPETITORS)


def setting_of(record: Record) -> str | None:
    """The name of a record's setting."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in record["goal_options"].items()}
    for name, (canvas, wanted) in TOP_K.items():
        if record["canvas"] == canvas and options == dict(wanted):
            return name
    return None


def group(records: Sequence[Record], setting: str, name: str) -> dict[str, list[Record]]:
    """The records of each attack of a group; TkMIA has one scope only."""
    variant, scope = GROUPS[name]
    own = [
        record
        for record in measured(records, "top-k")
        if setting_of(record) == setting and record["variant"] == variant
    ]
    return {
        method: [r for r in own if r["method"] == method and r["options"].get("scope", scope) == scope]
        for method in ATTACKS
    }


def norm_of(name: str) -> str:
    """The norm that a group is compared by.

    Released code squeezes the contrast of every image, which is most of the true change and the same for all attacks, and reports
    the norm of the variable inside the tanh.
    """
    return "l2_before_tanh" if name.startswith("released") else "l2"


def able(found: Mapping[str, Sequence[Record]], norm: str = "l2") -> dict[str, dict[tuple[int, int], float]]:
    """The successes of each attack that succeeds on half the images; others would leave nothing to compare."""
    sizes = {method: smallest(own, norm) for method, own in found.items()}
    return {
        method: own
        for method, own in sizes.items()
        if own and len(smallest(found[method])) >= attacked(found[method]) / 2
    }


def top_k(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """One table a setting, and a summary."""
    summary = []
    for setting in TOP_K:
        rows = []
        for name in GROUPS:
            found = group(records, setting, name)
            if any(found.values()):
                rows += _rows(name, found)
                summary.append([setting, name, *_against(found, norm_of(name))])
        if rows:
            header = ["run as", "attack", "success", "images compared", "l2, median", "norm it reports, median"]
            yield f"Specified labels, {setting}", table([*header, *(f"drop of {drop}" for drop in DROPS)], rows)
    if summary:
        header = ["setting", "run as", *(f"norm of TkMIA / {each}" for each in COMPETITORS)]
        header += [f"drop of AP, TkMIA - {each}" for each in COMPETITORS]
        yield "TkMIA against its competitors, image by image, at equal success of the two", table(header, summary)


def _rows(name: str, found: Mapping[str, Sequence[Record]]) -> list[list[str]]:
    sizes = able(found)
    common = at_equal_success(list(sizes.values()))
    rows = []
    for method, own in found.items():
        if not own:
            continue
        row = [name, method, rate(marks(own))]
        if method not in sizes:
            rows.append([*row, "0", "-", "-", *("-" for _ in DROPS)])
            continue
        drops = [values(own, "drops", drop) for drop in DROPS]
        means = [estimate((drop[image] for image in common if image in drop), "mean") for drop in drops]
        median = estimate((sizes[method][image] for image in common), "median")
        told = smallest(own, "l2_before_tanh") if norm_of(name) != "l2" else {}
        reported = estimate((told[image] for image in common if image in told), "median")
        rows.append([*row, str(len(common)), str(median), str(reported), *map(str, means)])
    return rows


def _against(found: Mapping[str, Sequence[Record]], norm: str) -> list[str]:
    """Median ratios of norms, then mean differences of the drop of AP."""
    sizes = able(found, norm)
    relative, differences = [], []
    for other in COMPETITORS:
        if "tkmia" not in sizes or other not in sizes:
            relative.append("-")
            differences.append("-")
            continue
        relative.append(str(estimate(ratios(sizes["tkmia"], sizes[other]).values(), "median")))
        mine, theirs = (values(found[each], "drops", "AP") for each in ("tkmia", other))
        both = at_equal_success([sizes["tkmia"], sizes[other], mine, theirs])
        differences.append(str(estimate((mine[image] - theirs[image] for image in both), "mean")))
    return [*relative, *differences]


def kfool(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """The norm of kFool over that of TkML-AP-U, image by image; as released also the norm that its code reports."""
    rows = []
    for setting in TOP_K:
        row = [setting]
        for name in GROUPS:
            found = group(records, setting, name)
            sizes = able(found)
            both = {"kfool", "tkml-ap-u"} <= set(sizes)
            row.append(str(estimate(ratios(sizes["kfool"], sizes["tkml-ap-u"]).values(), "median")) if both else "-")
            if name.startswith("released"):
                told = {each: smallest(found[each], norm_of(name)) for each in ("kfool", "tkml-ap-u")} if both else {}
                row.append(str(estimate(ratios(told["kfool"], told["tkml-ap-u"]).values(), "median")) if told else "-")
                row.append(rate(unmoved(found["kfool"])))
        if any(cell != "-" for cell in row[1:]):
            rows.append(row)
    if rows:
        first, *others = GROUPS
        header = ["setting", first, f"{first}, as its code reports", "goal met by the squeeze alone", *others]
        yield "l2 of kFool over l2 of TkML-AP-U, median over images at equal success of the two", table(header, rows)


def unmoved(records: Sequence[Record]) -> dict[int, str]:
    """Which images of a released attack meet the goal without a step, since it squeezes the contrast of every image."""
    found = {}
    for record in records:
        pairs = zip(record["success"], record["l2_before_tanh"], strict=True)
        found[record["seed"]] = "".join("1" if mark == "1" and size < MOVED else "0" for mark, size in pairs)
    return found


def universal(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Fooling rates on images that the perturbation was not found on."""
    own = measured(records, "universal")
    radii = sorted({record["eps"] for record in own})
    rows = []
    for method in ("tkml-ap-uv", "kuap"):
        for variant in ("fixed", "released"):
            mine = [record for record in own if (record["method"], record["variant"]) == (method, variant)]
            cells = [rate(held_out(mine, radius)) for radius in radii]
            if mine:
                rows.append([f"{method} {variant}", *cells])
    if rows:
        yield (
            "Universal perturbations: fooling rate on other images, top 2",
            table(["attack", *(f"l2 {radius:g}" for radius in radii)], rows),
        )


def held_out(records: Sequence[Record], radius: float) -> dict[int, str]:
    """The images fooled at a radius, of each training."""
    return {record["seed"]: record["held_out"] for record in records if record["eps"] == radius}
