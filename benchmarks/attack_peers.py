"""PGD and CW against those of foolbox and torchattacks where all can run: one label, k = 1, the same budget of gradients.

    python -m benchmarks.attack_peers [--images 100] [--network strided3-none] [--only pgd|cw] [--rounds 5] [--threads 1]
                                       [--out FILE]

Each attack makes the network's own top label lose the top 1, on the shipped images. PGD: L-infinity, the same radius, steps and
step size, a random start. CW: L2, the same number of Adam steps in all and the same rate; torchattacks searches no weight, the
others do. A success is one of float64 scores, within the radius. Speed is images for each second of processor time of one thread
(with more threads, of wall time, on a machine without other work), judging included: every attack in turn, several rounds, the
fastest of each, so that other work on the machine falls on all alike.
Libraries that are not installed are left out. "all steps": our PGD without ending a row at its first success, which the others do
not do either.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attacks
from attacks.any_dtype import AnyDtype
from attacks.goals import Goal
from attacks.peers import run_foolbox, run_torchattacks
from attacks.peers.criterion import as_goal
from nets import shipped
from verifier.evaluation import evaluate
from verifier.network import Network
from verifier.onnx_import import load_network

STEPS, SHARE = 40, 0.1
EPSILONS = (0.005, 0.01, 0.02)
CW_SEARCHES, CW_STEPS, CW_RATE = 5, 100, 0.01


@dataclass(frozen=True)
class Line:
    """One attack at one budget."""

    library: str
    attack: str
    budget: str
    success: float
    median_l2: float
    images_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--network", default="strided3-none")
    parser.add_argument("--only", choices=("pgd", "cw"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    network = load_network(shipped.network_path(arguments.network))
    images = torch.from_numpy(np.array(shipped.images().images[: arguments.images]))
    scores = evaluate(network, images.double().numpy())
    goal = as_goal(torch.from_numpy(scores.argmax(axis=1)), len(images), network.labels)
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    families = {"pgd": (pgd(network, images, goal, eps) for eps in EPSILONS), "cw": (cw(network, images, goal),)}
    chosen = [arguments.only] if arguments.only else list(families)
    lines = measured(list(chain.from_iterable(chain(*families[name]) for name in chosen)), arguments.rounds, clock)
    for line in lines:
        print(
            f"{line.library:13} {line.attack:16} {line.budget:24} success {line.success:6.3f}  median l2 {line.median_l2:7.3f}"
            f"  {line.images_per_second:8.1f} images/s",
            flush=True,
        )
    if arguments.out is not None:
        times = "processor time, one thread" if arguments.threads == 1 else f"wall time, {arguments.threads} threads"
        content = {"network": arguments.network, "images": len(images), "clock": times}
        arguments.out.write_text(json.dumps({**content, "lines": [asdict(line) for line in lines]}, indent=1) + "\n")


def installed(name: str) -> Any | None:
    try:
        return __import__(name)
    except ImportError:
        return None


@dataclass(frozen=True)
class Contest:
    """One attack at one budget, to be run."""

    library: str
    attack: str
    budget: str
    work: Callable[[], Any]


def measured(contests: Sequence[Contest], rounds: int, clock: Callable[[], float]) -> list[Line]:
    """Every attack in turn, so many times; the fastest run of each counts, after one that does not."""
    lines = [first(contest) for contest in contests]
    for _ in range(rounds):
        for place, contest in enumerate(contests):
            began = clock()
            rows = len(contest.work().success)
            speed = rows / (clock() - began)
            lines[place] = replace(lines[place], images_per_second=max(lines[place].images_per_second, speed))
    return lines


def first(contest: Contest) -> Line:
    """What an attack reaches, its speed not measured yet."""
    result = contest.work()
    sizes = result.l2[result.success]
    median = float(sizes.median()) if len(sizes) else float("nan")
    return Line(contest.library, contest.attack, contest.budget, float(result.success.double().mean()), median, 0.0)


class Module(torch.nn.Module):
    """The plain network for a library that wants a module: as fast as ours, with no goal between."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = AnyDtype(network)
        self.place = torch.nn.Parameter(torch.zeros(0), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The scores."""
        return self.network(images)


def judged(network: Network, images: torch.Tensor, found: torch.Tensor, goal: Goal, eps: float | None) -> Any:
    """What another library returned, judged as our own: success by float64 scores, within the radius."""

    def returned(_model: torch.nn.Module) -> Any:
        return lambda _images, _labels: found

    return run_torchattacks(returned, network, images, goal, norm=None if eps is None else "linf", eps=eps).result


def pgd(network: Network, images: torch.Tensor, goal: Goal, eps: float) -> Iterator[Contest]:
    """Ours, and those that are installed."""
    budget, model, labels = f"linf {eps:g}, {STEPS} steps", Module(network).eval(), goal.labels.int().argmax(dim=1)
    options = {"iterations": STEPS, "step_share": SHARE}
    for name, extra in (("pgd", {}), ("pgd (all steps)", {"stops": False})):

        def ours(extra: dict[str, object] = extra) -> Any:
            return attacks.run(
                network,
                images,
                goal.labels,
                method="pgd",
                goal=goal,
                norm="linf",
                eps=eps,
                options={**options, **extra},
            )

        yield (Contest("aureole", name, budget, ours))
    torchattacks, foolbox = installed("torchattacks"), installed("foolbox")
    if torchattacks is not None:
        theirs = torchattacks.PGD(model, eps=eps, alpha=SHARE * eps, steps=STEPS, random_start=True)
        yield (
            Contest("torchattacks", "PGD", budget, lambda: judged(network, images, theirs(images, labels), goal, eps))
        )
    if foolbox is not None:
        attack = foolbox.attacks.LinfPGD(rel_stepsize=SHARE, steps=STEPS, random_start=True)
        victim = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

        def by_foolbox() -> Any:
            _, clipped, _ = attack(victim, images, foolbox.criteria.Misclassification(labels), epsilons=eps)
            return judged(network, images, clipped, goal, eps)

        yield (Contest("foolbox", "LinfPGD", budget, by_foolbox))
        yield (
            Contest(
                "foolbox",
                "LinfPGD on margin",
                budget,
                lambda: run_foolbox(attack, network, images, goal, norm="linf", eps=eps).result,
            )
        )


def cw(network: Network, images: torch.Tensor, goal: Goal) -> Iterator[Contest]:
    """Ours, and those that are installed."""
    budget, model, labels = f"{CW_SEARCHES} x {CW_STEPS} steps", Module(network).eval(), goal.labels.int().argmax(dim=1)
    options = {"searches": CW_SEARCHES, "iterations": CW_STEPS, "rate": CW_RATE}
    yield (
        Contest(
            "aureole",
            "ml-cw",
            budget,
            lambda: attacks.run(network, images, goal.labels, method="ml-cw", goal=goal, options=options),
        )
    )
    torchattacks, foolbox = installed("torchattacks"), installed("foolbox")
    if torchattacks is not None:
        theirs = torchattacks.CW(model, c=1, kappa=0, steps=CW_SEARCHES * CW_STEPS, lr=CW_RATE)
        yield (
            Contest("torchattacks", "CW", budget, lambda: judged(network, images, theirs(images, labels), goal, None))
        )
    if foolbox is not None:
        attack = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=CW_SEARCHES, steps=CW_STEPS, stepsize=CW_RATE, initial_const=1.0
        )
        victim = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

        def by_foolbox() -> Any:
            _, clipped, _ = attack(victim, images, foolbox.criteria.Misclassification(labels), epsilons=None)
            return judged(network, images, clipped, goal, None)

        yield (Contest("foolbox", "L2CarliniWagner", budget, by_foolbox))


if __name__ == "__main__":
    main()
