from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.recombination import Tiling, choose, compose, draw_tiling, exchange

SHAPES = [(7,), (1, 1, 5), (2, 6, 9), (3, 3)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10**6), st.sampled_from(SHAPES), st.sampled_from([1, 2, 4, 8]))
def test_tiles_cover_what_moves_and_nothing_else(seed, shape, splits):
    widths = torch.rand(shape, generator=generator(seed)) * (torch.rand(shape, generator=generator(seed + 1)) < 0.7)
    tiling = draw_tiling(widths, splits, generator(seed))
    assert ((tiling.labels >= 0) == (widths > 0)).all()
    assert torch.unique(tiling.labels[widths > 0]).tolist() == list(range(tiling.tiles))
    axes = min(2, len(shape))
    assert tiling.tiles <= (splits + 1) ** axes


def test_tiles_are_rectangles_of_all_channels_within_what_moves():
    widths = torch.zeros((2, 8, 8))
    widths[:, 2:6, 4:8] = 1.0
    tiling = draw_tiling(widths, 2, generator())
    assert 4 <= tiling.tiles <= 9
    assert torch.equal(tiling.labels[0], tiling.labels[1])
    for tile in range(tiling.tiles):
        places = (tiling.labels[0] == tile).nonzero()
        extent = places.max(dim=0).values - places.min(dim=0).values + 1
        assert int(extent.prod()) == len(places)
        assert (extent <= 2).all()


def test_nothing_moves():
    tiling = draw_tiling(torch.zeros((1, 2, 2)), 4, generator())
    assert tiling.tiles == 0
    assert (tiling.labels == -1).all()


LABELS = torch.tensor([[0, 0, 1], [-1, 1, 1]])
POINT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
DONORS = torch.stack([POINT + 10.0, POINT + 20.0])


def test_exchange_puts_one_tile_of_one_donor():
    rows = exchange(POINT, DONORS, Tiling(LABELS, 2), torch.arange(4))
    assert rows[0].tolist() == [[11, 12, 3], [4, 5, 6]]
    assert rows[1].tolist() == [[21, 22, 3], [4, 5, 6]]
    assert rows[2].tolist() == [[1, 2, 13], [4, 15, 16]]
    assert rows[3].tolist() == [[1, 2, 23], [4, 25, 26]]


def test_compose_takes_every_tile_from_its_donor():
    choices = torch.tensor([[-1, -1], [0, 1], [1, -1]])
    rows = compose(POINT, DONORS, Tiling(LABELS, 2), choices)
    assert rows[0].tolist() == POINT.tolist()
    assert rows[1].tolist() == [[11, 12, 23], [4, 25, 26]]
    assert rows[2].tolist() == [[21, 22, 3], [4, 5, 6]]


def least(forms: torch.Tensor, gains: torch.Tensor, choice: list[int]) -> float:
    total = forms.clone()
    for tile, donor in enumerate(choice):
        if donor >= 0:
            total += gains[tile, donor]
    return float(total.min())


@given(st.integers(0, 10**6))
def test_one_member_takes_every_gain(seed):
    gains = torch.randn((3, 4, 1), generator=generator(seed))
    choices = choose(torch.zeros(1), gains, rounds=3, variants=0, generator=generator())
    assert len(choices) == 1
    best = max(least(torch.zeros(1), gains, list(choice)) for choice in product(range(-1, 4), repeat=3))
    assert least(torch.zeros(1), gains, choices[0].tolist()) == pytest.approx(best)


def test_two_members_are_balanced():
    # Donor 0 helps the first member and harms the second, donor 1 the reverse, on every tile to another degree.
    forms = torch.tensor([-1.0, -0.8])
    tile = torch.arange(4.0)
    first = torch.stack([1.0 - 0.2 * tile, torch.full((4,), -0.3)], dim=1)
    second = torch.stack([torch.full((4,), -0.2), 0.4 + 0.2 * tile], dim=1)
    gains = torch.stack([first, second], dim=1)
    choices = choose(forms, gains, rounds=32, variants=4, generator=generator())
    found = max(least(forms, gains, choice.tolist()) for choice in choices)
    every = [least(forms, gains, list(choice)) for choice in product(range(-1, 2), repeat=4)]
    assert found == pytest.approx(max(every))
    # Neither donor alone improves on the point itself.
    assert max(least(forms, gains, [donor] * 4) for donor in (0, 1)) < float(forms.min()) < found


def test_what_is_not_finite_is_never_chosen():
    gains = torch.full((2, 3, 2), torch.nan)
    gains[0, 1] = torch.tensor([torch.inf, 1.0])
    gains[1, 2] = torch.tensor([0.5, 0.5])
    choices = choose(torch.zeros(2), gains, rounds=8, variants=8, generator=generator())
    assert set(choices[:, 0].tolist()) == {-1}
    assert set(choices[:, 1].tolist()) <= {-1, 2}
    assert 2 in choices[:, 1]


def test_variants_are_parts_of_the_best_choice():
    gains = torch.ones((12, 2, 1)) * torch.tensor([1.0, 2.0]).reshape(1, 2, 1)
    choices = choose(torch.zeros(1), gains, rounds=4, variants=6, generator=generator())
    assert len(choices) > 1
    assert np.isin(choices.numpy(), [-1, 1]).all()
    assert (choices == 1).all(dim=1).any()
