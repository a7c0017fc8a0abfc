import numpy as np
from planted_networks import two_hills

from attacks.margin import MarginAttack, MarginAttackOptions
from verifier import check
from verifier.deadline import Deadline


def best_margin(rounds: int) -> float:
    query = two_hills(2)
    options = MarginAttackOptions(restarts=rounds)
    images = MarginAttack(options, seed=0)(query, starts=np.zeros((0, *query.region.shape)), deadline=Deadline())
    assert all(query.region.contains(image) for image in images)
    return max(check.margin_lower_bound(query.network, query.property, image.astype(np.float64)) for image in images)


def test_rounds_find_the_hills_that_no_gradient_leads_to():
    assert best_margin(0) < 0
    assert best_margin(1) > 0
