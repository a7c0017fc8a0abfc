"""What `attacks.run` refuses, with the reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cases import goal_options, images_and_labels, torch_module, typed_network
from torch import nn

import attacks
from attacks import GoalOptions
from verifier.errors import InputError
from verifier.network import Head

IMAGES, LABELS = images_and_labels("typed")


class InDictionary(nn.Module):
    """Scores where nobody looks for them."""

    def forward(self, images):
        return {"logits": images.flatten(1)}


def run(network=None, images=IMAGES, labels=LABELS, **more):
    return attacks.run(typed_network() if network is None else network, images, labels, **more)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "nonsense"}, "wanted one of fgsm"),
        ({"variant": "other"}, "wanted fixed or released"),
        ({"goal": "nonsense"}, "wanted one of hiding-single"),
        ({"goal": "top-k-untargeted", "k": 6}, "wanted 1 to 5 for a network of 6 labels"),
        ({"goal": "top-k-untargeted"}, "needs k"),
        ({"goal": "specified-labels", "k": 1, "goal_options": GoalOptions(members=(0, 6))}, "label 6 is outside"),
        ({"goal": "top-k-untargeted", "k": 5}, "no eligible image among 3"),
        ({"goal": "person-reduction", "goal_options": GoalOptions(label=9)}, "label 9 is outside"),
        ({"norm": "l3"}, "wanted one of l1, l2, linf"),
        ({"eps": -0.1}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"method": "ml-cw", "eps": 0.1}, "with eps give a norm"),
        ({"eps": np.full((1, 3, 3), 0.1), "norm": "l2"}, "with norm 'linf', the shape of an image"),
        ({"eps": np.full((2, 2), 0.1)}, "the shape of an image"),
        ({"options": {"colour": 3}}, "unknown; it has"),
        ({"options": {"iterations": 0}}, "wanted a number >= 1"),
        ({"options": {"iterations": "many"}}, "wanted a value like 40"),
        ({"method": "tkmia", "options": {"scope": "Z"}}, "wanted 'S' or 'Y'"),
        ({"method": "mla-lp", "options": {"solver": "magic"}}, "wanted one of dual, whole, gurobi"),
        ({"method": "mlae-de", "options": {"population": 3}}, "wanted a number >= 4"),
        ({"batch": 0}, "batch"),
        ({"labels": LABELS[:2]}, "one row an image"),
        ({"labels": LABELS[:, :5]}, "got 5 columns, wanted 6"),
        ({"labels": LABELS.long() * 2}, "only 0 and 1"),
        ({"images": IMAGES * 255}, "divide by 255"),
        ({"images": IMAGES.long()}, "wanted floats"),
        ({"images": IMAGES.flatten(1)}, "wanted (n,"),
        ({"images": IMAGES * float("nan")}, "not a number"),
        ({"network": torch_module(), "images": IMAGES, "labels": LABELS, "head": "tanh"}, "wanted one of none"),
        ({"network": nn.Flatten(0)}, "wanted (3, labels)"),
        ({"network": nn.Conv2d(7, 2, 1)}, "does not run on images of shape (1, 3, 3) in float64"),
        ({"network": InDictionary()}, "got output of type dict, wanted a tensor (3, labels)"),
    ],
)
def test_refused_with_the_reason(options, says):
    with pytest.raises(InputError) as refusal:
        run(**options)
    assert says in str(refusal.value)


@pytest.mark.parametrize("goal", ["hiding-all", "showing-many", "extreme"])
def test_thresholds_on_a_softmax_are_refused_and_rankings_are_not(goal):
    softmax = replace(typed_network(), head=Head.SOFTMAX)
    module = nn.Sequential(torch_module(), nn.Softmax(dim=1))
    images, labels = images_and_labels("module")
    for network, pictures, truth, more in (
        (softmax, IMAGES, LABELS, {}),
        (module, images, labels, {}),
        (torch_module(), images, labels, {"head": "softmax"}),
    ):
        with pytest.raises(InputError, match="softmax"):
            attacks.run(network, pictures, truth, method="fgsm", goal=goal, **more)
        ranked = attacks.run(
            network, pictures, truth, method="fgsm", goal="target-miss", k=2, goal_options=GoalOptions(), **more
        )
        assert bool(ranked.eligible.any())


def test_a_goal_made_before_must_fit():
    goal = attacks.make_goal("hiding-all", LABELS[:2], torch.where(LABELS[:2], 1.0, -1.0))
    with pytest.raises(InputError, match="made for shape"):
        run(goal=goal)
    assert run(images=IMAGES[:2], labels=LABELS[:2], goal=goal, method="fgsm").goal.name == "hiding-all"


def test_images_that_are_not_eligible_come_back_as_they_were():
    labels = LABELS.clone()
    labels[1] = ~labels[1]  # Wrong labels: the network does not get this image right.
    result = run(labels=labels, goal="extreme", method="pgd", options={"iterations": 3})
    assert result.eligible.tolist() == [True, False, True]
    assert torch.equal(result.images[1], IMAGES[1])
    assert not result.success[1]
    assert result.iterations[1] == 0
    assert result.history[:, 1].isnan().all()
    assert result.success_rate == float(result.success.sum()) / 2


def test_goals_met_already_are_said_to_be():
    options = GoalOptions(rounding="floor", average=1.0)
    result = run(goal="showing-many", method="pgd", goal_options=options)
    assert result.already_met.all()
    assert result.success.all()


def test_a_module_is_left_as_it_was():
    module = nn.Sequential(torch_module(), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images, labels = images_and_labels("module")
    attacks.run(module, images, labels, goal="hiding-single", method="pgd", options={"iterations": 2})
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in module.parameters())


def test_numpy_images_and_a_float64_module_are_welcome():
    images, labels = images_and_labels("module")
    module = nn.Sequential(torch_module(), nn.Identity()).double()
    found = attacks.run(
        module,
        images.numpy(),
        labels.numpy().astype(int),
        goal="random",
        method="bim",
        goal_options=goal_options("module", "random"),
    )
    assert found.images.dtype == torch.float32
    torch_module().float()


def test_a_width_for_every_pixel_is_kept_to():
    widths = np.zeros((1, 3, 3))
    widths[0, 1] = [0.05, 0.1, 0.2]
    result = run(goal="hiding-single", method="layered", eps=widths, options={"iterations": 5, "rounds": 1})
    change = result.deltas.abs()
    assert bool((change <= torch.from_numpy(widths)).all())
    assert float(change.max()) > 0.04


def test_progress_is_told():
    told = []
    run(goal="hiding-single", method="fgsm", batch=2, on_rows=told.append)
    assert told == [2, 1]
