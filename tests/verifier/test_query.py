import numpy as np
import pytest
from network_strategies import chain

from verifier.errors import InputError
from verifier.network import Dense, Head, Network
from verifier.property import keeps_thresholds, stays_in_top_k
from verifier.query import Query
from verifier.region import Box

BOX = Box(np.zeros(2), np.ones(2))


def network(head: Head = Head.NONE) -> Network:
    return chain((2,), Dense(np.ones((3, 2), np.float32), np.zeros(3, np.float32)), head=head)


def test_matching_shapes_make_a_query() -> None:
    query = Query(network(), BOX, stays_in_top_k(0, 1, 3))
    assert query.region is BOX


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"region: got shape \(3,\), wanted the network's input \(2,\)"):
        Query(network(), Box(np.zeros(3), np.ones(3)), stays_in_top_k(0, 1, 3))
    with pytest.raises(InputError, match="reads 4 labels, the network has 3"):
        Query(network(), BOX, stays_in_top_k(0, 1, 4))


@pytest.mark.parametrize("head", [Head.SOFTMAX, Head.LOG_SOFTMAX])
def test_thresholds_after_a_softmax_are_refused(head: Head) -> None:
    with pytest.raises(InputError, match=f"after the {head.value}"):
        Query(network(head), BOX, keeps_thresholds([1, 0, 0], [0.0, 0.0, 0.0]))


@pytest.mark.parametrize("head", list(Head))
def test_rankings_fit_every_head_and_thresholds_the_others(head: Head) -> None:
    Query(network(head), BOX, stays_in_top_k(0, 1, 3))
    if head in (Head.NONE, Head.SIGMOID):
        Query(network(head), BOX, keeps_thresholds([1, 0, 0], [0.0, 0.0, 0.0]))
