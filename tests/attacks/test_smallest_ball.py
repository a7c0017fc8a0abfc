import pytest
import torch
from attack_cases import goal_options, images_and_labels, scores_of, torch_module
from test_known_norms import ONE, single

import attacks
from verifier.errors import InputError


@pytest.mark.parametrize(("norm", "place"), [("linf", 3), ("l2", 4)])
def test_bisection_finds_the_known_least_norm(norm, place):
    network, image, labels, *_ = found = single()
    least = float(found[place])
    result = attacks.run_smallest(network, image, labels, norm=norm, eps=6 * least, halvings=7, method="bim", **ONE)
    assert bool(result.success[0])
    assert least <= float(getattr(result, norm)[0]) <= 1.06 * least


def test_every_image_has_its_own_radius_and_failures_stay():
    images, labels = images_and_labels("module")
    more = {"method": "bim", "goal": "hiding-single", "goal_options": goal_options("module", "hiding-single")}
    whole = attacks.run_smallest(torch_module(), images, labels, norm="linf", eps=0.4, halvings=5, **more)
    once = attacks.run(torch_module(), images, labels, norm="linf", eps=0.4, **more)
    assert torch.equal(whole.success, once.success)
    assert bool(whole.success.any())
    assert bool((whole.linf <= once.linf).all())
    assert torch.equal(whole.success, whole.goal.satisfied(scores_of("module", whole.images)))
    for row in range(len(images)):
        part = slice(row, row + 1)
        alone = attacks.run_smallest(
            torch_module(), images[part], labels[part], norm="linf", eps=0.4, halvings=5, **more
        )
        assert float(alone.linf[0]) == pytest.approx(float(whole.linf[row]), abs=1e-4)


def test_a_radius_for_each_image_is_kept():
    images, labels = images_and_labels("module")
    radii = torch.tensor([[0.05], [0.1], [0.2]])
    for norm in ("l1", "l2", "linf"):
        result = attacks.run(
            torch_module(), images, labels, method="bim", goal="extreme", variant="released", norm=norm, eps=radii
        )
        size = getattr(result, norm)
        assert bool((size <= radii[:, 0].double()).all())
        assert bool((size >= 0.4 * radii[:, 0]).all())


def test_misuse():
    images, labels = images_and_labels("module")
    with pytest.raises(InputError, match="halvings"):
        attacks.run_smallest(torch_module(), images, labels, norm="linf", eps=0.1, halvings=-1)
    with pytest.raises(InputError, match="a column"):
        attacks.run(torch_module(), images, labels, norm="l2", eps=torch.ones(2, 1))
