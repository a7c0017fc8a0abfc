"""Pooling windows as indices into a flat (channels, height, width) vector."""

import numpy as np
from jaxtyping import Int


def window_indices(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int] = (1, 1),
) -> Int[np.ndarray, "size width"]:
    """The flat input index of every entry of every window, -1 where the entry lies outside the image.

    One row per output entry in C order of (channels, height, width), one column per kernel entry.
    """
    channels, height, width = in_shape
    _, height_out, width_out = out_shape
    y = np.arange(height_out)[:, None] * strides[0] + np.arange(kernel[0])[None, :] * dilations[0] - pads[0]
    x = np.arange(width_out)[:, None] * strides[1] + np.arange(kernel[1])[None, :] * dilations[1] - pads[1]
    # Axes: output row, output column, kernel row, kernel column.
    rows, columns = y[:, None, :, None], x[None, :, None, :]
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    plane = np.where(is_inside, rows * width + columns, -1).reshape(height_out * width_out, kernel[0] * kernel[1])
    first = (np.arange(channels) * height * width)[:, None, None]
    indices = np.where(plane >= 0, plane + first, -1).reshape(channels * len(plane), -1)
    return indices.astype(np.int64)
