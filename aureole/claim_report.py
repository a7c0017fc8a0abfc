"""What became of claims about attacks, for people and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from attacks.claims import ClaimVerdict, Judgement, RobustAccuracy
from aureole.exits import ExitCode
from aureole.json_parts import finite, network_object
from aureole.text_report import Row, fields, network_text
from verifier.network import Network

CROSSCHECK_SCHEMA = "aureole/crosscheck/1"
_COLOURS = {
    ClaimVerdict.CONFIRMED: "green",
    ClaimVerdict.UNDECIDED: "yellow",
    ClaimVerdict.CONTRADICTION: "bold white on red",
}
_MOST_ROWS = 40


def claims_code(judgements: Sequence[Judgement], claims: int) -> ExitCode:
    """ROBUST where all claims stand, VULNERABLE where one does not, UNDECIDED where one is open and the rest stand.

    A contradiction is INTERNAL, and claims that were not judged mean INTERRUPTED.
    """
    verdicts = {judgement.verdict for judgement in judgements}
    if ClaimVerdict.CONTRADICTION in verdicts:
        return ExitCode.INTERNAL
    if len(judgements) < claims:
        return ExitCode.INTERRUPTED
    if verdicts <= {ClaimVerdict.CONFIRMED}:
        return ExitCode.ROBUST
    return ExitCode.UNDECIDED if verdicts <= {ClaimVerdict.CONFIRMED, ClaimVerdict.UNDECIDED} else ExitCode.VULNERABLE


def claims_object(
    judgements: Sequence[Judgement],
    accuracies: Sequence[RobustAccuracy],
    saved: Mapping[int, Mapping[str, str]],
    *,
    network: Network,
    network_name: str,
    table: Path,
    claims: int,
) -> dict[str, Any]:
    """The report as docs/json.md describes it; `saved` holds the files of each judgement by its place."""
    return {
        "schema": CROSSCHECK_SCHEMA,
        "exit_code": int(claims_code(judgements, claims)),
        "network": network_object(network, network_name),
        "table": str(table),
        "claims": claims,
        "counts": {verdict.value: number for verdict, number in sorted(_counts(judgements).items())},
        "judgements": [_judgement_object(item, saved.get(place)) for place, item in enumerate(judgements)],
        "robust_accuracy": [_accuracy_object(item) for item in accuracies],
    }


def _judgement_object(item: Judgement, files: Mapping[str, str] | None) -> dict[str, Any]:
    claim, found = item.claim, item.counterexample
    return {
        "name": claim.name,
        "claim": claim.kind.value,
        "attack": claim.attack,
        "aim": None if claim.aim is None else claim.aim.text,
        "norm": None if claim.norm is None else claim.norm.value,
        "bound": finite(claim.bound),
        "group": claim.group,
        "value": finite(claim.value),
        "verdict": item.verdict.value,
        "reason": item.reason,
        "size": finite(item.size),
        "margin_lower": None if item.margin is None else finite(item.margin[0]),
        "margin_upper": None if item.margin is None else finite(item.margin[1]),
        "runtime_margin": None if found is None else finite(found.runtime_margin),
        "engine": item.engine or None,
        "trusted": list(item.trusted),
        "interval": None if item.interval is None else [float(end) for end in item.interval],
        "files": None if files is None else dict(files),
        "seconds": item.seconds,
    }


def _accuracy_object(item: RobustAccuracy) -> dict[str, Any]:
    return {
        "group": item.group,
        "norm": None if item.norm is None else item.norm.value,
        "bound": finite(item.bound),
        "images": item.images,
        "certified": item.certified,
        "broken": item.broken,
        "interval": [float(end) for end in item.interval],
    }


def claims_text(
    judgements: Sequence[Judgement],
    accuracies: Sequence[RobustAccuracy],
    *,
    network: Network,
    network_name: str,
    table: Path,
    claims: int,
    report: Path,
) -> Group:
    """The report for people: a heading, a row a claim (those that stand last), intervals."""
    rows: list[Row] = [
        ("claims", f"{table}, {claims} claims" + ("" if len(judgements) == claims else f", {len(judgements)} judged")),
        ("network", network_text(network, network_name)),
        *((verdict.value, str(number)) for verdict, number in sorted(_counts(judgements).items())),
        *(("taken on trust", text) for text in dict.fromkeys(text for item in judgements for text in item.trusted)),
        ("report", str(report)),
    ]
    parts: list[Any] = [_heading(judgements, claims), fields(rows), Text(), _claims_table(judgements)]
    # The interval of a single image says no more than its claim.
    shared = [item for item in accuracies if item.group or item.images > 1]
    if shared:
        parts += [Text(), _accuracy_table(shared)]
    return Group(*parts)


def _counts(judgements: Sequence[Judgement]) -> Counter[ClaimVerdict]:
    return Counter(item.verdict for item in judgements)


def _heading(judgements: Sequence[Judgement], claims: int) -> Text:
    match claims_code(judgements, claims):
        case ExitCode.ROBUST:
            return Text.assemble(("ALL CLAIMS STAND", "bold green"))
        case ExitCode.INTERNAL:
            text = "  an image reaches its aim inside a region proved robust; please report it with the files kept"
            return Text.assemble(("CONTRADICTION", "bold white on red"), text)
        case ExitCode.INTERRUPTED:
            return Text.assemble(("INTERRUPTED", "bold yellow"), "  not every claim was judged")
        case ExitCode.UNDECIDED:
            return Text.assemble(("UNDECIDED", "bold yellow"), "  no claim was refuted, but some are open")
        case _:
            return Text.assemble(("NOT ALL CLAIMS STAND", "bold red"))


def _claims_table(judgements: Sequence[Judgement]) -> Table:
    table = Table("claim", "says", "verdict", "why", box=None, header_style="dim", pad_edge=False)
    ordered = sorted(judgements, key=lambda item: item.stands)
    for item in ordered[:_MOST_ROWS]:
        table.add_row(
            escape(item.claim.name),
            escape(_says(item)),
            Text(item.verdict.value, _COLOURS.get(item.verdict, "red")),
            escape(item.reason),
        )
    if len(ordered) > _MOST_ROWS:
        table.add_row("...", f"{len(ordered) - _MOST_ROWS} more in the report", "", "")
    return table


def _says(item: Judgement) -> str:
    claim = item.claim
    within = "" if claim.bound is None else f" within {claim.norm} {claim.bound:g}"
    what = f" {claim.value:g} for {claim.group or 'all images'}" if claim.value is not None else ""
    aim = f": {claim.aim.text}" if claim.aim is not None else ""
    return f"{claim.attack} {claim.kind.value}{what}{within}{aim}".strip()


def _accuracy_table(accuracies: Sequence[RobustAccuracy]) -> Table:
    table = Table(title="Robust accuracy", title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column in ("group", "bound", "images", "certified", "broken", "interval"):
        table.add_column(column)
    for item in accuracies:
        bound = "any" if item.bound is None else f"{item.norm} {item.bound:g}"
        low, high = item.interval
        table.add_row(
            escape(item.group or "all"),
            bound,
            str(item.images),
            str(item.certified),
            str(item.broken),
            f"{low:.4f} to {high:.4f}",
        )
    return table
