"""`aureole check`: whether a certificate proves what it states, shown by code that shares nothing with the engines."""

from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from aureole import terminal
from aureole.exits import ExitCode, MissingFileError
from nets import shipped
from verifier.check.certificates import CheckReport, check_certificate
from verifier.network import Network
from verifier.onnx_import import load_network
from verifier.property import Property, stays_in_top_k, stays_out_of_top_k
from verifier.region import Box


def run(certificate: Path, network_name: str, *, covers_float32: bool) -> int:
    """Checks a certificate and says what was shown; returns ROBUST for an accepted proof alone."""
    if not certificate.is_file():
        raise MissingFileError(f"certificate {certificate}: no such file")
    network = _network(network_name)
    report = check_certificate(certificate, network, covers_float32=covers_float32)
    terminal.answers().print(_report(report, certificate, network, network_name))
    if not report.accepted:
        return int(ExitCode.UNDECIDED)
    return int(ExitCode.ROBUST if report.is_proof else ExitCode.VULNERABLE)


def _network(name: str) -> Network:
    """The network in a file, or a shipped one; without the rest of the package, which a check has no use for."""
    path = Path(name)
    if path.exists():
        return load_network(path)
    if name in shipped.names():
        return load_network(shipped.network_path(name))
    raise MissingFileError(f"network {name}: no such file; shipped by name: {', '.join(shipped.names())}")


def _report(report: CheckReport, certificate: Path, network: Network, network_name: str) -> Group:
    rows = [
        ("certificate", f"{certificate}, {certificate.stat().st_size:,} bytes"),
        ("network", f"{network_name}, sha256 {network.sha256}"),
    ]
    if report.statement is not None:
        rows += [
            ("region", region_text(report.statement.box)),
            ("property", property_text(report.statement.property)),
            ("written by", f"{report.statement.tool}, which calls the property '{report.statement.property.name}'"),
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
        checked = "the image lies in the region; exact margin and ONNX Runtime's are both > 0"
        return [("checked", f"{checked}; the margin is at least {report.largest_bound:.6g}"), ("trusted", "nothing")]
    counts = f"{report.lemmas} lemmas, {report.refutations} refuted sets of forms, {report.leaves} leaves"
    about = "exact arithmetic on the file's float32 weights"
    if report.covers_float32:
        about += ", and the scores of float32 inference in any order of summation"
    return [
        ("checked", f"{counts}, the closest by {-report.largest_bound:.3g} with all rounding included"),
        ("speaks about", about),
        ("trusted", "nothing"),
    ]


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
    for count, build in ((goal.count, stays_in_top_k), (goal.labels - goal.count, stays_out_of_top_k)):
        if 1 <= count < goal.labels:
            for label in range(goal.labels):
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
