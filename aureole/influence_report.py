"""The influence map of an image as JSON, and what `grow-all` keeps of a pair turned back into its part of the map."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from aureole.images import read_image
from synth.influence import Influence, InfluenceMap, Limit, Outside, exceeded_layers
from synth.zones import Zones
from verifier.errors import AureoleError, InputError
from verifier.evaluation import evaluate
from verifier.network import Network
from verifier.property import Property

INFLUENCE_SCHEMA = "aureole/influence/1"
_OUTSIDE_TOLERANCE = 1e-12


def limit_object(limit: Limit) -> dict[str, Any]:
    """A limit without its image, which is in the file of evidence."""
    return {
        "layer": limit.layer,
        "name": limit.name,
        "epsilon": limit.epsilon,
        "step": limit.step,
        "margin_lower": limit.margin_lower,
        "runtime_margin": limit.runtime_margin,
    }


def outside_object(outside: Outside) -> dict[str, Any]:
    """The nearest counterexample outside, without its image."""
    return {
        "exceeded": list(outside.exceeded),
        "margin_lower": outside.margin_lower,
        "runtime_margin": outside.runtime_margin,
    }


def influence_object(
    influence: InfluenceMap, files: Mapping[tuple[int, int], dict[str, str | None]], picture: Path | None
) -> dict[str, Any]:
    """The matrices, rows by perturbed object, and all pairs (docs/json.md).

    Args:
        influence: The map.
        files: What was written for each ordered pair.
        picture: The map's picture, None without one.
    """
    return {
        "labels": list(influence.labels),
        "is_proved": _matrix(influence, lambda pair: pair.is_proved),
        "is_maximal": _matrix(influence, lambda pair: pair.is_maximal),
        "weighted_size": _matrix(influence, lambda pair: pair.weighted_size),
        "upper_bound": _matrix(influence, lambda pair: pair.upper_bound),
        "mean_epsilon": _matrix(influence, lambda pair: pair.mean_epsilon),
        "area_above_zero": _matrix(influence, lambda pair: pair.area_above_zero),
        "pairs": _pairs(influence, files),
        "picture": picture and str(picture),
    }


def _matrix(influence: InfluenceMap, measure: Any) -> list[list[Any]]:
    found = {(pair.perturbed, pair.kept): measure(pair) for pair in influence.pairs}
    count = range(len(influence.objects))
    return [[found.get((perturbed, kept)) for kept in count] for perturbed in count]


def _pairs(influence: InfluenceMap, files: Mapping[tuple[int, int], dict[str, str | None]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "perturbed": pair.perturbed,
            "kept": pair.kept,
            "target": pair.target,
            "error": None,
            "tightest": pair.tightest and limit_object(pair.tightest),
            "limits": [limit_object(limit) for limit in pair.limits],
            "undecided": list(pair.undecided),
            "unrestricted": list(pair.unrestricted),
            "outside": pair.outside and outside_object(pair.outside),
            "files": files.get((pair.perturbed, pair.kept)),
        }
        for pair in influence.pairs
    ]
    empty: dict[str, Any] = {
        "tightest": None,
        "limits": [],
        "undecided": [],
        "unrestricted": [],
        "outside": None,
        "files": None,
    }
    for failure in influence.failures:
        place = {"perturbed": failure.perturbed, "kept": failure.kept, "target": influence.labels[failure.kept]}
        rows.append({**place, "error": failure.reason, **empty})
    return sorted(rows, key=lambda row: (row["perturbed"], row["kept"]))


def influence_from_report(
    report: Mapping[str, Any],
    place: tuple[int, int],
    zones: Zones,
    network: Network,
    goals: Sequence[Property],
) -> Influence:
    """A pair's part of the map, from its report of an earlier run; that run's proof and numbers are taken over as they are.

    Images of limits come from the report's file of evidence where that is still there; each is shown only if it lies in the
    region that it is said to be in and violates a goal.

    Args:
        report: What `grow` reported (docs/json.md).
        place: The numbers of the perturbed object and of the one whose label survives.
        zones: The question's zones, whose epsilons the report holds.
        network: The network.
        goals: What had to hold.

    Raises:
        InputError: The report is of another form, such as that of an older version.
    """
    try:
        epsilons = np.array(report["neighbourhood"]["epsilons"], dtype=np.float64)
        neighbourhood = zones.neighbourhood(epsilons)
        names = [str(name) for name in report["names"]]
        step = float(report["step"])
        images = _evidence(report["files"]["evidence"], zones.image.shape)
        limits = tuple(
            Limit(
                int(kept["layer"]),
                names[kept["layer"]],
                float(epsilons[kept["layer"]]),
                step,
                float(kept["margin_lower"]),
                float(kept["runtime_margin"]),
                _checked(images.get(int(kept["layer"])), int(kept["layer"]), zones, epsilons, step, network, goals),
            )
            for kept in report["limits"]
        )
        return Influence(
            place[0],
            place[1],
            int(report["targets"][0]),
            neighbourhood,
            bool(report["is_proved"]),
            bool(report["is_maximal"]),
            float(report["weighted_size"]),
            float(report["upper_bound"]),
            limits,
            tuple(names[layer] for layer in report["undecided_layers"]),
            tuple(names[layer] for layer in report["saturated_layers"]),
            _outside(report, names, zones, epsilons, network, goals),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"report of a pair: {type(error).__name__}: {error}; it is of another form or version"
        ) from error


def _outside(
    report: Mapping[str, Any],
    names: Sequence[str],
    zones: Zones,
    epsilons: np.ndarray,
    network: Network,
    goals: Sequence[Property],
) -> Outside | None:
    kept = report["outside"]
    if kept is None:
        return None
    radii = np.array(report["outside_radii"], dtype=np.float64)
    image = _image((kept["files"] or {}).get("npy"), zones.image.shape)
    if image is not None and not _is_violation(image, radii, zones, network, goals):
        image = None
    exceeded = exceeded_layers(names, epsilons, radii)
    return Outside(exceeded, float(kept["margin_lower"]), float(kept["runtime_margin"]), image)


def _image(path: str | None, shape: tuple[int, ...]) -> Float[np.ndarray, "..."] | None:
    if path is None:
        return None
    try:
        return read_image(path, shape)
    except AureoleError:
        return None


def _evidence(path: str | None, shape: tuple[int, ...]) -> dict[int, Float[np.ndarray, "..."]]:
    """The images of a file of evidence by layer; none where it is gone or something else."""
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as content:
            layers, images = content["layers"], content["images"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return {}
    if images.shape != (layers.size, *shape):
        return {}
    return {int(layer): image for layer, image in zip(layers.ravel(), images, strict=True)}


def _checked(
    image: np.ndarray | None,
    layer: int,
    zones: Zones,
    epsilons: np.ndarray,
    step: float,
    network: Network,
    goals: Sequence[Property],
) -> Float[np.ndarray, "..."] | None:
    # A later question of the same name overwrites the file: what does not fit is left out, never shown as evidence.
    if image is None:
        return None
    enlarged = epsilons.copy()
    enlarged[layer] = min(1.0, enlarged[layer] + step)
    return image if _is_violation(image, enlarged, zones, network, goals) else None


def _is_violation(
    image: np.ndarray, radii: np.ndarray, zones: Zones, network: Network, goals: Sequence[Property]
) -> bool:
    """Whether the image is within these radii and violates a goal."""
    if not (zones.radii(image) <= radii + _OUTSIDE_TOLERANCE).all():
        return False
    scores = evaluate(network, image[None].astype(np.float64))[0]
    return max(float(goal.margin(scores)) for goal in goals) > 0.0
