"""The heat map is a PNG that shows the neighbourhood it was given."""

import io

import numpy as np
import pytest
from PIL import Image

from aureole.heatmap import HeatmapText, HeatPanel, draw_heatmap, draw_heatmaps
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood, layer_distances

TEXT = HeatmapText("tiny: label 1 stays in the top 2 (proved)", "image", "heat", "outside")


def neighbourhood(scale, channels=1):
    mask = np.zeros((12, 12), np.bool_)
    mask[4:7, 2:5] = True
    layers = int(layer_distances(mask).max()) + 1
    return LayeredNeighbourhood(np.full((channels, 12, 12), 0.3), mask, np.linspace(0, scale, layers))


def drawn(path, *arguments):
    draw_heatmap(*arguments)
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_panels(tmp_path, channels):
    path = tmp_path / "new" / "heat.png"
    shown = neighbourhood(0.5, channels)
    outside = np.clip(shown.image + 0.4, 0, 1)
    with_outside = drawn(path, shown, path, TEXT, outside)
    without = drawn(path, shown, path, TEXT)
    assert with_outside.shape == without.shape
    assert with_outside.shape[0] > 500
    assert (with_outside != without).any()


def test_other_epsilons_draw_another_picture(tmp_path):
    path = tmp_path / "heat.png"
    assert (drawn(path, neighbourhood(0.5), path, TEXT) != drawn(path, neighbourhood(0.1), path, TEXT)).any()


def test_all_zero_epsilons(tmp_path):
    path = tmp_path / "heat.png"
    drawn(path, neighbourhood(0.0), path, TEXT)


def test_two_channels_are_refused(tmp_path):
    with pytest.raises(InputError, match="channels"):
        draw_heatmap(neighbourhood(0.5, 2), tmp_path / "heat.png", TEXT)
    assert not list(tmp_path.iterdir())


def test_dollar_signs_in_names_are_no_formulas(tmp_path):
    path = tmp_path / "heat.png"
    drawn(path, neighbourhood(0.5), path, HeatmapText("$a^$", "$b^$", "$c^$", "$d^$"), neighbourhood(0.5).image)


def test_side_by_side(tmp_path):
    path = tmp_path / "many.png"
    rows = [[HeatPanel("left", neighbourhood(0.5)), HeatPanel("none", None)]]
    draw_heatmaps(rows, path, "both")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("rows", [[], [[]], [[HeatPanel("none", None)]], [[HeatPanel("one", neighbourhood(0.5))], []]])
def test_what_cannot_be_side_by_side_is_refused(tmp_path, rows):
    with pytest.raises(InputError, match="heat maps"):
        draw_heatmaps(rows, tmp_path / "many.png", "none")
    assert not list(tmp_path.iterdir())
