"""The multi-task study: its cells, its results file, its tables and picture from planted results, and one cell for real."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from benchmarks.multi_task_study import __main__ as command
from benchmarks.multi_task_study import measure, plots, records, report
from benchmarks.multi_task_study.cells import FULL, QUICK, UNDEFENDED, Cell, all_cells
from nets.composer import ComposedImages

MNIST = Path(__file__).parents[3] / "shared/data/mnist"
STA = Cell("single", ("odd",), "STA", False, 0, 5, 2_000, 100)
SHORT = {"searches": 3, "iterations": 40}
MACHINE = {"kind": "machine", "cpu": "a cpu", "cores": 2, "memory": "4 GiB", "versions": "torch 2"}


def planted(cell, untargeted=0.9, seconds=2.0):
    heads = 1 + len(cell.auxiliaries)
    measured = {
        "clean": [0.97] * heads,
        "untargeted": [untargeted, *[0.8] * (heads - 1)],
        "targeted": untargeted + 0.05,
        "angles": [8.0] * (heads - 1),
        "cw_accuracy": 0.92,
        "cw_l2": None,
        "seconds_per_epoch": seconds,
        "seconds": 60.0,
        "code": "abc",
    }
    return {**cell.identity, **measured}


def row_of(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_no_two_cells_are_the_same_and_every_cell_can_be_trained(scale):
    cells = all_cells(scale)
    keys = {records.key(json.loads(json.dumps(cell.identity))) for cell in cells}
    assert len(keys) == len(cells) == len({cell.name for cell in cells})
    for cell in cells:
        options = measure.options_of(cell)
        assert options.tasks.auxiliaries == cell.auxiliaries
        assert (options.defence is None) == (cell.perturbation == UNDEFENDED)


def test_the_smoke_test_shares_no_measurement_with_the_study():
    assert not {records.key(c.identity) for c in all_cells(FULL)} & {records.key(c.identity) for c in all_cells(QUICK)}


def test_a_run_goes_on_where_it_was_killed(tmp_path):
    path = tmp_path / "results.jsonl"
    cells = all_cells(FULL)[:4]
    held = [MACHINE, {"digits": 6_000, "variance": 10.3}, planted(cells[0]), planted(cells[2])]
    path.write_text("\n".join(map(json.dumps, held)) + "\n" + json.dumps(planted(cells[1]))[:40])
    found = records.read(path)
    assert found == held
    assert records.missing(cells, found) == [cells[1], cells[3]]
    assert records.read(tmp_path / "none.jsonl") == []


def test_the_last_record_of_a_cell_wins_and_scales_are_not_mixed(tmp_path):
    path = tmp_path / "results.jsonl"
    mine = replace(STA, epochs=FULL.epochs["single"])
    path.write_text("".join(json.dumps(each) + "\n" for each in (planted(mine, 0.1), planted(mine, 0.7))))
    found = records.read(path)
    assert [record["untargeted"][0] for record in records.of_scale(found, FULL)] == [0.7]
    assert records.of_scale(found, QUICK) == []


def test_gains_compare_trainings_of_one_seed():
    own = [planted(replace(STA, seed=seed), base) for seed, base in ((2, 0.90), (0, 0.80), (1, 0.70))]
    own += [planted(replace(STA, seed=seed, perturbation="MP"), base) for seed, base in ((0, 0.83), (2, 0.91))]
    assert report.differences(own, "MP", report.MEASURES["PGD untargeted"]) == pytest.approx([0.03, 0.01])
    assert row_of(report.gains(own), "main + odd | MP")[2] == "+2.00 (+3.0, +1.0)"
    assert report.gains(own[:3]) == ""


def test_tables_say_what_was_measured():
    bare = planted(replace(STA, auxiliaries=()), 0.90, seconds=2.0)
    own = [bare, planted(STA, 0.92, 3.0), planted(replace(STA, seed=1), 0.94, 3.0)]
    own.append(planted(replace(STA, perturbation="MP"), 0.93, 6.0))
    text = report.render([MACHINE, {"digits": 6_000, "variance": 10.31171}, *own], FULL)
    assert row_of(text, "here, %")[1:] == ["93.0 (92.0-94.0)", "-", "93.0"]
    assert row_of(text, "main + odd | STA")[2:6] == [
        "97.0 (97.0-97.0)",
        "93.0 (92.0-94.0)",
        "98.0 (97.0-99.0)",
        "92.0 (92.0-92.0)",
    ]
    assert row_of(text, "MP")[1:] == ["2.0 (1.00x)", "6.0 (3.00x)", "-"]
    assert row_of(text, "the first 6,000")[1] == "10.3117"
    assert "4 of 57 cells measured; 4 minutes" in text
    assert "Two digits" not in text


def test_a_report_of_nothing_says_that_nothing_was_measured():
    assert "0 of 57 cells measured" in report.render([], FULL)


def test_the_picture_is_the_same_for_the_same_records(tmp_path):
    own = [planted(replace(cell), 0.9) for cell in all_cells(FULL)]
    first, second = (plots.draw(own, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert plots.draw([], tmp_path / "empty").exists()


def test_the_report_command_writes_between_markers(tmp_path):
    document, results = tmp_path / "study.md", tmp_path / "results.jsonl"
    results.write_text(json.dumps(planted(STA)) + "\n")
    document.write_text("Before\n<!-- tables: begin -->\nold\n<!-- tables: end -->\nafter\n")
    words = ["report", "--results", str(results), "--write", str(document)]
    assert CliRunner().invoke(command.app, words).exit_code == 0
    assert "1 of 57 cells" in document.read_text()
    assert "old" not in document.read_text()
    document.write_text("no markers")
    assert CliRunner().invoke(command.app, words).exit_code == 2


@pytest.mark.parametrize("count", [1, 2])
def test_carlini_wagner_finds_the_nearest_point_where_a_label_is_lost(count):
    # Scores are the pixels themselves, so the nearest image without a label lies halfway between two pixels' values.
    images = torch.full((3, 1, 1, 10), 0.2)
    labels = torch.stack([torch.randperm(10, generator=torch.Generator().manual_seed(row))[:count] for row in range(3)])
    for row, gap in enumerate((0.1, 0.2, 0.3)):
        images[row, 0, 0, labels[row]] = 0.5
        images[row, 0, 0, labels[row, 0]] = 0.2 + gap
    composed = ComposedImages(images.numpy(), labels.numpy(), np.zeros((3, count, 1, 10), bool))
    found = measure.carlini_wagner(nn.Flatten(), composed, 3, 0.075, SHORT)
    # Among nine rivals (eight with two labels) one suffices; each of the two pixels moves by half the gap.
    assert found["cw_accuracy"] == pytest.approx(2 / 3)
    assert found["cw_eligible"] == found["cw_success"] == 3
    assert found["cw_l2"] == pytest.approx(0.1 * 2**0.5, rel=0.1)


def test_images_that_are_wrong_from_the_start_count_as_lost():
    images = torch.full((2, 1, 1, 10), 0.2)
    images[0, 0, 0, 3] = 1.0
    composed = ComposedImages(images.numpy(), np.array([[3], [4]]), np.zeros((2, 1, 1, 10), bool))
    found = measure.carlini_wagner(nn.Flatten(), composed, 2, 0.1, SHORT)
    assert found["cw_accuracy"] == 0.5
    assert found["cw_eligible"] == 1
    wrong = ComposedImages(images.numpy()[1:], np.array([[4]]), np.zeros((1, 1, 1, 10), bool))
    assert measure.carlini_wagner(nn.Flatten(), wrong, 1, 0.1, SHORT) == {"cw_accuracy": 0.0, "cw_l2": None}


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST digits beside the checkout")
def test_one_cell_end_to_end(monkeypatch):
    monkeypatch.setattr(measure, "CW", {"searches": 2, "iterations": 10})
    monkeypatch.setattr(measure, "EVALUATION_STEPS", 4)
    cell = Cell("single", ("odd", "prime"), "MP", True, 0, 0.03, 20, 3)
    record = json.loads(json.dumps(measure.measure_cell(cell, MNIST), allow_nan=False))
    assert records.key(record) == records.key(cell.identity)
    assert len(record["clean"]) == len(record["untargeted"]) == 3
    assert len(record["angles"]) == 2
    assert all(after <= before for before, after in zip(record["clean"], record["untargeted"], strict=True))
