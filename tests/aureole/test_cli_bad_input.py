"""Bad use and bad input: the right exit code, one line on stderr, nothing on stdout, nothing written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aureole.exits import ExitCode

VERIFY = ("--label", "1", "--eps", "0.1")


def refuses(ended, code, *fragments, out=Path("out")):
    assert ended.code == code, ended
    assert ended.out == ""
    assert ended.err.startswith("aureole: ")
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err
    for fragment in fragments:
        assert fragment in ended.err
    assert not out.exists()


def test_missing_network(aureole, image):
    refuses(aureole("verify", "nowhere.onnx", image, *VERIFY), ExitCode.NO_INPUT, "nowhere.onnx", "no such file")


@pytest.mark.parametrize("content", [b"", b"not a protobuf at all", b"\x08\x08"])
def test_corrupt_network(aureole, tmp_path, image, content):
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(content)
    refuses(aureole("verify", path, image, *VERIFY), ExitCode.DATA, "corrupt.onnx")


def test_truncated_network(aureole, halves, image):
    halves.write_bytes(halves.read_bytes()[:-40])
    refuses(aureole("verify", halves, image, *VERIFY), ExitCode.DATA, "halves.onnx")


def test_a_folder_is_no_network(aureole, tmp_path, image):
    refuses(aureole("verify", tmp_path, image, *VERIFY), ExitCode.DATA, "folder")


def test_unsupported_op_is_named_by_its_node(aureole, strange, image):
    refuses(aureole("verify", strange, image, *VERIFY), ExitCode.DATA, "odd_one", "Sin")


def test_missing_image(aureole, halves):
    refuses(aureole("verify", halves, "nowhere.png", *VERIFY), ExitCode.NO_INPUT, "nowhere.png")
    refuses(aureole("verify", halves, "nowhere.npy", *VERIFY), ExitCode.NO_INPUT, "nowhere.npy")


def broken(kind):
    good = np.full((1, 6, 6), 0.5, np.float32)
    return {
        "another shape": good[:, :5],
        "another rank": np.zeros((2, 1, 6, 6), np.float32),
        "integers": np.full((1, 6, 6), 128, np.uint8),
        "booleans": good > 0,
        "above 1": good + 1,
        "below 0": good - 1,
        "NaN": np.where(np.arange(36).reshape(1, 6, 6) == 7, np.nan, good).astype(np.float32),
        "infinite": np.where(np.arange(36).reshape(1, 6, 6) == 7, np.inf, good).astype(np.float32),
        "complex": good.astype(np.complex64),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "fragment"),
    [
        ("another shape", "shape"),
        ("another rank", "shape"),
        ("integers", "dtype uint8"),
        ("booleans", "dtype bool"),
        ("above 1", "[0, 1]"),
        ("below 0", "[0, 1]"),
        ("NaN", "NaN"),
        ("infinite", "infinite"),
        ("complex", "dtype complex64"),
    ],
)
def test_unusable_image(aureole, tmp_path, halves, kind, fragment):
    path = tmp_path / "broken.npy"
    np.save(path, broken(kind))
    refuses(aureole("verify", halves, path, *VERIFY), ExitCode.DATA, fragment)


@pytest.mark.parametrize("name", ["garbage.npy", "garbage.png", "garbage.jpg", "garbage"])
def test_garbage_image(aureole, tmp_path, halves, name):
    path = tmp_path / name
    path.write_bytes(b"garbage")
    refuses(aureole("verify", halves, path, *VERIFY), ExitCode.DATA, name)


def test_truncated_png(aureole, tmp_path, halves):
    path = tmp_path / "cut.png"
    Image.fromarray(np.full((6, 6), 9, np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    refuses(aureole("verify", halves, path, *VERIFY), ExitCode.DATA, "cut.png")


def test_colour_png_for_a_grey_network(aureole, tmp_path, halves):
    path = tmp_path / "colour.png"
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(path)
    refuses(aureole("verify", halves, path, *VERIFY), ExitCode.DATA, "shape")


@pytest.mark.parametrize("index", ["100", "-1", "x", ""])
def test_unknown_shipped_image(aureole, index):
    refuses(aureole("verify", "strided3-none", f"shipped:{index}", *VERIFY), ExitCode.USAGE, "shipped")


@pytest.mark.parametrize("label", ["-1", "4", "99"])
def test_label_out_of_range(aureole, halves, image, label):
    refuses(aureole("verify", halves, image, "--label", label, "--eps", "0.1"), ExitCode.USAGE, "label", "0 to 3")


@pytest.mark.parametrize("k", ["0", "-2", "5"])
@pytest.mark.parametrize("kind", ["stays-in", "stays-out", "top-k-set"])
def test_k_out_of_range(aureole, halves, image, k, kind):
    refuses(aureole("verify", halves, image, *VERIFY, "--k", k, "--property", kind), ExitCode.USAGE, "k: got", "1 to 3")


def test_k_equal_to_the_number_of_labels(aureole, halves, image):
    for command in (("verify", halves, image, *VERIFY), ("labels", halves, image, "--eps", "0.1")):
        refuses(aureole(*command, "--k", "4"), ExitCode.USAGE, "every label is always in")


def test_missing_label(aureole, halves, image):
    refuses(aureole("verify", halves, image, "--eps", "0.1"), ExitCode.USAGE, "--label")


@pytest.mark.parametrize("epsilon", ["-0.1", "nan", "inf", "-inf"])
def test_bad_epsilon(aureole, halves, image, epsilon):
    refuses(aureole("verify", halves, image, "--label", "1", f"--eps={epsilon}"), ExitCode.USAGE, "--eps")


@pytest.mark.parametrize(
    "given", [(), ("--eps", "0.1", "--widths", "w.npy"), ("--widths", "w.npy", "--layers", "l.json")]
)
def test_exactly_one_region(aureole, halves, image, given):
    refuses(aureole("verify", halves, image, "--label", "1", *given), ExitCode.USAGE, "exactly one")


@pytest.mark.parametrize("timeout", ["-1", "nan"])
def test_bad_time_limit(aureole, halves, image, timeout):
    refuses(aureole("verify", halves, image, *VERIFY, f"--timeout={timeout}"), ExitCode.USAGE, "--timeout")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--solver", "cplex"),
        ("--engine", "magic"),
        ("--property", "nice"),
        ("--k", "two"),
        ("--nonsense",),
        ("--seed", "-1"),
    ],
)
def test_unknown_words(aureole, halves, image, wrong):
    refuses(aureole("verify", halves, image, *VERIFY, *wrong), ExitCode.USAGE, wrong[0])


def test_a_solver_for_an_engine_without_one(aureole, halves, image):
    refuses(
        aureole("verify", halves, image, *VERIFY, "--engine", "bounds", "--solver", "highs"), ExitCode.USAGE, "--solver"
    )


def test_unavailable_solver(aureole, halves, image, monkeypatch):
    from verifier.milp.solvers import registry

    missing = registry.SolverInfo(registry.SolverName.SCIP, "", False, "not installed", "pip install pyscipopt")
    monkeypatch.setattr(registry, "probe", lambda _name: missing)
    ended = aureole("verify", halves, image, *VERIFY, "--engine", "milp", "--solver", "scip")
    refuses(ended, ExitCode.UNAVAILABLE, "scip", "pip install pyscipopt")


def test_unknown_command_and_missing_arguments(aureole, halves):
    refuses(aureole("conquer"), ExitCode.USAGE, "conquer")
    refuses(aureole("verify", halves), ExitCode.USAGE, "IMAGE")


def test_out_that_is_a_file(aureole, tmp_path, halves, image):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for out in (taken, taken / "below"):
        refuses(aureole("verify", halves, image, *VERIFY, "--out", out), ExitCode.USAGE, "--out")
    assert taken.read_text() == "mine"


@pytest.mark.parametrize(
    ("widths", "fragment"),
    [
        (np.full((6, 6), -0.1), "negative"),
        (np.full((6, 6), np.nan), "NaN"),
        (np.full((5, 6), 0.1), "shape"),
        (np.full((6, 6), 1), "dtype"),
    ],
)
def test_bad_widths(aureole, tmp_path, halves, image, widths, fragment):
    path = tmp_path / "widths.npy"
    np.save(path, widths)
    refuses(aureole("verify", halves, image, "--label", "1", "--widths", path), ExitCode.DATA, fragment)


def test_missing_widths_and_layers(aureole, halves, image):
    for option in ("--widths", "--layers"):
        ended = aureole("verify", halves, image, "--label", "1", option, "nowhere.npy")
        refuses(ended, ExitCode.NO_INPUT, "nowhere.npy")


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"schema": "aureole/layers/2"}',
        '{"schema": "aureole/layers/1", "mask": ["#."], "epsilons": [0.1, 0.2]}',
        '{"schema": "aureole/layers/1", "mask": ["......", "......", "......", "......", "......", "......"], "epsilons": []}',
        '{"schema": "aureole/layers/1", "mask": ["#.....", "......", "......", "......", "......", "......"], "epsilons": [0.1]}',
        '{"schema": "aureole/layers/1", "mask": ["#....x", "......", "......", "......", "......", "......"], "epsilons": [0.1]}',
        '{"schema": "aureole/layers/1", "mask": ["######", "######", "######", "######", "######", "######"], "epsilons": [-0.1]}',
        '{"schema": "aureole/layers/1", "mask": ["######", "######", "######", "######", "######", "######"], "epsilons": [NaN]}',
        '{"schema": "aureole/layers/1", "mask": ["######", "######", "######", "######", "######", "######"], "epsilons": [true]}',
        '{"schema": "aureole/layers/1", "mask": ["######", "######", "######", "######", "######", "######"], "epsilons": "0.1"}',
    ],
)
def test_bad_layers(aureole, tmp_path, halves, image, content):
    path = tmp_path / "bad.json"
    path.write_text(content)
    refuses(aureole("verify", halves, image, "--label", "1", "--layers", path), ExitCode.DATA, "bad.json")


def test_softmax_has_no_thresholds(aureole, headed, image):
    ended = aureole("verify", headed("Softmax"), image, "--eps", "0.1", "--property", "thresholds")
    refuses(ended, ExitCode.USAGE, "softmax", "every logit")


@pytest.mark.parametrize("threshold", ["0", "1", "1.5", "nan"])
def test_a_sigmoid_threshold_is_a_probability(aureole, headed, image, threshold):
    words = ("--eps", "0.1", "--property", "thresholds", "--threshold", threshold)
    refuses(aureole("verify", headed("Sigmoid"), image, *words), ExitCode.USAGE, "--threshold")


def test_too_many_flips(aureole, halves, image):
    ended = aureole("verify", halves, image, "--eps", "0.1", "--property", "thresholds", "--flips", "4")
    refuses(ended, ExitCode.USAGE, "flips")


GROW = ("--target", "1", "--timeout", "5")


def test_empty_mask(aureole, tmp_path, halves, image):
    path = tmp_path / "empty.npy"
    np.save(path, np.zeros((6, 6), np.bool_))
    refuses(aureole("grow", halves, image, *GROW, "--object", path), ExitCode.DATA, "no pixel is marked")


def test_mask_of_another_size(aureole, tmp_path, halves, image):
    path = tmp_path / "small.png"
    Image.fromarray(np.full((5, 6), 255, np.uint8)).save(path)
    refuses(aureole("grow", halves, image, *GROW, "--object", path), ExitCode.DATA, "(6, 6)")


def test_missing_mask(aureole, halves, image):
    refuses(aureole("grow", halves, image, *GROW, "--object", "nowhere.png"), ExitCode.NO_INPUT, "nowhere.png")


@pytest.mark.parametrize("box", ["0,0,7,6", "3,3,3,6", "-1,0,2,2"])
def test_bad_box(aureole, halves, image, box):
    refuses(aureole("grow", halves, image, *GROW, f"--object={box}"), ExitCode.USAGE, "box")


def test_grow_refuses_a_target_outside_the_clean_top_k(aureole, halves, image, mask):
    refuses(aureole("grow", halves, image, "--target", "2", "--object", mask), ExitCode.DATA, "label 2")


@pytest.mark.parametrize("weights", ["1,x", "-1", "nan", ""])
def test_bad_weights(aureole, halves, image, mask, weights):
    refuses(
        aureole("grow", halves, image, *GROW, "--object", mask, f"--weights={weights}"), ExitCode.USAGE, "--weights"
    )


def test_wrong_number_of_weights(aureole, halves, image, mask):
    refuses(aureole("grow", halves, image, *GROW, "--object", mask, "--weights", "1,1"), ExitCode.DATA, "weights")


def test_grow_target_and_k_out_of_range(aureole, halves, image, mask):
    refuses(aureole("grow", halves, image, "--target", "7", "--object", mask), ExitCode.USAGE, "label")
    refuses(aureole("grow", halves, image, *GROW, "--object", mask, "--k", "4"), ExitCode.USAGE, "k: got 4")


def test_train_refuses_unknown_words(aureole, tmp_path):
    refuses(aureole("train", "resnet"), ExitCode.USAGE, "resnet")
    refuses(aureole("train", "cnn4k", "--defence", "magic"), ExitCode.USAGE, "magic")
    refuses(aureole("train", "cnn4k", "--mnist-dir", tmp_path / "nowhere"), ExitCode.USAGE, "nowhere")


def test_train_refuses_a_folder_without_mnist(aureole, tmp_path):
    refuses(aureole("train", "cnn4k", "--mnist-dir", tmp_path, "--steps", "1"), ExitCode.DATA, "training digits")


def test_json_keeps_stdout_empty_on_errors(aureole, halves):
    refuses(aureole("verify", halves, "nowhere.npy", *VERIFY, "--json"), ExitCode.NO_INPUT, "nowhere.npy")


def test_a_result_that_cannot_be_written(aureole, tmp_path, halves, image, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aureole.images.write_bytes", full)
    ended = aureole("verify", halves, image, "--label", "1", "--eps", "0.6")
    refuses(ended, ExitCode.NO_OUTPUT, "No space left on device")
