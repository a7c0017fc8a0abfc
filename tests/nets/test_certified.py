"""Training-time bounds: the verifier's own on the same weights, above every sampled margin, with gradients to every weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nets.architectures import architecture, build
from nets.certified import (
    ROBUST_LOSSES,
    difference_uppers,
    form_uppers,
    label_indices,
    set_loss,
    small_box,
    top_k_loss,
    top_k_margin_uppers,
)
from nets.composer import Canvas
from nets.label_graph import LabelGraph, with_graph_head
from nets.live_graph import LiveGraph
from nets.losses import ProjectedGradient, ranking_loss
from verifier.bounds import BoundMethod, BoundOptions, analyse_region
from verifier.bounds.graph import torch_graph
from verifier.errors import InputError
from verifier.region import Box

CANVAS = Canvas(28, 28, 1)
Layers = tuple[nn.Module, ...]


def pooled() -> Layers:
    convolution = nn.Conv2d(1, 2, 5, stride=4, padding=1, dilation=2)
    return (convolution, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 10))


def deep() -> Layers:
    return (
        nn.Conv2d(1, 2, 4, stride=4, bias=False),
        nn.ReLU(),
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.ReLU(),
        nn.Linear(12, 10, bias=False),
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(layers: Layers, seed: int) -> nn.Sequential:
    """The layers with normal weights."""
    network = nn.Sequential(*layers)
    generator = seeded(seed)
    for parameter in network.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    return network.requires_grad_(True)


def boxes(batch: int, epsilon: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(batch, 784, generator=seeded(seed))
    return (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)


def test_live_maps_and_windows_are_those_of_the_verifier() -> None:
    for layers in (pooled(), deep()):
        network = drawn(layers, 1)
        live = LiveGraph(network, CANVAS)
        mine, theirs = live.graph(), torch_graph(live.canonical, dtype=torch.float32)
        for index, (wanted,) in theirs.maps.items():
            ((found,),) = (mine.maps[index],)
            torch.testing.assert_close(mine.biases[index], theirs.biases[index])
            linear = live.canonical.nodes[index].terms[0][0]
            x = torch.randn(2, 3, linear.in_size, generator=seeded())
            rows = torch.randn(2, 3, linear.out_size, generator=seeded())
            torch.testing.assert_close(found.forward(x), wanted.forward(x), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.forward_absolute(x), wanted.forward_absolute(x), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.transpose(rows), wanted.transpose(rows), atol=1e-4, rtol=1e-4)


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.02, 0.1]), st.booleans(), st.sampled_from([0.0, 0.4, 1.0]))
def test_bounds_are_above_sampled_margins(seed: int, epsilon: float, is_deep: bool, crown_share: float) -> None:
    network = drawn(deep() if is_deep else pooled(), seed)
    lower, upper = boxes(3, epsilon, seed)
    labels = torch.stack([torch.randperm(10, generator=seeded(seed + row))[:2].sort().values for row in range(3)])
    with torch.no_grad():
        uppers = difference_uppers(LiveGraph(network, CANVAS).graph(), lower, upper, labels, crown_share)
        for k in (1, 2, 3):
            bound = top_k_margin_uppers(uppers, k)
            for share in (0.0, 1.0, None):
                mix = torch.randint(0, 2, (20, *lower.shape), generator=seeded(1)) if share is None else share
                points = (lower + (upper - lower) * mix).expand(20, *lower.shape)
                scores = network(points.reshape(-1, 1, 28, 28)).reshape(20, 3, 10)
                for row, pair in enumerate(labels.tolist()):
                    for column, label in enumerate(pair):
                        differences = (
                            np.delete(scores[:, row].numpy(), label, axis=1) - scores[:, row, label, None].numpy()
                        )
                        margins = np.sort(differences, axis=1)[:, -k]
                        assert margins.max() <= float(bound[row, column]) + 1e-4


def test_at_a_point_every_bound_is_the_margin() -> None:
    network = drawn(deep(), 3)
    lower, _ = boxes(2, 0.0, 3)
    labels = torch.tensor([[0, 9], [3, 4]])
    with torch.no_grad():
        scores = network(lower.reshape(-1, 1, 28, 28))
        for crown_share in (0.0, 0.5, 1.0):
            uppers = difference_uppers(LiveGraph(network, CANVAS).graph(), lower, lower, labels, crown_share)
            for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
                label = int(labels[row, column])
                wanted = torch.cat([scores[row, :label], scores[row, label + 1 :]]) - scores[row, label]
                torch.testing.assert_close(uppers[row, column], wanted, atol=1e-4, rtol=1e-4)


def test_interval_bounds_are_no_looser_than_the_verifiers_scores_and_crown_is_tighter() -> None:
    network = build(architecture("cnn4k"), seeded(2))
    live = LiveGraph(network)
    image = torch.rand(1, 4096, generator=seeded())
    lower, upper = (image - 0.02).clamp(0, 1), (image + 0.02).clamp(0, 1)
    box = Box(lower[0].double().numpy(), upper[0].double().numpy())
    region = analyse_region(live.canonical, box, options=BoundOptions(method=BoundMethod.INTERVAL))
    tops = torch.tensor(region.node_bounds.upper[live.canonical.output])
    rows = torch.eye(10).unsqueeze(0)
    with torch.no_grad():
        interval, crown = (form_uppers(live.graph(), lower, upper, rows, share)[0] for share in (0.0, 1.0))
    torch.testing.assert_close(interval.double(), tops, atol=1e-3, rtol=1e-3)
    assert bool((crown < interval).all())


@pytest.mark.parametrize("crown_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ROBUST_LOSSES)
def test_gradients_reach_every_weight_and_agree_with_differences(name: str, crown_share: float) -> None:
    network = drawn(deep(), 5).double()
    live = LiveGraph(network.float(), CANVAS)
    network.double()
    lower, upper = (side.double() for side in boxes(2, 0.01, 5))
    labels = torch.tensor([[1, 8], [0, 5]])

    def loss() -> torch.Tensor:
        return ROBUST_LOSSES[name](difference_uppers(live.graph(), lower, upper, labels, crown_share), labels)

    loss().backward()
    for parameter in network.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
        flat, step = parameter.data.view(-1), 1e-7
        entry = int(parameter.grad.abs().argmax())
        with torch.no_grad():
            flat[entry] += step
            above = float(loss())
            flat[entry] -= 2 * step
            below = float(loss())
            flat[entry] += step
        assert (above - below) / (2 * step) == pytest.approx(float(parameter.grad.view(-1)[entry]), rel=1e-3)


def test_a_graph_head_is_bounded_through_its_present_weights() -> None:
    network = with_graph_head(drawn(pooled(), 1), torch.eye(10), LabelGraph(), seeded())
    live = LiveGraph(network, CANVAS)
    lower, upper = boxes(1, 0.01, 0)
    labels = torch.tensor([[2, 6]])
    with torch.no_grad():
        network[-1].second.weight.mul_(3)
        uppers = difference_uppers(live.graph(), lower, upper, labels, 0.0)
        again = difference_uppers(LiveGraph(network, CANVAS).graph(), lower, upper, labels, 0.0)
    assert torch.equal(uppers, again)
    set_loss(difference_uppers(live.graph(), lower, upper, labels, 0.0), labels).backward()
    assert network[-1].first.weight.grad.any()


@pytest.mark.parametrize("crown_share", [0.0, 0.5, 1.0])
def test_rivals_are_the_competitors_with_the_highest_interval_bounds(crown_share: float) -> None:
    live = LiveGraph(drawn(deep(), 6), CANVAS)
    lower, upper = boxes(3, 0.02, 6)
    labels = torch.tensor([[1, 8], [0, 5], [2, 9]])
    with torch.no_grad():
        loose, whole = (
            difference_uppers(live.graph(), lower, upper, labels, share).numpy() for share in (0.0, crown_share)
        )
        some = difference_uppers(live.graph(), lower, upper, labels, crown_share, rivals=2).numpy()
    for row, pair in enumerate(labels.tolist()):
        for column, label in enumerate(pair):
            classes = [c for c in range(10) if c != label]
            order = sorted((c for c in classes if c not in pair), key=lambda c: -loose[row, column, classes.index(c)])
            for place, c in enumerate(classes):
                wanted = whole[row, column, place] if c in order[:2] else -np.inf
                assert some[row, column, place] == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    for wrong in (0, 9):
        with pytest.raises(InputError, match="wanted 1 to 8 for 2 labels of 10 classes"):
            difference_uppers(live.graph(), lower, upper, labels, crown_share, rivals=wrong)


def test_robust_losses_by_hand() -> None:
    # Three classes, label 1 alone: differences to classes 0 and 2. Then labels 0 and 2.
    uppers = torch.tensor([[[0.5, -1.0]]])
    assert float(top_k_loss(uppers, torch.tensor([[1]]))) == pytest.approx(np.log1p(np.exp(0.5)))
    assert float(set_loss(uppers, torch.tensor([[1]]))) == pytest.approx(np.log1p(np.exp(0.5) + np.exp(-1.0)))
    uppers = torch.tensor([[[0.5, -1.0], [2.0, -3.0]]])
    pair = torch.tensor([[0, 2]])
    assert float(top_k_loss(uppers, pair)) == pytest.approx(np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-3.0)))
    assert float(set_loss(uppers, pair)) == pytest.approx(np.log1p(np.exp(0.5) + np.exp(-3.0)))


def test_the_small_box_lies_in_the_ball() -> None:
    network = drawn(pooled(), 4)
    images = torch.rand(3, 1, 28, 28, generator=seeded())
    targets = torch.eye(10)[:3]
    attack = ProjectedGradient(0.1, 3, 0.5)
    source = seeded(1)
    for share in (0.2, 1.0):
        lower, upper = small_box(lambda pixels: ranking_loss(network(pixels), targets), images, attack, share, source)
        whole = [(images.flatten(1) + sign * 0.1).clamp(0, 1) for sign in (-1, 1)]
        assert bool((lower >= whole[0] - 1e-6).all() and (upper <= whole[1] + 1e-6).all())
        assert bool((lower <= upper).all() and (upper - lower).max() <= 2 * 0.1 * share + 1e-6)
    torch.testing.assert_close(lower, whole[0])


def test_label_sets_become_indices_or_are_refused() -> None:
    assert label_indices(torch.tensor([[0.0, 1, 1], [1.0, 0, 1]])).tolist() == [[1, 2], [0, 2]]
    for wrong in ([[0.0, 1, 1], [1.0, 0, 0]], [[0.0, 0, 0]]):
        with pytest.raises(InputError, match="wanted one number of 1 or more"):
            label_indices(torch.tensor(wrong))


def test_layers_that_do_not_end_in_scores_are_refused() -> None:
    network = drawn((nn.Flatten(), nn.Linear(784, 10), nn.ReLU()), 0)
    with pytest.raises(InputError, match="1 layers with weights became 2 affine maps"):
        LiveGraph(network, CANVAS)
