"""What a check found, for people and as JSON. Loads none of the engines."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from aureole.exits import ExitCode
from aureole.json_parts import finite, network_object
from verifier.check.certificates import CheckReport
from verifier.network import Network
from verifier.proof.records import Statement
from verifier.property import Property, stays_in_top_k, stays_out_of_top_k
from verifier.region import Box

CHECK_SCHEMA = "aureole/check/1"
_MOST_CHARACTERS = 200


def check_code(report: CheckReport) -> ExitCode:
    """ROBUST for an accepted proof alone, VULNERABLE for an accepted counterexample, otherwise UNDECIDED."""
    if not report.accepted:
        return ExitCode.UNDECIDED
    return ExitCode.ROBUST if report.is_proof else ExitCode.VULNERABLE


def check_object(report: CheckReport, certificate: Path, network: Network, network_name: str) -> dict[str, Any]:
    """The report as docs/json.md describes it."""
    is_proof, accepted = report.is_proof, report.accepted
    lemmas_to_leaves = {
        "lemmas": report.lemmas,
        "refutations": report.refutations,
        "leaves": report.leaves,
        "closest": finite(report.largest_bound),
    }
    margins = {"margin_lower": finite(report.largest_bound), "runtime_margin": report.runtime_margin}
    return {
        "schema": CHECK_SCHEMA,
        "exit_code": int(check_code(report)),
        "file": str(certificate),
        "bytes": certificate.stat().st_size,
        "network": network_object(network, network_name),
        "accepted": accepted,
        "kind": None if is_proof is None else "proof" if is_proof else "counterexample",
        "reason": None if accepted else report.reason,
        "covers_float32": bool(accepted and report.covers_float32),
        "statement": None if report.statement is None else _statement_object(report.statement),
        "proof": lemmas_to_leaves if is_proof else None,
        "replay": margins if accepted and not is_proof else None,
        "trusted": [],
        "seconds": report.seconds,
    }


def _statement_object(statement: Statement) -> dict[str, Any]:
    return {
        "network_sha256": statement.network_sha256,
        "property": property_text(statement.property),
        "region": region_text(statement.box),
        "tool": statement.tool,
        "name": statement.property.name,
    }


def check_text(report: CheckReport, certificate: Path, network: Network, network_name: str) -> Group:
    """The report for people."""
    rows = [
        ("certificate", f"{certificate}, {certificate.stat().st_size:,} bytes"),
        ("network", f"{network_name}, sha256 {network.sha256}"),
    ]
    if report.statement is not None:
        rows += [
            ("region", region_text(report.statement.box)),
            ("property", property_text(report.statement.property)),
            (
                "written by",
                f"{_short(report.statement.tool)}, which calls the property '{_short(report.statement.property.name)}'",
            ),
        ]
    rows += _evidence(report) if report.accepted else [("rejected because", report.reason)]
    rows.append(("seconds", f"{report.seconds:.2f}"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, Text(text))
    return Group(_heading(report), table)


def _heading(report: CheckReport) -> Text:
    if not report.accepted:
        return Text.assemble(("REJECTED", "bold red"), "  the certificate shows nothing")
    if report.is_proof:
        return Text.assemble(("PROVED", "bold green"), "  the property holds everywhere in the region")
    return Text.assemble(("VULNERABLE", "bold red"), "  the property fails at an image of the region")


def _evidence(report: CheckReport) -> list[tuple[str, str]]:
    if not report.is_proof:
        exact = f"its margin is > 0, at least {report.largest_bound:.6g}, in exact arithmetic"
        run = f"replayed in ONNX Runtime, where its margin is {report.runtime_margin:.6g}"
        return [("checked", f"the image lies in the region, exactly; {exact}; {run}"), ("trusted", "nothing")]
    counts = f"{report.lemmas} lemmas, {report.refutations} refuted sets of forms, {report.leaves} leaves"
    about = "exact arithmetic on the file's float32 weights"
    if report.covers_float32:
        about += ", and the scores of float32 inference in any order of summation"
    return [
        ("checked", f"{counts}, the closest by {-report.largest_bound:.3g} with all rounding included"),
        ("speaks about", about),
        ("trusted", "nothing"),
    ]


def _short(text: str) -> str:
    """A certificate's own words, which may be long."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def region_text(box: Box) -> str:
    """The region in one line."""
    widths = box.upper - box.lower
    free = int(np.count_nonzero(widths))
    shape = " x ".join(map(str, box.shape))
    return (
        f"{shape}: {free} of {box.lower.size} pixels vary, the widest from end to end by {widths.max(initial=0.0):.6g}"
    )


def property_text(goal: Property) -> str:
    """What the forms say, read off the forms: a certificate's own words for them bind nobody."""
    rankings = ((-1.0, goal.count, stays_in_top_k), (1.0, goal.labels - goal.count, stays_out_of_top_k))
    for sign, count, build in rankings:
        if 1 <= count < goal.labels == len(goal.offsets) + 1:
            # All forms of a ranking hold the label with one sign.
            for label in np.flatnonzero((goal.coefficients == sign).all(axis=0)).tolist():
                known = build(label, count, goal.labels)
                if _same_forms(known, goal):
                    return known.name
    return f"violated where at least {goal.count} of {len(goal.offsets)} linear forms of {goal.labels} scores are >= 0"


def _same_forms(first: Property, second: Property) -> bool:
    rows = [
        np.unique(np.column_stack([goal.coefficients, goal.offsets]), axis=0, return_counts=True)
        for goal in (first, second)
    ]
    return first.count == second.count and all(np.array_equal(a, b) for a, b in zip(*rows, strict=True))
