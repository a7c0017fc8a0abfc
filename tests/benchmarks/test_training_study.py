"""The training study: how it marks images, its results file, its tables and pictures from planted results."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import aureole
from benchmarks import documents
from benchmarks.training_study import __main__ as command
from benchmarks.training_study import measure, plots, records, report
from benchmarks.training_study.attack import candidates
from benchmarks.training_study.questions import KINDS, Block, blocks
from benchmarks.training_study.subjects import STEPS, SUBJECTS, Places
from nets.composer import ComposedImages
from nets.export import export_onnx
from nets.options import AdversarialTraining
from nets.recipes import SHIPPED, recipe
from verifier import check
from verifier.errors import InputError
from verifier.network import Network

WHOLE, OTHER = KINDS
COUNT = 6
NOWHERE = Places(Path("nowhere"), Path("nowhere"))


def pictures() -> ComposedImages:
    """Two blots an image; labels 3 and 7 in turn, left and right."""
    generator = np.random.default_rng(0)
    masks = np.zeros((COUNT, 2, 64, 64), dtype=bool)
    masks[:, 0, 10:30, 4:24] = True
    masks[:, 1, 20:40, 36:56] = True
    images = np.where(masks.any(axis=1), generator.uniform(0.3, 0.9, (COUNT, 64, 64)), 0.0).astype(np.float32)
    labels = np.array([[3, 7], [7, 3]] * (COUNT // 2))
    return ComposedImages(images[:, None], labels, masks)


def linear(tmp_path: Path, weight: np.ndarray, bias: np.ndarray) -> Network:
    layer = nn.Linear(4096, 10)
    layer.weight.data, layer.bias.data = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
    path = tmp_path / "linear.onnx"
    export_onnx(nn.Sequential(nn.Flatten(), layer).requires_grad_(False).eval(), path)
    return aureole.load_network(path)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Network], None]:
    def plant(network: Network) -> None:
        monkeypatch.setattr(measure, "load", lambda *_: network)
        monkeypatch.setattr(measure, "images", lambda *_: pictures())

    return plant


def marks_of(kind: str) -> dict[str, str]:
    task = measure.RegionTask("none", kind, Block(0, COUNT), 5.0, "bounds", NOWHERE)
    return measure.perform(task)["marks"]


def test_marks_are_those_of_exact_worst_cases(tmp_path: Path, planted: Callable[[Network], None]) -> None:
    generator = np.random.default_rng(3)
    weight, bias = generator.normal(0, 0.02, (10, 4096)), np.zeros(10)
    bias[[3, 7]] = 3.0
    network = linear(tmp_path, weight, bias)
    weight, bias = weight.astype(np.float32).astype(np.float64), bias.astype(np.float32)
    planted(network)
    images, found, expected = pictures(), marks_of(WHOLE), []
    for epsilon in KINDS[WHOLE].epsilons:
        for index in range(COUNT):
            box = aureole.Box.around(images.images[index].astype(np.float64), epsilon)
            low, high = box.lower.reshape(-1), box.upper.reshape(-1)
            rows = [weight[c] - weight[t] for t in (3, 7) for c in range(10) if c not in (3, 7)]
            worst = max((np.maximum(row, 0) @ high + np.minimum(row, 0) @ low) for row in rows) - 3.0
            clean = max(row @ images.images[index].reshape(-1) for row in rows) - 3.0
            expected.append("w" if clean > 0 else "a" if worst > 0 else "b")
    assert "".join(found.values()) == "".join(expected)
    assert {"a", "b"} <= set(expected)


def test_a_label_is_asked_about_while_the_other_digits_ink_changes(
    tmp_path: Path, planted: Callable[[Network], None]
) -> None:
    weight, bias = np.zeros((10, 4096)), np.zeros(10)
    left = pictures().masks[0, 0].reshape(-1)
    bias[[3, 7]] = 1.0
    # Class 3 falls and classes 0 to 2 rise with the left blot; class 7 reads nothing.
    weight[3, left], weight[:3, left] = -0.01, 0.001
    planted(linear(tmp_path, weight, bias))
    found = marks_of(OTHER)
    assert all(found[epsilon][1::2] == "w" * (COUNT // 2) for epsilon in found)
    assert all(found[epsilon][0::2] == "b" * (COUNT // 2) for epsilon in found)


def test_an_image_that_is_wrong_is_so_at_every_epsilon(tmp_path: Path, planted: Callable[[Network], None]) -> None:
    bias = np.zeros(10)
    bias[[1, 3]] = 1.0
    planted(linear(tmp_path, np.zeros((10, 4096)), bias))
    assert marks_of(WHOLE) == dict.fromkeys(("0.01", "0.02", "0.05"), "w" * COUNT)


def test_the_attack_stays_in_its_region_and_finds_what_a_linear_network_gives(tmp_path: Path) -> None:
    weight = np.random.default_rng(1).normal(0, 0.02, (10, 4096))
    network, images = linear(tmp_path, weight, np.zeros(10)), pictures()
    queries = [KINDS[OTHER].ask(network, images, index, 0.3) for index in range(COUNT)]
    clean = [image.astype(np.float64) for image in images.images]
    for query, image, start in zip(queries, candidates(queries, clean, 0), clean, strict=True):
        assert query.region.contains(image)
        scores = (weight @ np.stack([image.reshape(-1), start.reshape(-1)]).T).T
        after, before = query.property.margin(scores)
        assert after > before
        assert (check.replay(query, image, "PGD") is not None) == (after > 0)


def test_images_are_dealt_into_blocks() -> None:
    assert [list(block.indices) for block in blocks(5, 2)] == [[0, 1], [2, 3], [4]]


def test_every_network_has_a_look_in_the_pictures() -> None:
    assert set(plots.LOOKS) == set(SUBJECTS)


def test_every_task_is_another_measurement_and_every_network_has_one_of_each_kind() -> None:
    tasks = [t for stage in command.plan(NOWHERE, command.Numbers(60, 50, 25, 25, 2)) for t in stage]
    keys = {records.key(json.loads(json.dumps(task.identity))) for task in tasks}
    assert len(keys) == len(tasks) == len({task.name for task in tasks}) == len(SUBJECTS) * (1 + 3 + 1 + 1 + 1 + 2)
    whole = [task.identity for task in tasks if task.identity["kind"] == WHOLE]
    firsts = {effort: {each["first"] for each in whole if each["effort"] == effort} for effort in measure.EFFORTS}
    assert firsts == {"attack": {0, 25, 50}, "bounds": {25}, "search": {0}}


def test_shipped_subjects_are_shipped_and_others_are_named_after_their_pieces() -> None:
    assert {s.file_stem for s in SUBJECTS.values() if s.is_shipped} == {n for n in SHIPPED if n.startswith("strided3-")}
    assert SUBJECTS["ml-gcn"].file_stem == "strided3-none-ml-gcn"
    trained = [subject.file_stem for subject in SUBJECTS.values() if not subject.is_shipped]
    assert len(set(trained)) == len(trained)
    defence = SUBJECTS["linf-0.05"].options().defence
    assert isinstance(defence, AdversarialTraining)
    assert defence.attack.epsilon == 0.05
    assert {s.options().schedule.steps for s in SUBJECTS.values() if not s.is_shipped} == {STEPS}
    for subject in SUBJECTS.values():
        assert subject.options(7) == replace(subject.options(), schedule=replace(subject.options().schedule, steps=7))
        if subject.is_shipped:
            assert subject.options() == recipe("strided3", subject.defence)


def region(name: str, kind: str, *marks: str, effort: str = "bounds", first: int = 0) -> dict:
    block = Block(first, len(marks[0]))
    identity = measure.RegionTask(name, kind, block, 2.0, effort, NOWHERE).identity
    epsilons = [f"{epsilon:g}" for epsilon in KINDS[kind].epsilons]
    measured = {"marks": dict(zip(epsilons, marks, strict=True)), "seconds": 2.0, "load": 1.0, "code": "abc"}
    return {**identity, **measured}


def network(name: str, clean: float) -> dict:
    measured = {"clean": clean, "images": 2000, "batch": 128, "train_seconds": 61.0, "is_scaled": True}
    return {**measure.NetworkTask(name, NOWHERE).identity, **measured, "seconds": 1.0, "load": 1.0, "code": "abc"}


def grown(name: str, image: int, size: float | None) -> dict:
    identity = measure.GrowTask(name, image, 10.0, NOWHERE).identity
    return {**identity, "weighted_size": size, "upper_bound": size, "pixels": 3, "seconds": 1, "load": 3, "code": "abc"}


RECORDS = [
    network("none", 0.95),
    region("none", WHOLE, "bbsw", "bobw", "aavw", effort="search"),
    region("none", WHOLE, "ooow", "ooow", "aaow", effort="attack"),
    region("none", WHOLE, "bw", "ow", "aw", first=4),
    region("none", WHOLE, "ow", "ow", "aw", first=4, effort="attack"),
    region("none", WHOLE, "oo", "oo", "aa", first=6, effort="attack"),
    region("none", OTHER, "bw", "ow", "aw"),
    *[grown("none", image, size) for image, size in enumerate((0.25, None, 0.75))],
    {**region("linf", WHOLE, "b", "b", "b"), "error": "planted"},
]


def row_of(text: str, title: str, start: str) -> list[str]:
    section = text.partition(f"### {title}")[2].partition("###")[0]
    line = next(line for line in section.splitlines() if line.startswith(f"| `{start}`"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_tables_count_what_was_marked() -> None:
    text = report.render(RECORDS)
    every = "Every pixel changes: both labels stay in the top 2"
    assert row_of(text, every, "none") == ["6", "66.7% / 0% / 33.3%", "33.3% / 33.3% / 33.3%", "0% / 0% / 100%"]
    assert row_of(text, "The same, right before", "none") == ["8", "75%", "75%", "12.5%"]
    assert row_of(text, "The same on the images", "none") == [
        "4",
        "75% / 0% / 25%",
        "50% / 25% / 25%",
        "0% / 0% / 100%",
    ]
    assert row_of(text, "One digit's ink", "none")[2] == "0% / 50% / 50%"
    assert row_of(text, "Maximal layered", "none") == ["3", "0.250", "0.000-0.750", "0.250"]
    # Accuracy, unbroken at 0.02 and 0.05, proved at 0.02 and 0.05, median size, seconds.
    assert row_of(text, "All at a glance", "none") == ["95.0%", "75%", "12.5%", "33.3%", "0%", "0.250", "61"]
    assert row_of(text, "Networks", "none")[-2:] == ["61 (scaled)", "0.9500"]
    assert "1 ended in an error" in text
    assert "`linf`" not in text


def test_unknown_letters_are_refused() -> None:
    with pytest.raises(InputError, match="wanted the letters"):
        report.Tally.of("bx")


def test_the_price_pairs_accuracy_with_proofs() -> None:
    assert report.price(RECORDS, "0.01") == {"none": (0.95, pytest.approx(4 / 6))}


def test_pictures_are_drawn_and_repeat(tmp_path: Path) -> None:
    first, again = (plots.draw_all(RECORDS, tmp_path / key) for key in "ab")
    assert [path.name for path in first] == [
        "training-certified.png",
        "training-other-object.png",
        "training-price.png",
        "training-neighbourhoods.png",
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert plots.draw_all([], tmp_path / "none") == []


def test_what_the_file_holds_is_not_measured_again(tmp_path: Path) -> None:
    """All planted tasks but the machine's line are there, one behind half a line: nothing is left to do."""
    path = tmp_path / "held.jsonl"
    places = Places(tmp_path / "held-networks", tmp_path)
    stages = command.plan(places, command.Numbers(25, 25, 25, 25, 1))
    lines = [json.dumps({**task.identity, "error": "planted"}) for stage in stages for task in stage]
    path.write_text("\n".join(['{"kind": "gro', *lines]) + '\n{"kind": "netw')
    arguments = ["run", "--out", str(path), "--mnist-dir", str(tmp_path), "--images", "25", "--verified", "25"]
    done = CliRunner().invoke(command.app, [*arguments, "--searched", "25", "--objects", "25", "--grown", "1"])
    assert done.exit_code == 0, done.output
    assert len(records.read(path)) == len(lines) + 1
    assert records.done(records.read(path), retry_errors=True) == {
        records.key(record) for record in records.read(path) if record["kind"] == "machine"
    }


def test_without_digits_the_study_is_skipped(tmp_path: Path) -> None:
    done = CliRunner().invoke(command.app, ["run", "--mnist-dir", str(tmp_path / "nowhere")])
    assert done.exit_code == 0
    assert "skipped: no MNIST files" in done.output


def test_tables_are_written_between_the_markers(tmp_path: Path) -> None:
    results, document = tmp_path / "results.jsonl", tmp_path / "study.md"
    results.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    document.write_text(f"before\n{documents.BEGIN}\nold\n{documents.END}\nafter\n")
    done = CliRunner().invoke(command.app, ["report", "--results", str(results), "--write", str(document)])
    assert done.exit_code == 0, done.output
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert report.render(records.read(results)) in text
    document.write_text("no markers")
    assert CliRunner().invoke(command.app, ["report", "--write", str(document)]).exit_code == 2
