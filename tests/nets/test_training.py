"""Training repeats itself bit by bit, learns, touches no global state and refuses test digits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nets.architectures import architecture, build
from nets.augmentation import Augmentation, Rectangles
from nets.certified import difference_uppers, label_indices, set_loss
from nets.composer import DOUBLE_MNIST, compose
from nets.export import to_onnx
from nets.label_graph import LabelGraph
from nets.live_graph import LiveGraph
from nets.losses import ProjectedGradient, ranking_loss
from nets.measure import attacked_accuracy, certified_share, exact_set_accuracy, task_measures
from nets.mnist import Digits, Split
from nets.options import AdversarialTraining, CertifiedTraining, Schedule, TaskTraining, TrainingOptions
from nets.step_losses import step_loss
from nets.training import background_penalty, draw_batch, multi_hot, train_heads, train_network
from verifier.bounds import BoundMethod, BoundOptions, analyse_region, bound_property
from verifier.errors import InputError
from verifier.lowering import lower
from verifier.onnx_import import load_network_bytes
from verifier.property import stays_in_top_k
from verifier.region import Box

CROWN = BoundOptions(method=BoundMethod.CROWN)

TINY = TrainingOptions(Schedule(4, batch_size=8), augmentation=Augmentation(10.0, 0.1, 0.1, 1.0))
ATTACK = ProjectedGradient(0.05, 2, 0.5)
DEFENCES = {"none": None, "l0": Rectangles(), "linf": AdversarialTraining(ATTACK, 0.25, 0.5)}
BALL = ProjectedGradient(0.02, 2, 0.5)
PIECES = {
    "ml-liw": replace(TINY, loss="ml-liw"),
    "graph": replace(TINY, graph=LabelGraph(embedding=4)),
    "tasks": replace(TINY, tasks=TaskTraining(("odd", "prime"), "MP"), defence=AdversarialTraining(ATTACK, 0.0, 0.5)),
    "graph-and-task": replace(TINY, graph=LabelGraph(), tasks=TaskTraining(("odd",), "MTA")),
    "crown-ibp": replace(TINY, defence=CertifiedTraining(BALL, clean_share=0.25)),
    "rivals": replace(TINY, defence=CertifiedTraining(BALL, rivals=2, clean_share=0.0)),
    "small-boxes": replace(TINY, defence=CertifiedTraining(BALL, 0.2, "top-k", 0.0, clean_weight=0.5)),
}


def weights(digits: Digits, options: TrainingOptions, seed: int = 1) -> list[torch.Tensor]:
    return list(train_network(architecture("strided2"), digits, options, seed).state_dict().values())


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", PIECES)
def test_every_piece_repeats_itself_matters_and_ends_in_plain_layers(training_digits: Digits, name: str) -> None:
    network, again = (train_network(architecture("strided2"), training_digits, PIECES[name], 1) for _ in range(2))
    first = list(network.state_dict().values())
    assert equal(first, list(again.state_dict().values()))
    assert all(value.isfinite().all() for value in first)
    plain = weights(training_digits, TINY)
    assert not any(torch.equal(a, b) for a, b in zip(first, plain, strict=False))
    assert to_onnx(network).graph.node[-1].op_type == "Gemm"


def test_a_network_of_several_tasks_is_measured_task_by_task(training_digits: Digits) -> None:
    tasks = TaskTraining(("odd", "prime"), "MP")
    options = TrainingOptions(Schedule(100, batch_size=16, learning_rate=1e-2), tasks=tasks)
    network = train_heads(architecture("strided2"), training_digits, options, 1)
    images = compose(training_digits, DOUBLE_MNIST, 40, np.random.default_rng(0))
    found = task_measures(network, images, tasks.auxiliaries, ATTACK, torch.Generator().manual_seed(0))
    assert found.clean[0] == exact_set_accuracy(network.task(0), images)
    exported = train_network(architecture("strided2"), training_digits, options, 1)
    assert found.clean[0] == exact_set_accuracy(exported, images)
    pixels = torch.from_numpy(images.images.copy())
    for task, is_member in ((1, lambda label: label % 2), (2, lambda label: label in (2, 3, 5, 7))):
        counts = [sum(bool(is_member(int(label))) for label in labels) for labels in images.labels]
        answers = network(pixels)[task].argmax(dim=1).tolist()
        assert found.clean[task] == np.mean([a == b for a, b in zip(answers, counts, strict=True)])
        # One of three counts at random would be right for a third of the images.
        assert found.clean[task] > 0.4
    assert all(hit <= share for hit, share in zip(found.attacked, found.clean, strict=True))
    assert min(found.attacked) < min(found.clean)
    assert found.targeted <= found.clean[0]
    assert len(found.angle_deviations) == 2
    assert all(0 < deviation < 90 for deviation in found.angle_deviations)


def test_certified_training_certifies_what_plain_training_does_not(training_digits: Digits) -> None:
    schedule, chosen = Schedule(150, batch_size=16, learning_rate=1e-2), architecture("strided2")
    images = compose(training_digits, DOUBLE_MNIST, 40, np.random.default_rng(0))
    shares = []
    for defence in (None, CertifiedTraining(BALL, crown_share=0.0, clean_share=0.2, ramp_share=0.4)):
        options = TrainingOptions(schedule, defence=defence)
        network = train_network(chosen, training_digits, options, 1)
        shares.append(certified_share(network, images, 0.02))
    assert shares[1] > shares[0] + 0.05


def test_the_certified_share_is_that_of_the_verifier(training_digits: Digits) -> None:
    options = TrainingOptions(Schedule(60, batch_size=16, learning_rate=1e-2))
    network = train_network(architecture("strided2"), training_digits, options, 1)
    images = compose(training_digits, DOUBLE_MNIST, 6, np.random.default_rng(0))
    canonical = lower(load_network_bytes(to_onnx(network).SerializeToString(), "network"))
    assert certified_share(network, images, 0.002) > 0
    for epsilon in (0.0, 0.002):
        proved = [
            all(
                bound_property(
                    analyse_region(canonical, Box.around(image, epsilon), options=CROWN),
                    stays_in_top_k(int(label), 2, 10),
                    options=CROWN,
                ).is_robust
                for label in labels
            )
            for image, labels in zip(images.images.astype(np.float64), images.labels, strict=True)
        ]
        # CROWN with CROWN's inner bounds proves at least what CROWN-IBP does.
        assert certified_share(network, images, epsilon) <= sum(proved) / len(proved)
    assert certified_share(network, images, 0.0) == exact_set_accuracy(network, images)


@pytest.mark.parametrize("defence", DEFENCES.values(), ids=DEFENCES.keys())
def test_the_same_seed_gives_bitwise_the_same_weights(
    training_digits: Digits, defence: Rectangles | AdversarialTraining | None
) -> None:
    options = replace(TINY, defence=defence)
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = weights(training_digits, options)
    torch.manual_seed(99)
    changed_state = torch.random.get_rng_state()
    assert equal(first, weights(training_digits, options))
    assert torch.equal(changed_state, torch.random.get_rng_state())
    torch.random.set_rng_state(torch_state)
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])


def test_seeds_and_defences_matter(training_digits: Digits) -> None:
    plain = weights(training_digits, TINY)
    assert not equal(plain, weights(training_digits, TINY, seed=2))
    for defence in (DEFENCES["l0"], DEFENCES["linf"]):
        assert not equal(plain, weights(training_digits, replace(TINY, defence=defence)))


def test_a_short_run_learns_easy_digits_and_reports_each_step(training_digits: Digits) -> None:
    steps: list[tuple[int, int, float]] = []
    options = TrainingOptions(Schedule(300, batch_size=32, learning_rate=1e-2))
    network = train_network(architecture("strided2"), training_digits, options, 1, lambda *step: steps.append(step))
    images = compose(training_digits, DOUBLE_MNIST, 100, np.random.default_rng(0))
    assert exact_set_accuracy(network, images) > 0.2
    assert [done for done, _, _ in steps] == list(range(1, 301))
    assert steps[-1][2] < steps[0][2]
    assert not any(parameter.requires_grad for parameter in network.parameters())
    attacked = attacked_accuracy(network, images, ATTACK, torch.Generator().manual_seed(0))
    assert attacked <= exact_set_accuracy(network, images)


def test_batches_have_two_labels_and_unit_range(training_digits: Digits) -> None:
    images, targets = draw_batch(training_digits, DOUBLE_MNIST, TINY, np.random.default_rng(0))
    assert images.shape == (8, 1, 64, 64)
    assert float(images.min()) == 0.0
    assert float(images.max()) <= 1.0
    assert targets.sum(dim=1).tolist() == [2.0] * 8


def test_the_rate_rises_then_falls_and_epsilon_ramps() -> None:
    schedule = Schedule(100, learning_rate=1.0)
    rates = [schedule.rate(step) for step in range(100)]
    assert max(rates) == rates[4] == 1.0
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-2
    defence = AdversarialTraining(ATTACK, clean_share=0.2, ramp_share=0.3)
    radii = [defence.epsilon(step, 100) for step in range(100)]
    assert radii[:20] == [0.0] * 20
    assert radii == sorted(radii)
    assert radii[50:] == [0.05] * 50


def test_certified_training_mixes_as_its_formula() -> None:
    defence = CertifiedTraining(BALL, clean_share=0.2, ramp_share=0.3)
    strengths = [defence.strength(step, 100) for step in range(100)]
    assert strengths[:20] == [0.0] * 20
    assert strengths == sorted(strengths)
    assert strengths[50:] == [1.0] * 50
    network = build(architecture("strided2"), torch.Generator().manual_seed(0))
    half = CertifiedTraining(BALL, clean_weight=0.5, clean_share=0.0, ramp_share=0.0)
    options = TrainingOptions(Schedule(10), defence=half)
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    targets = multi_hot(torch.tensor([[1, 2], [3, 4]]))
    found = step_loss(network, options, DOUBLE_MNIST, torch.Generator())(images, targets, 9)
    sides = [(images.flatten(1) + sign * BALL.epsilon).clamp(0, 1) for sign in (-1, 1)]
    labels = label_indices(targets)
    uppers = difference_uppers(LiveGraph(network).graph(), *sides, labels, 0.0)
    wanted = 0.5 * ranking_loss(network(images), targets) + 0.5 * set_loss(uppers, labels)
    torch.testing.assert_close(found, wanted)


def test_unusable_pieces_are_refused() -> None:
    with pytest.raises(InputError, match="perturbation 'mp': unknown; wanted one of STA, MTA, MP"):
        TaskTraining(("odd",), "mp")
    for wrong in (("even",), ("odd", "odd")):
        with pytest.raises(InputError, match="wanted different ones of odd, prime"):
            TaskTraining(wrong)
    with pytest.raises(InputError, match="not with certified training"):
        replace(TINY, tasks=TaskTraining(("odd",)), defence=CertifiedTraining())
    with pytest.raises(InputError, match=r"wanted box_share in \(0, 1\]"):
        CertifiedTraining(box_share=0.0)
    with pytest.raises(InputError, match="clean_share \\+ ramp_share at most 1"):
        CertifiedTraining(clean_share=0.7, ramp_share=0.7)
    with pytest.raises(InputError, match="wanted one of set, top-k"):
        CertifiedTraining(robust_loss="margin")
    for wrong in ({"rivals": 0}, {"rivals": 2, "robust_loss": "top-k"}):
        with pytest.raises(InputError, match="wanted rivals None, or 1 or more"):
            CertifiedTraining(**wrong)


def test_misuse_is_refused(training_digits: Digits) -> None:
    test_digits = Digits(training_digits.images, training_digits.labels, Split.TEST)
    with pytest.raises(InputError, match="got test digits"):
        weights(test_digits, TINY)
    with pytest.raises(InputError, match="seed -1"):
        weights(training_digits, TINY, seed=-1)
    with pytest.raises(InputError, match="loss 'hinge': unknown; wanted one of ranking, bce"):
        replace(TINY, loss="hinge")
    with pytest.raises(InputError, match="steps and batch_size"):
        Schedule(0)
    with pytest.raises(InputError, match="learning_rate above 0"):
        Schedule(1, learning_rate=0.0)
    with pytest.raises(InputError, match="sum of at most 1"):
        AdversarialTraining(ATTACK, 0.6, 0.6)


def test_a_diverging_run_stops(training_digits: Digits) -> None:
    with pytest.raises(InputError, match=r"training diverged: loss .* at step"):
        weights(training_digits, TrainingOptions(Schedule(30, batch_size=4, learning_rate=1e30)))


def first_layer_stays_put(network: torch.nn.Module, clearance: float) -> bool:
    """Whether no change of a blank image by at most `clearance` flips a unit of the first layer, by its definition."""
    layer = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))
    corners = clearance * layer.weight.sign()
    moved = torch.stack([(layer.weight * sign * corners).sum(dim=(1, 2, 3)) for sign in (-1, 0, 1)]) + layer.bias
    return bool((moved.sign() == layer.bias.sign()).all())


def test_background_penalty_is_zero_exactly_where_no_small_change_flips_a_blank_unit() -> None:
    layer = torch.nn.Conv2d(1, 2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, -2.0], [0.5, 0.5]]], [[[0.0, 1.0], [0.0, 0.0]]]]))
        layer.bias.copy_(torch.tensor([-0.5, 0.2]))
    network = torch.nn.Sequential(layer.requires_grad_(False))
    assert float(background_penalty(network, 0.1)) == 0.0
    assert first_layer_stays_put(network, 0.1)
    # 0.25 * 4 = 1 against 0.5, and 0.25 * 1 against 0.2.
    assert float(background_penalty(network, 0.25)) == pytest.approx(0.5 + 0.05)
    assert not first_layer_stays_put(network, 0.25)


def test_clearance_keeps_blank_units_away_from_zero(training_digits: Digits) -> None:
    schedule = Schedule(60, batch_size=16, learning_rate=2e-2, weight_decay=0.1)
    penalties = [
        float(background_penalty(train_network(architecture("strided2"), training_digits, options, 1), 0.03))
        for options in (TrainingOptions(schedule), TrainingOptions(schedule, clearance=0.03))
    ]
    assert penalties[1] < 0.5 * penalties[0]


def test_clearance_refuses_what_it_cannot_serve(training_digits: Digits) -> None:
    with pytest.raises(InputError, match="clearance"):
        TrainingOptions(Schedule(1), clearance=-0.1)
    with pytest.raises(InputError, match="convolution"):
        background_penalty(torch.nn.Sequential(torch.nn.Linear(2, 2)), 0.1)
