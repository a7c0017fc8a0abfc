"""Answers for people, as rich renderables; what is printed where is decided elsewhere."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from aureole.certificate_files import CertificateNote
from aureole.counterexample_files import SavedCounterexample
from aureole.json_parts import finite
from aureole.json_report import verdict_name
from aureole.questions import top_labels
from verifier.labels import LabelClassification, LabelResult, LabelState
from verifier.network import Network
from verifier.verdict import Counterexample, Robust, Unknown, Verdict, Vulnerable
from verifier.verify import Outcome, Statistics

Row = tuple[str, RenderableType]
_COLOURS = {"robust": "bold green", "vulnerable": "bold red", "undecided": "bold yellow"}
STATE_TEXTS = {
    LabelState.ALWAYS_IN: ("provably in", "green"),
    LabelState.ALWAYS_OUT: ("provably out", "cyan"),
    LabelState.BOTH: ("attackable: can be both", "red"),
    LabelState.UNDECIDED: ("undecided", "yellow"),
}


def fields(rows: Sequence[Row]) -> Table:
    """Names and values in two columns without lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value) if isinstance(value, str) else value)
    return table


def heading(verdict: Verdict, claim: str) -> Text:
    """The verdict in its colour, then the claim it is about."""
    name = verdict_name(verdict)
    return Text.assemble((name.upper(), _COLOURS[name]), "  ", claim)


def network_text(network: Network, reference: str) -> str:
    """The network in one line."""
    shape = " x ".join(str(size) for size in network.input_shape)
    return f"{reference}: {shape} -> {network.labels} labels, sha256 {network.sha256[:12]}..."


def evidence_rows(verdict: Verdict, saved: SavedCounterexample | None, k: int) -> list[Row]:
    """What the verdict rests on."""
    match verdict:
        case Robust(certificate):
            bound = finite(certificate.bound)
            says = (
                "no image in the region violates it"
                if bound is None
                else f"the margin is at most {bound:.6g} everywhere"
            )
            trusted = [("taken on trust", claim.value) for claim in certificate.trusted] or [
                ("taken on trust", "nothing")
            ]
            return [("proved by", f"{certificate.engine}: {says}"), *trusted]
        case Vulnerable(counterexample):
            return counterexample_rows(counterexample, saved, k)
        case Unknown(reason, best_bound):
            bound = finite(best_bound)
            known = "none" if bound is None else f"the margin is at most {bound:.6g} everywhere; robust needs < 0"
            return [("open because", reason.value), ("best bound", known)]


def counterexample_rows(counterexample: Counterexample, saved: SavedCounterexample | None, k: int) -> list[Row]:
    """A counterexample's scores, and where it lies."""
    rows: list[Row] = [
        ("found by", counterexample.found_by),
        (
            "margin there",
            f"> 0: at least {counterexample.margin_lower:.6g} exactly, {counterexample.runtime_margin:.6g} in ONNX Runtime",
        ),
        ("its top labels", ranking(counterexample.scores, k)),
    ]
    return rows if saved is None else [*rows, *file_rows(saved)]


def file_rows(saved: SavedCounterexample) -> list[Row]:
    """Where a counterexample was saved, one file a line."""
    paths = [path for path in (saved.npy, saved.png, saved.json) if path is not None]
    return [("saved as" if index == 0 else "", str(path)) for index, path in enumerate(paths)]


def ranking(scores: Sequence[float] | object, k: int) -> str:
    """The k highest labels with their scores, then the first that follows, after a bar."""
    import numpy as np

    values = np.asarray(scores)
    labels = top_labels(values, min(k + 1, len(values)))
    words = [f"{label} ({values[label]:.4g})" for label in labels]
    return ", ".join(words[:k]) + (f" | {words[k]}" if len(words) > k else "")


def statistics_rows(statistics: Statistics) -> list[Row]:
    """Sizes, solver and total time."""
    rows: list[Row] = [("time", f"{statistics.seconds:.2f} s")]
    if statistics.unstable_units is not None:
        rows.append(("unstable units", f"{statistics.unstable_units} ReLUs and window maxima left open by bounds"))
    if statistics.open_forms is not None:
        subsets = statistics.open_subsets
        rows.append(
            (
                "open after bounds",
                f"{statistics.open_forms} forms" + ("" if subsets is None else f", {subsets} subsets"),
            )
        )
    if statistics.solver is not None:
        rows.append(("MILP solver", statistics.solver))
    return rows


def stages_table(statistics: Statistics) -> Table:
    """Time and bound of each stage."""
    table = Table("stage", "seconds", "bound", "what happened", box=None, header_style="dim", pad_edge=False)
    for stage in statistics.stages:
        bound = finite(stage.upper_bound)
        table.add_row(stage.name, f"{stage.seconds:.2f}", "" if bound is None else f"{bound:.4g}", escape(stage.detail))
    return table


def certificate_rows(note: CertificateNote | None) -> list[Row]:
    """What became of a certificate that was asked for."""
    if note is None:
        return []
    saved, leaves = note.saved, "" if note.leaves is None else f", {note.leaves:,} leaves"
    scope = ", for float32 inference too" if note.covers_float32 else ""
    made = "" if note.make_seconds is None else f"made in {note.make_seconds:.2f} s"
    if saved is not None:
        text = f"{saved.path}, {saved.size:,} bytes{leaves}{scope}; {made}, checked in {saved.report.seconds:.2f} s"
    elif note.make_seconds is not None:
        text = f"a proof the checker accepted{leaves}{scope}; {made}"
    else:
        text = "none"
    return [("certificate", text if note.reason is None else f"{text}: {note.reason}")]


def outcome_report(
    outcome: Outcome,
    claim: str,
    about: Sequence[Row],
    saved: SavedCounterexample | None,
    k: int,
    certificate: CertificateNote | None = None,
) -> RenderableType:
    """The whole answer to one query."""
    evidence = [*evidence_rows(outcome.verdict, saved, k), *certificate_rows(certificate)]
    rows = [*about, *evidence, *statistics_rows(outcome.statistics)]
    return Group(heading(outcome.verdict, claim), fields(rows), Text(), stages_table(outcome.statistics))


def label_engine(result: LabelResult) -> str:
    """Who decided the label: the engine of the proof, or of the attacks, or why it is open."""
    verdicts = [outcome.verdict for outcome in (result.stays_in, result.stays_out) if outcome is not None]
    proofs = [verdict.certificate.engine for verdict in verdicts if isinstance(verdict, Robust)]
    finders = [verdict.counterexample.found_by for verdict in verdicts if isinstance(verdict, Vulnerable)]
    reasons = [verdict.reason.name.lower().replace("_", " ") for verdict in verdicts if isinstance(verdict, Unknown)]
    match result.state:
        case LabelState.ALWAYS_IN | LabelState.ALWAYS_OUT:
            words = proofs
        case LabelState.BOTH:
            words = finders
        case LabelState.UNDECIDED:
            words = reasons
    return "; ".join(dict.fromkeys(words))


def labels_table(classification: LabelClassification, scores: Sequence[float] | object) -> Table:
    """One row a label: its clean score and rank, its class, who decided."""
    import numpy as np

    values = np.asarray(scores)
    ranks = {label: rank for rank, label in enumerate(top_labels(values, len(values)), 1)}
    table = Table(title=f"Which labels can be in the top {classification.k}?", title_justify="left")
    table.add_column("label", justify="right")
    table.add_column("score", justify="right")
    table.add_column("rank", justify="right")
    table.add_column("over the whole region")
    table.add_column("decided by")
    for result in classification.results:
        words, colour = STATE_TEXTS[result.state]
        rank = ranks[result.label]
        style = "bold" if rank <= classification.k else ""
        table.add_row(
            Text(str(result.label), style),
            f"{values[result.label]:.3f}",
            str(rank),
            Text(words, colour),
            escape(label_engine(result)),
        )
    return table


def trusted_texts(outcomes: Sequence[Outcome]) -> list[str]:
    """Every claim that some proof among the outcomes takes on trust, once, in order of appearance."""
    proofs = [outcome.verdict.certificate for outcome in outcomes if isinstance(outcome.verdict, Robust)]
    return list(dict.fromkeys(claim.value for certificate in proofs for claim in certificate.trusted))
