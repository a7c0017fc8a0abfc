import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.ball import NORMS, Ball, _down, _up, norms


def images(seed: int, rows: int = 6, pixels: int = 11) -> torch.Tensor:
    return torch.rand((rows, pixels), generator=torch.Generator().manual_seed(seed))


def points(seed: int, spread: float) -> torch.Tensor:
    return images(seed) + spread * torch.randn((6, 11), generator=torch.Generator().manual_seed(seed + 1))


@given(st.integers(0, 10**6), st.sampled_from([*NORMS, None]), st.sampled_from([0.0, 0.01, 0.3, 2.0]))
def test_projection_lands_inside_and_leaves_the_inside_alone(seed, norm, eps):
    ball = Ball.around(images(seed), norm, None if norm is None else eps)
    inside = ball.project(points(seed, 0.7))
    assert bool(((inside >= 0) & (inside <= 1)).all())
    if norm is not None:
        assert bool((norms((inside - ball.clean).double(), norm) <= eps * (1 + 1e-5) + 1e-6).all())
    torch.testing.assert_close(ball.project(inside), inside, atol=1e-6, rtol=0)


@given(st.integers(0, 10**6), st.sampled_from([*NORMS]), st.sampled_from([0.0, 0.01, 0.1, 0.3, 1 / 3]))
def test_float32_images_keep_the_ball_exactly(seed, norm, eps):
    clean = images(seed)
    ball = Ball.around(clean, norm, eps)
    found = ball.float32(ball.project(points(seed, 0.5)))
    assert found.dtype == torch.float32
    assert bool(((found >= 0) & (found <= 1)).all())
    assert bool((norms(found.double() - clean.double(), norm) <= eps).all())


@given(st.integers(0, 10**6), st.sampled_from(["l1", "l2"]))
def test_without_range_the_projection_is_the_nearest_point(seed, norm):
    middle = torch.full((6, 11), 0.5, dtype=torch.float64)
    ball = Ball.around(middle, norm, 0.3)
    outside = middle + 0.2 * torch.randn((6, 11), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    nearest = ball.project(outside)
    # The nearest point p of a convex set sees every other point q under an obtuse angle: (outside - p).(q - p) <= 0.
    others = ball.project(middle + torch.randn((6, 11), generator=torch.Generator().manual_seed(seed + 1)))
    assert bool((((outside - nearest) * (others - nearest)).sum(dim=1) <= 1e-6).all())


def test_l1_by_hand():
    ball = Ball.around(torch.full((1, 3), 0.5), "l1", 0.3)
    found = ball.project(torch.tensor([[0.9, 0.6, 0.5]]))
    # Differences 0.4, 0.1, 0: the threshold is 0.1.
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.5, 0.5]]))


def test_a_width_for_every_pixel_or_every_row():
    clean = torch.full((2, 3), 0.5)
    by_pixel = Ball.around(clean, "linf", torch.tensor([[0.0, 0.1, 0.9]]))
    torch.testing.assert_close(by_pixel.widths[0], torch.tensor([0.0, 0.2, 1.0]))
    assert by_pixel.project(torch.ones((2, 3)))[1].tolist() == pytest.approx([0.5, 0.6, 1.0])
    by_row = Ball.around(clean, "linf", torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(by_row.widths[:, 0], torch.tensor([0.2, 0.4]))


@pytest.mark.parametrize("norm", [*NORMS, None])
def test_random_points_lie_inside_and_belong_to_their_row(norm):
    clean = images(3)
    ball = Ball.around(clean, norm, 0.2)

    def generators():
        return [torch.Generator().manual_seed(row) for row in range(6)]

    drawn = ball.drawn(generators())
    torch.testing.assert_close(ball.project(drawn), drawn, atol=1e-6, rtol=0)
    alone = ball.at(torch.tensor([4])).drawn(generators()[4:5])
    assert torch.equal(alone[0], drawn[4])
    assert not torch.equal(drawn - clean, drawn[:1] - clean[:1])


def test_scaled_balls_shrink():
    clean = images(5)
    for norm in NORMS:
        ball = Ball.around(clean, norm, 0.4).scaled(torch.full((6,), 0.5))
        assert bool((norms(ball.project(points(5, 2.0)) - clean, norm) <= 0.2 * (1 + 1e-5)).all())


def test_bounds_in_float32_are_rounded_inward_by_one_number_at_most():
    values = torch.randn((3, 500), generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    edges = torch.tensor([[0.0, -0.0, 1e-50, -1e-50, 1e-40, -1e-40, 1.0, -1.0, 0.1, -0.1]], dtype=torch.float64)
    for exact in (values, edges):
        nearest = exact.float()
        for rounded, end in ((_up, torch.inf), (_down, -torch.inf)):
            outward = torch.nextafter(nearest, torch.full_like(nearest, end))
            is_inside = (nearest.double() >= exact) if end > 0 else (nearest.double() <= exact)
            assert torch.equal(rounded(exact), torch.where(is_inside, nearest, outward))
    kept = values.float()
    assert torch.equal(_up(kept), kept)
