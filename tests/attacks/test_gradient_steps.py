import pytest
import torch

from attacks.ball import Ball
from attacks.gradient_steps import AdamStep, DeltaSpace, SgdStep, SqueezedSpace, TanhSpace, UnitStep
from attacks.steps import AutoStep, SignStep

ROWS, PIXELS = 3, 40


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand((ROWS, PIXELS), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everywhere() -> Ball:
    middle = torch.full((ROWS, PIXELS), 0.5, dtype=torch.float64)
    far = torch.full_like(middle, 1e6)
    return Ball(middle, -far, far, None, torch.full((ROWS,), torch.inf, dtype=torch.float64))


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn((ROWS, PIXELS), generator=generator, dtype=torch.float64) for _ in range(count)]


def walk(step, start: torch.Tensor, along: list[torch.Tensor]) -> torch.Tensor:
    stepper = step.begin(everywhere(), start, len(along))
    for gradient in along:
        start = stepper.advance(start, torch.zeros(ROWS, dtype=torch.float64), gradient)
    return start


RULES = {
    "sign": UnitStep(0.1),
    "size of each row": UnitStep(torch.tensor([[0.1], [0.2], [0.3]]).double(), "l2", momentum=1.0),
    "size of each pixel": UnitStep(torch.linspace(0.1, 0.2, PIXELS).double()[None], momentum=0.5),
    "sgd": SgdStep(DeltaSpace(images(1)), 0.1, momentum=0.9, decay=0.1),
    "adam": AdamStep(TanhSpace(images(1) - 1.0, images(1) + 1.0), 0.1),
    "squeezed": AdamStep(SqueezedSpace(images(1)), 0.1),
    "plain": SignStep(0.1),
    "adaptive": AutoStep(),
}


@pytest.mark.parametrize("name", RULES)
def test_a_row_moves_the_same_after_others_are_forgotten(name):
    along, rows = gradients(9), torch.tensor([0, 2])
    losses = [gradient.sum(dim=1) for gradient in along]
    middle = torch.full((ROWS, PIXELS), 0.5, dtype=torch.float64)
    ball = Ball(middle, middle - 0.4, middle + 0.4, "l2", torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    whole, part = (RULES[name].begin(ball, middle, len(along)) for _ in range(2))
    everyone, few = middle, middle
    for place, (gradient, loss) in enumerate(zip(along, losses, strict=True)):
        everyone = whole.advance(everyone, loss, gradient)
        if place == 4:
            part.keep(rows)
            few = few[rows]
        few = part.advance(few, *((loss, gradient) if place < 4 else (loss[rows], gradient[rows])))
    torch.testing.assert_close(few, everyone[rows], rtol=0, atol=0)


SPACES = {
    "delta": DeltaSpace(images(1)),
    "tanh": TanhSpace(torch.full((ROWS, PIXELS), 0.1).double(), torch.full((ROWS, PIXELS), 0.9).double()),
    "squeezed": SqueezedSpace(images(1)),
}


@pytest.mark.parametrize("name", SPACES)
def test_variables_decode_to_their_images_and_slopes_are_derivatives(name):
    space = SPACES[name]
    variables = torch.randn((ROWS, PIXELS), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    variables.requires_grad_()
    decoded = space.decode(variables)
    slope = torch.autograd.grad(decoded.sum(), variables)[0]
    torch.testing.assert_close(space.chained(torch.ones_like(slope), variables.detach()), slope)
    torch.testing.assert_close(space.encode(decoded.detach()), variables.detach(), atol=1e-3, rtol=1e-3)


def test_black_and_white_have_finite_variables():
    space = TanhSpace(torch.zeros((1, 3)), torch.tensor([[1.0, 1.0, 0.0]]))
    variables = space.encode(torch.tensor([[0.0, 1.0, 0.0]]))
    assert bool(variables.isfinite().all())
    torch.testing.assert_close(space.decode(variables), torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)


def test_adam_is_torch_s():
    start, along = images(), gradients(8)
    weight = torch.nn.Parameter(torch.zeros_like(start))
    optimiser = torch.optim.Adam([weight], lr=0.03, maximize=True)
    for gradient in along:
        weight.grad = gradient
        optimiser.step()
    torch.testing.assert_close(walk(AdamStep(DeltaSpace(start), 0.03), start, along), start + weight.detach())


def test_sgd_is_torch_s_with_momentum_and_decay():
    start, along = images(), gradients(8)
    weight = torch.nn.Parameter(torch.zeros_like(start))
    # Ours climbs: torch descends the negative gradient, and decays towards 0 in both.
    optimiser = torch.optim.SGD([weight], lr=0.03, momentum=0.9, weight_decay=0.1)
    for gradient in along:
        weight.grad = -gradient
        optimiser.step()
    found = walk(SgdStep(DeltaSpace(start), 0.03, 0.9, 0.1), start, along)
    torch.testing.assert_close(found, start + weight.detach())


@pytest.mark.parametrize(("unit", "order"), [("sign", torch.inf), ("l2", 2.0), ("sparse", 1.0)])
def test_unit_steps_have_their_length_and_climb(unit, order):
    start, along = images(), gradients(1)
    moved = walk(UnitStep(0.25, unit), start, along) - start
    torch.testing.assert_close(moved.norm(p=order, dim=1), torch.full((ROWS,), 0.25, dtype=torch.float64))
    assert bool(((moved * along[0]).sum(dim=1) > 0).all())


def test_sparse_steps_move_the_steepest_pixels_alone():
    start, along = images(), gradients(1)
    moved = walk(UnitStep(0.25, "sparse", sparsity=0.9), start, along) - start
    assert (moved != 0).sum(dim=1).tolist() == [4, 4, 4]
    steepest = along[0].abs().topk(4, dim=1).indices.sort(dim=1).values
    assert torch.equal(moved.abs().topk(4, dim=1).indices.sort(dim=1).values, steepest)


@pytest.mark.parametrize("unit", ["sign", "l2", "sparse"])
def test_no_gradient_no_step_and_tiny_gradients_count(unit):
    start = images()
    still = torch.zeros_like(start)
    assert torch.equal(walk(UnitStep(0.25, unit, momentum=1.0), start, [still]), start)
    along = gradients(1)[0]
    # Squares of 1e-25 vanish in float32 unless scaled first.
    small, large = (walk(UnitStep(0.25, unit), start.float(), [(scale * along).float()]) for scale in (1e-25, 1.0))
    torch.testing.assert_close(small, large, atol=1e-6, rtol=0)


def test_momentum_adds_gradients_of_length_one():
    start, along = images(), gradients(2)
    moved = walk(UnitStep(0.1, "sign", momentum=0.5), start, along)
    first = along[0] / along[0].abs().sum(dim=1, keepdim=True)
    second = 0.5 * first + along[1] / along[1].abs().sum(dim=1, keepdim=True)
    torch.testing.assert_close(moved, start + 0.1 * first.sign() + 0.1 * second.sign())


def test_a_variable_follows_where_the_projection_moved_its_pixel():
    clean = torch.full((1, 2), 0.5)
    ball = Ball.around(clean, "linf", 0.1)
    stepper = SgdStep(DeltaSpace(clean), 1.0).begin(ball, clean, 3)
    out = stepper.advance(clean, torch.zeros(1), torch.tensor([[5.0, 0.0]]))
    back = stepper.advance(out, torch.zeros(1), torch.tensor([[-0.05, 0.0]]))
    # Had the variable stayed at 5, one small step back would change nothing.
    torch.testing.assert_close(back, torch.tensor([[0.55, 0.5]]))
