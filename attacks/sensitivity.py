"""How strongly each layer of pixels moves the target's score: vanilla gradients (Simonyan, Vedaldi and Zisserman 2013)."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from verifier.errors import InputError
from verifier.network import Network
from verifier.torch_network import TorchNetwork


def input_gradient(
    model: Callable[[Tensor], Tensor], image: Float[np.ndarray, "..."], target: int
) -> Float[np.ndarray, "..."]:
    """The gradient of the target's score (before softmax or sigmoid) with respect to the image, in float64."""
    with torch.enable_grad():
        point = torch.from_numpy(np.array(image, dtype=np.float64))[None].requires_grad_()
        gradient = torch.autograd.grad(model(point)[0, target], point)[0][0]
    return gradient.numpy()


def layer_means(
    values: Float[np.ndarray, "channels height width"], layers: Int[np.ndarray, "height width"]
) -> Float[np.ndarray, " layers"]:
    """The mean of |values| over the entries of each layer 0 .. max(layers), all channels together; 0 for an empty layer."""
    sizes = np.bincount(layers.ravel())
    totals = np.bincount(layers.ravel(), weights=np.abs(values).mean(axis=0).ravel())
    return totals / np.maximum(sizes, 1)


def layer_sensitivity(
    network: Network,
    image: Float[np.ndarray, "..."],
    layers: Int[np.ndarray, "height width"],
    target: int,
) -> Float[np.ndarray, " layers"]:
    """Each layer's mean |gradient| of the target's score at the image, divided by the largest, so in [0, 1].

    All zeros where the gradient vanishes everywhere. Source: Mour 2023, cutting weights "sensitivity".

    Raises:
        InputError: The image or the layers do not fit the network, the target is out of range, or the gradient is not finite.
    """
    if image.shape != network.input_shape or image.shape[1:] != layers.shape:
        raise InputError(
            f"sensitivity: image {image.shape} and layers {layers.shape} do not fit the input {network.input_shape}"
        )
    if not 0 <= target < network.labels:
        raise InputError(f"label: got {target}, wanted 0 to {network.labels - 1}")
    model = TorchNetwork(network, torch.device("cpu"), torch.float64)
    means = layer_means(input_gradient(model, image, target), layers)
    if not np.isfinite(means).all():
        raise InputError("sensitivity: the network's gradient at the image is not finite")
    largest = float(means.max())
    return means / largest if largest > 0 else means
