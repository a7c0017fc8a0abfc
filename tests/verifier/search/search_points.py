"""Which points lie in which parts, computed from the network alone."""

import numpy as np

from verifier.bounds import BoundMethod, BoundOptions, analyse_region
from verifier.canonical import Affine, Relu
from verifier.region import Box
from verifier.search.frontier import NamedSplit
from verifier.search.record import Record


def alternatives(canonical, node, values):
    """(points, windows, width + 1): every candidate of every window at each point, then the floor; -inf where absent."""
    held = canonical.nodes[node]
    z = np.pad(values[held.input], ((0, 0), (0, 1)), constant_values=-np.inf)
    is_relu = isinstance(held, Relu)
    windows = np.arange(held.size)[:, None] if is_relu else held.windows
    floor = 0.0 if is_relu or held.has_floor else -np.inf
    return np.concatenate([z[:, windows], np.full((len(z), held.size, 1), floor)], axis=2)


def inside(canonical, splits, points):
    """Which points (bool (points,)) satisfy all of these named splits; ties satisfy both sides."""
    values = canonical.evaluate(points)
    found = np.ones(len(points), dtype=bool)
    for split in splits:
        z = alternatives(canonical, split.node, values)[:, split.entry]
        in_set = np.array([split.alternatives >> i & 1 == 1 for i in range(z.shape[1])])
        best_in, best_out = (np.where(chosen, z, -np.inf).max(axis=1) for chosen in (in_set, ~in_set))
        found &= best_in >= best_out if split.wins else best_out >= best_in
    return found


def covered(canonical, parts, points):
    """Which points satisfy all splits of some part."""
    return np.any([inside(canonical, splits, points) for splits in parts], axis=0)


def random_tree(canonical, generator, splits, forms=()):
    """A tree of random named splits, not all of which need make sense below others."""
    record = Record(10**6)
    leaves = [record.plant(forms)]
    for _ in range(splits):
        leaf = leaves.pop(int(generator.integers(len(leaves))))
        leaves += record.grow(leaf, random_split(canonical, generator))
    (tree,) = record.cover("")[0].trees
    return tree


def random_split(canonical, generator):
    """One side of a split of a window of the network."""
    node = int(generator.choice([i for i, held in enumerate(canonical.nodes) if not isinstance(held, Affine)]))
    held = canonical.nodes[node]
    entry = int(generator.integers(held.size))
    width = 1 if isinstance(held, Relu) else held.windows.shape[1]
    real = [i for i in range(width) if isinstance(held, Relu) or held.windows[entry, i] >= 0]
    real += [width] if isinstance(held, Relu) or held.has_floor else []
    size = int(generator.integers(1, len(real)))
    chosen = sum(1 << int(i) for i in generator.choice(real, size, replace=False))
    return NamedSplit(node, entry, chosen, bool(generator.integers(2)))


def region_around(canonical, centre, radius, method=BoundMethod.INTERVAL):
    box = Box(np.clip(centre - radius, 0, 1), np.clip(centre + radius, 0, 1))
    return analyse_region(canonical, box, options=BoundOptions(method=method))


def points_in(region, generator, count=300):
    return generator.uniform(region.lower, region.upper, (count, len(region.lower)))
