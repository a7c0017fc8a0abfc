"""What the mixed-perturbation paper measures: angles between perturbations, and how far apart classes lie."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from verifier.errors import InputError


def angles(first: Tensor, second: Tensor) -> Tensor:
    """The angle between two perturbations in degrees, (batch,); NaN where one of them is 0.

    Both are (batch, ...), of one shape; computed in float64.
    """
    rows = [part.flatten(1).to(torch.float64) for part in (first, second)]
    lengths = [row.norm(dim=1) for row in rows]
    cosines = (rows[0] * rows[1]).sum(dim=1) / (lengths[0] * lengths[1])
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))


def angle_deviation(first: Tensor, second: Tensor) -> float:
    """The standard deviation over images of the angle between two perturbations, in degrees (divisor n).

    Images where a perturbation is 0 are left out; NaN if none is left.
    """
    found = angles(first, second)
    found = found[~found.isnan()]
    return float(found.std(correction=0)) if len(found) else float("nan")


def inter_class_variance(points: Tensor, classes: Tensor) -> float:
    """The mean over ordered pairs of different classes of the mean Euclidean distance between their points.

    For images with several labels a class is a label set, under a number of its own.

    Args:
        points: (n, ...), flattened per point.
        classes: (n,), integers.

    Raises:
        InputError: There are fewer than two classes.
    """
    flat = points.flatten(1)
    groups = [flat[classes == value] for value in classes.unique()]
    if len(groups) < 2:
        raise InputError(f"inter-class variance: got {len(groups)} classes, wanted at least 2")
    # Distances are symmetric, so unordered pairs have the same mean as ordered ones.
    means = [
        torch.cdist(first, second, compute_mode="use_mm_for_euclid_dist").mean(dtype=torch.float64)
        for first, second in itertools.combinations(groups, 2)
    ]
    return float(torch.stack(means).mean())
