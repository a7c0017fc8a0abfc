"""Answers as JSON objects, described in docs/json.md and by the schemas beside this file; versioned by "schema"."""

from dataclasses import asdict
from typing import Any, assert_never

import numpy as np

from aureole.certificate_files import CertificateNote
from aureole.counterexample_files import SavedCounterexample, scores_object
from aureole.exits import ExitCode
from aureole.json_parts import finite
from aureole.layers_file import layers_object
from aureole.options import PropertyKind, PropertyWords
from aureole.questions import Region, top_labels
from synth.result import GrowResult
from verifier.certificate import Certificate
from verifier.labels import LabelClassification, LabelResult
from verifier.property import Property
from verifier.verdict import Counterexample, Robust, Unknown, UnknownReason, Verdict, Vulnerable
from verifier.verify import Outcome, Statistics

VERDICT_SCHEMA = "aureole/verdict/1"
LABELS_SCHEMA = "aureole/labels/1"
GROW_SCHEMA = "aureole/grow/1"


def verdict_name(verdict: Verdict) -> str:
    """The verdict as one word."""
    match verdict:
        case Robust():
            return "robust"
        case Vulnerable():
            return "vulnerable"
        case Unknown():
            return "undecided"
        case _:
            assert_never(verdict)


def verdict_code(verdict: Verdict) -> ExitCode:
    """The exit code of a run that ends with this verdict."""
    match verdict:
        case Robust():
            return ExitCode.ROBUST
        case Vulnerable():
            return ExitCode.VULNERABLE
        case Unknown(reason=UnknownReason.INTERRUPTED):
            return ExitCode.INTERRUPTED
        case Unknown():
            return ExitCode.UNDECIDED
        case _:
            assert_never(verdict)


def image_object(reference: str, scores: np.ndarray, k: int) -> dict[str, Any]:
    """Which image was asked about, and how the network ranks it unperturbed."""
    return {"name": reference, "scores": [float(score) for score in scores], "top_k": top_labels(scores, k)}


def property_object(words: PropertyWords, asked: Property) -> dict[str, Any]:
    """Which property was asked."""
    is_label = words.kind in (PropertyKind.STAYS_IN, PropertyKind.STAYS_OUT)
    is_thresholds = words.kind is PropertyKind.THRESHOLDS
    return {
        "kind": words.kind.value,
        "text": asked.name,
        "label": words.label if is_label else None,
        "k": None if is_thresholds else words.k,
        "threshold": words.threshold if is_thresholds else None,
        "flips": words.flips if is_thresholds else None,
    }


def region_object(region: Region) -> dict[str, Any]:
    """Which region was asked about."""
    return {"kind": region.kind, "text": region.text, "epsilon": region.epsilon, "file": region.source}


def certificate_object(certificate: Certificate) -> dict[str, Any]:
    """What a proof rests on."""
    return {
        "engine": certificate.engine,
        "bound": finite(certificate.bound),
        "trusted": [{"name": claim.name, "text": claim.value} for claim in certificate.trusted],
    }


def counterexample_object(
    counterexample: Counterexample, image: np.ndarray, saved: SavedCounterexample | None
) -> dict[str, Any]:
    """A counterexample: its scores, how far it is from the image, and where it was saved."""
    change = np.abs(counterexample.image.astype(np.float64) - image.astype(np.float64))
    files = saved and {"npy": str(saved.npy), "png": saved.png and str(saved.png), "json": str(saved.json)}
    return {
        **scores_object(counterexample),
        "largest_change": float(change.max(initial=0.0)),
        "changed_pixels": int((change > 0).sum()),
        "files": files,
    }


def statistics_object(statistics: Statistics) -> dict[str, Any]:
    """Time, bounds and sizes."""
    return {
        "seconds": statistics.seconds,
        "unstable_units": statistics.unstable_units,
        "open_forms": statistics.open_forms,
        "open_subsets": statistics.open_subsets,
        "solver": statistics.solver,
        "stages": [
            {
                "name": stage.name,
                "seconds": stage.seconds,
                "upper_bound": finite(stage.upper_bound),
                "detail": stage.detail,
            }
            for stage in statistics.stages
        ],
    }


def certification_object(note: CertificateNote) -> dict[str, Any]:
    """What became of a certificate that was asked for."""
    saved = note.saved
    return {
        "file": None if saved is None else str(saved.path),
        "bytes": None if saved is None else saved.size,
        "leaves": note.leaves,
        "make_seconds": note.make_seconds,
        "check_seconds": None if saved is None else saved.report.seconds,
        "covers_float32": note.covers_float32,
        "reason": note.reason,
    }


def answer_object(
    outcome: Outcome,
    image: np.ndarray,
    saved: SavedCounterexample | None,
    certificate: CertificateNote | None = None,
) -> dict[str, Any]:
    """The verdict with its evidence and statistics: the part that is the same wherever a verdict appears."""
    verdict = outcome.verdict
    unknown = verdict if isinstance(verdict, Unknown) else None
    robust = verdict if isinstance(verdict, Robust) else None
    vulnerable = verdict if isinstance(verdict, Vulnerable) else None
    return {
        "verdict": verdict_name(verdict),
        "reason": unknown and {"name": unknown.reason.name, "text": unknown.reason.value},
        "best_bound": finite(unknown.best_bound) if unknown else None,
        "certificate": robust and certificate_object(robust.certificate),
        "certification": certificate and certification_object(certificate),
        "counterexample": vulnerable and counterexample_object(vulnerable.counterexample, image, saved),
        "statistics": statistics_object(outcome.statistics),
    }


def label_object(result: LabelResult, image: np.ndarray) -> dict[str, Any]:
    """One label's class and both answers behind it; a question that needed no asking is null."""
    return {
        "label": result.label,
        "state": result.state.name.lower().replace("_", "-"),
        "is_in_clean": result.is_in_clean,
        "stays_in": result.stays_in and answer_object(result.stays_in, image, None),
        "stays_out": result.stays_out and answer_object(result.stays_out, image, None),
    }


def labels_object(classification: LabelClassification, image: np.ndarray) -> dict[str, Any]:
    """Every label's class."""
    return {
        "k": classification.k,
        "seconds": classification.seconds,
        "unstable_units": classification.unstable_units,
        "labels": [label_object(result, image) for result in classification.results],
    }


def grow_object(result: GrowResult, image: np.ndarray, saved: SavedCounterexample | None) -> dict[str, Any]:
    """A grown neighbourhood, its proof, and a counterexample outside it."""
    outside = result.counterexample
    radii = result.counterexample_radii
    return {
        "is_proved": result.is_proved,
        "is_maximal": result.is_maximal,
        "stop": {"name": result.stop.name, "text": result.stop.value},
        "gap_stop": result.gap_stop and {"name": result.gap_stop.name, "text": result.gap_stop.value},
        "weighted_size": result.weighted_size,
        "upper_bound": result.upper_bound,
        "gap": result.gap,
        "step": result.step,
        "names": list(result.names),
        "size_kind": result.objective.kind.value,
        "weights": [float(weight) for weight in result.weights],
        "neighbourhood": layers_object(result.neighbourhood),
        "pixels_above_zero": result.pixels_above_zero,
        "saturated_layers": list(result.saturated_layers),
        "excluded_layers": list(result.excluded_layers),
        "undecided_layers": list(result.undecided_layers),
        "cuts": len(result.cuts),
        "queries": asdict(result.counts),
        "seconds": result.seconds,
        "outside": counterexample_object(outside, image, saved) if outside is not None else None,
        "outside_radii": None if radii is None else [float(radius) for radius in radii],
        "answer": answer_object(result.outcome, image, None),
    }
