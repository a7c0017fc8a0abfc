"""The verifier with the default attack wired in, and time limits in seconds: what `import aureole` offers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from attacks.margin import MarginAttack, MarginAttackOptions
from aureole.exits import MissingFileError
from nets import shipped
from synth.goals import labels_survive
from synth.grow import GrowOptions, label_question
from synth.grow import grow_zones as _grow_zones
from synth.influence import Failure, Influence, InfluenceMap, influence_of
from synth.matching import match_labels
from synth.result import GrowResult, GrowStep
from synth.zones import Zones
from verifier.bounds import BoundOptions
from verifier.deadline import Deadline
from verifier.errors import InputError, SolverUnavailableError
from verifier.labels import LabelClassification, LabelResult
from verifier.labels import classify_labels as _classify_labels
from verifier.network import Network
from verifier.onnx_import import load_network as _load_onnx
from verifier.property import Property
from verifier.query import Query
from verifier.region import Box
from verifier.search import SearchOptions
from verifier.verify import EngineChoice, Outcome, VerifyOptions
from verifier.verify import verify as _verify


def load_network(source: str | Path) -> Network:
    """The network in an ONNX file, or a shipped one by name, such as `strided3-none`.

    Raises:
        MissingFileError: Neither a file nor a shipped name.
        ImportedNetworkError: The file is corrupt or holds something unsupported; the message names the node.
        ReplayMismatchError: Our evaluation and ONNX Runtime's differ by more than rounding.
    """
    path = Path(source)
    if path.is_dir():
        raise InputError(f"network {path}: is a folder, wanted an ONNX file")
    if path.exists():
        return _load_onnx(path)
    if str(source) in shipped.names():
        return _load_onnx(shipped.network_path(str(source)))
    raise MissingFileError(f"network {source}: no such file; shipped by name: {', '.join(shipped.names())}")


def verify(
    query: Query,
    *,
    timeout: float | None = None,
    engine: str = "auto",
    solver: str = "auto",
    seed: int = 0,
    start: Float[np.ndarray, "..."] | None = None,
    device: str = "cpu",
    certify: bool = False,
    require_certificate: bool = False,
    float32: bool = False,
) -> Outcome:
    """The first sound verdict of attack, bounds and MILP, with statistics.

    Args:
        query: Network, region and property.
        timeout: Seconds for all of it; None for no limit.
        engine: "auto", "bounds", "search", "milp" or "auto-lirpa".
        solver: "auto", "highs", "cbc", "gurobi" or "scip".
        seed: Of the attack's random starts.
        start: An image to try first, such as the unperturbed one.
        device: Where attack, bounds and search run: "cpu", "cuda" or "cuda:1"; solvers stay on the CPU.
        certify: Derive a `Robust` again as a proof that the checker accepts (`Outcome.proof`, written by `save_certificate`),
            within as long again as `timeout`. Nothing is trusted then; `Outcome.uncertified` says why there is no proof.
        require_certificate: As `certify`, and what has no such proof is Unknown.
        float32: The proof must hold for every float32 evaluation of the network too.

    Ctrl-C answers with what is known so far: Unknown, with the best bound, unless a verdict stands.

    Raises:
        InputError: An unknown engine, solver or device, a negative timeout, or `float32` without a certificate.
        SolverUnavailableError: The engine or solver is not installed, or there is no such GPU.
        ContradictionError: Two engines gave opposite answers.
    """
    return _verify(
        query,
        falsifier=_attack(seed, device),
        options=replace(
            verify_options(engine, solver, device),
            certify=certify,
            require_certificate=require_certificate,
            float32=float32,
        ),
        deadline=Deadline.after(timeout),
        starts=None if start is None else np.asarray(start, dtype=np.float64)[None],
    )


def classify_labels(
    network: Network,
    image: Float[np.ndarray, "..."],
    region: Box,
    k: int = 2,
    *,
    timeout: float | None = None,
    engine: str = "auto",
    solver: str = "auto",
    seed: int = 0,
    on_result: Callable[[LabelResult], None] | None = None,
    device: str = "cpu",
) -> LabelClassification:
    """For every label whether it is always, never, or sometimes in the top k over the region, or undecided.

    `on_result` is called after each label. Other arguments and errors are those of `verify`.
    """
    return _classify_labels(
        network,
        image,
        region,
        k,
        falsifier=_attack(seed, device),
        options=verify_options(engine, solver, device),
        deadline=Deadline.after(timeout),
        on_result=on_result,
    )


def grow(
    network: Network,
    image: Float[np.ndarray, "channels height width"],
    pixels: Bool[np.ndarray, "height width"],
    target: int,
    k: int = 2,
    *,
    options: GrowOptions | None = None,
    timeout: float | None = None,
    engine: str = "auto",
    solver: str = "auto",
    seed: int = 0,
    on_step: Callable[[GrowStep], None] | None = None,
    trace: Path | None = None,
    device: str = "cpu",
) -> GrowResult:
    """The largest layered neighbourhood found around `pixels` in which `target` stays in the top k.

    `on_step` is called after each step; `trace` names a file from which an interrupted run goes on. Other arguments and errors
    are those of `verify`.
    """
    zones, goals = label_question(network, image, pixels, target, k)
    return grow_zones(
        network,
        zones,
        goals,
        options=options,
        timeout=timeout,
        engine=engine,
        solver=solver,
        seed=seed,
        on_step=on_step,
        trace=trace,
        device=device,
    )


def grow_zones(
    network: Network,
    zones: Zones,
    goals: Sequence[Property],
    *,
    options: GrowOptions | None = None,
    timeout: float | None = None,
    engine: str = "auto",
    solver: str = "auto",
    seed: int = 0,
    on_step: Callable[[GrowStep], None] | None = None,
    trace: Path | None = None,
    device: str = "cpu",
) -> GrowResult:
    """The largest neighbourhood found, with one epsilon per zone, in which every goal holds; the rest as in `grow`."""
    return _grow_zones(
        network,
        zones,
        goals,
        options=options or GrowOptions(),
        falsifier=_attack(seed, device),
        verify_options=verify_options(engine, solver, device),
        deadline=Deadline.after(timeout),
        on_step=on_step,
        trace=trace,
    )


def influence_map(
    network: Network,
    image: Float[np.ndarray, "channels height width"],
    objects: Sequence[Bool[np.ndarray, "height width"]],
    k: int = 2,
    *,
    labels: Sequence[int] | None = None,
    bands: Sequence[tuple[int, int]] | None = None,
    options: GrowOptions | None = None,
    timeout: float | None = None,
    engine: str = "auto",
    solver: str = "auto",
    seed: int = 0,
    device: str = "cpu",
) -> InfluenceMap:
    """How far each object and its surroundings may change while the label of another survives, for every ordered pair.

    Args:
        network: The network.
        image: Values in [0, 1].
        objects: Masks of at least two objects.
        k: How many labels count as assigned.
        labels: The label of each object; None to match the highest ones to them (`synth.matching`).
        bands: Layers that share an epsilon (`synth.bands.parse_bands`); None for one a layer.
        options: Of growing.
        timeout: Seconds for each pair; None for no limit.
        engine: As in `verify`.
        solver: As in `verify`.
        seed: As in `verify`.
        device: As in `verify`.

    A pair that has no answer, such as one whose label the image itself does not show, is among the `failures`.

    Raises:
        InputError: Fewer than two objects, not one label each, a label or k out of range, or a mask that does not fit.
    """
    if len(objects) < 2:
        raise InputError(f"objects: got {len(objects)}, wanted the masks of at least two")
    centre = np.asarray(image, dtype=np.float64)
    chosen = match_labels(network, centre, objects) if labels is None else tuple(int(label) for label in labels)
    if len(chosen) != len(objects):
        raise InputError(f"labels: got {len(chosen)} for {len(objects)} objects, wanted one each")
    zones = [Zones.of_objects(centre, [mask], bands=bands) for mask in objects]
    goals = [labels_survive([label], k, network.labels) for label in chosen]
    pairs: list[Influence] = []
    failures: list[Failure] = []
    for perturbed, kept in permutations(range(len(objects)), 2):
        try:
            grown = grow_zones(
                network,
                zones[perturbed],
                goals[kept],
                options=options,
                timeout=timeout,
                engine=engine,
                solver=solver,
                seed=seed,
                device=device,
            )
        except InputError as error:
            failures.append(Failure(perturbed, kept, str(error)))
            continue
        pairs.append(influence_of(perturbed, kept, chosen[kept], grown))
    return InfluenceMap(centre, tuple(objects), chosen, tuple(pairs), tuple(failures))


def _attack(seed: int, device: str) -> MarginAttack:
    return MarginAttack(MarginAttackOptions(device=checked_device(device)), seed=seed)


def checked_device(device: str) -> str:
    """The device's name, once it is known to be there.

    Raises:
        InputError: No device is called so, or it is neither the CPU nor a CUDA GPU.
        SolverUnavailableError: This installation of torch sees no such GPU.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise InputError(f"device: got {device!r}, wanted cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise SolverUnavailableError(
            f"device {device}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs; use --device cpu, or install"
            " a CUDA build of torch"
        )
    return device


def verify_options(engine: str, solver: str, device: str = "cpu") -> VerifyOptions:
    """The options that the names stand for.

    Raises:
        InputError: An unknown engine or device.
        SolverUnavailableError: There is no such GPU.
    """
    try:
        choice = EngineChoice(engine)
    except ValueError:
        known = ", ".join(choice.value for choice in EngineChoice)
        raise InputError(f"engine: got {engine!r}, wanted one of {known}") from None
    place = checked_device(device)
    return VerifyOptions(
        engine=choice, solver=solver, bounds=BoundOptions(device=place), search=SearchOptions(device=place)
    )
