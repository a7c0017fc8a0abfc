"""Images, masks, widths and layers files: what is read is exactly what was meant."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aureole import images
from aureole.exits import UsageError
from aureole.layers_file import layers_object, read_layers
from aureole.questions import object_pixels
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood, layer_distances

SHAPE = (1, 5, 7)


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65_535)])
def test_png_pixels_are_divided_by_their_full_scale(tmp_path, dtype, full):
    raw = np.linspace(0, full, 35).astype(dtype).reshape(5, 7)
    Image.fromarray(raw).save(tmp_path / "grey.png")
    read = images.read_image(str(tmp_path / "grey.png"), SHAPE)
    assert read.dtype == np.float32
    assert np.array_equal(read[0], raw.astype(np.float32) / np.float32(full))


def test_colour_png(tmp_path):
    raw = np.arange(105, dtype=np.uint8).reshape(5, 7, 3)
    Image.fromarray(raw).save(tmp_path / "rgb.png")
    read = images.read_image(str(tmp_path / "rgb.png"), (3, 5, 7))
    assert np.array_equal(read, np.moveaxis(raw, 2, 0).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_palettes_and_transparency_are_refused(tmp_path, mode):
    Image.new(mode, (7, 5)).save(tmp_path / "odd.png")
    with pytest.raises(InputError, match=f"mode {mode}"):
        images.read_image(str(tmp_path / "odd.png"), SHAPE)


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match="not a readable NPY"):
        images.read_image(str(tmp_path / "objects.npy"), SHAPE)


def test_npz_is_refused(tmp_path):
    np.savez(tmp_path / "several.npz", a=np.zeros(SHAPE))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    with pytest.raises(InputError, match="NPZ"):
        images.read_image(str(tmp_path / "several.npy"), SHAPE)


def test_npy_and_png_bytes_round_trip(tmp_path):
    picture = (np.arange(35) / 255).astype(np.float32).reshape(SHAPE)
    (tmp_path / "exact.npy").write_bytes(images.npy_bytes(picture))
    (tmp_path / "exact.png").write_bytes(images.png_bytes(picture))
    for name in ("exact.npy", "exact.png"):
        assert np.array_equal(images.read_image(str(tmp_path / name), SHAPE), picture)
    assert images.png_bytes(np.zeros((2, 5, 7))) is None


def test_shipped_images_are_read_bit_for_bit():
    from nets import shipped

    assert np.array_equal(images.read_image("shipped:3", (1, 64, 64)), shipped.images().images[3])


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_masks(tmp_path, kind):
    marked = np.zeros((5, 7), np.bool_)
    marked[1:3, 2:5] = True
    path = tmp_path / f"mask.{kind}"
    if kind == "png":
        Image.fromarray(marked.astype(np.uint8) * 255).save(path)
    else:
        np.save(path, marked)
    assert np.array_equal(images.read_mask(path, SHAPE), marked)
    assert np.array_equal(object_pixels(str(path), np.zeros(SHAPE)), marked)
    assert np.array_equal(object_pixels("1,2,3,5", np.zeros(SHAPE)), marked)


def test_ink_and_shipped_objects_agree():
    from nets import shipped

    stored = shipped.images()
    image = stored.images[0].astype(np.float64)
    for digit in (0, 1):
        by_mask = object_pixels(f"shipped:0:{digit}", image)
        assert np.array_equal(by_mask, stored.masks[0][digit])
        assert np.mean(object_pixels(f"ink:{digit}", image) == by_mask) > 0.99
    for wrong in ("ink:2", "ink:x", "shipped:0:2", "shipped:0"):
        with pytest.raises(UsageError):
            object_pixels(wrong, image)


@given(seed=st.integers(0, 10_000))
def test_layers_files_round_trip_exactly(tmp_path_factory, seed):
    random = np.random.default_rng(seed)
    mask = random.random((5, 7)) < 0.2
    mask[random.integers(5), random.integers(7)] = True
    epsilons = random.random(int(layer_distances(mask).max()) + 1)
    image = random.random(SHAPE)
    path = tmp_path_factory.mktemp("layers") / "n.json"
    path.write_text(json.dumps(layers_object(LayeredNeighbourhood(image, mask, epsilons))))
    again = read_layers(path, image)
    assert np.array_equal(again.pixels, mask)
    assert np.array_equal(again.epsilons, epsilons)
