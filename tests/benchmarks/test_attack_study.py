"""The attack study: its cells, its results file, its tables and pictures from planted results, and its way through an attack."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import attacks
from attacks.methods import Variant
from benchmarks import documents
from benchmarks.attack_study import __main__ as command
from benchmarks.attack_study import measure, plots, records, report, stats, threshold_tables, topk_tables
from benchmarks.attack_study.ablation import PARTS
from benchmarks.attack_study.cells import ABLATION, ABLATIONS, FULL, NS, QUICK, TOP_K, Cell, all_cells, key
from benchmarks.attack_study.victims import CANVASES, Places, Subject, Training, architecture, scene
from nets.architectures import build
from verifier.errors import InputError

MANY = Cell("showing-many", "double", 0, "showing-many", "pgd", goal_options=(("n", 1),), norm="linf", eps=0.3)
TOP = Cell("top-k", "quad", 0, "specified-labels", "tkmia", goal_options=TOP_K["quad k=2 two"][1])


def planted(cell, success, l2, **measured):
    marks = "".join(map(str, success))
    rows = {"rows": len(marks), "success": marks, "l2": l2, "met": [10] * len(marks), "seconds": 1.5, "code": "abc"}
    return {**cell.identity, **rows, **measured}


def table_of(sections, title):
    return next(text for name, text in sections if title in name)


def row_of(table, start):
    line = next(line for line in table.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_no_two_cells_are_the_same(scale):
    cells = all_cells(scale)
    assert len({key(cell.identity) for cell in cells}) == len(cells) == len({cell.name for cell in cells})


def test_the_smoke_test_shares_no_measurement_with_the_study():
    assert not {key(c.identity) for c in all_cells(FULL)} & {key(c.identity) for c in all_cells(QUICK)}


@pytest.mark.parametrize(
    "change",
    [
        {"claim": "jpeg"},
        {"canvas": "triple"},
        {"seed": 1},
        {"goal": "extreme"},
        {"method": "bim"},
        {"variant": "released"},
        {"goal_options": (("n", 2),)},
        {"options": (("iterations", 5),)},
        {"norm": "l2"},
        {"eps": 0.1},
        {"through": 75},
        {"images": 61},
        {"steps": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_a_cell_is_part_of_its_identity(change):
    assert set(MANY.identity) == set(Cell.__dataclass_fields__)
    assert key(replace(MANY, **change).identity) != key(MANY.identity)


def test_a_cell_is_recognised_after_its_way_through_json():
    for cell in all_cells(FULL):
        assert key(json.loads(json.dumps(cell.identity))) == key(cell.identity)
    with pytest.raises(FrozenInstanceError):
        MANY.seed = 3


def test_every_cell_names_what_exists_and_its_options_are_accepted():
    for cell in all_cells(FULL):
        assert cell.canvas in CANVASES
        assert cell.goal in attacks.GOALS
        attacks.GoalOptions(**dict(cell.goal_options))
        if cell.method == ABLATION:
            assert cell.variant in PARTS
        else:
            attacks.METHODS[cell.method].configure(Variant(cell.variant), dict(cell.options))
    assert set(PARTS) == set(ABLATIONS)


def test_what_the_file_holds_is_not_measured_again(tmp_path, capsys):
    path, places = tmp_path / "study.jsonl", Places(tmp_path / "networks", tmp_path)
    cells = [MANY, replace(MANY, seed=1)]
    path.write_text("".join(json.dumps(planted(cell, [1], [2.0])) + "\n" for cell in cells) + '{"claim": "to')
    before = path.read_text()
    trainings = [Training("double", 0, MANY.steps, places)]
    assert not command.measure_all(cells, trainings, places, path, jobs=1, retry_errors=True)
    assert "2 cells, 0 to do" in capsys.readouterr().out
    assert path.read_text().strip() == before.strip()
    assert not places.networks.exists()


def test_errors_are_measured_again_only_when_asked_and_the_last_record_wins(tmp_path):
    path = tmp_path / "study.jsonl"
    failed = {**MANY.identity, "error": "InputError: no eligible image"}
    path.write_text(json.dumps(failed) + "\n")
    assert records.done(records.read(path)) == {key(MANY.identity)}
    assert records.done(records.read(path), retry_errors=True) == set()
    with path.open("a") as file:
        file.write(json.dumps(planted(MANY, [1, 0], [2.0, 3.0])) + "\n")
    (held,) = records.read(path)
    assert held["success"] == "10"
    assert records.measured([held, failed], "showing-many") == [held]


def test_cells_are_chosen_by_training_and_pattern():
    assert {cell.seed for cell in command.chosen(FULL, "2", "")} == {2}
    only = command.chosen(FULL, "", "top-k/quad/*kfool*,mla-lp/*")
    assert {(cell.claim, cell.canvas) for cell in only} == {("top-k", "quad"), ("mla-lp", "double")}


def test_without_the_digits_the_run_says_so_and_ends_well(tmp_path):
    done = CliRunner().invoke(command.app, ["run", "--quick", "--mnist-dir", str(tmp_path / "nowhere")])
    assert done.exit_code == 0
    assert "skipped: no MNIST files" in done.output


def test_the_smallest_success_is_over_all_radii_and_failures_do_not_count():
    low = planted(replace(MANY, eps=0.1), [1, 0, 0], [2.0, 0.5, 1.0])
    high = planted(MANY, [1, 1, 0], [1.5, 4.0, 0.1])
    assert stats.smallest([low, high]) == {(0, 0): 1.5, (0, 1): 4.0}
    assert stats.attacked([low, high]) == 3
    assert stats.at_equal_success([{(0, 0): 1.0, (0, 1): 1.0}, {(0, 1): 2.0, (1, 0): 3.0}]) == [(0, 1)]
    assert stats.at_equal_success([]) == []


def test_estimates_hold_the_statistic_inside_the_interval_and_are_the_same_each_time():
    values = [1.0, 2.0, 3.0, 10.0, 11.0]
    median = stats.estimate(values, "median")
    assert median == stats.estimate(values, "median")
    assert median.value == 3.0
    assert 1.0 <= median.low < 3.0 < median.high <= 11.0
    assert stats.estimate(values, "mean").value == pytest.approx(5.4)
    assert stats.estimate([4.0], "median") == stats.Estimate(4.0, 4.0, 4.0, 1)
    assert str(stats.estimate([], "median")) == "-"


def test_rates_say_the_lowest_and_highest_training():
    assert stats.rate({0: "1100", 1: "1111"}) == "0.75 (0.50-1.00)"
    assert stats.rate({0: "10"}) == "0.50"
    assert stats.rate({}) == "-"


def test_success_is_counted_within_the_cap_only():
    within, beyond = 19.9 / threshold_tables.PER_RMSD, 20.1 / threshold_tables.PER_RMSD
    found = [
        planted(MANY, [1, 1, 0, 0], [within, beyond, within, within]),
        planted(replace(MANY, method="fgsm"), [0, 1, 0, 0], [within] * 4),
    ]
    sections = list(threshold_tables.showing_many(found))
    assert row_of(table_of(sections, "within RMSD"), "pgd")[1] == "0.25"
    assert row_of(table_of(sections, "by radius"), "pgd")[1:] == ["linf 0.3", "0.50"]
    # Only pgd succeeds on half of the images, so all of its successes are compared.
    assert row_of(table_of(sections, "at equal success"), "pgd")[1].startswith("20 [")
    assert "fgsm" not in table_of(sections, "at equal success")


def test_mla_lp_is_judged_at_every_n_by_the_labels_that_are_on():
    cell = replace(MANY, claim="mla-lp", method=ABLATION, variant="released", norm=None, eps=None)
    found = [planted(cell, [0, 0, 0, 1], [1.0] * 4, met=[2, 3, 6, 10])]
    row = row_of(table_of(threshold_tables.programmes(found), "MLA-LP"), "released")
    assert row[1 : 1 + len(NS)] == ["0.75", "0.50", "0.50", "0.25"]


def test_top_k_attacks_are_compared_where_all_succeed():
    drops = {name: [0.5, 0.0, 0.0, 1.0] for name in topk_tables.DROPS}
    options = (("scope", "S"),)
    other = {name: [1.0, 1.0, 1.0, 1.0] for name in drops}
    found = [
        planted(TOP, [1, 1, 0, 1], [2.0, 4.0, 1.0, 9.0], drops=drops),
        planted(replace(TOP, method="kfool", options=options), [1, 1, 1, 0], [4.0, 16.0, 1.0, 1.0], drops=other),
        planted(replace(TOP, method="ml-cw-u", options=options), [0, 0, 0, 1], [1.0] * 4, drops=other),
    ]
    sections = list(topk_tables.top_k(found))
    table = table_of(sections, "quad k=2 two")
    rows = [line for line in table.splitlines() if line.startswith("| fixed, scope S")]
    assert len(rows) == 3
    tkmia = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert tkmia[2:4] == ["0.75", "2"]
    assert tkmia[4].startswith("3 [")
    assert tkmia[8].startswith("0.25 [")
    # ML-CW-U succeeds on fewer than half of the images and is left out of the comparison.
    assert [cell.strip() for cell in rows[2].strip("|").split("|")][3:5] == ["0", "-"]
    summary = next(line for line in table_of(sections, "image by image").splitlines() if "fixed, scope S" in line)
    cells = [cell.strip() for cell in summary.strip("|").split("|")]
    assert cells[2] == "-"
    assert cells[3].startswith("0.375 [")
    assert cells[6].startswith("-0.75 [")


def test_released_attacks_are_compared_by_what_they_report_and_unmoved_images_are_counted():
    cell = replace(TOP, variant="released", options=(("scope", "Y"),))
    drops = {name: [0.0, 0.0] for name in topk_tables.DROPS}
    found = [
        planted(replace(cell, method="kfool"), [1, 1], [10.0, 10.0], drops=drops, l2_before_tanh=[6.0, 1e-6]),
        planted(replace(cell, method="tkml-ap-u"), [1, 1], [10.0, 10.0], drops=drops, l2_before_tanh=[2.0, 1e-6]),
    ]
    row = row_of(table_of(topk_tables.kfool(found), "kFool"), "quad k=2 two")
    assert row[1:4] == ["1 [1, 1]", "3 [3, 3]", "0.50"]


def test_what_jpeg_leaves_is_a_share_of_the_successes():
    cell = replace(MANY, claim="jpeg", goal="hiding-single", goal_options=())
    coded = {str(quality): "1010" for quality in (95, 75, 50)}
    found = [
        planted(cell, [1, 1, 1, 0], [1.0] * 4, coded=coded),
        planted(replace(cell, through=75), [1, 1, 1, 1], [1.0] * 4),
    ]
    row = row_of(table_of(threshold_tables.coding(found), "JPEG"), "pgd")
    assert row == ["pgd", "0.75", "0.67", "0.67", "0.67", "-", "1.00", "-"]


def test_the_report_counts_cells_of_its_scale_alone_and_says_what_is_missing():
    cells = all_cells(FULL)
    cell = next(cell for cell in cells if cell.claim == "showing-many")
    lost = next(cell for cell in cells if cell.claim == "ranks")
    found = [planted(cell, [1], [1.0]), {**lost.identity, "error": "x"}, planted(all_cells(QUICK)[0], [1], [1.0])]
    network = {
        "network": "double",
        "seed": 0,
        "steps": FULL.steps,
        "weights": 5,
        "labels_right": 0.5,
        "ranked_first": 0.75,
    }
    text = report.render([*found, network], FULL)
    assert f"1 of {len(cells)} cells measured, 1 ended in an error" in text
    assert "| double | 0 | 5 | 0.500 | 0.750 |" in text
    assert "Showing many" in text
    assert "Specified labels" not in text


def test_tables_go_between_the_markers_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{documents.BEGIN}\nold\n{documents.END}\nafter\n")
    documents.write_between_markers(page, "new")
    documents.write_between_markers(page, "newer")
    assert page.read_text() == f"before\n{documents.BEGIN}\n\nnewer\n\n{documents.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(InputError, match="wanted a document with the lines"):
        documents.write_between_markers(page, "new")
    assert page.read_text() == "no markers"


def test_pictures_are_drawn_from_what_there_is(tmp_path):
    drops = {name: [0.5, 0.0] for name in topk_tables.DROPS}
    uv = replace(MANY, claim="universal", method="tkml-ap-uv", norm="l2", eps=4.0)
    found = [
        planted(MANY, [1, 0], [2.0, 3.0]),
        planted(TOP, [1, 1], [2.0, 3.0], drops=drops),
        planted(uv, [1, 1], [1.0, 1.0], held_out="1100"),
    ]
    written = plots.draw_all(found, tmp_path / "pictures")
    assert [path.name for path in written] == ["attacks-showing-many.png", "attacks-top-k.png", "attacks-universal.png"]
    first = [path.read_bytes() for path in written]
    assert all(content.startswith(b"\x89PNG") for content in first)
    assert first == [path.read_bytes() for path in plots.draw_all(found, tmp_path / "pictures")]


@pytest.mark.parametrize("canvas", CANVASES)
def test_the_study_networks_fit_their_canvas(canvas):
    chosen = architecture(canvas)
    network = build(chosen, torch.Generator().manual_seed(0))
    images = torch.zeros((2, 1, chosen.canvas.height, chosen.canvas.width))
    assert network(images).shape == (2, 10)
    assert sum(weights.numel() for weights in network.parameters()) == chosen.parameters


@pytest.fixture(scope="module")
def subject():
    """An untrained network whose own answers are taken for the truth, so that every image counts as classified."""
    generator = torch.Generator().manual_seed(5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 5)).requires_grad_(False)
    for weights in network.parameters():
        weights.copy_(0.4 * torch.randn(weights.shape, generator=generator))
    images = torch.rand((30, 1, 8, 8), generator=generator)
    scores = network.double()(images.double())
    return Subject(network.float(), images, scores > 0, scores)


SMALL = replace(MANY, goal_options=(("n", 1), ("average", 1.0)), images=4)


def test_every_attack_gets_the_same_eligible_images_and_goals(subject):
    cell = replace(SMALL, goal="random", goal_options=())
    few, many = scene(subject, cell, 3), scene(subject, replace(cell, method="ml-cw"), 5)
    assert bool(many.goal.eligible.all())
    assert torch.equal(few.images, many.images[:3])
    assert torch.equal(few.goal.sign, many.goal.sign[:3])


def test_a_scene_without_eligible_images_is_refused(subject):
    with pytest.raises(InputError, match="no eligible image"):
        scene(replace(subject, labels=~subject.labels), replace(SMALL, goal="extreme", goal_options=()), 3)


def test_the_ablation_without_a_change_is_the_released_attack(subject):
    at = scene(subject, SMALL, 4)
    goal = replace(at.goal, needed=torch.full_like(at.goal.needed, 5))
    own = measure.ablated(subject, replace(at, goal=goal), "released", SMALL.seed)
    theirs = attacks.run(subject.network, at.images, at.labels, method="mla-lp", variant="released", goal=goal)
    assert torch.equal(own.images, theirs.images)
    assert torch.equal(own.met, theirs.met)


def test_a_raised_threshold_turns_more_labels_on_than_a_lowered_one(subject):
    at = scene(subject, SMALL, 4)
    goal = replace(at.goal, needed=torch.full_like(at.goal.needed, 5))
    met = {name: measure.ablated(subject, replace(at, goal=goal), name, 0).met for name in ABLATIONS}
    assert int(met["elastic"].sum()) > int(met["released"].sum())


def test_a_record_says_of_each_image_what_the_attack_reached(subject):
    cell = replace(SMALL, method="ml-cw", norm=None, eps=None, options=(("searches", 2), ("iterations", 30)))
    found = measure._attack(subject, cell)
    at = scene(subject, cell, cell.images)
    result = attacks.run(
        subject.network, at.images, at.labels, method="ml-cw", goal=at.goal, options=dict(cell.options), head="sigmoid"
    )
    assert found["success"] == "".join("1" if each else "0" for each in result.success.tolist())
    assert found["l2"] == pytest.approx(result.l2.tolist(), rel=1e-4)
    assert found["rows"] == 4
    json.dumps(found, allow_nan=False)


def test_metric_drops_and_codings_are_recorded(subject):
    cell = replace(SMALL, claim="top-k", goal="top-k-untargeted", goal_options=(("k", 1),), method="kfool")
    found = measure._attack(subject, replace(cell, norm=None, eps=None))
    assert set(found["drops"]) == set(topk_tables.DROPS)
    won = [drop for mark, drop in zip(found["success"], found["drops"]["P"], strict=True) if mark == "1"]
    # All relevant labels leave the top 1, so P@1 falls from 1 to 0.
    assert won
    assert set(won) == {1.0}
    jpeg = measure._attack(subject, replace(SMALL, claim="jpeg", goal="hiding-all", goal_options=()))
    assert {len(marks) for marks in jpeg["coded"].values()} == {jpeg["rows"]}


def test_a_universal_perturbation_is_judged_on_images_it_has_not_seen(subject):
    cell = replace(
        SMALL,
        claim="universal",
        goal="top-k-untargeted",
        goal_options=(("k", 1),),
        method="tkml-ap-uv",
        norm="l2",
        eps=3.0,
    )
    found = measure._universal(subject, cell)
    assert found["rows"] == 4
    assert len(found["held_out"]) == 8
    assert 0 < found["shared_l2"] <= 3.0 + 1e-4
