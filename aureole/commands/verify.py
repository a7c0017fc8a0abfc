"""`aureole verify`: one query, one verdict."""

from aureole import api, terminal
from aureole.certificate_files import CertificateNote, check_target, keep_certificate
from aureole.commands.question import Subject, keeping_contradictions, load_subject
from aureole.counterexample_files import SavedCounterexample, file_stem, save_counterexample
from aureole.json_parts import network_object, to_text
from aureole.json_report import (
    VERDICT_SCHEMA,
    answer_object,
    image_object,
    property_object,
    region_object,
    verdict_code,
)
from aureole.options import CertificateWords, PropertyKind, PropertyWords, RegionWords, RunOptions
from aureole.questions import Region, build_property, build_region, shown_k
from aureole.text_report import network_text, outcome_report, ranking
from verifier.query import Query
from verifier.verdict import Vulnerable
from verifier.verify import Outcome


def run(
    network_name: str,
    image_name: str,
    words: PropertyWords,
    region_words: RegionWords,
    options: RunOptions,
    evidence: CertificateWords,
) -> int:
    """Decides the query, reports it, saves a counterexample and the certificate; returns the exit code."""
    with terminal.reserved_stdout(options.as_json):
        if evidence.path is not None:
            check_target(evidence.path, [network_name, image_name])
        subject = load_subject(network_name, image_name)
        asked = build_property(words, subject.network, subject.scores)
        region = build_region(subject.image.astype("float64"), region_words)
        query = Query(subject.network, region.box, asked)
        with keeping_contradictions(options.out):
            outcome = api.verify(
                query,
                timeout=options.timeout,
                engine=options.engine.value,
                solver=options.solver.value,
                seed=options.seed,
                device=options.device,
                start=subject.image,
                certify=evidence.is_wanted,
                require_certificate=evidence.is_required,
                float32=evidence.covers_float32,
            )
            certificate, failure = keep_certificate(query, outcome, evidence)
        saved = _save(outcome, query, subject, words, options)
    if options.as_json:
        content = _json(subject, words, query, region, outcome, saved, certificate)
        terminal.write_json(to_text(content))
    else:
        _print(subject, words, query, region, outcome, saved, certificate)
    if failure is not None:
        raise failure
    return int(verdict_code(outcome.verdict))


def _save(
    outcome: Outcome, query: Query, subject: Subject, words: PropertyWords, options: RunOptions
) -> SavedCounterexample | None:
    if not isinstance(outcome.verdict, Vulnerable):
        return None
    is_label = words.kind in (PropertyKind.STAYS_IN, PropertyKind.STAYS_OUT)
    label = f"label{words.label}" if is_label else ""
    stem = file_stem(subject.short_network_name, subject.short_image_name, words.kind, label)
    return save_counterexample(
        outcome.verdict.counterexample,
        options.out,
        stem,
        network_sha256=subject.network.sha256,
        property_name=query.property.name,
    )


def _json(
    subject: Subject,
    words: PropertyWords,
    query: Query,
    region: Region,
    outcome: Outcome,
    saved: SavedCounterexample | None,
    certificate: CertificateNote | None,
) -> dict[str, object]:
    return {
        "schema": VERDICT_SCHEMA,
        "exit_code": int(verdict_code(outcome.verdict)),
        "network": network_object(subject.network, subject.network_name),
        "image": image_object(subject.image_name, subject.scores, shown_k(words, subject.network)),
        "property": property_object(words, query.property),
        "region": region_object(region),
        **answer_object(outcome, subject.image, saved, certificate),
    }


def _print(
    subject: Subject,
    words: PropertyWords,
    query: Query,
    region: Region,
    outcome: Outcome,
    saved: SavedCounterexample | None,
    certificate: CertificateNote | None,
) -> None:
    k = shown_k(words, subject.network)
    about = [
        ("network", network_text(subject.network, subject.network_name)),
        ("image", f"{subject.image_name}, top labels {ranking(subject.scores, k)}"),
        ("region", region.text),
    ]
    terminal.answers().print(outcome_report(outcome, query.property.name, about, saved, k, certificate))
