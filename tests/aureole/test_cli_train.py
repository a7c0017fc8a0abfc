"""`aureole train` on made-up digits: a short run leaves a network that the other commands read."""

import json

from synthetic_digits import synthetic_arrays, write_idx


def test_train_leaves_a_network_and_its_record(aureole, tmp_path):
    for prefix, count, seed in (("train10k", 200, 0), ("t10k", 100, 1)):
        images, labels = synthetic_arrays(count, seed)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    out = tmp_path / "trained"
    words = ("train", "strided2", "--mnist-dir", tmp_path, "--steps", "2", "--seed", "3", "--out", out)
    ended = aureole(*words)
    assert ended.code == 0, ended.err
    record = json.loads((out / "strided2-none.json").read_text())
    assert (record["seed"], record["options"]["schedule"]["steps"]) == (3, 2)
    assert aureole("info", out / "strided2-none.onnx").code == 0
