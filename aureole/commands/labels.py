"""`aureole labels`: every label of an image at once."""

from rich.console import Group
from rich.text import Text

from aureole import api, terminal
from aureole.commands.question import Subject, keeping_contradictions, load_subject
from aureole.exits import ExitCode
from aureole.json_parts import network_object, to_text
from aureole.json_report import LABELS_SCHEMA, image_object, labels_object, region_object
from aureole.options import RegionWords, RunOptions
from aureole.questions import Region, as_usage, build_region
from aureole.text_report import Row, fields, labels_table, network_text, ranking, trusted_texts
from verifier.labels import LabelClassification, LabelResult, LabelState
from verifier.property import check_k
from verifier.verdict import Unknown, UnknownReason
from verifier.verify import Outcome


def run(network_name: str, image_name: str, k: int, region_words: RegionWords, options: RunOptions) -> int:
    """Classifies the labels and reports them; returns the exit code."""
    with terminal.reserved_stdout(options.as_json):
        subject = load_subject(network_name, image_name)
        with as_usage():
            check_k(k, subject.network.labels)
        region = build_region(subject.image.astype("float64"), region_words)
        with keeping_contradictions(options.out):
            classification = classify_with_progress(subject, region, k, options)
    is_decided = all(result.state is not LabelState.UNDECIDED for result in classification.results)
    verdicts = [outcome.verdict for outcome in outcomes_of(classification)]
    was_stopped = any(isinstance(v, Unknown) and v.reason is UnknownReason.INTERRUPTED for v in verdicts)
    code = ExitCode.ROBUST if is_decided else ExitCode.INTERRUPTED if was_stopped else ExitCode.UNDECIDED
    if options.as_json:
        content = {
            "schema": LABELS_SCHEMA,
            "exit_code": int(code),
            "network": network_object(subject.network, subject.network_name),
            "image": image_object(subject.image_name, subject.scores, k),
            "region": region_object(region),
            **labels_object(classification, subject.image),
        }
        terminal.write_json(to_text(content))
    else:
        _print(subject, region, classification)
    return int(code)


def classify_with_progress(subject: Subject, region: Region, k: int, options: RunOptions) -> LabelClassification:
    """The classification, with a progress bar on stderr while it runs."""
    with terminal.progress() as bar:
        task = bar.add_task("labels", total=subject.network.labels, detail="")

        def on_result(result: LabelResult) -> None:
            bar.update(task, advance=1, detail=f"label {result.label}: {result.state.value}")

        return api.classify_labels(
            subject.network,
            subject.image,
            region.box,
            k,
            timeout=options.timeout,
            engine=options.engine.value,
            solver=options.solver.value,
            seed=options.seed,
            device=options.device,
            on_result=on_result,
        )


def outcomes_of(classification: LabelClassification) -> list[Outcome]:
    """Every outcome behind the classification."""
    both = ((result.stays_in, result.stays_out) for result in classification.results)
    return [outcome for pair in both for outcome in pair if outcome is not None]


def _print(subject: Subject, region: Region, classification: LabelClassification) -> None:
    rows: list[Row] = [
        ("network", network_text(subject.network, subject.network_name)),
        ("image", f"{subject.image_name}, top labels {ranking(subject.scores, classification.k)}"),
        ("region", region.text),
        *(("taken on trust", text) for text in trusted_texts(outcomes_of(classification))),
        ("time", f"{classification.seconds:.2f} s"),
    ]
    if classification.unstable_units is not None:
        rows.append(("unstable units", f"{classification.unstable_units} ReLUs and window maxima left open by bounds"))
    terminal.answers().print(Group(fields(rows), Text(), labels_table(classification, subject.scores)))
