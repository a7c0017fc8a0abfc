"""JPEG as a purification step, and straight-through gradients past it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from attacks.jpeg import Purified, jpeg
from verifier.errors import InputError


@pytest.fixture
def images():
    return np.random.default_rng(0).random((3, 1, 16, 16))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_what_pillow_decodes(channels):
    images = np.random.default_rng(1).random((2, channels, 16, 24))
    coded = jpeg(images, 75)
    assert coded.shape == images.shape
    for image, ours in zip(images, coded, strict=True):
        pixels = np.rint(image * 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)).save(
            buffer, "JPEG", quality=75, subsampling=0
        )
        wanted = np.asarray(Image.open(buffer)).astype(np.float32) / 255
        np.testing.assert_array_equal(ours, wanted[None] if channels == 1 else wanted.transpose(2, 0, 1))


def test_lower_quality_changes_images_more(images):
    smooth = np.broadcast_to(np.linspace(0, 1, 16), images.shape) * 0.5 + 0.2 * images
    errors = [np.abs(jpeg(smooth, quality) - smooth).mean() for quality in (100, 75, 20, 5)]
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < errors[-1]


def test_rows_do_not_influence_one_another(images):
    np.testing.assert_array_equal(jpeg(images, 50)[1:2], jpeg(images[1:2], 50))


def test_a_purified_network_scores_coded_images_and_passes_gradients(images):
    weight = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))

    def network(batch):
        return torch.relu(batch.flatten(1) @ weight.T) ** 2

    points = torch.from_numpy(images).float().requires_grad_()
    scores = Purified(network, 60)(points)
    coded = torch.from_numpy(jpeg(images.astype(np.float32), 60)).requires_grad_()
    assert torch.equal(scores, network(coded))
    assert not torch.allclose(scores, network(points))
    (gradient,) = torch.autograd.grad(scores.sum(), points)
    # The network's gradient at the coded image, handed through unchanged.
    (wanted,) = torch.autograd.grad(network(coded).sum(), coded)
    assert torch.equal(gradient, wanted)
    assert gradient.abs().sum() > 0


def test_misuse_is_refused(images):
    with pytest.raises(InputError, match="quality 0"):
        jpeg(images, 0)
    with pytest.raises(InputError, match="quality 101"):
        Purified(torch.nn.Identity(), 101)
    with pytest.raises(InputError, match="shape"):
        jpeg(np.zeros((1, 2, 8, 8)), 75)
    images[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        jpeg(images, 75)
