"""A counterexample just outside a proved neighbourhood, for people to see how it ends."""

import numpy as np

from synth.ledger import Ledger

BISECTIONS = 4


def enclose(ledger: Ledger, step: float) -> None:
    """Looks for a counterexample near the neighbourhood, in all layers enlarged alike, by as little as a few attacks find.

    The enlargement doubles from `step` until an attack succeeds, then is bisected between the last failure and that success.
    Stops where a known counterexample is at least as near, where time ends, or where nothing is found with every pixel
    unrestricted.
    """

    def is_nearer(by: float) -> bool:
        nearest = ledger.nearest_cut()
        return nearest is not None and ledger.excess(nearest) <= by

    def is_outside(by: float) -> bool:
        return is_nearer(by) or ledger.falsify(np.minimum(ledger.robust + by, 1.0), is_quick=True) is not None

    failed, by = 0.0, step
    while not ledger.limits.deadline.has_expired and not is_outside(by):
        if (ledger.robust + by >= 1.0).all():
            return
        failed, by = by, 2.0 * by
    for _ in range(BISECTIONS):
        middle = 0.5 * (failed + by)
        if ledger.limits.deadline.has_expired or is_nearer(step):
            return
        failed, by = (failed, middle) if is_outside(middle) else (middle, by)
