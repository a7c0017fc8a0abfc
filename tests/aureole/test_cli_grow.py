"""`aureole grow` beyond one object and one label: zones, sets, evidence."""

import json
from pathlib import Path

import numpy as np
import pytest

from aureole.exits import ExitCode

GROW = ("--target", "1", "--object", "0,0,6,3", "--timeout", "6", "--json")


def printed(ended, check_report):
    return check_report(json.loads(ended.out))


def test_evidence_bound_and_gap(aureole, check_report, halves, image):
    report = printed(aureole("grow", halves, image, *GROW, "--corners", "5", "--step", "0.05"), check_report)
    assert report["is_proved"]
    assert report["upper_bound"] >= report["weighted_size"] > 0
    assert report["gap"] == pytest.approx(1 - report["weighted_size"] / report["upper_bound"])
    layers = len(report["weights"])
    named = report["saturated_layers"] + report["excluded_layers"] + report["undecided_layers"]
    assert sorted(named) == list(range(layers))
    assert report["is_maximal"] == (not report["undecided_layers"])
    assert sum(report["queries"].values()) > 0
    evidence = np.load(report["files"]["evidence"])
    assert evidence["layers"].tolist() == report["excluded_layers"]
    assert [limit["layer"] for limit in report["limits"]] == report["excluded_layers"]
    assert all(limit["margin_lower"] > 0 and limit["step"] == 0.05 for limit in report["limits"])
    assert Path(report["files"]["limits"]).read_bytes().startswith(b"\x89PNG")
    centre = np.load(image) if str(image).endswith(".npy") else None
    epsilons = np.array(report["neighbourhood"]["epsilons"])
    for layer, shown in zip(evidence["layers"], evidence["images"], strict=True):
        assert shown.shape == (1, 6, 6)
        if centre is not None:
            change = np.abs(shown - centre.reshape(1, 6, 6)).max()
            assert change <= max(epsilons.max(), epsilons[layer] + 0.05) + 1e-6


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--bands", "0,1-"), ["layer 0", "layers 1-"]),
        (("--bands", "0-", "--sides", "darker"), ["layers 0- darker"]),
        (
            ("--object", "0,5,6,6", "--fixed", "0,3,6,5", "--bands", "0,1-", "--weights", "area"),
            ["object 1 layer 0", "object 2 layer 0"],
        ),
        (("--bands", "0,1-", "--weights", "volume"), ["layer 0", "layers 1-"]),
    ],
)
def test_zones_are_grown_and_read_back(aureole, check_report, halves, image, words, names):
    report = printed(aureole("grow", halves, image, *GROW, *words, "--corners", "3"), check_report)
    assert report["is_proved"]
    assert report["names"] == names
    layers = report["files"]["layers"]
    check_report(json.loads(Path(layers).read_text()))
    assert json.loads(Path(layers).read_text())["schema"] == "aureole/zones/1"
    again = aureole("verify", halves, image, "--label", "1", "--layers", layers, "--json")
    assert printed(again, check_report)["verdict"] == "robust"


def test_a_set_of_targets(aureole, check_report, halves, image):
    report = printed(aureole("grow", halves, image, *GROW, "--target", "0", "--corners", "0"), check_report)
    assert report["targets"] == [1, 0]
    assert report["is_proved"]
    words = ("--property", "top-k-set", "--layers", report["files"]["layers"], "--json")
    assert printed(aureole("verify", halves, image, *words), check_report)["verdict"] == "robust"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bands", "0,2-"), "bands"),
        (("--step", "0"), "step"),
        (("--target", "1"), "each once"),
        (("--weights", "volumes"), "--weights"),
    ],
)
def test_words_out_of_range_are_usage_errors(aureole, halves, image, words, message):
    ended = aureole("grow", halves, image, *GROW, *words)
    assert ended.code == ExitCode.USAGE
    assert message in ended.err


def test_growing_by_volume_reports_the_mean_logarithm_of_steps(aureole, check_report, halves, image, tmp_path):
    words = ("--weights", "volume", "--corners", "3", "--trace", tmp_path / "trace.jsonl")
    report = printed(aureole("grow", halves, image, *GROW, *words), check_report)
    assert report["is_proved"]
    assert report["size_kind"] == "volume"
    # Layer 0 is the left half, three columns of six; the other layers are a column each.
    assert report["weights"] == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    steps = 1.0 + 255.0 * np.array(report["neighbourhood"]["epsilons"])
    size = np.dot(report["weights"], np.log(steps)) / np.log(256.0)
    assert report["weighted_size"] == pytest.approx(size)
    assert size <= report["upper_bound"] <= 1.0 + 1e-9
    other = aureole("grow", halves, image, *GROW, "--weights", "area", "--trace", tmp_path / "trace.jsonl")
    assert other.code == ExitCode.DATA
    assert "its size differ" in other.err
    shown = aureole("grow", halves, image, *GROW[:-1], "--weights", "volume", "--bands", "0-", "--corners", "0")
    assert "volume in logarithms" in shown.out
