"""Runs an attack of foolbox or torchattacks towards a goal, and checks what it claims."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attacks.ball import Norm
from attacks.face import as_images, judge
from attacks.goals import Goal
from attacks.peers.goal_head import MISSED, GoalHead
from attacks.results import AttackResult
from attacks.victim import prepare
from verifier.errors import InputError, SolverUnavailableError
from verifier.network import Network

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class PeerResult:
    """What another library's attack returned, judged as our own attacks are.

    Attributes:
        result: Images, success by float64 scores, and norms as measured here.
        claimed: What the library says of each row; None where it says nothing.
        outside_range: Rows whose image is not finite or leaves [0, 1]; they are no success.
        outside_ball: Rows further away than the radius by more than float32 rounding; they are no success.
    """

    result: AttackResult
    claimed: Bool[Tensor, " rows"] | None
    outside_range: Bool[Tensor, " rows"]
    outside_ball: Bool[Tensor, " rows"]

    @property
    def disagreements(self) -> Bool[Tensor, " rows"]:
        """Rows that the library calls a success and we do not, or the other way round."""
        return torch.zeros_like(self.outside_range) if self.claimed is None else self.claimed != self.result.success


def run_torchattacks(
    make_attack: Callable[[nn.Module], Any],
    network: Network | nn.Module,
    images: Float[Tensor, "rows ..."],
    goal: Goal,
    *,
    norm: Norm | None = None,
    eps: float | None = None,
    batch: int | None = None,
) -> PeerResult:
    """An attack of torchattacks, such as `lambda model: torchattacks.PGD(model, eps=8/255)`, towards a goal.

    Args:
        make_attack: Makes the attack for a model of two classes (`GoalHead`); called as `attack(images, labels)`.
        network: The network.
        images: In [0, 1].
        goal: One row an image.
        norm: Of the ball that the attack was told to stay in, to check it.
        eps: Its radius.
        batch: Images at a time; all together by default. An attack that takes batches apart needs 1.

    Raises:
        InputError: The attack takes batches apart, or returns images of another shape.
    """

    def attack(model: GoalHead, part: Tensor) -> tuple[Tensor, None]:
        labels = torch.full((len(part),), MISSED, dtype=torch.int64)
        return make_attack(model)(part, labels), None

    return _run("torchattacks", attack, network, images, goal, norm=norm, eps=eps, batch=batch)


def run_foolbox(
    attack: Any,
    network: Network | nn.Module,
    images: Float[Tensor, "rows ..."],
    goal: Goal,
    *,
    norm: Norm | None = None,
    eps: float | None = None,
    batch: int | None = None,
) -> PeerResult:
    """An attack of foolbox, such as `foolbox.attacks.LinfPGD()`, towards a goal.

    Arguments and errors are those of `run_torchattacks`; `eps` is handed to the attack (None: smallest change).

    Raises:
        SolverUnavailableError: foolbox is not installed.
    """
    try:
        import foolbox
    except ImportError as error:
        raise SolverUnavailableError("foolbox is not installed; pip install foolbox") from error

    def search(model: GoalHead, part: Tensor) -> tuple[Tensor, Tensor]:
        victim = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device=part.device)
        labels = torch.full((len(part),), MISSED, dtype=torch.int64, device=part.device)
        _, clipped, is_adversarial = attack(victim, part, foolbox.criteria.Misclassification(labels), epsilons=eps)
        return clipped, is_adversarial

    return _run("foolbox", search, network, images, goal, norm=norm, eps=eps, batch=batch)


def _run(
    library: str,
    attack: Callable[[GoalHead, Tensor], tuple[Tensor, Tensor | None]],
    network: Network | nn.Module,
    images: Float[Tensor, "rows ..."],
    goal: Goal,
    *,
    norm: Norm | None,
    eps: float | None,
    batch: int | None,
) -> PeerResult:
    clean = as_images(images)
    if goal.rows != len(clean):
        raise InputError(f"goal: made for {goal.rows} images, got {len(clean)}")
    shape = tuple(clean.shape[1:])
    victim = prepare(network, shape, torch.device("cpu"))
    found, claims = [], []
    for rows in torch.arange(len(clean)).split(batch or len(clean)):
        model = GoalHead(network, goal.at(rows)).eval()
        returned, claimed = attack(model, clean[rows].clone())
        if tuple(returned.shape) != tuple(clean[rows].shape):
            raise InputError(f"{library}: returned shape {tuple(returned.shape)}, wanted {tuple(clean[rows].shape)}")
        found.append(returned.detach().cpu().float())
        claims += [] if claimed is None else [claimed.detach().cpu().bool()]
    adversarial = torch.cat(found)
    finite = adversarial.flatten(1).isfinite().all(dim=1)
    inside = finite & ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)
    # What cannot be an image is measured as the clean one, and never a success.
    usable = torch.where(inside.reshape(-1, *[1] * len(shape)), adversarial, clean)
    flat = clean.flatten(1)
    judged = judge(victim, goal, flat, usable.flatten(1), victim.scores(flat, len(flat)), len(flat))
    outside_ball = torch.zeros_like(inside)
    if norm is not None and eps is not None:
        size = {"l1": judged.l1, "l2": judged.l2, "linf": judged.linf}[norm]
        outside_ball = size > eps * (1 + _ROUNDING) + _ROUNDING
    result = replace(
        judged,
        method=library,
        images=usable,
        clean=clean,
        success=judged.success & inside & ~outside_ball,
        norm=norm,
        eps=eps,
    )
    return PeerResult(result, torch.cat(claims) if claims else None, ~inside, outside_ball)
