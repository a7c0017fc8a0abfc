"""Networks with a counterexample that lies where no gradient leads."""

import numpy as np
from network_strategies import chain

from verifier.network import Conv, Dense, MaxPool, Relu, Reshape, Transpose
from verifier.property import stays_in_top_k
from verifier.query import Query
from verifier.region import Box


def two_hills(side: int = 4) -> Query:
    """Every pool window has two hills, and only with all windows on the higher, narrower one is the property violated.

    A window of pixels p, q is max(relu(p - q), relu(0.5 (q - p) + 0.45)): 1 at (1, 0) and 0.95 at (0, 1). The second candidate
    wins, and leads to (0, 1), wherever p - q < 0.3, so at the centre and at both extreme corners. Score 1 is the mean over all
    windows, score 0 so close to 1 that one window at 0.95 is too many.
    """
    windows = side * side
    hills = Conv(np.float32([[[[1.0, -1.0]]], [[[-0.5, 0.5]]]]), np.float32([0, 0.45]), (1, 2), (0,) * 4, (1, 1), 1)
    mean = np.zeros((2, windows), np.float32)
    mean[1] = 1.0 / windows
    network = chain(
        (1, side, 2 * side),
        hills,
        Relu(),
        Transpose((1, 2, 0)),
        MaxPool((1, 2), (1, 2), (0, 0, 0, 0), (1, 1)),
        Reshape((windows,)),
        Dense(mean, np.float32([1.0 - 0.025 / windows, 0.0])),
    )
    box = Box(np.zeros(network.input_shape), np.ones(network.input_shape))
    return Query(network, box, stays_in_top_k(0, 1, 2))
