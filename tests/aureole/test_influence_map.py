"""The influence map of an image: what `grow-all` writes, what the function returns, and what is drawn."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import aureole as public
from aureole.commands import grow_all
from aureole.influence_picture import cell_text, draw_influence, draw_matrix
from aureole.influence_report import influence_from_report
from aureole.limit_picture import MOST_LIMITS, chosen_limits, draw_limits
from aureole.panels import new_figure, zone_mask
from synth.bands import parse_bands
from synth.goals import labels_survive
from synth.influence import Failure, Influence, InfluenceMap, Limit
from synth.zones import Sides, Zones
from verifier.errors import InputError

BANDS = parse_bands("0,1-")
OBJECTS = ("--object", "0,0,6,3", "--object", "0,3,6,6", "--bands", "0,1-", "--corners", "0", "--timeout", "60")
STEP = 0.01


@pytest.fixture
def halved(pixels):
    left = np.zeros(pixels.shape[1:], np.bool_)
    left[:, :3] = True
    return left, ~left


def planted(image, masks, sizes=(0.5, 0.75), labels=(0, 1)):
    """Both ordered pairs around real masks, with limits that are made up."""
    pairs = []
    for (perturbed, kept), size in zip(((0, 1), (1, 0)), sizes, strict=True):
        zones = Zones.of_objects(image.astype(np.float64), [masks[perturbed]], bands=BANDS)
        around = zones.neighbourhood(np.array([1.0, size / 2]))
        outside = np.clip(image - 0.3, 0, 1)
        limits = (Limit(1, zones.names[1], size / 2, STEP, 0.1, 0.1, outside),)
        pairs.append(
            Influence(perturbed, kept, labels[kept], around, True, True, size, 1.0, limits, (), ("layer 0",), None)
        )
    return InfluenceMap(image.astype(np.float64), masks, labels, tuple(pairs))


def test_grow_all_writes_the_matrix_and_the_picture(aureole, check_report, halves, tmp_path, pixels):
    folder = tmp_path / "images"
    folder.mkdir()
    np.save(folder / "a.npy", pixels)
    ended = aureole("grow-all", halves, folder, *OBJECTS)
    assert "influence map: out/halves-a-influence.png" in ended.out
    written = Path("out/halves-a-influence.json")
    content = check_report(json.loads(written.read_text()))
    assert content["labels"] == [0, 1]
    reports = [json.loads(line)["report"] for line in Path("out/grow-all.jsonl").read_text().splitlines()]
    assert content["weighted_size"] == [[None, reports[0]["weighted_size"]], [reports[1]["weighted_size"], None]]
    assert content["upper_bound"] == [[None, reports[0]["upper_bound"]], [reports[1]["upper_bound"], None]]
    # A changed left half never costs label 1 its place; the right half may lose 0.4 at most.
    assert content["pairs"][0]["unrestricted"] == ["layer 0"]
    limit = content["pairs"][0]["tightest"]
    assert limit["name"] == "layers 1-"
    assert limit["epsilon"] <= 0.4 < limit["epsilon"] + limit["step"] + 1e-6
    assert limit["margin_lower"] > 0
    assert limit in reports[0]["limits"]
    assert Path(content["picture"]).read_bytes().startswith(b"\x89PNG")
    # Written anew from what is kept, without growing; and the images of the limits are no condition.
    before = written.read_text()
    written.unlink()
    Path(reports[0]["files"]["evidence"]).unlink()
    aureole("grow-all", halves, folder, *OBJECTS)
    assert written.read_text() == before
    assert len(Path("out/grow-all.jsonl").read_text().splitlines()) == 2


def test_images_of_the_same_name_have_files_of_their_own():
    assert grow_all.stems_of("n.onnx", ["a.npy", "b/c.npy"]) == ["n-a", "n-c"]
    stems = grow_all.stems_of("n.onnx", ["x.npy[0]", "x.npy[1]", "b/x.npy", "shipped:3"])
    assert len(set(stems)) == 4
    assert stems[-1] == "n-shipped-3"


def test_the_function_names_pairs_without_an_answer(halves, pixels, halved):
    network = public.load_network(str(halves))
    found = public.influence_map(
        network, pixels, halved, labels=(0, 2), bands=BANDS, timeout=60, options=public.GrowOptions(corners=0)
    )
    # Label 2 is not among the image's own top 2, so nothing can keep it there.
    assert [(failure.perturbed, failure.kept) for failure in found.failures] == [(0, 1)]
    assert "label 2" in found.failures[0].reason
    (pair,) = found.pairs
    assert (pair.perturbed, pair.kept, pair.target, pair.is_proved) == (1, 0, 0, True)
    assert pair.upper_bound >= pair.weighted_size > 0


@pytest.mark.parametrize(
    ("changes", "message"), [({"labels": (0,)}, "labels"), ({"labels": (0, 9)}, "label"), ({"k": 9}, "k: got 9")]
)
def test_misuse_is_no_failed_pair(halves, pixels, halved, changes, message):
    network = public.load_network(str(halves))
    with pytest.raises(InputError, match=message):
        public.influence_map(network, pixels, halved, timeout=1, **changes)
    with pytest.raises(InputError, match="at least two"):
        public.influence_map(network, pixels, halved[:1], timeout=1)


def test_cells_and_titles_say_what_is_known(tmp_path, pixels, halved):
    influence = planted(pixels, halved)
    texts = cell_text(influence.pairs[0]).split("\n")
    assert texts == ["0.5", "at most 1", "mean epsilon 0.62", "area 100%", "maximal"]
    axes = new_figure(3, 3, "").subplots()
    draw_matrix(axes, influence)
    assert {(text.get_position(), text.get_text().split("\n")[0]) for text in axes.texts} == {
        ((1, 0), "0.5"),
        ((0, 1), "0.75"),
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0: label 0", "1: label 1"]
    draw_influence(influence, tmp_path / "map.png", "both")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_map_without_any_answer_is_drawn(tmp_path, pixels, halved):
    failures = (Failure(0, 1, "why not " * 40), Failure(1, 0, "no"))
    influence = InfluenceMap(pixels.astype(np.float64), halved, (0, 1), (), failures)
    draw_influence(influence, tmp_path / "map.png", "none")
    assert (tmp_path / "map.png").exists()


def report_of(influence, evidence):
    pair = influence.pairs[0]
    return {
        "neighbourhood": {"epsilons": pair.neighbourhood.epsilons.tolist()},
        "names": ["layer 0", "layers 1-"],
        "step": STEP,
        "targets": [1],
        "is_proved": True,
        "is_maximal": True,
        "weighted_size": 0.5,
        "upper_bound": 1.0,
        "undecided_layers": [],
        "saturated_layers": [0],
        "limits": [{"layer": 1, "margin_lower": 0.1, "runtime_margin": 0.1}],
        "outside": None,
        "outside_radii": None,
        "files": {"evidence": str(evidence)},
    }


@pytest.mark.parametrize(
    ("epsilon", "change", "is_shown"),
    [(0.4, -0.405, True), (0.4, -0.3, False), (0.2, -0.405, False)],
    ids=["right", "no violation", "outside the enlarged region"],
)
def test_only_images_that_are_what_they_should_be_are_evidence(
    tmp_path, halves, pixels, halved, epsilon, change, is_shown
):
    network, path = public.load_network(str(halves)), tmp_path / "evidence.npz"
    image = pixels.copy()
    image[..., 3:] += np.float32(change)
    np.savez(path, layers=np.array([1]), images=image[None])
    report = report_of(planted(pixels, halved, sizes=(2 * epsilon, 0.5)), path)
    zones = Zones.of_objects(pixels.astype(np.float64), [halved[0]], bands=BANDS)
    found = influence_from_report(report, (0, 1), zones, network, labels_survive([1], 2, network.labels))
    assert found.limits[0].epsilon == epsilon
    assert (found.limits[0].image is not None) == is_shown


@pytest.mark.parametrize(("change", "is_shown"), [(-0.405, True), (-0.3, False)], ids=["right", "no violation"])
def test_the_nearest_counterexample_is_checked_too(tmp_path, halves, pixels, halved, change, is_shown):
    network, path = public.load_network(str(halves)), tmp_path / "outside.npy"
    image = pixels.copy()
    image[..., 3:] += np.float32(change)
    np.save(path, image)
    report = report_of(planted(pixels, halved, sizes=(0.2, 0.5)), tmp_path / "none.npz") | {"limits": []}
    report["outside"] = {"margin_lower": 0.1, "runtime_margin": 0.2, "files": {"npy": str(path)}}
    report["outside_radii"] = [0.0, 0.41]
    zones = Zones.of_objects(pixels.astype(np.float64), [halved[0]], bands=BANDS)
    found = influence_from_report(report, (0, 1), zones, network, labels_survive([1], 2, network.labels))
    assert found.outside.exceeded == ("layers 1-",)
    assert (found.outside.image is not None) == is_shown
    whole = planted(pixels, halved)
    draw_influence(dataclasses.replace(whole, pairs=(found, whole.pairs[1])), tmp_path / "map.png", "outside")
    assert (tmp_path / "map.png").exists()


def test_a_report_of_another_form_is_refused(halves, pixels, halved, tmp_path):
    network = public.load_network(str(halves))
    report = report_of(planted(pixels, halved), tmp_path / "none.npz")
    del report["limits"]
    zones = Zones.of_objects(pixels.astype(np.float64), [halved[0]], bands=BANDS)
    with pytest.raises(InputError, match="limits"):
        influence_from_report(report, (0, 1), zones, network, labels_survive([1], 2, network.labels))


def test_limits_are_chosen_and_drawn(tmp_path, halves, pixels, halved):
    network = public.load_network(str(halves))
    around = planted(pixels, halved).pairs[0].neighbourhood
    limits = [Limit(n, f"layer {n}", 1 / (1 + n), STEP, 0.1, 0.1, pixels) for n in range(MOST_LIMITS + 2)]
    assert [limit.layer for limit in chosen_limits(limits)] == list(range(2, MOST_LIMITS + 2))
    draw_limits(around, limits[:2], tmp_path / "limits.png", "heading", network, 2)
    assert (tmp_path / "limits.png").read_bytes().startswith(b"\x89PNG")


def test_a_zone_is_outlined_by_its_pixels(pixels, halved):
    zones = Zones.of_objects(pixels.astype(np.float64), [halved[0]], sides=Sides.APART, bands=BANDS)
    around = zones.neighbourhood(np.zeros(zones.count))
    assert np.array_equal(zone_mask(around, 1), halved[0])
    assert np.array_equal(zone_mask(around, 2), halved[1])
    plain = Zones.of_layers(pixels.astype(np.float64), halved[0])
    layered = plain.neighbourhood(np.zeros(plain.count))
    assert zone_mask(layered, 2).sum() == 6
