"""The published mistakes are there in `released`, and gone in `fixed`."""

import pytest
import torch
from test_known_norms import MIDDLE, ONE, affine, single
from tiny_networks import linear_network

import attacks
from attacks import GoalOptions
from attacks.methods.linearised import equality_step
from attacks.qp import least_squares_step


def run(network, image, labels, method, variant, **more):
    return attacks.run(network, image, labels, method=method, variant=variant, **more)


def one_label(score: float, slope: float = 4.0):
    """Label 0 is to be turned on from this logit; a second label far off that nothing moves."""
    network = linear_network([[slope] * 4, [0.0] * 4], [score - 4 * slope * MIDDLE, -9.0])
    return network, torch.full((1, *network.input_shape), MIDDLE), torch.tensor([[False, False]])


ON = {"goal": "sheep-augmentation", "goal_options": GoalOptions(label=0)}


def test_released_linear_programmes_fall_short_of_turning_a_label_on():
    # Linearising -log p from a logit of -6 leads to p = 0.337; the threshold, loosened step by step, then asks for no more.
    network, image, labels = one_label(-6.0)
    released, fixed = (run(network, image, labels, "mla-lp", variant, **ON) for variant in ("released", "fixed"))
    assert not bool(released.success[0])
    once = run(network, image, labels, "mla-lp", "released", options={"iterations": 1}, **ON)
    assert float(once.scores[0, 0].sigmoid()) == pytest.approx(0.337, abs=2e-3)
    longer = run(network, image, labels, "mla-lp", "released", options={"iterations": 40}, **ON)
    assert 0.3 < float(released.scores[0, 0].sigmoid()) < 0.5
    assert float(longer.scores[0, 0]) == pytest.approx(float(released.scores[0, 0]), abs=1e-3)
    assert bool(fixed.success[0])
    # The least change turns the logit to the margin aimed at, 0.05: 6.05 / (4 * 4) everywhere.
    assert float(fixed.linf[0]) == pytest.approx(6.05 / 16, abs=1e-3)


def test_released_equalities_take_far_longer_steps_than_needed():
    # Ten labels, two of them violated: the equalities drag the other eight to the boundary as well.
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn((50, 10, 60), generator=generator, dtype=torch.float64)
    margins = torch.rand((50, 10), generator=generator, dtype=torch.float64) + 0.1
    margins[:, :2] *= -1.0
    active = torch.ones((50, 10), dtype=torch.bool)
    everywhere = torch.full((50, 60), 1e6, dtype=torch.float64)
    equal = equality_step(matrix, -margins, active)
    least = least_squares_step(matrix, -margins, active, -everywhere, everywhere)
    torch.testing.assert_close((matrix @ equal[:, :, None])[:, :, 0], -margins, atol=1e-6, rtol=0)
    assert bool(((matrix @ least[:, :, None])[:, :, 0] >= -margins - 1e-6).all())
    assert float((equal.norm(dim=1) / least.norm(dim=1)).median()) > 2.0


def kinked(k: int):
    """k + 2 labels on orthogonal pixels: label 0 must leave the top k, at equal distances to all others."""
    labels = k + 2
    weight = 2.0 * torch.eye(labels)
    scores = torch.tensor([1.0] + [0.0] * (labels - 1)) - 0.01 * torch.arange(labels)
    network = linear_network(weight.numpy(), (scores - weight.sum(dim=1) * MIDDLE).numpy())
    image = torch.full((1, *network.input_shape), MIDDLE)
    truth = torch.zeros((1, labels), dtype=torch.bool)
    truth[0, 0] = True
    return network, image, truth


def test_released_kfool_steps_grow_with_k():
    first_steps = []
    for k in (1, 3, 5):
        network, image, labels = kinked(k)
        options = {"iterations": 1}
        goal = {"goal": "target-miss", "k": k, "goal_options": GoalOptions(label=0)}
        released = run(network, image, labels, "kfool", "released", options=options, **goal)
        first_steps.append(float(released.reported["l2_before_tanh"][0]))
    # The distances of k labels are added where their mean would do.
    assert first_steps[1] > 2.0 * first_steps[0]
    assert first_steps[2] > 1.4 * first_steps[1]


def test_fixed_kfool_steps_do_not_grow_as_much():
    for k in (1, 3, 5):
        network, image, labels = kinked(k)
        goal = {"goal": "target-miss", "k": k, "goal_options": GoalOptions(label=0)}
        fixed = run(network, image, labels, "kfool", "fixed", options={"iterations": 1}, **goal)
        assert float(fixed.l2[0]) < 0.6


@pytest.mark.parametrize("method", ["tkml-ap-u", "tkml-ap-t", "ml-cw-u", "tkmia", "kfool"])
def test_released_top_k_attacks_squeeze_the_contrast_before_they_begin(method):
    network, image, labels, *_ = single()
    bright = torch.ones_like(image)
    options = {"iterations": 1, "rate": 0.0} if method != "kfool" else {"iterations": 1}
    goal = {"goal": "target-miss", "k": 1, "goal_options": GoalOptions(label=1)}
    labels = torch.tensor([[False, True]])
    scores = network.nodes[-1].op
    if float((torch.from_numpy(scores.weight) @ torch.ones(16) + torch.from_numpy(scores.bias)).diff()) < 0:
        goal["goal_options"], labels = GoalOptions(label=0), torch.tensor([[True, False]])
    released = run(network, bright, labels, method, "released", options=options, **goal)
    if method == "kfool":
        assert float(released.reported["l2_before_tanh"][0]) > 0
    else:
        # w = 0, and yet (1 + tanh 1) / 2 instead of 1.
        torch.testing.assert_close(released.images, torch.full_like(bright, 0.5 * (1 + torch.tensor(1.0).tanh())))
        assert float(released.reported["l2_before_tanh"][0]) == pytest.approx(0.0, abs=1e-5)


def test_a_saturated_label_stops_released_sign_attacks():
    network, image, labels = one_label(-20.0, slope=30.0)
    more = ON | {"norm": "linf", "eps": 0.3}
    assert not bool(run(network, image, labels, "bim", "released", **more).success[0])
    assert bool(run(network, image, labels, "bim", "fixed", **more).success[0])


def test_released_scope_pushes_every_relevant_label_out():
    # Labels 0, 1 relevant; S = {0}. With scope "Y" label 1 has to leave too, which costs more.
    network, _, _, image, labels = affine()
    goal = {"goal": "specified-labels", "k": 1, "goal_options": GoalOptions(members=(0,))}
    fair, whole = (
        attacks.run(network, image, labels, method="kfool", options={"scope": scope, "iterations": 3}, **goal)
        for scope in ("S", "Y")
    )
    assert bool(fair.success[0])
    assert float(whole.scores[0, 1] - whole.scores[0, 2:].max()) < float(fair.scores[0, 1] - fair.scores[0, 2:].max())


def test_rank_one_is_inert_where_the_label_is_already_the_lowest_and_rank_two_is_not():
    # Label 1 is the lower of the two relevant ones and is to go below the threshold: it is ranked rightly already against
    # label 0, and Rank I asks only that labels to be off are below labels to be on.
    network, _, _, image, labels = affine()
    goal = {"goal": "person-reduction", "goal_options": GoalOptions(label=1)}
    effort = {"searches": 2, "iterations": 30}
    first, second = (
        run(network, image, labels, method, "fixed", options=effort, **goal) for method in ("rank-1", "rank-2")
    )
    assert float(first.l2[0]) == 0.0
    assert float(second.l2[0]) > 0.01
    assert float(second.scores[0, 1]) < float(first.scores[0, 1])


def test_universal_released_variants_report_their_fooling_rates():
    network, image, labels, *_ = single()
    for method in ("tkml-ap-uv", "kuap"):
        result = run(network, image.expand(3, -1, -1, -1).clone(), labels.expand(3, -1), method, "released", **ONE)
        assert result.shared is not None
        assert bool(((result.history >= 0) & (result.history <= 1)).all())
        assert float(result.history[-1, 0]) == pytest.approx(result.success_rate)
