"""Looks for a counterexample just outside a neighbourhood, where growing it met none."""

import numpy as np

from attacks.margin import MarginAttack, MarginAttackOptions
from verifier.check import replay
from verifier.deadline import Deadline
from verifier.layered import LayeredNeighbourhood
from verifier.network import Network
from verifier.property import Property
from verifier.query import Query
from verifier.verdict import Counterexample

_FIRST_STEP = 8.0 / 255.0
_BISECTIONS = 4
# Many quick attacks at different distances find a nearer image than few thorough ones.
_QUICK = MarginAttackOptions(scout_steps=10, steps=15, restarts=0, max_subsets=8)


def find_outside(
    network: Network, neighbourhood: LayeredNeighbourhood, asked: Property, *, seed: int, deadline: Deadline
) -> Counterexample | None:
    """A replayed counterexample in the neighbourhood with every epsilon enlarged, by as little as a few attacks find.

    The enlargement doubles from 8/255 until an attack succeeds, then is bisected between the last failure and that success.
    None where time ends first, or where no attack succeeds with every pixel unrestricted.
    """
    attack = MarginAttack(_QUICK, seed)

    def attempt(by: float) -> Counterexample | None:
        wider = neighbourhood.with_epsilons(np.minimum(neighbourhood.epsilons + by, 1.0))
        query = Query(network, wider.box(), asked)
        found = attack(query, starts=np.array(neighbourhood.image)[None], deadline=deadline)
        replays = (replay(query, image, "attack outside") for image in found)
        return next((counterexample for counterexample in replays if counterexample is not None), None)

    failed, by, nearest = 0.0, _FIRST_STEP, attempt(_FIRST_STEP)
    while nearest is None and by < 1.0 and not deadline.has_expired:
        failed, by = by, min(2.0 * by, 1.0)
        nearest = attempt(by)
    for _ in range(_BISECTIONS if nearest is not None else 0):
        middle = 0.5 * (failed + by)
        closer = None if deadline.has_expired else attempt(middle)
        failed, by, nearest = (failed, middle, closer) if closer is not None else (middle, by, nearest)
    return nearest
