"""`aureole crosscheck`: which claims about attacks are true."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from attacks.claims import (
    Claim,
    ClaimVerdict,
    Court,
    Judgement,
    RobustAccuracy,
    judge_claims,
    read_claim,
    read_records,
    robust_accuracies,
    table_in,
)
from attacks.margin import MarginAttack, MarginAttackOptions
from aureole import api, images, terminal
from aureole.claim_report import claims_code, claims_object, claims_text
from aureole.counterexample_files import file_stem, save_counterexample
from aureole.exits import MissingFileError
from aureole.images import write_file
from aureole.json_parts import to_text
from aureole.options import RunOptions
from verifier.deadline import Deadline
from verifier.errors import ContradictionError
from verifier.network import Network
from verifier.query import Query
from verifier.verify import Outcome, verify

REPORT_NAME = "crosscheck.json"


def run(claims_path: Path, network_name: str, options: RunOptions) -> int:
    """Judges every claim, reports, keeps counterexamples and contradictions; returns the exit code."""
    if not claims_path.exists():
        raise MissingFileError(f"claims {claims_path}: no such file or folder")
    with terminal.reserved_stdout(options.as_json):
        table = table_in(claims_path)
        network = api.load_network(network_name)
        claims = _read(table, network)
        judgements = _judged(claims, network, _court(options))
        accuracies, failure = _accuracies(judgements, len(claims))
        kept = {place: _kept(place, item, network, options.out) for place, item in enumerate(judgements)}
        saved = {place: files for place, files in kept.items() if files}
        content = claims_object(
            judgements,
            accuracies,
            saved,
            network=network,
            network_name=network_name,
            table=table,
            claims=len(claims),
        )
        report = options.out / REPORT_NAME
        write_file(report, to_text(content).encode())
    if options.as_json:
        terminal.write_json(to_text(content))
    else:
        text = claims_text(
            judgements,
            accuracies,
            network=network,
            network_name=network_name,
            table=table,
            claims=len(claims),
            report=report,
        )
        terminal.answers().print(text)
    if failure is not None:
        raise failure
    return int(claims_code(judgements, len(claims)))


def _accuracies(
    judgements: Sequence[Judgement], claims: int
) -> tuple[tuple[RobustAccuracy, ...], ContradictionError | None]:
    """The intervals, unless some claims were not judged; a contradiction is raised only once the report is written."""
    try:
        return robust_accuracies(judgements) if len(judgements) == claims else (), None
    except ContradictionError as error:
        return (), error


def _read(table: Path, network: Network) -> list[Claim]:
    def read_image(name: str) -> np.ndarray:
        reference = name if name.startswith(images.SHIPPED_PREFIX) else str(table.parent / name)
        return images.read_image(reference, network.input_shape)

    return [
        read_claim(record, place, network.labels, read_image, table.parent)
        for place, record in enumerate(read_records(table))
    ]


def _court(options: RunOptions) -> Court:
    """The verifier that the options name, and our bounds alone as the one who might contradict an image."""
    chosen = api.verify_options(options.engine.value, options.solver.value, options.device)
    bounds = api.verify_options("bounds", "auto", options.device)
    falsifier = MarginAttack(MarginAttackOptions(device=options.device), seed=options.seed)

    def decide(query: Query, starts: Float[np.ndarray, "n ..."], deadline: Deadline) -> Outcome:
        return verify(query, falsifier=falsifier, options=chosen, deadline=deadline, starts=starts)

    def prove(query: Query, starts: Float[np.ndarray, "n ..."], deadline: Deadline) -> Outcome:  # noqa: ARG001
        return verify(query, options=bounds, deadline=deadline)

    return Court(decide, prove, options.timeout)


def _judged(claims: Sequence[Claim], network: Network, court: Court) -> Sequence[Judgement]:
    """The judgements in the order of their claims; after Ctrl-C those that were finished, in the order they were."""
    finished: list[Judgement] = []
    with terminal.progress() as bar:
        task = bar.add_task("claims", total=len(claims), detail="")

        def on_judgement(item: Judgement) -> None:
            finished.append(item)
            bar.update(task, advance=1, detail=f"{item.claim.name}: {item.verdict.value}")

        try:
            return judge_claims(claims, network, court, on_judgement)
        except KeyboardInterrupt:
            return finished


def _kept(place: int, item: Judgement, network: Network, out: Path) -> dict[str, str]:
    """Files written for a judgement: the image that refutes a claim, or all that reproduces a contradiction."""
    stem = file_stem("claim", str(place), item.claim.name)
    if item.verdict is ClaimVerdict.CONTRADICTION and item.contradiction is not None:
        path = out / f"{stem}-contradiction.pickle"
        content: dict[str, Any] = {
            "message": str(item.contradiction),
            "query": item.contradiction.query,
            "details": item.contradiction.details,
            "claim": dict(item.claim.source),
            "network_sha256": network.sha256,
        }
        write_file(path, pickle.dumps(content))
        return {"contradiction": str(path)}
    if item.verdict is not ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE or item.counterexample is None:
        return {}
    aim = item.claim.aim
    saved = save_counterexample(
        item.counterexample,
        out,
        stem,
        network_sha256=network.sha256,
        property_name="" if aim is None else f"not: {aim.text}",
    )
    files = {"npy": str(saved.npy), "json": str(saved.json)}
    return files if saved.png is None else {**files, "png": str(saved.png)}
