"""Replays in ONNX Runtime."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from onnx_strategies import floats, model_bytes, network_files, node, runtime_outputs

from verifier import runtime
from verifier.errors import ImportedNetworkError, InputError
from verifier.onnx_import import load_network_bytes

RNG = np.random.default_rng(11)


def small(seed: int = 0, batch: int | str = "batch"):
    weights = {"w": floats(np.random.default_rng(seed), 4, 3)}
    return load_network_bytes(
        model_bytes([node("MatMul", "image w", "scores")], (4,), weights, batch=batch), "small.onnx"
    )


@given(data=network_files())
@settings(max_examples=20)
def test_returns_the_files_output(data) -> None:
    network = load_network_bytes(data, "random.onnx")
    images = RNG.random((3, *network.input_shape), dtype=np.float32)
    scores = runtime.run(network, images)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, runtime_outputs(data, images), rtol=1e-5, atol=1e-5)


def test_an_image_alone_and_among_others_gets_the_same_scores() -> None:
    images = RNG.random((5, 4), dtype=np.float32)
    together = runtime.run(small(), images)
    alone = np.concatenate([runtime.run(small(), image[None]) for image in images])
    np.testing.assert_array_equal(together, alone)


def test_a_fixed_batch_of_one_takes_many_images() -> None:
    images = RNG.random((5, 4), dtype=np.float32)
    np.testing.assert_array_equal(runtime.run(small(batch=1), images), runtime.run(small(), images))


def test_no_images_give_no_scores() -> None:
    assert runtime.run(small(), np.zeros((0, 4), np.float32)).shape == (0, 3)


def test_the_head_is_included() -> None:
    network = load_network_bytes(model_bytes([node("Softmax", "image", "scores")], (4,)), "head.onnx")
    np.testing.assert_allclose(runtime.run(network, np.zeros((1, 4), np.float32)), 0.25)


@pytest.mark.parametrize("images", [np.zeros((1, 5), np.float32), np.zeros((1, 4), np.float64)])
def test_wrong_images_are_refused(images) -> None:
    # The annotation says float32; callers without run-time checks get our error.
    unchecked = getattr(runtime.run, "__wrapped__", runtime.run)
    with pytest.raises(InputError, match="wanted float32"):
        unchecked(small(), images)


def test_sessions_are_shared_by_hash_and_bounded() -> None:
    runtime._session.cache_clear()
    images = np.zeros((1, 4), np.float32)
    for seed in range(runtime._SESSIONS_KEPT + 4):
        network = small(seed)
        runtime.run(network, images)
        runtime.run(replace(network, onnx_bytes=bytes(bytearray(network.onnx_bytes))), images)
    info = runtime._session.cache_info()
    assert info.currsize == runtime._SESSIONS_KEPT
    assert info.misses == runtime._SESSIONS_KEPT + 4


def broken(data: bytes):
    return replace(small(), onnx_bytes=data, sha256=hashlib.sha256(data).hexdigest())


def test_a_file_that_does_not_load_is_a_clean_error() -> None:
    with pytest.raises(ImportedNetworkError, match=r"small\.onnx: ONNX Runtime cannot load it") as caught:
        runtime.run(broken(b"nonsense"), np.zeros((1, 4), np.float32))
    assert "\n" not in str(caught.value)


def test_a_file_that_does_not_run_is_a_clean_error() -> None:
    data = model_bytes([node("MatMul", "image w", "scores")], (5,), {"w": floats(RNG, 5, 3)})
    with pytest.raises(ImportedNetworkError, match=r"small\.onnx: ONNX Runtime cannot run it"):
        runtime.run(broken(data), np.zeros((1, 4), np.float32))


def test_another_number_of_labels_is_refused() -> None:
    data = model_bytes([node("MatMul", "image w", "scores")], (4,), {"w": floats(RNG, 4, 2)})
    with pytest.raises(ImportedNetworkError, match=r"returns float32 \(1, 2\), wanted float32 \(1, 3\)"):
        runtime.run(broken(data), np.zeros((1, 4), np.float32))
