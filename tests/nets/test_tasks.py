"""Auxiliary tasks by counting, heads on one trunk, and perturbations inside the ball that raise what they should."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nets.architectures import architecture, build
from nets.label_graph import LabelGraph, with_graph_head
from nets.losses import ProjectedGradient, perturb, ranking_loss, softmax_cross_entropy
from nets.mixed_perturbations import PERTURBATIONS, mixing_weights, task_perturbed
from nets.options import AdversarialTraining, Schedule, TaskTraining, TrainingOptions
from nets.recipes import run_name
from nets.step_losses import TaskLoss
from nets.tasks import TASKS, Goals, TaskNetwork, goals, with_auxiliary_heads, wrong_targets
from nets.training import multi_hot
from verifier.errors import InputError

ATTACK = ProjectedGradient(epsilon=0.1, steps=4, relative_step=0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", TASKS)
def test_tasks_count_digits(name: str) -> None:
    is_member = {"odd": lambda label: label % 2 == 1, "prime": lambda label: label in (2, 3, 5, 7)}[name]
    for labels in ([0, 1], [2, 9], [3, 5], [7, 4]):
        (targets,) = TASKS[name].targets(multi_hot(torch.tensor([labels])), 2).tolist()
        assert targets.index(1.0) == sum(is_member(label) for label in labels)
        assert sum(targets) == 1.0
    for label in range(10):
        (targets,) = TASKS[name].targets(multi_hot(torch.tensor([[label]])), 1).tolist()
        assert targets == [float(not is_member(label)), float(is_member(label))]


def small(auxiliaries: tuple[str, ...]) -> TaskNetwork:
    """Three tasks at most on 4x4 images, with weights that make every task sensitive."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10))
    for parameter in layers.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=seeded(3))
    return with_auxiliary_heads(layers, auxiliaries, 2, seeded(4))


def case(auxiliaries: tuple[str, ...]) -> tuple[TaskNetwork, torch.Tensor, Goals]:
    images = torch.rand(6, 1, 4, 4, generator=seeded(1))
    labels = torch.stack([torch.randperm(10, generator=seeded(row))[:2] for row in range(6)])
    return small(auxiliaries), images, goals(multi_hot(labels), ranking_loss, auxiliaries, 2)


def test_heads_share_the_trunk_and_the_main_network_is_the_given_one() -> None:
    main = build(architecture("strided2"), seeded())
    network = with_auxiliary_heads(main, ("odd", "prime"), 2, seeded(1))
    images = torch.rand(2, 1, 64, 64, generator=seeded())
    found = network(images)
    assert [scores.shape for scores in found] == [(2, 10), (2, 3), (2, 3)]
    assert torch.equal(found[0], main(images))
    assert all(torch.equal(scores, network.task(index)(images)) for index, scores in enumerate(found))
    graph = with_graph_head(main, torch.eye(10), LabelGraph(), seeded())
    assert len(with_auxiliary_heads(graph, ("odd",), 2, seeded())(images)) == 2


def test_the_total_is_the_sum_of_the_tasks_losses() -> None:
    network, images, wanted = case(("odd", "prime"))
    scores = network(images)
    parts = [ranking_loss(scores[0], wanted.targets[0])]
    parts += [softmax_cross_entropy(scores[task], wanted.targets[task]) for task in (1, 2)]
    torch.testing.assert_close(wanted.total(scores), torch.stack(parts).sum())


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("auxiliaries", [(), ("odd", "prime")], ids=["alone", "three"])
def test_perturbations_stay_in_the_ball_and_raise_the_loss(name: str, auxiliaries: tuple[str, ...]) -> None:
    network, images, wanted = case(auxiliaries)
    perturbed = PERTURBATIONS[name](network, images, wanted, ATTACK, seeded())
    assert float((perturbed - images).abs().max()) <= ATTACK.epsilon + 1e-6
    assert float(perturbed.min()) >= 0
    assert float(perturbed.max()) <= 1
    with torch.no_grad():
        before, after = network(images), network(perturbed)
        assert float(wanted.losses[0](after[0], wanted.targets[0])) > float(
            wanted.losses[0](before[0], wanted.targets[0])
        )
        assert float(wanted.total(after)) > float(wanted.total(before))
    assert torch.equal(perturbed, PERTURBATIONS[name](network, images, wanted, ATTACK, seeded()))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_mixed_perturbation_is_the_weighted_sum_of_the_tasks() -> None:
    network, images, wanted = case(("odd", "prime"))
    source, again = seeded(9), seeded(9)
    found = PERTURBATIONS["MP"](network, images, wanted, ATTACK, source)
    changes = [task_perturbed(network, images, wanted, ATTACK, again, task) - images for task in range(3)]
    weights = mixing_weights(3, len(images), again)
    total = sum(weight.view(-1, 1, 1, 1) * change for weight, change in zip(weights, changes, strict=True))
    torch.testing.assert_close(found, images + total)


@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_mixing_weights_lie_on_the_simplex_with_half_or_more_on_the_main_task(tasks: int) -> None:
    weights = mixing_weights(tasks, 4_000, seeded())
    assert weights.shape == (tasks, 4_000)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(4_000))
    assert float(weights.min()) >= 0
    assert float(weights[0].min()) >= 0.5
    if tasks > 1:
        assert float(weights[0].max()) < 1
        assert float(weights[0].mean()) == pytest.approx(0.75, abs=0.02)
        assert weights[1:].mean(dim=1).tolist() == pytest.approx([0.25 / (tasks - 1)] * (tasks - 1), abs=0.02)


def test_a_targeted_attack_comes_closer_to_its_targets() -> None:
    network, images, _ = case(())
    wanted = multi_hot(torch.tensor([[8, 9]] * 6))
    perturbed = perturb(network.task(0), images, wanted, ATTACK, ranking_loss, seeded(), is_targeted=True)
    with torch.no_grad():
        before, after = (float(ranking_loss(network.task(0)(pixels), wanted)) for pixels in (images, perturbed))
    assert after < before


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10])
def test_wrong_targets_are_other_sets_of_as_many_labels(count: int) -> None:
    labels = torch.stack([torch.randperm(10, generator=seeded(row))[:count] for row in range(40)])
    right = torch.zeros(40, 10).scatter(1, labels, 1.0)
    wrong = wrong_targets(right, seeded())
    assert wrong.sum(dim=1).tolist() == [float(count)] * 40
    assert bool((wrong == right).all(dim=1).any()) == (count in (0, 10))


def test_a_single_wrong_target_is_uniform_among_the_others() -> None:
    wrong = wrong_targets(multi_hot(torch.full((9_000, 1), 4)), seeded())
    assert int(wrong[:, 4].sum()) == 0
    # Five standard deviations of a binomial count of 9,000 draws at 1/9.
    assert wrong.sum(dim=0)[[0, 1, 2, 3, 5, 6, 7, 8, 9]].tolist() == pytest.approx([1_000] * 9, abs=150)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_targeted_perturbations_lead_every_task_they_name_to_wrong_answers(name: str) -> None:
    network, images, wanted = case(("odd", "prime"))
    aim = wanted.misled(seeded(2))
    perturbed = PERTURBATIONS[name](network, images, aim, ATTACK, seeded())
    assert float((perturbed - images).abs().max()) <= ATTACK.epsilon + 1e-6
    with torch.no_grad():
        before, after = network(images), network(perturbed)
    assert softmax_cross_entropy(after[0], aim.targets[0]) < softmax_cross_entropy(before[0], aim.targets[0])
    assert float(aim.total(after)) > float(aim.total(before))


def test_targeted_training_learns_from_targeted_perturbations() -> None:
    network, images, wanted = case(("odd", "prime"))
    defence = AdversarialTraining(ATTACK, clean_share=0.0, ramp_share=0.0)
    tasks = TaskTraining(("odd", "prime"), "MTA", is_targeted=True)
    options = TrainingOptions(Schedule(1), defence=defence, tasks=tasks)
    source = seeded(5)
    moved = PERTURBATIONS["MTA"](network, images, wanted.misled(source), ATTACK, source)
    loss = TaskLoss(network, ranking_loss, options, 2, seeded(5))(images, wanted.targets[0], 0)
    torch.testing.assert_close(loss, wanted.total(network(moved)))
    assert run_name("strided3", "linf", options) == "strided3-linf-odd-prime-mta-targeted"


def test_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="auxiliary tasks even: unknown; wanted some of odd, prime"):
        small(("odd", "even"))
    with pytest.raises(InputError, match="the last layer is ReLU"):
        with_auxiliary_heads(nn.Sequential(nn.ReLU()), ("odd",), 2, seeded())
