"""Verdicts about random claims on random small networks, against the exact answer by linear programmes."""

import numpy as np
import pytest
from tiny_networks import exact_supremum, random_dense_network

from attacks.claims import Aim, Claim, ClaimKind, ClaimVerdict, Court, judge_claims
from attacks.claims.distance import enclosing_box
from attacks.metrics import Norm
from verifier.verify import verify

COURT = Court(
    lambda query, starts, deadline: verify(query, starts=starts, deadline=deadline),
    lambda query, _starts, deadline: verify(query, deadline=deadline),
)
AIMS = [
    Aim(4, (), (0,), 1, k=1),
    Aim(4, (), (0, 1), 2, k=2),
    Aim(4, (2,), (0,), 2, k=2),
    Aim(4, (), (0, 1, 2), 2, k=2),
    Aim(4, (1, 3), (), 2, k=2),
    Aim(4, (3,), (0, 1), 2, threshold=0.25),
]


@pytest.mark.parametrize("seed", range(2))
def test_verdicts_are_exact(seed):
    network, generator = random_dense_network(seed), np.random.default_rng(seed)
    clean = generator.random(network.input_shape).astype(np.float32)
    claims, reachable = [], []
    for place, aim in enumerate(AIMS):
        for bound in (0.05, 0.3):
            box = enclosing_box(clean, Norm.LINF, bound)
            ways = aim.ways(100)
            reachable.append(max(exact_supremum(network, way.property, box) for way in ways))
            claims.append(Claim(f"{place}", ClaimKind.FAILURE, "", clean, None, aim, Norm.LINF, bound))
    judgements = judge_claims(claims, network, COURT)
    for judgement, supremum in zip(judgements, reachable, strict=True):
        about = (judgement.claim.aim, judgement.claim.bound, supremum, judgement.reason)
        match judgement.verdict:
            case ClaimVerdict.CONFIRMED:
                assert supremum < 1e-9, about
            case ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE:
                assert supremum > -1e-9, about
            case _:
                # Only a supremum of 0, a tie, may stay open.
                assert abs(supremum) < 1e-6, about
    verdicts = {judgement.verdict for judgement in judgements}
    assert {ClaimVerdict.CONFIRMED, ClaimVerdict.REFUTED_BY_COUNTEREXAMPLE} <= verdicts
