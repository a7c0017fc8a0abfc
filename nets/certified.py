"""Differentiable upper bounds of top-k margins over boxes, and losses on them: training that certifies.

The bounds are those of `verifier.bounds`: interval bounds with the differences of scores taken inside the last layer (Gowal et al.
2018), and CROWN's planes over interval bounds of all inner values (CROWN-IBP, Zhang et al. 2020). They are computed in the
network's own floating-point type, rounded to nearest: good to train on and to estimate with, no claim. `aureole verify` claims.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nets.losses import Objective, ProjectedGradient, ascend
from verifier.bounds.backward import concretise, first_slopes, planes_over_input, relaxations
from verifier.bounds.graph import TorchGraph
from verifier.bounds.interval import interval_bounds
from verifier.canonical import Affine
from verifier.errors import InputError


def form_uppers(graph: TorchGraph, lower: Tensor, upper: Tensor, rows: Tensor, crown_share: float) -> Tensor:
    """Upper bounds (batch, rows) of linear forms of the scores over boxes, up to rounding.

    The boxes [lower, upper] are (batch, inputs), the forms' coefficients `rows` (batch, rows, classes). The bound is `crown_share`
    of CROWN-IBP's and the rest of the interval bound; 0 and 1 compute one of them only.

    Raises:
        InputError: the network does not end in one affine map of one value.
    """
    known = interval_bounds(graph, lower, upper)
    output = graph.canonical.output
    parts = []
    if crown_share < 1:
        node = graph.canonical.nodes[-1]
        if not isinstance(node, Affine) or len(node.inputs) != 1:
            raise InputError(
                "bounds: the scores are no affine map of one value; wanted a network that ends in one layer"
            )
        (rules,), (read,) = graph.maps[output - 1], node.inputs
        inside = concretise(rules.transpose(rows), rows @ graph.biases[output - 1], *known[read])
        parts.append((1 - crown_share) * inside)
    if crown_share > 0:
        relaxed = relaxations(graph, known)
        planes = planes_over_input(graph, relaxed, first_slopes(relaxed), output, rows)
        parts.append(crown_share * concretise(*planes, lower, upper))
    return torch.stack(parts).sum(dim=0)


def label_indices(targets: Tensor) -> Tensor:
    """The labels (batch, n) of label sets (batch, classes) that all have n labels, ascending.

    Raises:
        InputError: the sets have different sizes, or none has a label.
    """
    sizes = targets.sum(dim=1).to(torch.int64).unique()
    if len(sizes) != 1 or int(sizes) < 1:
        raise InputError(f"certified training: images with {sizes.tolist()} labels; wanted one number of 1 or more")
    return targets.nonzero()[:, 1].reshape(len(targets), int(sizes))


def competitor_indices(labels: Tensor, classes: int) -> Tensor:
    """For every label the other classes, ascending: (batch, n, classes - 1) for labels (batch, n)."""
    others = torch.arange(classes - 1, device=labels.device)
    return others + (others >= labels.unsqueeze(-1))


def difference_uppers(
    graph: TorchGraph, lower: Tensor, upper: Tensor, labels: Tensor, crown_share: float, rivals: int | None = None
) -> Tensor:
    """Upper bounds of F_c - F_t for every label t and class c other than t, (batch, n, classes - 1), as `form_uppers`.

    Competitors c are in the order of `competitor_indices`; labels are (batch, n). With `rivals` only so many competitors of every
    label are bounded, those outside the labels with the highest interval bounds; the others' entries are -inf and bound nothing.
    CROWN's walk costs as much as it has rows, and the losses are little but their largest entries.

    Raises:
        InputError: as `form_uppers`, or `rivals` is not in 1 .. classes - n.
    """
    classes, count = graph.canonical.labels, labels.shape[1]
    competitors = competitor_indices(labels, classes)
    falling = functional.one_hot(labels, classes).unsqueeze(2)
    rows = (functional.one_hot(competitors, classes) - falling).to(lower.dtype)
    if rivals is None:
        return form_uppers(graph, lower, upper, rows.flatten(1, 2), crown_share).unflatten(1, (count, classes - 1))
    if not 1 <= rivals <= classes - count:
        raise InputError(f"rivals: got {rivals}, wanted 1 to {classes - count} for {count} labels of {classes} classes")
    with torch.no_grad():
        loose = form_uppers(graph, lower, upper, rows.flatten(1, 2), 0.0).unflatten(1, (count, classes - 1))
        chosen = loose.masked_fill(_are_labels(competitors, labels), -torch.inf).topk(rivals, dim=-1).indices
    kept = rows.gather(2, chosen.unsqueeze(-1).expand(-1, -1, -1, classes))
    tight = form_uppers(graph, lower, upper, kept.flatten(1, 2), crown_share).unflatten(1, (count, rivals))
    return torch.full_like(loose, -torch.inf).scatter(2, chosen, tight)


def _are_labels(competitors: Tensor, labels: Tensor) -> Tensor:
    """Which competitors (batch, n, classes - 1) are themselves among the labels (batch, n)."""
    return (competitors.unsqueeze(-1) == labels[:, None, None, :]).any(dim=-1)


def top_k_margin_uppers(uppers: Tensor, k: int) -> Tensor:
    """Upper bounds (batch, n) of every label's margin of "stays in the top k", from those of its differences.

    The margin is the k-th largest difference, so the k-th largest upper bound bounds it: below 0, at most k - 1 others can reach
    the label anywhere in the box.
    """
    return uppers.topk(k, dim=-1).values[..., -1]


def top_k_loss(uppers: Tensor, labels: Tensor) -> Tensor:
    """The batch mean of sum over labels t of log(1 + exp(m_t)), m_t bounding t's margin of staying in the top n, n the labels.

    Args:
        uppers: (batch, n, classes - 1), as `difference_uppers` gives them.
        labels: (batch, n).
    """
    return functional.softplus(top_k_margin_uppers(uppers, labels.shape[1])).sum(dim=1).mean()


def set_loss(uppers: Tensor, labels: Tensor) -> Tensor:
    """The batch mean of log(1 + sum over label t, other c of exp(u_ct)): the ranking loss at its worst; arguments as `top_k_loss`.

    Below log 2 the set of labels is the top n throughout the box.
    """
    competitors = competitor_indices(labels, uppers.shape[2] + 1)
    outside = uppers.masked_fill(_are_labels(competitors, labels), -torch.inf)
    return functional.softplus(outside.flatten(1).logsumexp(dim=1)).mean()


ROBUST_LOSSES = {"set": set_loss, "top-k": top_k_loss}


def small_box(
    objective: Objective, images: Tensor, attack: ProjectedGradient, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The box of radius share * epsilon around an adversarial image, inside the attack's ball and [0, 1].

    SABR (Mueller et al. 2023). The image is sought within (1 - share) * epsilon, so that the whole box lies in the ball. A share
    of 1 is the ball itself, and draws nothing from the generator. Returns lower and upper bounds, (batch, inputs) each.
    """
    radius = share * attack.epsilon
    centre = images
    if share < 1:
        search = ProjectedGradient((1 - share) * attack.epsilon, attack.steps, attack.relative_step)
        centre = ascend(objective, images, search, generator)
    return (centre - radius).clamp(0, 1).flatten(1), (centre + radius).clamp(0, 1).flatten(1)
