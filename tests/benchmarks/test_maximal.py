"""The study of maximal neighbourhoods: what is done is not done again, nothing finished is lost, its tables add up."""

import json

import pytest

from benchmarks.maximal import __main__ as commands
from benchmarks.maximal import pictures, runs, tables
from nets import shipped
from synth.zones import Zones


def record(network="strided3-none", image=0, method="ours", cut="fixed", size=0.2, complete=2):
    counts = {"complete": complete, "bounds": 5, "attack": 7, "gradient": 1}
    return {
        "kind": "grow",
        "network": network,
        "image": image,
        "method": method,
        "cut": cut,
        "limit": 1.0,
        "weighted_size": size,
        "upper_bound": 0.4,
        "gap": 0.5,
        "pixels_above_zero": 10,
        "is_maximal": True,
        "seconds": 1.0,
        "queries": counts,
        "epsilons": [0.01, 0.0],
        "sizes": [[0.1, 0, 0.5 * size], [0.5, complete, size]],
    }


def write(path, *records, tail=""):
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + tail)


def test_finished_runs_are_not_run_again_and_a_line_cut_off_is_dropped(tmp_path, capsys):
    path = tmp_path / "m.jsonl"
    write(path, record(), tail='{"kind": "grow", "netw')
    case = runs.Case("grow", "strided3-none", 0, "ours", "fixed", 1.0)
    runs.run_all([case], path, 1)
    assert capsys.readouterr().out == ""
    assert runs.read(path) == [record()]
    assert path.read_text().endswith("}\n")


def test_an_error_is_a_result(tmp_path):
    path = tmp_path / "m.jsonl"
    missing = runs.measure(runs.Case("grow", "no-such-network", 0, "ours", "fixed", 1.0))
    assert "no-such-network" in missing["error"]
    write(path, missing, record())
    assert len(runs.read(path)) == 2


def test_methods_without_cuts_run_once():
    cases = list(runs.cases_of(["strided3-none"], ["ours", "uniform"], ["fixed", "sensitivity"], 2, 1.0))
    assert [(case.image, case.method, case.cut) for case in cases] == [
        (0, "ours", "fixed"),
        (0, "ours", "sensitivity"),
        (0, "uniform", "fixed"),
        (1, "ours", "fixed"),
        (1, "ours", "sensitivity"),
        (1, "uniform", "fixed"),
    ]


def test_the_comparison_is_by_image_and_the_largest_network_is_counted():
    records = [
        *(record(image=i, size=0.3, complete=2) for i in range(3)),
        *(record(image=i, method="published", size=0.1, complete=40) for i in range(3)),
    ]
    ended, reached = tables.comparison(records)
    assert "medians over 3 pairs: 3.00 x the weighted size (at least 1.2 x in 3)" in ended
    assert "with 2 complete queries in all against 40" in ended
    assert "proved in 3 of 3 pairs, after 0 complete queries in the median, 0 at most" in reached
    slower = [row | {"weighted_size": 0.13} for row in records[:3]]
    ended, reached = tables.comparison([*slower, *records[3:]])
    assert "1.30 x" in ended
    networks = [record(network=name, size=size) for name, size in zip(runs.NETWORKS, (0.1, 0.3, 0.2), strict=True)]
    (line,) = tables.defences(networks)
    assert "strided3-l0 1" in line
    lines = tables.methods([row | {"image": 0, "epsilons": two_layers(0.01, 0.0)} for row in records]).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {13}
    assert "| 3 | 0.3000 | 6% | 2 | 5 | 7 | 1 | 3/3 | 50% |" in lines[2]


def two_layers(inner, outer):
    """Epsilons of image 0: `inner` on the object's own pixels, `outer` elsewhere."""
    return [inner] + [outer] * (len(tables.layer_sizes(0)) - 1)


def test_the_area_counts_pixels_that_may_move_by_a_step():
    sizes = tables.layer_sizes(0)
    assert sizes.sum() == 64 * 64
    assert tables.area(record() | {"epsilons": two_layers(1 / 255, 0.0039)}) == sizes[0] / 4096
    assert tables.area(record() | {"epsilons": two_layers(0.0, 0.004)}) == 1 - sizes[0] / 4096


def test_the_report_holds_every_part_and_goes_between_the_markers(tmp_path):
    path, document = tmp_path / "m.jsonl", tmp_path / "study.md"
    banded = record(method="4") | {"kind": "bands", "gap_stop": "CLOSED"}
    failed = {**record(image=7), "error": "InputError: no"}
    write(path, record() | {"epsilons": two_layers(0.01, 0.0)}, banded, failed)
    document.write_text("before\n<!-- tables: begin -->\nold\n<!-- tables: end -->\nafter\n")
    commands.report(path, document)
    text = document.read_text()
    for part in ("before", "### Methods", "### Bands", "| strided3-none | 4 | 1 |", "1/1", "InputError: no", "after"):
        assert part in text
    assert "old" not in text
    with pytest.raises(Exception, match="wanted a document with the lines"):
        commands.report(path, tmp_path / "none.md")


def test_a_real_run_is_kept(tmp_path):
    path = tmp_path / "m.jsonl"
    case = runs.Case("bands", "strided3-none", 0, "4", "fixed", 1.0)
    (kept,) = [runs.measure(case)]
    json.dumps(kept, allow_nan=False)
    assert kept["upper_bound"] >= kept["weighted_size"]
    assert len(kept["epsilons"]) == 4
    write(path, kept | {"bounds": [[0.5, 0.1, 2.0], [1.0, 0.1, 1.0, 3]]})
    commands.plot(path)
    assert (tmp_path / "m-convergence.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "m-epsilons.png").exists()


def test_curves_are_told_apart_and_older_records_have_no_queries():
    row = {
        **record(method="4"),
        "kind": "bands",
        "sizes": [[0.1, 1, 0.2]],
        "bounds": [[0.5, 0.2, 2.0], [1.0, 0.2, 1.0, 3]],
    }
    (panel,) = pictures.convergences([row, row | {"method": "8"}]).items()
    assert panel[0] == "strided3-none, image 0"
    assert [run.name for run in panel[1]] == ["4 bands", "8 bands"]
    assert [(point.queries, point.value) for point in panel[1][0].bounds] == [(None, 2.0), (3, 1.0)]
    assert panel[1][0].sizes[0].queries == 1


def test_epsilons_side_by_side(tmp_path):
    layers = len(Zones.of_layers(shipped.images().images[0].astype(float), shipped.images().masks[0][0]).names)
    records = [
        record(network=name, cut=cut) | {"is_proved": True, "epsilons": [0.01] * layers}
        for name in runs.NETWORKS[:2]
        for cut in runs.CUTS
    ]
    records.append(record(method="uniform"))
    rows = pictures.heat_rows(records, 3)
    titles = [[panel.title for panel in row] for row in rows]
    assert [[title.splitlines()[0].split(", ")[2] for title in row] for row in titles] == [
        ["fixed"] * 3,
        ["sensitivity"] * 3,
    ]
    assert [panel.neighbourhood is None for panel in rows[0]] == [False, False, True]
    assert "not measured" in titles[0][2]
    path = tmp_path / "m.jsonl"
    write(path, *records)
    commands.plot(path)
    assert (tmp_path / "m-epsilons.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(Exception, match="no finished runs"):
        commands.plot(tmp_path / "none.jsonl")
