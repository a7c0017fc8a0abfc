"""Every engine against enumeration of all activation patterns, on hundreds of tiny networks with convolutions, ReLU and pools."""

import importlib.util

import numpy as np
import pytest
from tiny_convolutions import exact, tiny_query

from attacks.margin import MarginAttack
from verifier import check
from verifier.evaluation import evaluate
from verifier.verdict import Robust, Unknown, Vulnerable
from verifier.verify import EngineChoice, VerifyOptions, verify

NETWORKS = 200
BATCH = 20
COMPLETE = (EngineChoice.AUTO, EngineChoice.SEARCH, EngineChoice.MILP)


def assert_agrees(outcome, supremum, query):
    match outcome.verdict:
        case Robust(certificate):
            assert supremum < 1e-9
            assert certificate.bound is None or certificate.bound >= supremum - 1e-6
        case Vulnerable(counterexample):
            assert supremum > -1e-9
            assert query.region.contains(counterexample.image)
            scores = evaluate(query.network, counterexample.image[None].astype(np.float64))
            assert float(query.property.margin(scores)[0]) > 0
            assert check.replay(query, counterexample.image, "test") is not None
        case Unknown(_, bound):
            assert bound >= supremum - 1e-6


@pytest.mark.parametrize("first", range(0, NETWORKS, BATCH))
def test_complete_engines_agree_with_enumeration(first, tmp_path):
    verdicts = []
    for seed in range(first, first + BATCH):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
        supremum = exact(query)
        for engine in COMPLETE[: 3 if seed % 2 else 2]:
            falsifier = MarginAttack(seed=seed) if seed % 2 else None
            outcome = verify(query, falsifier=falsifier, options=VerifyOptions(engine=engine))
            assert_agrees(outcome, supremum, query)
            verdicts.append(type(outcome.verdict))
            # Ties within tolerances are all that may stay open.
            assert not isinstance(outcome.verdict, Unknown) or abs(supremum) < 1e-4
    assert Robust in verdicts
    assert Vulnerable in verdicts


@pytest.mark.parametrize("first", range(0, NETWORKS, BATCH))
def test_incomplete_engines_never_contradict_enumeration(first, tmp_path):
    has_lirpa = importlib.util.find_spec("auto_LiRPA") is not None
    decided = 0
    for seed in range(first, first + BATCH):
        query = tiny_query(seed, tmp_path / f"{seed}.onnx")
        supremum = exact(query)
        # auto-LiRPA relaxes square pools alone.
        lirpa = [EngineChoice.AUTO_LIRPA] if has_lirpa and seed % 4 == 3 and first < 2 * BATCH else []
        for engine in (EngineChoice.BOUNDS, *lirpa):
            outcome = verify(query, options=VerifyOptions(engine=engine))
            assert_agrees(outcome, supremum, query)
            decided += not isinstance(outcome.verdict, Unknown)
    assert decided
