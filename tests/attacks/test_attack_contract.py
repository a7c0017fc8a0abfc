"""Every attack towards every goal on two networks: what the engine promises, recomputed here."""

import pytest
import torch
from attack_cases import SINGLE, VICTIMS, goal_options, images_and_labels, quick, scores_of

import attacks
from attacks import GOALS, METHODS

CASES = [(name, variant) for name in METHODS for variant in ("fixed", "released")]


def attack(victim, method, goal, variant="fixed", rows=slice(None), **more):
    images, labels = images_and_labels(victim)
    return attacks.run(
        VICTIMS[victim](),
        images[rows],
        labels[rows],
        method=method,
        variant=variant,
        goal=goal,
        goal_options=goal_options(victim, goal),
        options=quick(method, **more.pop("options", {})),
        **more,
    )


def check(result, victim):
    """The image decides: range, ball, norms, scores, constraints and success follow from it."""
    images = result.images
    assert images.dtype == torch.float32
    assert bool(((images >= 0) & (images <= 1)).all())
    scores = scores_of(victim, images)
    torch.testing.assert_close(result.scores, scores, rtol=1e-12, atol=1e-12)
    assert torch.equal(result.success, result.goal.satisfied(result.scores) & result.goal.eligible)
    assert torch.equal(result.met, result.goal.met(result.scores))
    assert torch.equal(result.margin > 0, result.goal.satisfied(result.scores))
    flat = (images.double() - result.clean.double()).flatten(1)
    torch.testing.assert_close(result.l1, flat.abs().sum(dim=1))
    torch.testing.assert_close(result.l2, flat.square().sum(dim=1).sqrt())
    torch.testing.assert_close(result.linf, flat.abs().amax(dim=1))
    if result.norm is not None and result.eps is not None:
        assert bool((getattr(result, result.norm) <= result.eps).all())
    assert bool(result.goal.eligible.all())
    for each in (result.margin, result.l2, *result.reported.values()):
        assert bool(each.isfinite().all())


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("method", METHODS)
def test_every_attack_towards_every_goal(method, goal, victim):
    check(attack(victim, method, goal), victim)


@pytest.mark.parametrize("goal", ["showing-many", "specified-labels"])
@pytest.mark.parametrize("method", METHODS)
def test_every_released_variant(method, goal):
    check(attack("typed", method, goal, "released"), "typed")


@pytest.mark.parametrize(("place", "method"), list(enumerate(METHODS)))
def test_any_attack_stays_in_any_ball(place, method):
    result = attack("module", method, "hiding-single", norm=("l1", "l2", "linf")[place % 3], eps=0.05)
    check(result, "module")
    assert result.eps == 0.05


@pytest.mark.parametrize(("place", "case"), list(enumerate(case for case in CASES if case[0] in SINGLE)))
def test_a_row_alone_gets_what_it_gets_in_a_batch(place, case):
    method, variant = case
    goal = ("random", "top-k-untargeted", "extreme")[place % 3]
    together = attack("module", method, goal, variant)
    for row in (0, 2):
        alone = attack("module", method, goal, variant, slice(row, row + 1))
        assert torch.equal(alone.goal.sign[0], together.goal.sign[row])
        torch.testing.assert_close(alone.images[0], together.images[row], rtol=0, atol=2e-5)
        assert bool(alone.success[0]) == bool(together.success[row])


@pytest.mark.parametrize("method", SINGLE)
def test_batches_change_nothing(method):
    whole, split = (attack("module", method, "random", batch=size) for size in (3, 2))
    torch.testing.assert_close(whole.images, split.images, rtol=0, atol=2e-5)
    assert torch.equal(whole.success, split.success)
    assert split.history.shape[1] == 3


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].norm == "linf"])
def test_pixels_may_have_radii_of_their_own(method):
    images, _ = images_and_labels("typed")
    eps = torch.linspace(0.0, 0.4, images[0].numel()).reshape(images.shape[1:])
    result = attack("typed", method, "random", eps=eps)
    assert bool(((result.images.double() - result.clean.double()).abs() <= eps.double()).all())


@pytest.mark.parametrize("method", ["pgd", "mlae-de", "layered"])
def test_the_seed_decides(method):
    first, again, other = (attack("module", method, "extreme", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.history.nan_to_num(), other.history.nan_to_num())


# Attacks whose state does not depend on the number of iterations; evolution is judged by evaluations.
@pytest.mark.parametrize("method", [name for name in SINGLE if name not in ("fgsm", "fgm", "layered")])
def test_more_effort_is_never_worse(method):
    few = {"iterations": 2, "evaluations": 20, "searches": 1}
    many = {"iterations": 9, "evaluations": 70, "searches": 1}
    for goal in ("hiding-all", "target-miss"):
        less, more = (attack("typed", method, goal, options=effort) for effort in (few, many))
        assert bool((less.success <= more.success).all())
        if method not in ("rank-1", "rank-2", "ml-cw"):
            assert bool((more.met >= less.met).all())


@pytest.mark.parametrize("method", METHODS)
def test_defaults_are_within_the_options(method):
    entry = METHODS[method]
    for variant in attacks.methods.Variant:
        entry.configure(variant)
        assert set(entry.defaults(variant)) == set(entry.options.__dataclass_fields__)
        assert set(entry.released) <= set(entry.defaults(variant))
    assert entry.summary
    assert entry.paper
